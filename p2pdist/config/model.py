"""The configuration as values: every key with its default. config/load.py reads it; docs/configuration.md explains it.

Sizes and rates are bytes (per second), durations seconds; the text forms ("50GiB", "60s") are parsed when loading.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a listener binds: an IP address (or "" for all) and a port (0: any free one, for tests)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AgentConfig:
    data_dir: Path = Path("/var/lib/p2pdist")
    name: str = ""
    zone: str = ""
    log_level: str = "info"
    log_format: str = "text"
    drain_timeout: float = 20.0


@dataclass(frozen=True, slots=True)
class MirrorConfig:
    listen: ListenAddress = ListenAddress("127.0.0.1", 5050)
    max_connections: int = 512


@dataclass(frozen=True, slots=True)
class PeerConfig:
    listen: ListenAddress = ListenAddress("0.0.0.0", 5051)  # noqa: S104  (peers are other hosts; the key guards it)
    advertise: str = ""
    bootstrap: tuple[str, ...] = ()
    cluster_key_file: Path | None = None
    insecure_open_cluster: bool = False
    max_uploads: int = 16
    accept_warm_up: bool = True
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class AdminConfig:
    listen: ListenAddress = ListenAddress("127.0.0.1", 5052)
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreConfig:
    max_size: int = 50 * GIB
    containerd_content: Path | None = None


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Bytes per second; 0 is no limit."""

    upload: int = 0
    download: int = 0
    upstream: int = 0


@dataclass(frozen=True, slots=True)
class TagsConfig:
    ttl: float = 60.0
    stale_if_upstream_down: float = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    traces: str = ""

    @property
    def traces_url(self) -> str:
        """Where spans are posted (OTLP specification, "OTLP/HTTP Request"); "" when they are not."""
        return f"{self.traces}/v1/traces" if self.traces else ""


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """One registry that may be mirrored. ``share`` false keeps its content off the cluster (fetched and cached, never
    announced or served to peers)."""

    name: str
    url: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    password_file: Path | None = None
    ca_file: Path | None = None
    max_connections: int = 16
    share: bool = True


@dataclass(frozen=True, slots=True)
class Config:
    """The whole; ``source`` is the file it was read from, None for defaults; ``warnings`` what the loader frowned at."""

    agent: AgentConfig = AgentConfig()
    mirror: MirrorConfig = MirrorConfig()
    peer: PeerConfig = PeerConfig()
    admin: AdminConfig = AdminConfig()
    store: StoreConfig = StoreConfig()
    limits: LimitsConfig = LimitsConfig()
    tags: TagsConfig = TagsConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    registries: dict[str, RegistryConfig] = field(default_factory=dict)
    docker_config_file: Path | None = None
    source: Path | None = None
    warnings: tuple[str, ...] = ()
