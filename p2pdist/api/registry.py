"""The mirror's HTTP edge: the OCI Distribution pull API for the runtimes on this host.

Always true here:
- read only, and only for registries that are configured: the rest is refused here, before any use case runs;
- an error is answered while no body byte has left; afterwards the connection is cut, so that the client sees a broken
  body and never a short finished one;
- a client is never asked for credentials, what it sends of them is not read, and no content is re-encoded;
- a HEAD and a 304 move no content; what a client leaves unread is not read from the sources either.
Run it with ``Listener`` (api/server.py), which bounds connections and tells handlers at once that a client has left.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDict

from p2pdist.api.body import BodyPlan, BodySender, ClientGoneError, SpanSource, plan_body, plan_items
from p2pdist.api.paging import page_headers, page_query
from p2pdist.api.pull_log import CLIENT_LEFT, PullRecord
from p2pdist.api.responses import Refusal, failure_of, header_safe, oci_response
from p2pdist.api.target import (
    API_ROOT,
    AnyTarget,
    BlobTarget,
    ManifestTarget,
    ReferrersTarget,
    TagsTarget,
    parse_target,
)
from p2pdist.api.tracing import RequestTracer, note_pull, note_target, trace_requests
from p2pdist.api.unconfigured import UnconfiguredLog
from p2pdist.errors import P2PDistError
from p2pdist.oci.content import BlobStat
from p2pdist.oci.digest import Digest
from p2pdist.oci.errors import ErrorCode
from p2pdist.oci.media_types import OCTET_STREAM
from p2pdist.oci.ranges import etag_matches, etag_of
from p2pdist.transfer.content import BytesSpan, Mirror, ServedManifest, Source, Span

logger = logging.getLogger("p2pdist.mirror")

API_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
_IMMUTABLE = "max-age=31536000, immutable"
_MAX_ACCEPT = 64


class RegistryHooks(Protocol):
    """Told of what goes to clients; each call is cheap and must not raise."""

    def on_begun(self) -> None:
        """A client asked for a manifest's or blob's body; ``on_ended`` follows exactly once."""

    def on_ended(self) -> None:
        """That body was delivered, refused, or broken off."""

    def on_outcome(self, kind: str, outcome: str) -> None:
        """How that ended, as in ``PullRecord.verdict``."""

    def on_delivered(self, registry: str, source: str, size: int) -> None:
        """The kernel took ``size`` more body bytes for a client; ``source`` is store, peer or upstream."""

    def on_pulled(self, kind: str, source: str, seconds: float) -> None:
        """A manifest or blob (``kind``) was delivered whole; ``source`` is the farthest that a byte came from."""


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """A client that takes no byte for ``progress_timeout`` seconds is cut off."""

    progress_timeout: float = 60.0


def build_registry_app(
    mirror: Mirror,
    hooks: RegistryHooks,
    settings: RegistrySettings | None = None,
    tracer: RequestTracer | None = None,
) -> web.Application:
    """The application of the mirror listener."""
    edge = _RegistryEdge(mirror, hooks, settings or RegistrySettings())
    app = web.Application(middlewares=[] if tracer is None else [trace_requests(tracer)])
    app.router.add_route("*", "/{path:(?s:.*)}", edge.answer, expect_handler=_ignore_expect)
    return app


async def _ignore_expect(request: web.Request) -> None:
    """A client that asks before it sends a body (a push) is answered at once instead."""


@dataclass(frozen=True, slots=True)
class _Entity:
    """What the headers of an answer tell."""

    digest: Digest
    size: int
    media_type: str
    cache_control: str

    @property
    def etag(self) -> str:
        return etag_of(self.digest)

    def headers(self) -> CIMultiDict[str]:
        """Those that every answer about the entity has, a 304 too (RFC 9110 section 15.4.5)."""
        headers = CIMultiDict(API_VERSION)
        headers["Docker-Content-Digest"] = str(self.digest)
        headers["ETag"] = self.etag
        headers["Cache-Control"] = self.cache_control
        return headers

    def head(self) -> web.StreamResponse:
        headers = self.headers()
        headers["Accept-Ranges"] = "bytes"
        headers["Content-Type"] = self.media_type
        headers["Content-Length"] = str(self.size)
        return web.Response(headers=headers)


class _ManifestDelivery:
    """A manifest's body, which is in memory, in the shape of a blob's."""

    def __init__(self, served: ServedManifest) -> None:
        self._served = served

    async def spans(self, start: int, stop: int) -> AsyncGenerator[Span, None]:
        if start < stop:
            yield BytesSpan(self._served.body[start:stop], self._served.source)


class _RegistryEdge:
    def __init__(self, mirror: Mirror, hooks: RegistryHooks, settings: RegistrySettings) -> None:
        self._mirror = mirror
        self._hooks = hooks
        self._settings = settings
        self._unconfigured = UnconfiguredLog()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Every request; raises nothing but cancellation."""
        try:
            return await self._route(request)
        except Exception as error:
            return _refuse(request, error, ErrorCode.NAME_UNKNOWN)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        inside = path.startswith(API_ROOT) or path == "/v2"
        if inside and request.method not in ("GET", "HEAD"):
            raise _read_only(request.method)
        if path in ("/v2/", "/v2"):
            return web.Response(body=b"{}", headers={**API_VERSION, "Content-Type": "application/json"})
        target = parse_target(path, request.query.get("ns"))
        note_target(target)
        self._check_allowed(target)
        if isinstance(target, ManifestTarget | BlobTarget):
            return await self._content(request, target)
        return await self._page(request, target)

    def _check_allowed(self, target: AnyTarget) -> None:
        registry = target.repository.registry
        if not self._mirror.allows(registry):
            self._unconfigured.refused(registry, time.monotonic())
            raise Refusal(
                403,
                ErrorCode.DENIED,
                f"registry {registry} is not configured here: "
                f'add [registries."{registry}"] to the agent\'s configuration to have it mirrored',
            )

    async def _content(self, request: web.Request, target: ManifestTarget | BlobTarget) -> web.StreamResponse:
        missing = ErrorCode.MANIFEST_UNKNOWN if isinstance(target, ManifestTarget) else ErrorCode.BLOB_UNKNOWN
        if request.method == "HEAD":
            try:
                return await self._head(request, target)
            except P2PDistError as error:
                return _refuse(request, error, missing)
        pull = PullRecord(target, time.monotonic())
        note_pull(pull)
        self._hooks.on_begun()
        try:
            if isinstance(target, ManifestTarget):
                return await self._get_manifest(request, target, pull)
            return await self._get_blob(request, target, pull)
        except asyncio.CancelledError:
            if not pull.is_whole:  # some clients hang up the moment they have the last byte
                pull.outcome = pull.outcome or CLIENT_LEFT
                pull.left = True
            raise
        except Exception as error:
            pull.outcome = pull.outcome or str(error) or type(error).__name__
            pull.left = isinstance(error, ClientGoneError)
            if pull.status:  # headers have left, and the connection has been aborted
                _log_fault(request, error)
                return web.Response(status=499)
            response = _refuse(request, error, missing)
            pull.status = response.status
            return response
        finally:
            self._hooks.on_ended()
            self._hooks.on_outcome(target.kind.value, pull.verdict)
            pull.log(request.headers.get("User-Agent", ""), time.monotonic())

    async def _head(self, request: web.Request, target: ManifestTarget | BlobTarget) -> web.StreamResponse:
        if isinstance(target, ManifestTarget):
            served = await self._mirror.manifest(
                target.repository, target.reference, accept=_accept_of(request)
            )
            entity = _manifest_entity(served, target)
        else:
            entity = _blob_entity(await self._mirror.blob_stat(target.repository, target.digest))
        return _not_modified(entity) if _matches(request, entity) else entity.head()

    async def _get_manifest(
        self, request: web.Request, target: ManifestTarget, pull: PullRecord
    ) -> web.StreamResponse:
        served = await self._mirror.manifest(target.repository, target.reference, accept=_accept_of(request))
        entity = _manifest_entity(served, target)
        pull.digest, pull.stale = served.digest, served.stale
        if _matches(request, entity):
            pull.status = 304
            return _not_modified(entity)
        return await self._send(request, pull, entity, _ManifestDelivery(served))

    async def _get_blob(
        self, request: web.Request, target: BlobTarget, pull: PullRecord
    ) -> web.StreamResponse:
        pull.digest = target.digest
        if "If-None-Match" in request.headers:
            entity = _blob_entity(await self._mirror.blob_stat(target.repository, target.digest))
            if _matches(request, entity):
                pull.status = 304
                return _not_modified(entity)
        async with await self._mirror.blob(target.repository, target.digest) as delivery:
            try:
                return await self._send(request, pull, _blob_entity(delivery.stat), delivery)
            finally:
                delivery.reached(sum(pull.by_source.values()))

    async def _send(
        self, request: web.Request, pull: PullRecord, entity: _Entity, delivery: SpanSource
    ) -> web.StreamResponse:
        plan = plan_body(request.headers, entity.size, entity.etag, entity.media_type)
        registry = pull.target.repository.registry

        def on_sent(source: Source, count: int) -> None:
            pull.count(source, count)
            self._hooks.on_delivered(registry, source.value, count)

        async with aclosing(plan_items(plan, delivery)) as items:
            # The first item is had before the headers leave, so that its failure can still be answered.
            first = await anext(items, None)
            sender = BodySender(
                request, plan.status, _body_headers(entity, plan), on_sent, self._settings.progress_timeout
            )
            pull.status, pull.expected = plan.status, plan.length
            try:
                await _send_all(sender, first, items)
            finally:
                if sender.stalled:
                    pull.outcome = f"cut: the client took nothing for {self._settings.progress_timeout:g} s"
        self._hooks.on_pulled(pull.target.kind.value, pull.farthest.value, time.monotonic() - pull.started)
        return sender.response

    async def _page(self, request: web.Request, target: TagsTarget | ReferrersTarget) -> web.StreamResponse:
        query = page_query(request)
        if isinstance(target, TagsTarget):
            page = await self._mirror.tags(target.repository, query)
        else:
            page = await self._mirror.referrers(target.repository, target.digest, query)
        headers = page_headers(request, page)
        headers.update(API_VERSION)
        return web.Response(body=page.body, headers=headers)


