"""The admin listener's command to warm an image on every agent of the cluster.

    POST /api/v1/warm  {reference, platform?, zone?} -> one JSON object a line: {event: "host", peer, name, zone, where,
                       state, size, received, bytes: {source: n}, digest, message}..., at the end
                       {event: "done", hosts, failed}, or {event: "error", message}

{event: "waiting"} stands between where there was no news for a while, {event: "unknown", ...as "host"} for a host that
does not answer where a zone was asked for: it takes no part, and does not count. ``state`` is
waiting, running, done or failed. Since it makes other hosts work, it wants the token of the agent's data directory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from p2pdist.api.admin_tools import platform_in, read_json, reference_in, require_token, stream_events
from p2pdist.errors import BusyError, InvalidInputError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.reference import Reference
from p2pdist.records import MAX_ZONE


class WarmBackend(Protocol):
    """What the agent does with it. Raises P2PDistError."""

    def warm(
        self, reference: Reference, platform: Platform | None, zone: str | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Events, the last of which is "done"; ``zone`` None is all hosts, ``platform`` None each host's own."""


@dataclass(frozen=True, slots=True)
class WarmSettings:
    """``token`` is what a caller must show; times are in seconds."""

    token: str
    max_at_once: int = 4
    body_timeout: float = 10.0
    write_timeout: float = 60.0


class WarmRoutes:
    """Adds the route to the admin application (``build_admin_app(parts=...)``)."""

    def __init__(self, backend: WarmBackend, settings: WarmSettings) -> None:
        self._backend = backend
        self._settings = settings
        self._running = 0

    def __call__(self, app: web.Application) -> None:
        app.router.add_post("/api/v1/warm", self._warm)

    async def _warm(self, request: web.Request) -> web.StreamResponse:
        require_token(request, self._settings.token)
        body = await read_json(request, self._settings.body_timeout)
        reference, platform, zone = reference_in(body), platform_in(body), body.get("zone")
        if zone is not None and (not isinstance(zone, str) or len(zone) > MAX_ZONE):
            raise InvalidInputError(f'"zone" must be a text of at most {MAX_ZONE} characters, or be left out')
        if self._running >= self._settings.max_at_once:
            raise BusyError(f"{self._running} warm-ups are followed already; try again when one is done", 5.0)
        self._running += 1
        try:
            async with aclosing(self._backend.warm(reference, platform, zone)) as events:
                return await stream_events(request, events, self._settings.write_timeout)
        finally:
            self._running -= 1
