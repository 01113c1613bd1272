"""What the agent counts, in a Prometheus registry of its own.

Always true here:
- every count of bytes is of body bytes, and exact: a byte that went to a client is in ``p2pdist_client_bytes_total`` and
  in ``p2pdist_sent_bytes_total{to="client"}`` by the same call, and in ``p2pdist_saved_bytes_total`` unless it came from
  upstream;
- the number of series is bounded: a registry that is not configured, and any other label value that is not in the lists
  below, is counted as "other";
- what may be counted for a configured registry stands at 0 from the start, so that rates are right from the first byte.

The methods fit the hooks of the layers that are counted (api, transfer, peers, upstream): they are cheap and never raise.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from p2pdist.transfer.content import Source

SOURCES: Final = tuple(source.value for source in Source)
MOVED_FROM: Final = (Source.PEER.value, Source.UPSTREAM.value)
UPSTREAM_KINDS: Final = ("manifest", "blob", "tags", "referrers", "token", "ping")
PULL_KINDS: Final = ("manifest", "blob")
OUTCOMES: Final = ("served", "refused", "failed", "left")
OTHER: Final = "other"
_SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_CODES: Final = frozenset(int(status) for status in HTTPStatus)
_MAX_DHT_SERIES: Final = 64


class Metrics:
    """Counters and gauges of one agent; ``registries`` are the configured ones."""

    def __init__(self, registries: Iterable[str], version: str) -> None:
        # Each counter would come with a series of its own that tells when it was made; nobody asks for it.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library gives it no types
        self.registry = CollectorRegistry()
        self._registries = frozenset(registries)
        self._delivery_counters: dict[tuple[str, str], tuple[Counter, ...]] = {}
        self._define_bytes()
        self._define_events()
        self._define_state()
        self._start_at_zero()
        self._dht = _DhtSeries()
        self.registry.register(self._dht)
        ProcessCollector(registry=self.registry)
        build = Gauge("p2pdist_build_info", "Always 1.", ("version", "python"), registry=self.registry)
        build.labels(version, platform.python_version()).set(1)

    def _define_bytes(self) -> None:
        registry = self.registry
        self._client_bytes = Counter(
            "p2pdist_client_bytes",
            "Body bytes delivered to container runtimes, by where they came from.",
            ("registry", "source"),
            unit="bytes",
            registry=registry,
        )
        self._saved_bytes = Counter(
            "p2pdist_saved_bytes",
            "Body bytes delivered to container runtimes that did not cross the upstream link for it.",
            ("registry",),
            unit="bytes",
            registry=registry,
        )
        self._received_bytes = Counter(
            "p2pdist_received_bytes",
            "Body bytes received over the network.",
            ("source",),
            unit="bytes",
            registry=registry,
        )
        self._received_from = {source: self._received_bytes.labels(source) for source in (*MOVED_FROM, OTHER)}
        self._sent_bytes = Counter(
            "p2pdist_sent_bytes", "Body bytes sent.", ("to",), unit="bytes", registry=registry
        )
        self._sent_to_peers = self._sent_bytes.labels("peer")

    def _define_events(self) -> None:
        registry = self.registry
        self._upstream_requests = Counter(
            "p2pdist_upstream_requests",
            'Requests to upstream registries; code is the HTTP status (4xx or such for an unusual one), or "error" where '
            "no answer came.",
            ("registry", "kind", "code"),
            registry=registry,
        )
        self._verify_failures = Counter(
            "p2pdist_verify_failures",
            "Content that did not have its digest; it was thrown away.",
            ("source",),
            registry=registry,
        )
        self._bans = Counter("p2pdist_peer_bans", "Peers banned for wrong content.", registry=registry)
        self._refused = Counter(
            "p2pdist_peer_requests_refused",
            "Requests to the peer listener that proved no cluster key.",
            registry=registry,
        )
        self._busy = Counter(
            "p2pdist_peer_requests_busy", "Requests of peers put off for want of a slot.", registry=registry
        )
        self._pulls = Counter(
            "p2pdist_pulls",
            "Manifests and blobs that runtimes asked for, by how that ended: served, refused (no such content, or busy), "
            "failed, or left by the runtime.",
            ("kind", "outcome"),
            registry=registry,
        )
        self._pull_seconds = Histogram(
            "p2pdist_pull_seconds",
            "Seconds to deliver a manifest or blob to a runtime, by the farthest that one of its bytes came from.",
            ("kind", "source"),
            buckets=_SECONDS,
            unit="seconds",
            registry=registry,
        )

    def _define_state(self) -> None:
        registry = self.registry
        self._store_bytes = Gauge(
            "p2pdist_store_bytes", "Bytes of committed blobs.", unit="bytes", registry=registry
        )
        self._store_blobs = Gauge("p2pdist_store_blobs", "Committed blobs.", registry=registry)
        self._store_quota = Gauge(
            "p2pdist_store_quota_bytes", "Bytes that the store may hold.", unit="bytes", registry=registry
        )
        self._store_reserved = Gauge(
            "p2pdist_store_reserved_bytes",
            "Bytes reserved for downloads in progress.",
            unit="bytes",
            registry=registry,
        )
        self._seeded_blobs = Gauge(
            "p2pdist_seeded_blobs",
            "Blobs of containerd's content store that are offered to the cluster without a copy.",
            registry=registry,
        )
        self._seeded_bytes = Gauge(
            "p2pdist_seeded_bytes", "Bytes of those blobs.", unit="bytes", registry=registry
        )
        self._seeding_pending = Gauge(
            "p2pdist_seeding_pending_blobs",
            "Blobs of containerd's content store that are still to be checked against their digest.",
            registry=registry,
        )
        self._peers = Gauge("p2pdist_peers", "Other agents that answered lately.", registry=registry)
        self._banned = Gauge("p2pdist_peers_banned", "Peers banned now.", registry=registry)
        self._active = Gauge("p2pdist_transfers", "Transfers in progress.", ("kind",), registry=registry)

    def _start_at_zero(self) -> None:
        for name in self._registries:
            self._saved_bytes.labels(name)
            for source in SOURCES:
                self._client_bytes.labels(name, source)
        for source in MOVED_FROM:
            self._received_bytes.labels(source)
            self._verify_failures.labels(source)
        for to in ("peer", "client"):
            self._sent_bytes.labels(to)
        for kind in ("fetch", "client"):
            self._active.labels(kind)
        for kind in PULL_KINDS:
            for source in SOURCES:
                self._pull_seconds.labels(kind, source)
            for outcome in OUTCOMES:
                self._pulls.labels(kind, outcome)

    # -- to clients: api.registry.RegistryHooks --

    def on_delivered(self, registry: str, source: str, size: int) -> None:
        """``size`` body bytes went to a runtime."""
        for counter in self._counters_for(self._known(registry), _one_of(source, SOURCES)):
            counter.inc(size)

    def on_pulled(self, kind: str, source: str, seconds: float) -> None:
        """A manifest or blob was delivered whole."""
        labels = (_one_of(kind, PULL_KINDS), _one_of(source, SOURCES))
        self._pull_seconds.labels(*labels).observe(max(0.0, seconds))

    def on_outcome(self, kind: str, outcome: str) -> None:
        """A runtime's question for a manifest or blob ended so (api/pull_log.py)."""
        self._pulls.labels(_one_of(kind, PULL_KINDS), _one_of(outcome, OUTCOMES)).inc()

    def on_begun(self) -> None:
        """A runtime asked for a body."""
        self._active.labels("client").inc()

    def on_ended(self) -> None:
        """It has it, or will not get it."""
        self._active.labels("client").dec()

    # -- between agents, and from upstream --

    def received(self, source: str, size: int) -> None:
        """``size`` body bytes arrived from ``source`` ("peer", "upstream"), kept or not."""
        self._received_from[_one_of(source, MOVED_FROM)].inc(size)

    def sent_to_peer(self, size: int) -> None:
        """``size`` body bytes went to a peer."""
        self._sent_to_peers.inc(size)

    def upstream_response(self, registry: str, kind: str, code: int | str) -> None:
        """A registry answered with status ``code``, or (anything else) did not answer.

        A code that no standard knows is counted by its class, as in 5xx: of those there may be hundreds.
        """
        number = int(code) if str(code).isascii() and str(code).isdigit() and len(str(code)) == 3 else 0
        kind = _one_of(kind, UPSTREAM_KINDS)
        self._upstream_requests.labels(self._known(registry), kind, _code(number)).inc()

    def verify_failed(self, source: str) -> None:
        """Content from ``source`` did not have its digest."""
        self._verify_failures.labels(_one_of(source, SOURCES)).inc()

    def banned(self) -> None:
        """A peer was banned."""
        self._bans.inc()

    def peer_refused(self) -> None:
        """A stranger knocked at the peer listener."""
        self._refused.inc()

    def peer_busy(self) -> None:
        """A peer was told to come back."""
        self._busy.inc()

    # -- state, set before it is shown --

    def set_store(self, *, committed: int, reserved: int, quota: int, blobs: int) -> None:
        """How full the store is, in bytes."""
        self._store_bytes.set(committed)
        self._store_reserved.set(reserved)
        self._store_quota.set(quota)
        self._store_blobs.set(blobs)

    def set_seeded(self, *, blobs: int, size: int, pending: int) -> None:
        """What of containerd's content store other hosts may have, in blobs and bytes, and what is still unchecked."""
        self._seeded_blobs.set(blobs)
        self._seeded_bytes.set(size)
        self._seeding_pending.set(pending)

    def set_peers(self, known: int, banned: int = 0) -> None:
        """How many other agents there are."""
        self._peers.set(known)
        self._banned.set(banned)

    def set_fetches(self, count: int) -> None:
        """How many manifests and blobs are being fetched for this host."""
        self._active.labels("fetch").set(count)

    def set_dht(self, events: Mapping[str, int], state: Mapping[str, int]) -> None:
        """What the DHT counted since its start (``p2pdist_dht_events_total{event}``), and what it holds now
        (``p2pdist_dht_state{what}``)."""
        self._dht.events = dict(list(events.items())[:_MAX_DHT_SERIES])
        self._dht.state = dict(list(state.items())[:_MAX_DHT_SERIES])

    # -- reading --

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its Content-Type, in the format that a scraper's Accept header asks for."""
        encode, content_type = choose_encoder(accept[:1024])
        return encode(self.registry), content_type

    def totals(self) -> dict[str, dict[str, int] | int]:
        """Byte counts for people: client_bytes, received_bytes (by source), sent_bytes (by receiver), saved_bytes."""
        return {
            "client_bytes": _sum_by(self._client_bytes, "source", SOURCES),
            "received_bytes": _sum_by(self._received_bytes, "source", MOVED_FROM),
            "sent_bytes": _sum_by(self._sent_bytes, "to", ("client", "peer")),
            "saved_bytes": sum(
                int(each.value) for metric in self._saved_bytes.collect() for each in metric.samples
            ),
        }

    def by_registry(self) -> list[dict[str, Any]]:
        """Bytes given to runtimes, for each configured registry and "other": {registry, store, peer, upstream}."""
        rows: dict[str, dict[str, Any]] = {}
        for sample in (each for metric in self._client_bytes.collect() for each in metric.samples):
            name, source = sample.labels["registry"], sample.labels["source"]
            if sample.name.endswith("_total") and source in SOURCES:
                row = rows.setdefault(name, {"registry": name, **dict.fromkeys(SOURCES, 0)})
                row[source] = int(sample.value)
        return sorted(rows.values(), key=lambda row: str(row["registry"]))

    def _counters_for(self, registry: str, source: str) -> tuple[Counter, ...]:
        """What a delivered byte is counted in; looked up once, since this is called for every span of every body."""
        found = self._delivery_counters.get((registry, source))
        if found is None:
            found = (self._client_bytes.labels(registry, source), self._sent_bytes.labels("client"))
            if source != Source.UPSTREAM.value:
                found = (*found, self._saved_bytes.labels(registry))
            self._delivery_counters[registry, source] = found
        return found

    def _known(self, registry: str) -> str:
        return registry if registry in self._registries else OTHER


class _DhtSeries(Collector):
    """What someone else counts."""

    def __init__(self) -> None:
        self.events: dict[str, int] = {}
        self.state: dict[str, int] = {}

    def collect(self) -> Iterable[Metric]:
        events = CounterMetricFamily("p2pdist_dht_events", "Events of the DHT.", labels=("event",))
        state = GaugeMetricFamily("p2pdist_dht_state", "What this member of the DHT holds.", labels=("what",))
        for name, count in sorted(self.events.items()):
            events.add_metric((name[:64],), count)
        for name, count in sorted(self.state.items()):
            state.add_metric((name[:64],), count)
        yield from (events, state)


def _code(number: int) -> str:
    if number in _CODES:
        return str(number)
    return f"{number // 100}xx" if 100 <= number <= 599 else "error"


def _one_of(value: str, known: tuple[str, ...]) -> str:
    return value if value in known else OTHER


def _sum_by(counter: Counter, label: str, values: tuple[str, ...]) -> dict[str, int]:
    sums = dict.fromkeys(values, 0)
    for metric in counter.collect():
        for sample in metric.samples:
            if sample.labels.get(label) in sums:
                sums[sample.labels[label]] += int(sample.value)
    return sums