async def _send_all(
    sender: BodySender, first: bytes | Span | None, rest: AsyncGenerator[bytes | Span, None]
) -> None:
    async with sender:
        if first is not None:
            await sender.send(first)
        async for item in rest:
            await sender.send(item)
        await sender.finish()


def _read_only(method: str) -> Refusal:
    message = f"{method[:20]}: this is a read-only mirror; push to the registry itself"
    return Refusal(405, ErrorCode.UNSUPPORTED, message, {"Allow": "GET, HEAD"})


def _refuse(request: web.Request, error: Exception, not_found: ErrorCode) -> web.Response:
    _log_fault(request, error)
    response = oci_response(failure_of(error, not_found))
    response.headers.update(API_VERSION)
    return response


def _log_fault(request: web.Request, error: Exception) -> None:
    """Errors of this package tell all in their message; another is a fault in the program."""
    if not isinstance(error, P2PDistError | TimeoutError | ClientGoneError):
        logger.error("fault while answering %s %s", request.method, request.path[:300], exc_info=error)


def _accept_of(request: web.Request) -> tuple[str, ...]:
    """The media ranges of all Accept headers; Docker sends six, containerd one that is comma-joined."""
    values = ",".join(request.headers.getall("Accept", ())[:_MAX_ACCEPT]).split(",", _MAX_ACCEPT)
    return tuple(item for value in values[:_MAX_ACCEPT] if (item := value.strip()))


def _manifest_entity(served: ServedManifest, target: ManifestTarget) -> _Entity:
    by_digest = isinstance(target.reference, Digest)
    media_type = header_safe(served.media_type, OCTET_STREAM)
    return _Entity(served.digest, served.size, media_type, _IMMUTABLE if by_digest else "no-cache")


def _blob_entity(stat: BlobStat) -> _Entity:
    return _Entity(stat.digest, stat.size, header_safe(stat.media_type, OCTET_STREAM), _IMMUTABLE)


def _matches(request: web.Request, entity: _Entity) -> bool:
    values = request.headers.getall("If-None-Match", None)
    return values is not None and etag_matches(", ".join(values), entity.etag)


def _not_modified(entity: _Entity) -> web.StreamResponse:
    return web.Response(status=304, headers=entity.headers())


def _body_headers(entity: _Entity, plan: BodyPlan) -> CIMultiDict[str]:
    headers = entity.headers()
    headers["Accept-Ranges"] = "bytes"
    headers.update(plan.headers)
    headers["Content-Length"] = str(plan.length)
    return headers
