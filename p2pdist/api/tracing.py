"""Traces of mirror requests: what a span is told of a request, by whoever draws spans (telemetry/tracing.py).

Rule: this is a middleware, so that a listener without traces pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pdist.api.pull_log import PullRecord
from p2pdist.api.target import AnyTarget, BlobTarget, ManifestTarget, ReferrersTarget
from p2pdist.oci.digest import Digest
from p2pdist.transfer.content import Source

_MAX_AGENT = 120
# A header that came twice is none (W3C Trace Context, section 3.2).
_CONTEXT = ("traceparent", "tracestate")

Describe = Callable[[str, Mapping[str, str | int], str], None]


@dataclass(slots=True)
class Seen:
    """What the handler has made of the request that is being traced."""

    target: AnyTarget | None = None
    pull: PullRecord | None = None


_seen: ContextVar[Seen | None] = ContextVar("p2pdist_request_seen", default=None)


def note_target(target: AnyTarget) -> None:
    """This is what is asked for; nothing happens where requests are not traced."""
    if (seen := _seen.get()) is not None:
        seen.target = target


def note_pull(pull: PullRecord) -> None:
    """This is how it goes; likewise."""
    if (seen := _seen.get()) is not None:
        seen.pull = pull


class RequestTracer(Protocol):
    """Draws one span per request; nothing here may raise."""

    def request(self, method: str, carrier: Mapping[str, str]) -> AbstractContextManager[Describe]:
        """The request's span; ``carrier`` has its W3C context. What is entered takes a name, attributes, and an error."""


def trace_requests(tracer: RequestTracer) -> Middleware:
    """One span per request; the handler tells what it knows by ``note_target`` and ``note_pull``."""

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        carrier = {
            name: values[0] for name in _CONTEXT if len(values := request.headers.getall(name, [])) == 1
        }
        with tracer.request(request.method, carrier) as describe:
            response: web.StreamResponse | None = None
            seen = Seen()
            _seen.set(seen)
            try:
                response = await handler(request)
                return response
            finally:
                _seen.set(None)
                _describe(request, response, seen, describe)

    return around


def _describe(
    request: web.Request, response: web.StreamResponse | None, seen: Seen, describe: Describe
) -> None:
    target, pull = seen.target, seen.pull
    attributes: dict[str, str | int] = {}
    if agent := request.headers.get("User-Agent"):
        attributes["user_agent.original"] = agent[:_MAX_AGENT]
    if target is not None:
        attributes |= _about(target)
    if response is not None and (digest := response.headers.get("Docker-Content-Digest")):
        attributes["p2pdist.digest"] = digest
    status = response.status if response is not None else 0
    error = "cancelled" if response is None else ""
    if pull is not None:
        attributes |= {f"p2pdist.{source.value}_bytes": pull.by_source.get(source, 0) for source in Source}
        if pull.digest is not None:
            attributes["p2pdist.digest"] = str(pull.digest)
        status, error = pull.status or status, pull.outcome
    if status:
        attributes["http.response.status_code"] = status
    failed = (
        error if pull is not None and status < 400 else ("" if status < 500 else error or f"status {status}")
    )
    describe(f"mirror {target.kind.value}" if target is not None else "mirror", attributes, failed)


def _about(target: AnyTarget) -> dict[str, str | int]:
    about: dict[str, str | int] = {
        "p2pdist.registry": target.repository.registry,
        "p2pdist.repository": target.repository.path,
        "p2pdist.kind": target.kind.value,
    }
    if isinstance(target, BlobTarget | ReferrersTarget):
        about["p2pdist.digest"] = str(target.digest)
    elif isinstance(target, ManifestTarget):
        name = "digest" if isinstance(target.reference, Digest) else "tag"
        about[f"p2pdist.{name}"] = str(target.reference)
    return about
