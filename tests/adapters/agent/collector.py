"""An OTLP/HTTP receiver: it decodes what it is sent, and hangs on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class ReceivedSpan:
    """Ids in hex; ``parent`` "" for a root; ``error`` is None unless the span's status is an error; ``began`` and ``ended``
    in nanoseconds; ``events`` are names and attributes, ``links`` ids of traces and spans."""

    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, str | int]
    error: str | None
    resource: dict[str, str | int]
    began: int = 0
    ended: int = 0
    events: tuple[tuple[str, dict[str, str | int]], ...] = ()
    links: tuple[tuple[str, str], ...] = ()


@dataclass
class Collector:
    url: str = ""
    spans: list[ReceivedSpan] = field(default_factory=list)
    hangs: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def named(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    async def traces(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        self.reached.set()
        if self.hangs:
            await self.released.wait()
        message = ExportTraceServiceRequest.FromString(body)
        for group in message.resource_spans:
            resource = _values(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [_span(span, resource) for span in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def _values(pairs: object) -> dict[str, str | int]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}  # type: ignore[attr-defined]


def _span(span: object, resource: dict[str, str | int]) -> ReceivedSpan:
    return ReceivedSpan(
        span.name,  # type: ignore[attr-defined]
        span.trace_id.hex(),  # type: ignore[attr-defined]
        span.span_id.hex(),  # type: ignore[attr-defined]
        span.parent_span_id.hex(),  # type: ignore[attr-defined]
        _values(span.attributes),  # type: ignore[attr-defined]
        span.status.message if span.status.code == 2 else None,  # type: ignore[attr-defined]
        resource,
        span.start_time_unix_nano,  # type: ignore[attr-defined]
        span.end_time_unix_nano,  # type: ignore[attr-defined]
        tuple((event.name, _values(event.attributes)) for event in span.events),  # type: ignore[attr-defined]
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),  # type: ignore[attr-defined]
    )


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/traces", collector.traces)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield collector
    finally:
        collector.released.set()
        await runner.cleanup()
