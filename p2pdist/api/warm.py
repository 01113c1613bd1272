"""Commands of other agents to this one: fetch an image, and tell whom you know.

    POST /p2p/v1/warm?reference=REF[&platform=P]   200: begun, or joined; 400, 403 refused, 503 too many
    GET  /p2p/v1/warm?reference=REF[&platform=P]   200: how it goes; 404
    GET  /p2p/v1/members                           200: the members that this agent heard from lately

Always true here: requests have come through the gate (peer_gate.py), and what they ask for stands in the path, which
their proof covers; bodies of answers are covered by a digest in a sealed header (wire/warm.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from aiohttp import web

from p2pdist.api.responses import failure_of
from p2pdist.errors import BusyError, InvalidInputError, P2PDistError
from p2pdist.peers.warm_port import Order
from p2pdist.wire.warm import (
    BODY_HEADER,
    MEMBERS_PATH,
    WARM_PATH,
    Member,
    WarmStatus,
    body_digest,
    encode_members,
    encode_message,
    encode_status,
)

_MAX_QUERY = 2048


class WarmDesk(Protocol):
    """Who carries the commands out (transfer.warm.WarmJobs). Raises P2PDistError."""

    def ordered(self, order: Order) -> WarmStatus: ...

    def status(self, order: Order) -> WarmStatus: ...


class WarmDoor:
    """The handlers. ``desk`` and ``members`` are set once they exist; until then the answer is 503."""

    def __init__(self) -> None:
        self.desk: WarmDesk | None = None
        self.members: Callable[[], Iterable[Member]] | None = None

    def register(self, app: web.Application) -> None:
        """Add the routes to the peer application."""
        app.router.add_post(WARM_PATH, self._warm)
        app.router.add_get(WARM_PATH, self._warm, allow_head=False)
        app.router.add_get(MEMBERS_PATH, self._members, allow_head=False)

    async def _warm(self, request: web.Request) -> web.StreamResponse:
        try:
            if self.desk is None:
                raise BusyError("this agent is starting", 1.0)
            ask = self.desk.ordered if request.method == "POST" else self.desk.status
            return _answer(200, encode_status(ask(_order(request))))
        except P2PDistError as error:
            return _refusal(error)

    async def _members(self, request: web.Request) -> web.StreamResponse:
        members = self.members() if self.members is not None else ()
        return _answer(200, encode_members(members))


def _order(request: web.Request) -> Order:
    query = request.query
    if len(request.query_string) > _MAX_QUERY or set(query) - {"reference", "platform"}:
        raise InvalidInputError("a warm-up is asked for by reference and platform")
    return Order(query.get("reference", ""), query.get("platform", ""))


def _refusal(error: P2PDistError) -> web.Response:
    status = 503 if isinstance(error, BusyError) else failure_of(error).status
    return _answer(status, encode_message(str(error)))


def _answer(status: int, body: bytes) -> web.Response:
    headers = {BODY_HEADER: body_digest(body), "Content-Type": "application/json"}
    return web.Response(status=status, body=body, headers=headers)
