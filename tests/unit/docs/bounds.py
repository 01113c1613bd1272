"""The table of bounds in docs/security.md, with the values from the code: ``python -m tests.unit.docs.bounds``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

from tests.unit.docs.pages import put_between

DOCUMENT = Path(__file__).parents[3] / "docs" / "security.md"
BEGIN = "<!-- The table below is generated: python -m tests.unit.docs.bounds -->"
END = "<!-- End of the generated table. -->"


class Bound(NamedTuple):
    """``where`` is MODULE:NAME or MODULE:CLASS.FIELD below p2pdist; ``unit`` is bytes, s, or what is counted."""

    what: str
    unit: str
    where: str


GROUPS: dict[str, tuple[Bound, ...]] = {
    "From strangers, on the peer port": (
        Bound("UDP datagram looked at, at most", "bytes", "wire.datagram:MAX_DATAGRAM"),
        Bound(
            "sessions of senders remembered (authentic ones only)", "", "wire.datagram:Sealer.max_sessions"
        ),
        Bound("age of a datagram that opens a session", "s", "wire.datagram:MAX_SKEW"),
        Bound(
            "TCP connections that have proven nothing", "", "api.peer_listener:ConnectionLimits.max_strangers"
        ),
        Bound(
            "the same, from one address", "", "api.peer_listener:ConnectionLimits.max_strangers_per_address"
        ),
        Bound(
            "time to prove the key, TLS handshake included",
            "s",
            "api.peer_listener:ConnectionLimits.stranger_timeout",
        ),
        Bound("header line", "bytes", "api.peer_listener:_MAX_HEADER_LINE"),
        Bound("headers", "", "api.peer_listener:_MAX_HEADERS"),
        Bound("authentication header", "bytes", "wire.http_auth:_MAX_HEADER"),
    ),
    "From members": (
        Bound("TCP connections in all", "", "api.peer_listener:ConnectionLimits.max_connections"),
        Bound("difference of a request's time from ours", "ms", "wire.http_verifier:WINDOW_MS"),
        Bound("request MACs remembered against replay", "", "wire.http_verifier:REPLAY_CAPACITY"),
        Bound("uploads to one peer at once", "", "api.peer:PeerServerSettings.max_uploads_per_peer"),
        Bound("flows of one peer at once", "", "api.flow:MAX_FLOWS"),
        Bound("pieces wanted on a flow at once", "", "api.flow_wants:MAX_WANTS"),
        Bound("blobs open for a flow at once", "", "api.flow_wants:MAX_BLOBS"),
        Bound("request on a flow", "bytes", "wire.flow_frames:MAX_REQUEST"),
        Bound("bytes asked for by one of them", "bytes", "wire.flow_frames:MAX_WANT"),
        Bound("wait for a wanted piece to arrive here", "s", "api.flow:WAIT"),
        Bound("a flow on which nothing is wanted, closed by who sends", "s", "api.flow:IDLE"),
        Bound("the same, by who receives", "s", "peers.piece_client:IDLE_SECONDS"),
        Bound("DHT requests a second, per sender", "", "discovery.service:Limits.requests"),
        Bound("DHT records written a second, per sender", "", "discovery.service:Limits.writes"),
        Bound("DHT records kept, per sender", "", "discovery.records:Bounds.per_sender"),
        Bound("DHT records kept, in all", "", "discovery.records:Bounds.records"),
        Bound("providers kept under one key", "", "discovery.records:Bounds.per_key"),
        Bound("tag resolutions kept under one key", "", "discovery.records:Bounds.tags_per_key"),
        Bound("longest life of a record", "s", "discovery.records:Bounds.longest"),
        Bound("a record", "bytes", "records:MAX_RECORD_BYTES"),
        Bound("endpoints of a provider", "", "records:MAX_ENDPOINTS"),
        Bound("swarm frame", "bytes", "wire.swarm_messages:MAX_FRAME"),
        Bound("neighbours in one blob's swarm", "", "transfer.swarm_fill:MOST_NEIGHBOURS"),
        Bound("members that one message tells of", "", "wire.swarm_messages:MAX_MEMBERS"),
        Bound("pieces of a blob in a swarm", "", "wire.swarm_messages:MAX_PIECES"),
        Bound("swarm links of one peer at once", "", "api.swarm_inbox:MAX_LINKS"),
        Bound("frames taken from a link in one turn", "", "peers.link_wire:MAX_AT_ONCE"),
        Bound("links that a host opens at a time", "", "peers.swarm_links:DIALS"),
        Bound("answer to the opening of a link", "s", "peers.swarm_links:PATIENCE"),
        Bound("silence on a swarm link", "s", "peers.link_wire:SILENCE"),
        Bound("messages that wait for a peer", "", "peers.swarm_links:MAX_QUEUE"),
        Bound("bytes of them", "bytes", "peers.swarm_links:MAX_WAITING"),
        Bound("time in which a peer takes none of them", "s", "peers.link_wire:IDLE"),
        Bound("peers whose standing is remembered", "", "swarm.peer_health:CAPACITY"),
        Bound("wait for a connection to a peer", "s", "peers.settings:PeerClientSettings.connect_timeout"),
        Bound("wait for a peer's first byte", "s", "peers.settings:PeerClientSettings.first_byte_timeout"),
        Bound("wait for a peer's next byte", "s", "peers.settings:PeerClientSettings.progress_timeout"),
        Bound(
            "wait for a piece's next bytes on a flow",
            "s",
            "peers.settings:PeerClientSettings.piece_timeout",
        ),
        Bound("head of the answer that opens a flow", "bytes", "peers.upgrade:MAX_HEAD"),
        Bound("bytes taken from a peer in one read", "bytes", "peers.body:MAX_CHUNK"),
        Bound("warm-ups fetched at once", "", "transfer.warm:MAX_RUNNING"),
        Bound("warm-ups that wait", "", "transfer.warm:MAX_WAITING"),
        Bound("time for a warm-up", "s", "transfer.warm:MAX_SECONDS"),
        Bound("answer to a warm-up command", "bytes", "wire.warm:MAX_BODY"),
        Bound("members in one answer", "", "wire.warm:MAX_MEMBERS"),
        Bound("hosts in one warm-up", "", "transfer.warm_everywhere:MAX_HOSTS"),
    ),
    "From registries": (
        Bound("manifest", "bytes", "oci.manifest:MAX_MANIFEST"),
        Bound("descriptors in a manifest", "", "oci.manifest:MAX_DESCRIPTORS"),
        Bound("indexes in an index, one in another", "", "oci.manifest:MAX_NESTED"),
        Bound("image config", "bytes", "oci.manifest:MAX_CONFIG"),
        Bound("steps in an image's history", "", "oci.manifest:MAX_HISTORY"),
        Bound("tags list, referrers", "bytes", "upstream.registry_client:MAX_PAGE"),
        Bound("token server's answer", "bytes", "upstream.registry_http:MAX_TOKEN_BODY"),
        Bound("error body read", "bytes", "upstream.registry_http:MAX_ERROR_BODY"),
        Bound("headers of an answer", "bytes", "upstream.registry_http:_MAX_HEADER"),
        Bound("challenge (WWW-Authenticate) read", "bytes", "upstream.challenge:_MAX_LENGTH"),
        Bound("redirects", "", "upstream.settings:UpstreamSettings.max_redirects"),
        Bound("tries of a request", "", "upstream.retry:RetryPolicy.tries"),
        Bound("time for all of them", "s", "upstream.retry:RetryPolicy.budget"),
        Bound("wait for a connection", "s", "upstream.settings:UpstreamSettings.connect_timeout"),
        Bound("wait for the first byte", "s", "upstream.settings:UpstreamSettings.first_byte_timeout"),
        Bound("wait for the next byte", "s", "upstream.settings:UpstreamSettings.progress_timeout"),
    ),
    "From this host": (
        Bound("mirror: path", "bytes", "api.target:_MAX_PATH"),
        Bound("mirror, admin: header line", "bytes", "api.server:_MAX_HEADER_LINE"),
        Bound("mirror, admin: headers", "", "api.server:_MAX_HEADERS"),
        Bound("mirror, admin: time for the first request", "s", "api.server:ListenerSettings.header_timeout"),
        Bound("mirror: a client that takes no byte", "s", "api.registry:RegistrySettings.progress_timeout"),
        Bound("mirror: unconfigured registries that are logged in a minute", "", "api.unconfigured:CAPACITY"),
        Bound("mirror: ranges in one request", "", "oci.ranges:MAX_RANGES"),
        Bound("admin: request body", "bytes", "api.admin:MAX_BODY"),
        Bound("admin: pulls at once", "", "api.admin:AdminSettings.max_pulls"),
        Bound("admin: blobs of imports sent at once", "", "api.admin_import:ImportSettings.max_uploads"),
        Bound("admin: an import that sends no byte", "s", "api.admin_import:ImportSettings.progress_timeout"),
        Bound("archive: members", "", "cli.archives.files:MAX_MEMBERS"),
        Bound("archive: header of a member", "bytes", "cli.archives.files:MAX_HEADER"),
        Bound("archive: images", "", "cli.archives.images:MAX_IMAGES"),
        Bound("blobs of containerd that are looked at", "", "store.containerd_marks:MAX_BLOBS"),
        Bound("containerd's blobs checked in a second", "bytes", "store.containerd:RATE"),
        Bound("admin: streams of events at once", "", "api.dashboard.live:LiveSettings.max_subscribers"),
        Bound("admin: a stream that takes no byte", "s", "api.dashboard.live:LiveSettings.write_timeout"),
        Bound("admin: samples kept for the chart", "", "telemetry.history:CAPACITY"),
        Bound("admin: cells of a transfer's pieces", "", "transfer.piece_map:MAX_CELLS"),
        Bound("admin: layers of an image that are told", "", "transfer.holders:MAX_LAYERS"),
        Bound("admin: layers the cluster is asked about at once", "", "transfer.host_counts:AT_ONCE"),
        Bound("admin: wait for the cluster's answers", "s", "transfer.host_counts:PATIENCE"),
        Bound("log lines kept for a debug bundle", "", "telemetry.recent:MAX_LINES"),
        Bound("the same, characters", "", "telemetry.recent:MAX_CHARACTERS"),
        Bound("configuration file", "bytes", "config.load:MAX_FILE_BYTES"),
        Bound("registries", "", "config.load:MAX_REGISTRIES"),
        Bound("key or password file", "bytes", "config.secrets:MAX_SECRET_BYTES"),
        Bound("setup: a file of a runtime", "bytes", "cli.setup.files:MAX_FILE_BYTES"),
        Bound("setup: files of containerd's configuration", "", "cli.setup.containerd:MAX_IMPORTS"),
        Bound("credential helper's answer", "bytes", "upstream.credential_helper:MAX_OUTPUT"),
        Bound("time for a credential helper", "s", "upstream.settings:UpstreamSettings.helper_timeout"),
        Bound("tags remembered", "", "store.tags:MAX_TAGS"),
        Bound("resolutions remembered, per tag", "", "store.tags:MAX_HISTORY"),
        Bound("resolutions remembered, in all", "", "store.tags:MAX_RESOLUTIONS"),
        Bound("layers whose hosts are counted for a history", "", "transfer.image_history:MAX_ASKED"),
    ),
}


def value_of(where: str) -> float:
    """The number in the code: a module's constant, a dataclass field's default, or a parameter's."""
    module_name, _, path = where.partition(":")
    found = importlib.import_module(f"p2pdist.{module_name}")
    first, _, field = path.partition(".")
    value = getattr(found, first)
    if field:
        fields = getattr(value, "__dataclass_fields__", None)
        value = fields[field].default if fields else value.__init__.__kwdefaults__[field]
    assert isinstance(value, int | float), where
    return value


def shown(value: float, unit: str) -> str:
    if unit == "bytes":
        for name, factor in (("MiB", 2**20), ("KiB", 2**10)):
            if value >= factor and value % factor == 0:
                return f"{value // factor:g} {name}"
    return f"{value:,g} {unit}".rstrip() if value < 10_000 else f"{value:,.0f} {unit}".rstrip()


def table() -> str:
    lines = []
    for title, bounds in GROUPS.items():
        lines += [f"| {title} | bound | in the code |", "|---|---|---|"]
        for bound in bounds:
            module, _, name = bound.where.partition(":")
            lines.append(
                f"| {bound.what} | {shown(value_of(bound.where), bound.unit)} | `{module.replace('.', '/')}.py` `{name}` |"
            )
        lines.append("")
    return "\n".join(lines[:-1])


def replaced(text: str) -> str:
    """``text`` with fresh tables between its markers; raises ValueError when they are missing."""
    return put_between(text, BEGIN, END, table())


if __name__ == "__main__":
    DOCUMENT.write_text(replaced(DOCUMENT.read_text()))
    sys.exit(0)
