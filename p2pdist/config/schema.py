"""Every key of the configuration in one table: what may be written, what it means, and its default (from the model).

The loader, ``p2pdist check`` and the tables in docs/configuration.md all read this; a key exists only by being here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from p2pdist.config import model, values
from p2pdist.config.values import Kind
from p2pdist.records import MAX_ZONE

ENV_PREFIX = "P2PDIST_"
REGISTRIES = "registries"
DEFAULT_REGISTRIES = (
    "docker.io",
    "ghcr.io",
    "quay.io",
    "registry.k8s.io",
    "gcr.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
)
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section. ``example`` is a line's right side in TOML; ``default_note`` replaces the default in print."""

    name: str
    kind: Kind
    doc: str
    example: str
    default_note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A TOML table, the model class that holds its values, and its keys."""

    name: str
    model: type
    doc: str
    keys: tuple[Key, ...]

    def key(self, name: str) -> Key | None:
        return next((key for key in self.keys if key.name == name), None)

    def default(self, key: Key) -> object:
        """The model's default; "" for a key that the model holds elsewhere."""
        for field in dataclasses.fields(self.model):
            if field.name == key.name:
                return field.default if field.default is not dataclasses.MISSING else ""
        return True if key.kind is values.BOOL else ""

    def env_name(self, key: Key) -> str:
        return f"{ENV_PREFIX}{self.name.upper()}_{key.name.upper()}"


