"""OpenTelemetry traces: a span per mirror request, and below it spans of blob fetches and of what upstream is asked.

Rules:
- This is the only module that imports opentelemetry, which is an extra; nothing imports it while traces are off.
- Spans wait in a queue of MAX_QUEUED; when it is full, the oldest go. They are sent by a thread of their own, so a collector
  that is down or hangs costs spans and nothing else; that is said once, and once more when it takes them again.
- A fetch is a child of the request that started it; whoever joins it later has a link to it, in a trace of its own. What
  upstream and peers are asked for a blob that is being fetched is a child of that fetch, whichever task asks.
- No query of an upstream URL is told: signed ones hold secrets. No context is sent to registries or peers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from p2pdist.oci.content import BlobStat
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import PeerId, Provider
from p2pdist.telemetry.peer_spans import MAX_DIGESTS, PeerPart, PeerTally
from p2pdist.transfer.hooks import TransferHooks
from p2pdist.upstream.port import Upstream, UpstreamManifest, UpstreamPage, UpstreamStream

logger = logging.getLogger("p2pdist.telemetry")

MAX_QUEUED: Final = 4096
EXPORT_TIMEOUT: Final = 5.0
FLUSH_TIMEOUT: Final = 2.0
_BATCH: Final = 512
_DELAY: Final = 2.0
_MAX_TEXT: Final = 512
_MAX_KNOWN: Final = 256

Attributes = Mapping[str, str | int]


@dataclass(slots=True)
class _Scope:
    """What spans started from here belong to; ``asked`` counts the requests of one question to upstream, ``peers`` has
    what peers gave outside of a blob's fetch, by digest and kind."""

    span: Span
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    peers: dict[tuple[Digest, str], PeerTally] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    """Digests whose fetch this request began."""
    since: int = field(default_factory=time.time_ns)


@dataclass(slots=True)
class _Known:
    """A fetch; ``ended`` in nanoseconds since 1970, 0 while it is in progress."""

    context: SpanContext
    ended: int = 0


@dataclass(slots=True)
class _Fetch:
    """A blob's fetch in progress."""

    span: Span
    known: _Known
    peers: PeerTally = field(default_factory=PeerTally)


_scope: ContextVar[_Scope | None] = ContextVar("p2pdist_trace_scope", default=None)


