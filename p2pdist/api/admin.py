"""The admin listener: metrics, health, state as JSON, and the few commands that the CLI gives to a running agent.

    GET    /healthz             200 while the process works
    GET    /readyz              200 when it serves, 503 with the reasons while it starts or drains
    GET    /metrics             Prometheus (or OpenMetrics) exposition
    GET    /api/v1/status       {name, version, uptime, zone, ready, reasons, peers, transfers, store: {committed, reserved,
                                quota, blobs, pinned}, client_bytes: {store, peer, upstream}, received_bytes: {...},
                                sent_bytes: {...}, saved_bytes, listeners: {name: address}, warnings}
    GET    /api/v1/peers        {peers: [{peer, endpoint, state, rtt, rate, seen}]}
    GET    /api/v1/images       {images: [{reference, digest, size, held, complete, platforms, resolved_at, age, pinned}]}
    GET    /api/v1/transfers    {transfers: [{digest, repository, size, received, seconds, users, bytes: {source: n}}]}
    GET    /api/v1/pins         {pins: [reference]}
    GET    /api/v1/diagnostics  for a debug bundle: api/diagnostics.py
    POST   /api/v1/pins         {reference}             DELETE /api/v1/pins    {reference}
    POST   /api/v1/gc           {target?: bytes}        -> {dropped, freed}
    POST   /api/v1/pull         {reference, platform?}  -> one JSON object a line: {event: "layer", digest, size, received,
                                source}..., at the end {event: "done", digest, size, bytes: {source: n}}, or {event: "error",
                                message}
    GET    /                    a page with links to these

Sizes are bytes, times seconds. An error is {"error": {"status", "message"}}.

Always true here: a web page that the administrator visits can neither read this nor command it. The Host header must
name this host (an IP address, localhost, or ``own_names``), which ends DNS rebinding; what changes something must not
come from another origin, and its body must be JSON.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pdist.api.responses import Failure, Refusal, failure_of, json_response
from p2pdist.errors import BusyError, InvalidInputError, P2PDistError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.errors import ErrorCode
from p2pdist.oci.platforms import parse_platform
from p2pdist.oci.reference import Reference

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}
_PAGE = b"""<!doctype html>
<html lang="en"><title>p2pdist</title>
<style>body{font:16px/1.6 system-ui,sans-serif;margin:2rem auto;max-width:40rem;padding:0 1rem}</style>
<h1>p2pdist</h1>
<p>This agent, as pages for programs:</p>
<ul>
<li><a href="/api/v1/status">status</a>, <a href="/api/v1/peers">peers</a>, <a href="/api/v1/images">images</a>,
<a href="/api/v1/transfers">transfers</a>, <a href="/api/v1/pins">pins</a></li>
<li><a href="/metrics">metrics</a></li>
<li><a href="/healthz">healthz</a>, <a href="/readyz">readyz</a></li>
</ul></html>
"""


class AdminBackend(Protocol):
    """What the agent tells of itself and does when told; shapes as in the module. Raises P2PDistError."""

    def not_ready(self) -> list[str]:
        """Why this agent does not serve (yet, or any more); [] when it does."""

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition, and its Content-Type."""

    async def status(self) -> dict[str, Any]: ...

    async def peers(self) -> list[dict[str, Any]]: ...

    async def images(self) -> list[dict[str, Any]]: ...

    async def transfers(self) -> list[dict[str, Any]]: ...

    async def pins(self) -> list[str]: ...

    async def pin(self, reference: Reference) -> dict[str, Any]:
        """Keep an image's blobs; NotFoundError when the store does not hold it."""

    async def unpin(self, reference: Reference) -> dict[str, Any]:
        """NotFoundError when it was not pinned."""

    async def collect(self, target: int | None) -> dict[str, Any]:
        """Free room: down to ``target`` bytes, or (None) only what nothing refers to."""

    def pull(self, reference: Reference, platform: Platform | None) -> AsyncGenerator[dict[str, Any], None]:
        """Fetch an image; events, the last of which is "done". ``platform`` None is this host's."""


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """``own_names`` are host names by which this listener may be called; times are in seconds."""

    own_names: tuple[str, ...] = ()
    max_pulls: int = 8
    body_timeout: float = 10.0
    write_timeout: float = 60.0


def build_admin_app(backend: AdminBackend, settings: AdminSettings | None = None) -> web.Application:
    """The application of the admin listener; run it with ``Listener`` (api/server.py)."""
    chosen = settings or AdminSettings()
    guard = _Guard(chosen)
    views, commands = _Views(backend), _Commands(backend, chosen)
    app = web.Application(middlewares=[guard.middleware()], client_max_size=MAX_BODY)
    app.router.add_get("/", views.page)
    app.router.add_get("/healthz", views.healthz)
    app.router.add_get("/readyz", views.readyz)
    app.router.add_get("/metrics", views.metrics)
    for name in ("status", "peers", "images", "transfers", "pins"):
        app.router.add_get(f"/api/v1/{name}", getattr(views, name))
    app.router.add_post("/api/v1/pins", commands.pin)
    app.router.add_delete("/api/v1/pins", commands.unpin)
    app.router.add_post("/api/v1/gc", commands.collect)
    app.router.add_post("/api/v1/pull", commands.pull)
    return app


