"""Warm-up commands between two agents, on real sockets; and what a stranger gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from p2pdist.api.peer import PeerServerSettings, build_peer_app
from p2pdist.api.peer_listener import PeerListener
from p2pdist.api.warm import WarmDoor
from p2pdist.clock import SystemClock
from p2pdist.errors import (
    BusyError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    P2PDistError,
    ProtocolError,
)
from p2pdist.peers import warm_client
from p2pdist.peers.http_client import HttpPeers
from p2pdist.peers.warm_client import HttpWarmPeers
from p2pdist.peers.warm_port import HostName, Order
from p2pdist.records import Endpoint, PeerId
from p2pdist.store.port import Store
from p2pdist.wire.warm import WARM_PATH, Member, WarmState, WarmStatus, encode_status
from tests.support_peers import OTHER_KEY, BlobShelf, PeerBench, auth_of, peer_id

ORDER = Order("registry.example.test:5000/team/app:v1", "linux/arm64/v8")
STATUS = WarmStatus(WarmState.RUNNING, 100, 40, {"peer": 40}, "sha256:ab")


@dataclass
class Desk:
    """Implements WarmDesk; ``error`` is raised by every call."""

    error: P2PDistError | None = None
    asked: list[tuple[str, Order]] = field(default_factory=list)

    def ordered(self, order: Order) -> WarmStatus:
        return self._answer("ordered", order)

    def status(self, order: Order) -> WarmStatus:
        return self._answer("status", order)

    def _answer(self, what: str, order: Order) -> WarmStatus:
        self.asked.append((what, order))
        if self.error is not None:
            raise self.error
        return STATUS


@dataclass
class Pair:
    desk: Desk
    door: WarmDoor
    member: Member
    http: HttpPeers
    commands: HttpWarmPeers


@asynccontextmanager
async def pair(
    directory: Path, *, door: WarmDoor | None = None, with_door: bool = True
) -> AsyncIterator[Pair]:
    desk, door = Desk(), door or WarmDoor()
    door.desk = desk
    door.members = lambda: [Member(peer_id("third"), Endpoint("192.0.2.3", 5051))]
    settings = PeerServerSettings(name="host-2", zone="rack-7")
    app = build_peer_app(
        cast(Store, BlobShelf()), auth_of("seed"), SystemClock(), settings, warm=door if with_door else None
    )
    listener = PeerListener(app, None, grace=0.1)
    await listener.start("127.0.0.1", 0, None)
    try:
        async with PeerBench(directory).client() as http:
            member = Member(peer_id("seed"), Endpoint("127.0.0.1", listener.port))
            yield Pair(desk, door, member, http, HttpWarmPeers(http))
    finally:
        await listener.close()


async def test_an_order_and_a_question_arrive_as_they_were_meant(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        assert await both.commands.start(both.member, ORDER) == STATUS
        assert await both.commands.status(both.member, Order("app:v1")) == STATUS
        assert both.desk.asked == [("ordered", ORDER), ("status", Order("app:v1"))]


async def test_who_is_there_and_whom_it_knows(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        assert await both.commands.greet(both.member) == HostName(peer_id("seed"), "host-2", "rack-7")
        assert await both.commands.members(both.member) == [
            Member(peer_id("third"), Endpoint("192.0.2.3", 5051))
        ]


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (DeniedError("not with me"), DeniedError),
        (InvalidInputError("what is that?"), DeniedError),
        (NotFoundError("of what?"), NotFoundError),
        (BusyError("too many"), BusyError),
    ],
)
async def test_a_refusal_comes_with_its_reason(
    tmp_path: Path, raised: P2PDistError, seen: type[Exception]
) -> None:
    async with pair(tmp_path) as both:
        both.desk.error = raised
        with pytest.raises(seen, match=str(raised).rstrip("?")):
            await both.commands.start(both.member, ORDER)


async def test_an_agent_that_starts_is_busy_and_knows_nobody(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        both.door.desk = both.door.members = None
        with pytest.raises(BusyError, match="starting"):
            await both.commands.start(both.member, ORDER)
        assert await both.commands.members(both.member) == []


async def test_an_older_agent_does_not_know_the_command(tmp_path: Path) -> None:
    async with pair(tmp_path, with_door=False) as both:
        for ask in (both.commands.start, both.commands.status):
            with pytest.raises(NotFoundError, match="older"):
                await ask(both.member, ORDER)


@pytest.mark.parametrize("reference", ["x" * 3000, "x" * 8000])
async def test_an_order_of_any_length_is_refused(tmp_path: Path, reference: str) -> None:
    async with pair(tmp_path) as both:
        with pytest.raises((DeniedError, ProtocolError)):
            await both.commands.start(both.member, Order(reference))
        assert both.desk.asked == []


async def test_a_body_that_was_changed_on_its_way_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as both:
        monkeypatch.setattr(warm_client, "body_digest", lambda body: "another")
        with pytest.raises(ProtocolError, match="changed on its way"):
            await both.commands.start(both.member, ORDER)
        both.desk.error = DeniedError("words that may be forged")
        with pytest.raises(DeniedError, match="does not say why"):
            await both.commands.start(both.member, ORDER)


async def test_a_member_that_talks_nonsense_breaks_the_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as both:
        monkeypatch.setattr("p2pdist.api.warm.encode_status", lambda status: b"[]")
        with pytest.raises(ProtocolError, match="JSON object"):
            await both.commands.start(both.member, ORDER)
        monkeypatch.setattr(
            "p2pdist.api.warm.encode_status", lambda status: encode_status(status) + b" " * 70_000
        )
        with pytest.raises(ProtocolError, match="too great a length"):
            await both.commands.start(both.member, ORDER)


async def test_a_stranger_and_a_replay_order_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path) as both, aiohttp.ClientSession() as session:
        url = f"http://{both.member.endpoint}{WARM_PATH}?reference=app:v1"
        async with session.post(url) as answer:
            assert answer.status == 401
        async with PeerBench(tmp_path).client(key=OTHER_KEY) as http:
            with pytest.raises(DeniedError):
                await HttpWarmPeers(http).start(both.member, ORDER)
        with pytest.raises(ProtocolError):
            await both.commands.start(Member(PeerId(bytes(20)), both.member.endpoint), ORDER)
        assert both.desk.asked == []
