"""The admin listener: metrics, health, state as JSON, and the few commands that the CLI gives to a running agent.

    GET    /healthz             200 while the process works
    GET    /readyz              200 when it serves, 503 with the reasons while it starts or drains
    GET    /metrics             Prometheus (or OpenMetrics) exposition
    GET    /api/v1/status       {name, version, uptime, zone, ready, reasons, peers, transfers, store: {committed, reserved,
                                quota, blobs, pinned}, client_bytes: {store, peer, upstream}, received_bytes: {...},
                                sent_bytes: {...}, saved_bytes, listeners: {name: address}, warnings,
                                containerd?: {path, blobs, size, unchecked, trouble}}
    GET    /api/v1/peers        {peers: [{peer, endpoint, state, rtt, rate, seen}]}
    GET    /api/v1/images       {images: [{reference, digest, size, held, complete, platforms, pulled_at, resolved_at, age,
                                pinned}]}
    GET    /api/v1/transfers    {transfers: [{digest, repository, size, received, seconds, users, bytes: {source: n},
                                pieces: {piece, count, cells}}]}
    GET    /api/v1/pins         {pins: [reference]}
    GET    /api/v1/diagnostics  for a debug bundle: api/diagnostics.py
    POST   /api/v1/pins         {reference}             DELETE /api/v1/pins    {reference}
    POST   /api/v1/gc           {target?: bytes}        -> {dropped, freed}
    POST   /api/v1/pull         {reference, platform?}  -> one JSON object a line: {event: "layer", digest, size, received,
                                source}..., at the end {event: "done", digest, size, bytes: {source: n}}, or {event: "error",
                                message}
           /api/v1/import       see api/admin_import.py
           /api/v1/warm         see api/admin_warm.py

The image model (history, df, diff): api/admin_images.py. The dashboard and what it asks: api/dashboard/routes.py.
docs/admin-api.md shows all of them in full.

Sizes are bytes, times seconds. An error is {"error": {"status", "message"}}.

Always true here: a web page that the administrator visits can neither read this nor command it. The Host header must
name this host (an IP address, localhost, or ``own_names``), which ends DNS rebinding; what changes something must not
come from another origin, and its body must be JSON (or bytes, by PUT).
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pdist.api.admin_tools import platform_in, read_json, reference_in, stream_events
from p2pdist.api.responses import Failure, Refusal, failure_of, json_response
from p2pdist.errors import BusyError, InvalidInputError, P2PDistError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.errors import ErrorCode
from p2pdist.oci.reference import Reference

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
BAD_REQUEST = (b'{"error":{"status":400,"message":"bad request"}}\n', "application/json")
_SAFE_METHODS = frozenset({"GET", "HEAD"})
# By method. A page may POST some types to another origin unasked, but these; and PUT nothing (fetch standard, CORS).
_BODY_TYPES = {"PUT": "application/octet-stream"}


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


AdminPart = Callable[[web.Application], None]


def build_admin_app(
    backend: AdminBackend, settings: AdminSettings | None = None, parts: Sequence[AdminPart] = ()
) -> web.Application:
    """The application of the admin listener, with the routes that ``parts`` add; run it with ``Listener``."""
    chosen = settings or AdminSettings()
    guard = _Guard(chosen)
    views, commands = _Views(backend), _Commands(backend, chosen)
    app = web.Application(middlewares=[guard.middleware()], client_max_size=MAX_BODY)
    app.on_response_prepare.append(_set_headers)
    app.router.add_get("/healthz", views.healthz)
    app.router.add_get("/readyz", views.readyz)
    app.router.add_get("/metrics", views.metrics)
    for name in ("status", "peers", "images", "transfers", "pins"):
        app.router.add_get(f"/api/v1/{name}", getattr(views, name))
    app.router.add_post("/api/v1/pins", commands.pin)
    app.router.add_delete("/api/v1/pins", commands.unpin)
    app.router.add_post("/api/v1/gc", commands.collect)
    app.router.add_post("/api/v1/pull", commands.pull)
    for part in parts:
        part(app)
    return app


async def _set_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Those that every answer has, streams too: no guessing of types, no copies, and no use by another site's page."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"


class _Guard:
    """Refuses what comes from elsewhere, and answers errors as JSON."""

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
        return response

    def _check(self, request: web.Request) -> None:
        host = request.headers.get("Host")
        if host is not None and not self._is_own(host):
            raise _denied(
                f"this is not {host[:100]!r}; call this listener by its IP address, localhost, the agent's name or one of "
                "admin.names"
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
    wanted = _BODY_TYPES.get(request.method, "application/json")
    if request.can_read_body and request.content_type != wanted:
        what = "JSON" if wanted.endswith("json") else "bytes"
        raise Refusal(415, ErrorCode.UNSUPPORTED, f"send {what}, with Content-Type: {wanted}")


def _denied(message: str) -> Refusal:
    return Refusal(403, ErrorCode.DENIED, message)


def _error_response(failure: Failure) -> web.Response:
    body = {"error": {"status": failure.status, "message": failure.message}}
    return json_response(body, failure.status, failure.headers)


class _Views:
    """What can be looked at."""

    def __init__(self, backend: AdminBackend) -> None:
        self._backend = backend

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
        return json_response(await self._backend.pin(reference_in(await self._body(request))))

    async def unpin(self, request: web.Request) -> web.StreamResponse:
        return json_response(await self._backend.unpin(reference_in(await self._body(request))))

    async def collect(self, request: web.Request) -> web.StreamResponse:
        target = (await self._body(request)).get("target")
        if target is not None and (isinstance(target, bool) or not isinstance(target, int) or target < 0):
            raise InvalidInputError('"target" must be a number of bytes, or be left out')
        return json_response(await self._backend.collect(target))

    async def pull(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request)
        reference, platform = reference_in(body), platform_in(body)
        if self._pulls >= self._settings.max_pulls:
            raise BusyError(f"{self._pulls} pulls are in progress already; try again when one is done", 5.0)
        self._pulls += 1
        try:
            async with aclosing(self._backend.pull(reference, platform)) as events:
                return await stream_events(request, events, self._settings.write_timeout)
        finally:
            self._pulls -= 1

    async def _body(self, request: web.Request) -> dict[str, Any]:
        return await read_json(request, self._settings.body_timeout)
