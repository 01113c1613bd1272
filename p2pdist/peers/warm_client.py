"""Warm-up commands over the authenticated HTTP between peers. What is asked stands in the query, which the proof covers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlencode

from p2pdist.errors import BusyError, DeniedError, InvalidInputError, NotFoundError, ProtocolError
from p2pdist.peers.http_client import Answer, HttpPeers
from p2pdist.peers.warm_port import HostName, Order
from p2pdist.wire.http_auth import Target
from p2pdist.wire.warm import (
    BODY_HEADER,
    MAX_BODY,
    MEMBERS_PATH,
    WARM_PATH,
    Member,
    WarmStatus,
    body_digest,
    parse_members,
    parse_message,
    parse_status,
)

T = TypeVar("T")


class HttpWarmPeers:
    """See peers/warm_port.py, WarmPeers."""

    def __init__(self, peers: HttpPeers) -> None:
        self._peers = peers

    async def greet(self, member: Member) -> HostName:
        hello = await self._peers.hello(member.endpoint, member.peer)
        return HostName(hello.peer, hello.name, hello.zone)

    async def members(self, member: Member) -> list[Member]:
        return _parsed(parse_members, await self._ask(member, Target("GET", MEMBERS_PATH)), member)

    async def start(self, member: Member, order: Order) -> WarmStatus:
        return _parsed(parse_status, await self._ask(member, Target("POST", _path(order))), member)

    async def status(self, member: Member, order: Order) -> WarmStatus:
        return _parsed(parse_status, await self._ask(member, Target("GET", _path(order))), member)

    async def _ask(self, member: Member, target: Target) -> bytes:
        answer = await self._peers.ask(member.peer, (member.endpoint,), target, MAX_BODY)
        proven = answer.headers.get(BODY_HEADER) == body_digest(answer.body)
        if answer.status == 200:
            if not proven:
                raise ProtocolError(f"the answer of peer {member.peer.short} was changed on its way")
            return answer.body
        raise _refusal(answer, member, proven=proven)


def _path(order: Order) -> str:
    query = {"reference": order.reference}
    if order.platform:
        query["platform"] = order.platform
    return f"{WARM_PATH}?{urlencode(query)}"


def _refusal(answer: Answer, member: Member, *, proven: bool) -> Exception:
    try:
        words = parse_message(answer.body) if proven else ""
    except InvalidInputError:
        words = ""
    if answer.status == 404:
        return NotFoundError(words or "it does not know the command: its p2pdist is older")
    if answer.status in (400, 403):
        return DeniedError(words or f"it refuses, and does not say why ({answer.status})")
    if answer.status in (429, 503):
        return BusyError(words or "it is busy", 1.0)
    return ProtocolError(f"peer {member.peer.short} answered {answer.status} {words}".rstrip())


def _parsed(parse: Callable[[bytes], T], body: bytes, member: Member) -> T:
    try:
        return parse(body)
    except InvalidInputError as error:
        raise ProtocolError(f"peer {member.peer.short} answered with {error}") from error