class Tracing:
    """Sends spans to ``endpoint`` (OTLP over HTTP, with its path) until ``close``. ``who`` says which agent this is."""

    def __init__(self, endpoint: str, who: Attributes, *, delay: float = _DELAY) -> None:
        # A sampler or headers for the collector may come from the OTEL_* variables, which the SDK reads.
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT)
        self._provider = TracerProvider(resource=Resource.create(dict(who)), shutdown_on_exit=False)
        self._processor = BatchSpanProcessor(
            _Told(exporter, endpoint),
            max_queue_size=MAX_QUEUED,
            schedule_delay_millis=delay * 1000,
            max_export_batch_size=_BATCH,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("p2pdist")
        self._propagator = TraceContextTextMapPropagator()
        self._fetches: dict[Digest, _Fetch] = {}
        # The last fetches, by digest: whoever joined one describes itself when it is over.
        self._known: dict[str, _Known] = {}

    def close(self) -> None:
        """Send what waits, for at most FLUSH_TIMEOUT seconds; blocks that long. The thread that sends is a daemon."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        thread.start()
        thread.join(FLUSH_TIMEOUT)

    # -- requests: api.tracing.RequestTracer --

    @contextmanager
    def request(
        self, method: str, carrier: Mapping[str, str]
    ) -> Iterator[Callable[[str, Attributes, str], None]]:
        """The span of one mirror request; ``carrier`` has its traceparent and tracestate.

        Yields ``describe(name, attributes, error)``, to be called before the end.
        """
        parent = self._propagator.extract(dict(carrier), Context())
        span = self._tracer.start_span("mirror", parent, SpanKind.SERVER)
        span.set_attribute("http.request.method", method[:20])
        before, scope = _scope.get(), _Scope(span)

        def describe(name: str, attributes: Attributes, error: str) -> None:
            span.update_name(name)
            span.set_attributes(dict(attributes))
            self._link_to_fetch(span, scope, attributes)
            if error:
                span.set_status(Status(StatusCode.ERROR, error[:_MAX_TEXT]))

        _scope.set(scope)
        try:
            yield describe
        finally:
            _scope.set(before)
            for digest, kind in list(scope.peers):
                self._draw_peers(span, digest, kind, scope.peers.pop((digest, kind)))
            span.end()

    def _link_to_fetch(self, span: Span, scope: _Scope, attributes: Attributes) -> None:
        """A request that was under way while another one's fetch was: it waited for that, or read along."""
        digest = str(attributes.get("p2pdist.digest", ""))
        known = self._known.get(digest)
        if known is not None and digest not in scope.begun and (not known.ended or known.ended > scope.since):
            span.add_link(known.context)

    def _remember(self, digest: Digest, span: Span) -> _Known:
        self._known.pop(str(digest), None)
        known = self._known[str(digest)] = _Known(span.get_span_context())
        if len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        if (scope := _scope.get()) is not None:
            scope.begun.add(str(digest))
        return known

    # -- fetches: TraceTransfers --

    def fetch_begun(self, repository: Repository, digest: Digest, kind: str) -> None:
        """A fetch of this digest is in progress, for the request that is being answered."""
        span = self._start(f"fetch {kind}", _content(repository, digest))
        self._fetches[digest] = _Fetch(span, self._remember(digest, span))

    def fetch_ended(
        self,
        repository: Repository,
        digest: Digest,
        kind: str,
        seconds: float,
        moved: Mapping[str, int],
        error: str,
    ) -> None:
        """It is over; one of which no beginning was told began ``seconds`` ago."""
        fetch = self._fetches.pop(digest, None)
        if fetch is None:
            began = time.time_ns() - int(seconds * 1e9)
            span = self._start(f"fetch {kind}", _content(repository, digest), start=began)
            known = self._remember(digest, span)
            scope = _scope.get()
            peers = scope.peers.pop((digest, "manifest"), None) if scope is not None else None
        else:
            span, peers, known = fetch.span, fetch.peers, fetch.known
        known.ended = time.time_ns()
        if peers is not None:
            self._draw_peers(span, digest, kind, peers)
        span.set_attributes({f"p2pdist.{source}_bytes": count for source, count in moved.items()})
        if error:
            span.set_status(Status(StatusCode.ERROR, error[:_MAX_TEXT]))
        span.end()

    def content_was_false(self, source: str, digest: Digest, peer: PeerId | None) -> None:
        """What came from ``source`` did not have its digest: an event of the fetch in progress."""
        if (fetch := self._fetches.get(digest)) is not None:
            who = {"p2pdist.peer": peer.hex} if peer is not None else {}
            fetch.span.add_event("digest does not hold", {"p2pdist.source": source, **who})

    # -- peers: peer_spans.PeerWatch --

    def peer_part(self, digest: Digest, provider: Provider, kind: str) -> PeerPart | None:
        """Where to note what this peer gives: of a blob that is being fetched, else of the request's own manifest."""
        fetch = self._fetches.get(digest)
        if fetch is not None:
            return fetch.peers.of(provider) if fetch.span.is_recording() else None
        scope = _scope.get()
        if scope is None or not scope.span.is_recording():
            return None
        key = (digest, "manifest" if kind == "blob" else kind)
        if key not in scope.peers and len(scope.peers) >= MAX_DIGESTS:
            return None
        return scope.peers.setdefault(key, PeerTally()).of(provider)

    def _draw_peers(self, parent: Span, digest: Digest, kind: str, peers: PeerTally) -> None:
        for part in peers.parts():
            attributes = {"p2pdist.digest": str(digest), **part.attributes()}
            context = set_span_in_context(parent, Context())
            span = self._tracer.start_span(
                f"peer {kind}", context, SpanKind.CLIENT, attributes, start_time=part.began
            )
            if part.failures == part.requests:
                span.set_status(Status(StatusCode.ERROR, part.error))
            span.end(part.ended or None)

    # -- upstream: TracedUpstream, and its HTTP client's observer --

    @contextmanager
    def asking(
        self, kind: str, repository: Repository, digest: Digest | None, **more: str | int
    ) -> Iterator[Span]:
        """The span of one question to upstream, with its retries; an error that ends it is told."""
        fetch = self._fetches.get(digest) if digest is not None else None
        attributes = _content(repository, digest) | {f"p2pdist.{name}": value for name, value in more.items()}
        span = self._start(f"upstream {kind}", attributes, parent=fetch.span if fetch else None)
        before = _scope.get()
        _scope.set(_Scope(span))
        try:
            yield span
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"[:_MAX_TEXT]))
            raise
        finally:
            _scope.set(before)
            span.end()

    def http_request(self, registry: str, kind: str, method: str, url: str) -> Callable[[int], None]:
        """One HTTP request to a registry or its token server; call what is returned with the status (0: no answer)."""
        scope = _scope.get()
        asked = scope.asked if scope is not None else Counter[tuple[str, str]]()
        again = asked[method, url]
        asked[method, url] += 1
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "url.full": url[:_MAX_TEXT],
            "p2pdist.registry": registry,
            "p2pdist.kind": kind,
        }
        if again:
            attributes["http.request.resend_count"] = again
        span = self._start(method, attributes, kind=SpanKind.CLIENT)

        def answered(status: int) -> None:
            if status:
                span.set_attribute("http.response.status_code", status)
            if status == 0 or status >= 400:
                span.set_status(Status(StatusCode.ERROR, "" if status else "no answer"))
            span.end()

        return answered

    def _start(
        self,
        name: str,
        attributes: Attributes,
        *,
        parent: Span | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        start: int | None = None,
    ) -> Span:
        scope = _scope.get()
        above = parent or (scope.span if scope is not None else None)
        context = set_span_in_context(above, Context()) if above is not None else Context()
        return self._tracer.start_span(name, context, kind, dict(attributes), start_time=start)