AGENT = Section(
    "agent",
    model.AgentConfig,
    "The daemon itself.",
    (
        Key(
            "data_dir",
            values.DIRECTORY,
            "Where blobs, catalog and the agent's identity live.",
            '"/var/lib/p2pdist"',
        ),
        Key(
            "name",
            values.text(64),
            "What people call this agent.",
            '"host-1"',
            default_note="the host's name",
        ),
        Key(
            "zone",
            values.text(MAX_ZONE),
            "Locality label, such as a rack or availability zone; peers of the same zone are preferred.",
            '"rack-7"',
        ),
        Key(
            "log_level",
            values.choice("debug", "info", "warning", "error"),
            "Least important messages shown.",
            '"info"',
        ),
        Key(
            "log_format",
            values.choice("text", "json"),
            "One line for people, or one JSON object, per event.",
            '"json"',
        ),
        Key(
            "drain_timeout",
            values.duration(0, 600),
            "How long a stopping agent lets transfers in flight finish.",
            '"20s"',
        ),
        Key(
            "docker_config",
            values.FILE,
            'The Docker client\'s file with registry credentials and credential helpers; "" for none.',
            '"/root/.docker/config.json"',
            default_note="`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`, when it exists",
        ),
    ),
)
MIRROR = Section(
    "mirror",
    model.MirrorConfig,
    "The registry that container runtimes on this host pull through.",
    (
        Key("listen", values.LISTEN, "Where the mirror listens. Keep it on loopback.", '"127.0.0.1:5050"'),
        Key("max_connections", values.integer(1, 65536), "Client connections at once.", "512"),
    ),
)
PEER = Section(
    "peer",
    model.PeerConfig,
    "The other agents. Without `cluster_key_file` these listeners stay off, and the agent is a mirror for its host only.",
    (
        Key("listen", values.LISTEN, "Peer (TCP) and DHT (UDP) listeners, on one port.", '"0.0.0.0:5051"'),
        Key(
            "advertise",
            values.ADVERTISE,
            "Where others reach this agent, when that is not the address it sends from.",
            '"10.0.0.7:5051"',
            default_note='`""`: the outgoing address',
        ),
        Key(
            "bootstrap",
            values.BOOTSTRAP,
            "Some agents to meet first: `IP:PORT`, `NAME:PORT`, or `dns:NAME:PORT` for all addresses of a name.",
            '["10.0.0.1:5051", "dns:agents.example.internal:5051"]',
        ),
        Key(
            "cluster_key_file",
            values.FILE,
            "The secret shared by all agents of the cluster, as `p2pdist cluster key` prints it; mode 0600.",
            '"/etc/p2pdist/cluster.key"',
        ),
        Key(
            "insecure_open_cluster",
            values.BOOL,
            "Run without a key: whoever reaches the peer port can read every shared blob and write records. Tests only.",
            "false",
        ),
        Key("max_uploads", values.integer(1, 4096), "Uploads to peers at once.", "16"),
        Key(
            "accept_warm_up",
            values.BOOL,
            "Fetch an image when another agent asks for it (`p2pdist pull --everywhere REF`); `false` refuses.",
            "true",
        ),
        Key(
            "tls_cert_file",
            values.FILE,
            "This agent's certificate (PEM), to use TLS between peers.",
            '"/etc/p2pdist/tls.crt"',
        ),
        Key("tls_key_file", values.FILE, "The certificate's private key (PEM).", '"/etc/p2pdist/tls.key"'),
        Key(
            "tls_ca_file",
            values.FILE,
            "The authority that signed every agent's certificate (PEM).",
            '"/etc/p2pdist/ca.crt"',
        ),
    ),
)
ADMIN = Section(
    "admin",
    model.AdminConfig,
    "Metrics, health and the JSON interface that the command line uses.",
    (
        Key(
            "listen",
            values.LISTEN,
            "Where it listens. It has no password: keep it on loopback.",
            '"127.0.0.1:5052"',
        ),
        Key(
            "names",
            values.NAMES,
            "Names by which it may be called, besides its addresses, `localhost` and `agent.name`: those of a proxy before "
            "it, or by which Prometheus knows this host.",
            '["p2pdist.example.internal"]',
        ),
    ),
)
STORE = Section(
    "store",
    model.StoreConfig,
    "What is kept on this host's disk.",
    (
        Key(
            "max_size",
            values.size(MIB),
            "Most bytes of blobs, complete and partial; least recently used ones go first.",
            '"50GiB"',
        ),
        Key(
            "containerd_content",
            values.FILE,
            "containerd's content store, to seed from without a copy; it is only read. What is in it is shared with the "
            'cluster: see docs/security.md. "": off.',
            '"/var/lib/containerd/io.containerd.content.v1.content"',
        ),
    ),
)
LIMITS = Section(
    "limits",
    model.LimitsConfig,
    "Bandwidth; 0 is no limit.",
    (
        Key("upload", values.RATE, "To peers.", '"100MiB/s"'),
        Key("download", values.RATE, "From peers and upstream together.", '"800Mbit/s"'),
        Key("upstream", values.RATE, "From upstream registries.", '"20MiB/s"'),
    ),
)
TAGS = Section(
    "tags",
    model.TagsConfig,
    "How long the answer to *which digest is this tag* holds.",
    (
        Key(
            "ttl",
            values.duration(0, 30 * 86400),
            "A resolved tag is trusted this long, across the cluster, before upstream is asked again; 0: asked each time.",
            '"60s"',
        ),
        Key(
            "stale_if_upstream_down",
            values.duration(0, 3650 * 86400),
            "While upstream cannot be reached, an older answer is given up to this age.",
            '"7d"',
        ),
    ),
)
TELEMETRY = Section(
    "telemetry",
    model.TelemetryConfig,
    "What the agent tells beside metrics and logs.",
    (
        Key(
            "traces",
            values.ENDPOINT,
            "An OpenTelemetry collector's OTLP/HTTP address; spans go to `/v1/traces` below it. Needs the extra `otel`: "
            'see docs/monitoring.md. "": off.',
            '"http://127.0.0.1:4318"',
        ),
    ),
)
REGISTRY = Section(
    REGISTRIES,
    model.RegistryConfig,
    "One table per registry that may be mirrored.",
    (
        Key("enabled", values.BOOL, "`false` refuses a registry that is mirrored by default.", "false"),
        Key(
            "url",
            values.URL,
            "Where the registry really is. Plain http is spoken only where it is written here.",
            '"http://10.77.0.2:5000"',
            default_note="https at the registry's own name",
        ),
        Key("username", values.text(256), "Who to log in as.", '"puller"'),
        Key(
            "password",
            values.text(4096, secret=True),
            "The password or token; `password_file` keeps it out of this file.",
            '"..."',
        ),
        Key(
            "password_file",
            values.FILE,
            "A file that holds the password; mode 0600.",
            '"/etc/p2pdist/registry.password"',
        ),
        Key(
            "ca_file",
            values.FILE,
            "Authorities to trust for this registry beside the system's (PEM).",
            '"/etc/p2pdist/ca.crt"',
        ),
        Key(
            "max_connections",
            values.integer(1, 1024),
            "Connections to this registry at once.",
            "16",
        ),
        Key(
            "share",
            values.BOOL,
            "`false` caches its content on this host, and neither announces it nor serves it to peers.",
            "false",
        ),
    ),
)
SECTIONS = (AGENT, MIRROR, PEER, ADMIN, STORE, LIMITS, TAGS, TELEMETRY)
BY_NAME = {section.name: section for section in SECTIONS}
BY_ENV = {section.env_name(key): (section, key) for section in SECTIONS for key in section.keys}