class _Guard:
    """Refuses what comes from elsewhere, answers errors as JSON, and sets the headers that every answer has."""

    def __init__(self, settings: AdminSettings) -> None:
        self._own_names = frozenset({"localhost", *(name.lower() for name in settings.own_names)})

    def middleware(self) -> Middleware:
        @web.middleware
        async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._around(request, handler)

        return around

    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check(request)
            response = await handler(request)
        except web.HTTPException as error:
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            response = _error_response(Failure(error.status, ErrorCode.UNSUPPORTED, error.reason, allow))
        except Exception as error:
            if not isinstance(error, P2PDistError):
                logger.error(
                    "fault while answering %s %s", request.method, request.path[:300], exc_info=error
                )
            response = _error_response(failure_of(error))
        if not response.prepared:
            response.headers["X-Content-Type-Options"] = "nosniff"
            response.headers["Cache-Control"] = "no-store"
        return response

    def _check(self, request: web.Request) -> None:
        host = request.headers.get("Host")
        if host is not None and not self._is_own(host):
            raise _denied(
                f"this is not {host[:100]!r}; call this listener by its IP address, localhost or the agent's name"
            )
        if request.method not in _SAFE_METHODS:
            _check_same_origin(request, host)

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if name is None:
            return False
        return name.rstrip(".").lower() in self._own_names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_same_origin(request: web.Request, host: str | None) -> None:
    """Browsers tell where a request that changes something comes from (fetch standard, "Origin" header)."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise _denied("commands are not taken from pages of another origin")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise _denied("commands are not taken from pages of another site")
    if request.can_read_body and request.content_type != "application/json":
        raise Refusal(415, ErrorCode.UNSUPPORTED, "send JSON, with Content-Type: application/json")


def _denied(message: str) -> Refusal:
    return Refusal(403, ErrorCode.DENIED, message)


def _error_response(failure: Failure) -> web.Response:
    body = {"error": {"status": failure.status, "message": failure.message}}
    return json_response(body, failure.status, failure.headers)


class _Views:
    """What can be looked at."""

    def __init__(self, backend: AdminBackend) -> None:
        self._backend = backend

    async def page(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=_PAGE, headers=_PAGE_HEADERS)

    async def healthz(self, request: web.Request) -> web.StreamResponse:
        return json_response({"status": "ok"})

    async def readyz(self, request: web.Request) -> web.StreamResponse:
        reasons = self._backend.not_ready()
        return json_response({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        body, content_type = await self._backend.metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def status(self, request: web.Request) -> web.StreamResponse:
        return json_response(await self._backend.status())

    async def peers(self, request: web.Request) -> web.StreamResponse:
        return json_response({"peers": await self._backend.peers()})

    async def images(self, request: web.Request) -> web.StreamResponse:
        return json_response({"images": await self._backend.images()})

    async def transfers(self, request: web.Request) -> web.StreamResponse:
        return json_response({"transfers": await self._backend.transfers()})

    async def pins(self, request: web.Request) -> web.StreamResponse:
        return json_response({"pins": await self._backend.pins()})


class _Commands:
    """What the agent can be told to do."""

    def __init__(self, backend: AdminBackend, settings: AdminSettings) -> None:
        self._backend = backend
        self._settings = settings
        self._pulls = 0

    async def pin(self, request: web.Request) -> web.StreamResponse:
        return json_response(await self._backend.pin(_reference_in(await self._body(request))))

    async def unpin(self, request: web.Request) -> web.StreamResponse:
        return json_response(await self._backend.unpin(_reference_in(await self._body(request))))

    async def collect(self, request: web.Request) -> web.StreamResponse:
        target = (await self._body(request)).get("target")
        if target is not None and (isinstance(target, bool) or not isinstance(target, int) or target < 0):
            raise InvalidInputError('"target" must be a number of bytes, or be left out')
        return json_response(await self._backend.collect(target))

    async def pull(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request)
        reference, platform = _reference_in(body), _platform_in(body)
        if self._pulls >= self._settings.max_pulls:
            raise BusyError(f"{self._pulls} pulls are in progress already; try again when one is done", 5.0)
        self._pulls += 1
        try:
            async with aclosing(self._backend.pull(reference, platform)) as events:
                return await self._stream(request, events)
        finally:
            self._pulls -= 1

    async def _stream(
        self, request: web.Request, events: AsyncGenerator[dict[str, Any], None]
    ) -> web.StreamResponse:
        """The events as lines. What fails before the first is answered as an error, afterwards as an event."""
        event = await anext(events, None)
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        )
        try:
            await response.prepare(request)
            while event is not None:
                await self._write(response, event)
                event = await self._next(events)
            await response.write_eof()
        except (OSError, TimeoutError):  # the client left, or does not read: the pull ends with it
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _next(self, events: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any] | None:
        try:
            return await anext(events, None)
        except Exception as error:
            if not isinstance(error, P2PDistError):
                logger.exception("fault during a pull")
            return {"event": "error", "message": failure_of(error).message}

    async def _write(self, response: web.StreamResponse, event: dict[str, Any]) -> None:
        line = json.dumps(event, separators=(",", ":"), default=str).encode() + b"\n"
        async with asyncio.timeout(self._settings.write_timeout):
            await response.write(line)

    async def _body(self, request: web.Request) -> dict[str, Any]:
        """The JSON object that was sent; {} for none. Bounded in size and time."""
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                data = await request.read()
        except TimeoutError as error:
            raise Refusal(408, ErrorCode.UNSUPPORTED, "the request's body did not arrive in time") from error
        try:
            body = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InvalidInputError("the request's body is not JSON") from error
        if not isinstance(body, dict):
            raise InvalidInputError("the request's body must be a JSON object")
        return body


def _reference_in(body: dict[str, Any]) -> Reference:
    text = body.get("reference")
    if not isinstance(text, str):
        raise InvalidInputError('"reference" must name an image, such as "docker.io/library/nginx:1.27"')
    return Reference.parse(text)


def _platform_in(body: dict[str, Any]) -> Platform | None:
    text = body.get("platform")
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise InvalidInputError('"platform" must be a text, such as "linux/arm64"')
    return parse_platform(text)
