"""A link carries what both agents have to say, so that two who talk need one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import pytest

from p2pdist.api.peer import PeerServerSettings, build_peer_app
from p2pdist.api.peer_listener import PeerListener
from p2pdist.clock import SystemClock
from p2pdist.peers.http_client import HttpPeers
from p2pdist.peers.link_wire import ALIVE_EVERY, BOTH_HEADER, IDLE, QUIET
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.peers.swarm_links import DIALS, HttpSwarmLinks, Turns
from p2pdist.peers.tls import PeerTls
from p2pdist.records import Endpoint, Provider
from p2pdist.store.port import Store
from p2pdist.wire.sealed_frames import FrameSeal
from tests.support_flow import until
from tests.support_links import Inbox, packed
from tests.support_peers import BlobShelf, PeerBench, auth_of, peer_id
from tests.support_scripted_peer import Exchange, scripted_peer


class Agent:
    """Both ends: a listener, and what has something to say."""

    def __init__(self, name: str, inbox: Inbox, links: HttpSwarmLinks, listener: PeerListener) -> None:
        self.name = name
        self.inbox = inbox
        self.links = links
        self.listener = listener

    @property
    def provider(self) -> Provider:
        return Provider(peer_id(self.name), (Endpoint("127.0.0.1", self.listener.port),))

    def say(self, other: Agent, *frames: bytes) -> None:
        for frame in frames:
            self.links.send(other.provider, frame)


@asynccontextmanager
async def agent(name: str, tls: PeerTls | None = None) -> AsyncIterator[Agent]:
    auth, clock, inbox = auth_of(name), SystemClock(), Inbox()
    settings = PeerClientSettings(ssl=tls.client_context() if tls else None)
    async with HttpPeers(settings, auth, clock) as peers, asyncio.TaskGroup() as tasks:
        life = tasks.create_task(asyncio.Event().wait())
        links = HttpSwarmLinks(peers, auth, tasks, inbox)
        app = build_peer_app(
            cast(Store, BlobShelf()), auth, clock, PeerServerSettings(), inbox=inbox, links=links
        )
        listener = PeerListener(app, grace=0.1)
        await listener.start("127.0.0.1", 0, tls.server_context() if tls else None)
        try:
            yield Agent(name, inbox, links, listener)
        finally:
            await listener.close()
            for task in list(tasks._tasks):
                task.cancel()
            assert life.cancelling()


async def test_two_that_talk_need_one_connection(bench: PeerBench) -> None:
    async with agent("ann", bench.tls) as ann, agent("bob", bench.tls) as bob:
        ann.say(bob, b"hello", b"again")
        await until(lambda: len(bob.inbox.frames) == 2)
        bob.say(ann, *(b"%d" % number for number in range(100)))
        await until(lambda: len(ann.inbox.frames) == 100)
        ann.say(bob, b"well")
        await until(lambda: len(bob.inbox.frames) == 3)
        assert bob.inbox.frames == [(peer_id("ann"), frame) for frame in (b"hello", b"again", b"well")]
        assert ann.inbox.frames == [(peer_id("bob"), b"%d" % number) for number in range(100)]
        assert (ann.listener.connections, bob.listener.connections) == (0, 1)


async def test_two_that_begin_at_once_understand_each_other() -> None:
    async with agent("ann") as ann, agent("bob") as bob:
        for number in range(50):
            ann.say(bob, b"%d" % number)
            bob.say(ann, b"%d" % number)
            await asyncio.sleep(0)
        await until(lambda: len(bob.inbox.frames) == len(ann.inbox.frames) == 50)
        said = [b"%d" % number for number in range(50)]
        assert bob.inbox.payloads == ann.inbox.payloads == said
        assert ann.listener.connections + bob.listener.connections <= 2


async def test_many_that_begin_at_once_need_little_more_than_one_connection_for_each_two() -> None:
    names = [f"agent-{number}" for number in range(12)]
    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(agent(name)) for name in names]
        for at, one in enumerate(agents):
            for step in range(1, len(agents)):  # in the order of a ring, as a session does
                one.say(agents[(at + step) % len(agents)], b"hello")
        await until(lambda: all(len(one.inbox.frames) == len(agents) - 1 for one in agents))
        pairs = len(agents) * (len(agents) - 1) // 2
        assert sum(one.listener.connections for one in agents) <= 1.4 * pairs


async def test_who_opened_it_is_lost_when_it_goes() -> None:
    async with agent("bob") as bob:
        async with agent("ann") as ann:
            ann.say(bob, b"hello")
            await until(lambda: bool(bob.inbox.frames))
            bob.say(ann, b"hello")
            await until(lambda: bool(ann.inbox.frames))
            gone = ann.provider
        await until(lambda: bob.inbox.lost_peers == [peer_id("ann")])
        bob.links.send(gone, b"anyone?")
        await until(lambda: bob.inbox.lost_peers == [peer_id("ann")] * 2)


async def test_who_says_something_into_a_broken_link_is_told_that_it_is_lost() -> None:
    async with agent("ann") as ann, agent("bob") as bob:
        ann.say(bob, b"hello")
        await until(lambda: bool(bob.inbox.frames))
        for one, other in ((ann, bob), (bob, ann)):
            wire = one.links._links[peer_id(other.name)].wire
            assert wire is not None
        wire.close()  # bob's end; what follows is said before anybody has looked at it
        bob.say(ann, b"lost")
        assert bob.inbox.lost_peers == [peer_id("ann")]
        bob.say(ann, b"again")
        await until(lambda: ann.inbox.payloads == [b"again"])
        await until(lambda: ann.inbox.lost_peers == [peer_id("bob")])
        assert bob.inbox.lost_peers == [peer_id("ann")]


async def test_a_link_that_both_leave_alone_is_closed_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdist.peers.link_wire.ALIVE_EVERY", 0.02)
    monkeypatch.setattr("p2pdist.peers.link_wire.IDLE", 0.12)
    monkeypatch.setattr("p2pdist.peers.link_wire.QUIET", 0.06)
    async with agent("ann") as ann, agent("bob") as bob:
        for count in (1, 2):
            ann.say(bob, b"hello")
            await until(lambda count=count: len(bob.inbox.frames) == count)
            bob.say(ann, b"hello")
            await until(lambda count=count: len(ann.inbox.frames) == count)
            await until(lambda: not ann.listener.connections and not bob.listener.connections)
        assert ann.inbox.lost_peers == bob.inbox.lost_peers == []


async def test_one_that_is_long_quiet_is_not_answered_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opened it may be about to close it."""
    monkeypatch.setattr("p2pdist.peers.link_wire.ALIVE_EVERY", 0.02)
    monkeypatch.setattr("p2pdist.peers.link_wire.QUIET", 0.06)
    async with agent("ann") as ann, agent("bob") as bob:
        ann.say(bob, b"hello")
        await until(lambda: bool(bob.inbox.frames))
        wire = bob.links._links[peer_id("ann")].wire
        assert wire is not None
        await until(lambda: wire.is_quiet)
        bob.say(ann, b"late")
        await until(lambda: bool(ann.inbox.frames))
        assert ann.listener.connections == 1


