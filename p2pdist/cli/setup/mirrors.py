"""What the runtimes are told: where the agent's mirror is, and for each registry where upstream really is. Pure.

Always true here: the upstream of a registry is where the agent itself would fetch from, so a runtime that falls back gets
the same content as through the agent.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from p2pdist.config.model import Config, ListenAddress
from p2pdist.errors import ConfigError
from p2pdist.oci.reference import DEFAULT_REGISTRY

_HUB = "https://registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class MirroredRegistry:
    """A registry as users name it (``host[:port]``), its upstream's URL, and an authority to trust there, or None."""

    name: str
    upstream: str
    ca_file: Path | None = None

    @property
    def plain_http(self) -> bool:
        return self.upstream.startswith("http://")

    @property
    def location(self) -> str:
        """``host[:port]`` of the upstream, for runtimes that write it so; the name where they mean the same place."""
        if self.upstream == default_upstream(self.name):
            return self.name
        return urlsplit(self.upstream).netloc


@dataclass(frozen=True, slots=True)
class Mirrors:
    """The mirror's address (``127.0.0.1:5050``) and what it mirrors, in the configuration's order."""

    address: str
    registries: tuple[MirroredRegistry, ...]

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def named(self, name: str) -> MirroredRegistry | None:
        return next((registry for registry in self.registries if registry.name == name), None)


def default_upstream(name: str) -> str:
    """Where a registry is when its configuration has no ``url``."""
    return _HUB if name == DEFAULT_REGISTRY else f"https://{name}"


def mirrors_of(config: Config) -> Mirrors:
    """What this configuration mirrors; raises ConfigError where it mirrors nothing, or on no fixed port."""
    registries = tuple(
        MirroredRegistry(each.name, each.url or default_upstream(each.name), each.ca_file)
        for each in config.registries.values()
    )
    if not registries:
        raise ConfigError("the configuration mirrors no registry: there is nothing to set up")
    return Mirrors(_reachable(config.mirror.listen), registries)


def _reachable(listen: ListenAddress) -> str:
    """Where programs of this host reach a listener; all addresses include loopback's."""
    if listen.port == 0:
        raise ConfigError("mirror.listen has port 0, any free one: give it a port that runtimes can be told")
    host = listen.host or "127.0.0.1"
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return str(ListenAddress(host, listen.port))
