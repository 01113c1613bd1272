"""What the upstream adapter is told by the configuration."""

from __future__ import annotations

from p2pdist import __version__
from p2pdist.config.model import Config
from p2pdist.upstream.settings import RegistrySettings, UpstreamSettings


def upstream_settings(config: Config) -> UpstreamSettings:
    """Every configured registry, with its credentials."""
    registries = {
        name: RegistrySettings(
            name=name,
            url=registry.url,
            username=registry.username,
            password=registry.password,
            ca_file=registry.ca_file,
            max_connections=registry.max_connections,
        )
        for name, registry in config.registries.items()
    }
    return UpstreamSettings(registries, config.docker_config_file, user_agent=f"p2pdist/{__version__}")