def _content(repository: Repository, digest: Digest | None) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "p2pdist.registry": repository.registry,
        "p2pdist.repository": repository.path,
    }
    return found if digest is None else found | {"p2pdist.digest": str(digest)}


class TraceTransfers(TransferHooks):
    """Tells ``inner``, and traces fetches."""

    def __init__(self, inner: TransferHooks, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    def begun(self, repository: Repository, digest: Digest, kind: str) -> None:
        self._inner.begun(repository, digest, kind)
        self._tracing.fetch_begun(repository, digest, kind)

    def fetched(
        self, repository: Repository, digest: Digest, kind: str, seconds: float, by_source: dict[str, int]
    ) -> None:
        self._inner.fetched(repository, digest, kind, seconds, by_source)
        self._tracing.fetch_ended(repository, digest, kind, seconds, by_source, "")

    def failed(self, repository: Repository, digest: Digest, kind: str, error: Exception) -> None:
        self._inner.failed(repository, digest, kind, error)
        self._tracing.fetch_ended(repository, digest, kind, 0.0, {}, str(error) or type(error).__name__)

    def verify_failed(self, source: str, digest: Digest, peer: PeerId | None) -> None:
        self._inner.verify_failed(source, digest, peer)
        self._tracing.content_was_false(source, digest, peer)

    def banned(self, peer: PeerId, reason: str) -> None:
        self._inner.banned(peer, reason)


class TracedUpstream:
    """The Upstream port, with a span around each question."""

    def __init__(self, inner: Upstream, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    def allows(self, registry: str) -> bool:
        return self._inner.allows(registry)

    async def manifest(
        self, repository: Repository, target: str | Digest, *, accept: Sequence[str] = (), head: bool = False
    ) -> UpstreamManifest:
        digest = target if isinstance(target, Digest) else None
        more = {} if isinstance(target, Digest) else {"tag": target}
        with self._tracing.asking("manifest", repository, digest, **more):
            return await self._inner.manifest(repository, target, accept=accept, head=head)

    async def stat(self, repository: Repository, digest: Digest) -> BlobStat:
        with self._tracing.asking("stat", repository, digest):
            return await self._inner.stat(repository, digest)

    def blob(
        self, repository: Repository, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[UpstreamStream]:
        return self._blob(repository, digest, offset, length)

    @asynccontextmanager
    async def _blob(
        self, repository: Repository, digest: Digest, offset: int, length: int | None
    ) -> AsyncIterator[UpstreamStream]:
        more = {"offset": offset} if length is None else {"offset": offset, "length": length}
        with self._tracing.asking("blob", repository, digest, **more):
            async with self._inner.blob(repository, digest, offset, length) as stream:
                yield stream

    async def tags(self, repository: Repository, query: dict[str, str]) -> UpstreamPage:
        with self._tracing.asking("tags", repository, None):
            return await self._inner.tags(repository, query)

    async def referrers(self, repository: Repository, digest: Digest, query: dict[str, str]) -> UpstreamPage:
        with self._tracing.asking("referrers", repository, digest):
            return await self._inner.referrers(repository, digest, query)

    async def ping(self, registry: str) -> str:
        return await self._inner.ping(registry)


class _Told(SpanExporter):
    """An exporter whose success and failure is logged when it changes; the SDK would log every try."""

    def __init__(self, inner: SpanExporter, endpoint: str) -> None:
        self._inner = inner
        self._endpoint = endpoint
        self._works = True
        for name in ("opentelemetry.exporter", "opentelemetry.sdk"):
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._inner.export(spans)
        except Exception as error:
            logger.debug("traces cannot be sent: %s", error)
            result = SpanExportResult.FAILURE
        works = result is SpanExportResult.SUCCESS
        if self._works and not works:
            logger.warning(
                "traces cannot be delivered to %s, and are dropped until they can: is the collector up, and is this its "
                "OTLP/HTTP address (telemetry.traces)?",
                self._endpoint,
            )
        elif works and not self._works:
            logger.info("traces are delivered to %s again", self._endpoint)
        self._works = works
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()