def forged(seal: FrameSeal) -> bytes:
    return packed(b"forged", seal.next(b"another"))


@pytest.mark.parametrize("kind", ["forged", "of the other direction"])
async def test_what_the_other_side_did_not_make_ends_the_link(kind: str) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.answer(101, {BOTH_HEADER: "1"})
        seal = exchange.auth.frames(exchange.credentials, back=kind == "forged")
        if kind == "forged":
            await exchange.send(forged(seal))
        else:
            await exchange.send(packed(b"mirrored", seal.next(b"mirrored")))
        await exchange.reader.read()

    async with agent("ann") as ann, scripted_peer(script) as peer:
        ann.links.send(peer.provider, b"hello")
        await until(lambda: ann.inbox.lost_peers == [peer.provider.peer])
        assert ann.inbox.frames == []


async def test_what_comes_with_the_answer_is_taken() -> None:
    async def script(exchange: Exchange) -> None:
        exchange.answer(101, {BOTH_HEADER: "1"})
        seal = exchange.auth.frames(exchange.credentials, back=True)
        await exchange.send(b"".join(packed(frame, seal.next(frame)) for frame in (b"one", b"two" * 9000)))
        await exchange.reader.read(100)
        await exchange.reader.read()

    async with agent("ann") as ann, scripted_peer(script) as peer:
        ann.links.send(peer.provider, b"hello")
        await until(lambda: ann.inbox.payloads == [b"one", b"two" * 9000])
        assert "both=1" in peer.requests[-1].splitlines()[0]


async def test_few_links_are_opened_at_a_time_but_nobodies_hold_up_no_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred that are asked at once all answer too late."""
    at_once, most = 0, 0
    go = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await go.wait()
        at_once -= 1
        exchange.answer(101, {BOTH_HEADER: "1"})
        await exchange.reader.read()

    async with agent("ann") as ann, scripted_peer(script) as peer:
        for number in range(DIALS + 5):
            ann.links.send(Provider(peer_id(f"p{number}"), peer.provider.endpoints), b"hello")
        await until(lambda: at_once == DIALS)
        assert ann.links._turns._free.locked()
        go.set()
        await until(lambda: len(peer.requests) == DIALS + 5)
        assert most == DIALS


async def test_a_turn_that_gets_nowhere_is_passed_on_and_one_that_gets_somewhere_is_kept() -> None:
    turns, begun = Turns(1, 0.02), list[str]()
    first, second = asyncio.Event(), asyncio.Event()

    async def take(name: str, end: asyncio.Event, *, connects: bool) -> None:
        async with turns.turn() as connected:
            begun.append(name)
            if connects:
                connected()
            await end.wait()

    async with asyncio.TaskGroup() as tasks:
        nowhere = tasks.create_task(take("nowhere", first, connects=False))
        tasks.create_task(take("somewhere", second, connects=True))
        third = tasks.create_task(take("third", second, connects=True))
        await until(lambda: begun == ["nowhere", "somewhere"])
        first.set()
        await nowhere
        assert turns._free.locked()  # its turn was over already: that gives nobody another
        second.set()
        await third
    assert begun == ["nowhere", "somewhere", "third"]


def test_who_answers_stops_long_before_who_opened_it_closes() -> None:
    assert QUIET + 2 * ALIVE_EVERY < IDLE
