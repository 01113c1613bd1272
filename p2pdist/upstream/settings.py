"""What the upstream adapter is told: registries, credentials' file, and every bound. Durations are seconds, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from p2pdist.errors import ConfigError
from p2pdist.oci.reference import DEFAULT_REGISTRY
from p2pdist.upstream.retry import RetryPolicy

_KNOWN_URLS = {DEFAULT_REGISTRY: "https://registry-1.docker.io"}


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """One registry. ``url`` "" means https at ``name``; http is used only when ``url`` says so.

    A quarter of ``max_connections`` is kept for small requests (at least one), so that a manifest never waits
    behind layers; the rest may carry blobs (at least one).
    """

    name: str
    url: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    max_connections: int = 16

    @property
    def base_url(self) -> str:
        """Where the registry is, without a slash at its end. Raises ConfigError when ``url`` is none."""
        url = (self.url or _KNOWN_URLS.get(self.name, f"https://{self.name}")).rstrip("/")
        scheme, separator, rest = url.partition("://")
        if scheme not in {"http", "https"} or not separator or not rest or "@" in rest or "?" in rest:
            raise ConfigError(
                f"registries.{self.name!r}: url must be http(s)://HOST[:PORT] without credentials or query"
            )
        return url

    @property
    def plain_http(self) -> bool:
        """Whether the operator wrote http:// for it."""
        return self.base_url.startswith("http://")


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """All registries and the bounds they share.

    ``docker_config`` is the host's Docker config.json. ``queue_timeout`` bounds the wait for one of a registry's
    connections. A body that was cut is resumed ``resumes`` times in a row without ``resume_progress`` more bytes.
    """

    registries: Mapping[str, RegistrySettings]
    docker_config: Path | None = None
    user_agent: str = "p2pdist"
    connect_timeout: float = 5.0
    first_byte_timeout: float = 30.0
    progress_timeout: float = 20.0
    queue_timeout: float = 120.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    resumes: int = 4
    resume_progress: int = 64 * 1024
    read_buffer: int = 256 * 1024
    max_redirects: int = 5
    helper_timeout: float = 10.0
    helper_ttl: float = 300.0
