"""The sending end of swarm links: in order, bounded, and told once when a link is lost, whatever the other side does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pdist.clock import SystemClock
from p2pdist.peers.http_client import HttpPeers
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.peers.swarm_links import MAX_QUEUE, MAX_WAITING, HttpSwarmLinks
from p2pdist.records import PeerId
from tests.support_flow import until
from tests.support_links import Inbox, packed, seed
from tests.support_peers import OTHER_KEY, PeerBench, auth_of, peer_id
from tests.support_scripted_peer import Exchange, Script, scripted_peer

UPGRADE = {"Connection": "Upgrade", "Upgrade": "p2pdist-link"}
IMPATIENT = PeerClientSettings(connect_timeout=0.5, first_byte_timeout=0.5)


class Links:
    def __init__(self, peers: HttpPeers, tasks: asyncio.TaskGroup) -> None:
        self.inbox = Inbox()
        self.port = HttpSwarmLinks(peers, auth_of("leech"), tasks, self.inbox)

    @property
    def lost(self) -> list[PeerId]:
        return self.inbox.lost_peers


@asynccontextmanager
async def links_of(peers: HttpPeers) -> AsyncIterator[Links]:
    async with peers, asyncio.TaskGroup() as tasks:

        async def live() -> None:
            await asyncio.Event().wait()

        life = tasks.create_task(live())
        yield Links(peers, tasks)
        for task in list(tasks._tasks):
            task.cancel()
        assert life.cancelling()


@pytest.fixture
async def links() -> AsyncIterator[Links]:
    async with links_of(HttpPeers(IMPATIENT, auth_of("leech"), SystemClock())) as links:
        yield links


async def test_frames_arrive_in_order_over_one_link(bench: PeerBench) -> None:
    async with seed(bench.tls) as agent, links_of(bench.client()) as links:
        sent = [b"%d" % number for number in range(200)]
        for frame in sent[:100]:
            links.port.send(agent.provider, frame)
        await until(lambda: len(agent.inbox.frames) == 100)
        for frame in sent[100:]:
            links.port.send(agent.provider, frame)
        await until(lambda: len(agent.inbox.frames) == 200)
        assert agent.inbox.frames == [(peer_id("leech"), frame) for frame in sent]
        assert agent.listener.connections == 1
        assert links.lost == []


async def test_more_than_the_connection_takes_at_once_arrives_in_order(bench: PeerBench) -> None:
    async with seed(bench.tls) as agent, links_of(bench.client()) as links:
        sent = [bytes([number]) * 60_000 for number in range(200)]
        for at in range(0, len(sent), 50):
            for frame in sent[at : at + 50]:
                links.port.send(agent.provider, frame)
            await until(lambda at=at: len(agent.inbox.frames) == at + 50)
        assert agent.inbox.payloads == sent
        assert links.lost == []


async def test_an_agent_that_knows_no_links_is_sent_a_post(
    bench: PeerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.api.peer.LINK_PATH", "/p2p/v1/something-else")
    async with seed(bench.tls) as agent, links_of(bench.client()) as links:
        for frame in (b"one", b"two"):
            links.port.send(agent.provider, frame)
        await until(lambda: len(agent.inbox.frames) == 2)
        links.port.send(agent.provider, b"three")
        await until(lambda: len(agent.inbox.frames) == 3)
        assert agent.inbox.payloads == [b"one", b"two", b"three"]
        assert links.lost == []


async def test_an_idle_link_is_closed_and_not_lost(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdist.peers.link_wire.ALIVE_EVERY", 0.02)
    monkeypatch.setattr("p2pdist.peers.link_wire.IDLE", 0.1)
    async with seed() as agent:
        for count in (1, 2):
            links.port.send(agent.provider, b"x")
            await until(lambda count=count: len(agent.inbox.frames) == count)
            await until(lambda: agent.listener.connections == 0)
        assert links.lost == []


async def test_a_silent_link_gives_signs_of_life(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdist.peers.link_wire.ALIVE_EVERY", 0.02)
    signs = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        exchange.answer(101, UPGRADE)
        seal = exchange.auth.frames(exchange.credentials)
        for frame in (b"hello", b"", b"", b""):
            expected = packed(frame, seal.next(frame)) if frame else bytes(4)
            assert await exchange.reader.readexactly(len(expected)) == expected
        signs.set()
        await exchange.reader.read()

    async with scripted_peer(script) as peer, asyncio.timeout(20):
        links.port.send(peer.provider, b"hello")
        await signs.wait()


async def hangs_up(exchange: Exchange) -> None:
    exchange.answer(101, UPGRADE)


async def hangs_up_later(exchange: Exchange) -> None:
    exchange.answer(101, UPGRADE)
    await exchange.reader.readexactly(10)


async def talks_back(exchange: Exchange) -> None:
    exchange.answer(101, UPGRADE)
    await exchange.reader.readexactly(10)
    await exchange.send(b"what?")
    await exchange.reader.read()


async def talks_at_once(exchange: Exchange) -> None:
    exchange.answer(101, UPGRADE)
    await exchange.send(b"\0" * 4_000_000)
    await exchange.reader.read()


async def is_busy(exchange: Exchange) -> None:
    exchange.answer(503, {"Content-Length": "0"})


async def is_a_stranger(exchange: Exchange) -> None:
    exchange.answer(101, UPGRADE, sealed=False)
    await exchange.reader.read()


async def says_nothing(exchange: Exchange) -> None:
    await exchange.reader.read()


@pytest.mark.parametrize(
    "script",
    [
        hangs_up,
        hangs_up_later,
        talks_back,
        talks_at_once,
        is_busy,
        is_a_stranger,
        says_nothing,
    ],
)
async def test_a_link_that_breaks_is_lost_once_and_the_next_frame_opens_another(
    links: Links, script: Script
) -> None:
    async with scripted_peer(script) as peer:
        for count in (1, 2):
            links.port.send(peer.provider, b"one")
            links.port.send(peer.provider, b"two")
            await until(lambda count=count: len(links.lost) == count)
        assert links.lost == [peer.provider.peer] * 2


async def test_another_cluster_is_not_talked_to(links: Links) -> None:
    async with scripted_peer(hangs_up, auth_of("scripted", OTHER_KEY)) as peer:
        links.port.send(peer.provider, b"one")
        await until(lambda: links.lost == [peer.provider.peer])


@pytest.mark.parametrize(("size", "most"), [(100, MAX_QUEUE), (60_000, MAX_WAITING // 60_000)])
async def test_a_peer_that_does_not_read_is_left_alone(links: Links, size: int, most: int) -> None:
    """What waits for it is bounded, and given up all at once."""
    opened = asyncio.Event()
    gone = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        exchange.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
        exchange.answer(101, UPGRADE)
        opened.set()
        await gone.wait()

    async with scripted_peer(script) as peer:
        links.port.send(peer.provider, b"first")
        await opened.wait()
        link = links.port._links[peer.provider.peer]
        async with asyncio.timeout(20):
            while not (link.wire and link.wire.takes):
                await asyncio.sleep(0)
            while link.wire and link.wire.takes:  # fill what the kernel takes
                links.port.send(peer.provider, bytes(60_000))
                await asyncio.sleep(0)
        count = 0
        while not links.lost:
            links.port.send(peer.provider, bytes(size))
            count += 1
        assert most <= count <= most + 2
        assert links.lost == [peer.provider.peer]
        assert link.over.is_set()
        gone.set()


async def test_a_peer_that_stops_reading_is_not_waited_for_forever(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.peers.link_wire.ALIVE_EVERY", 0.02)
    monkeypatch.setattr("p2pdist.peers.link_wire.IDLE", 0.1)
    gone = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        exchange.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
        exchange.answer(101, UPGRADE)
        await gone.wait()

    async with scripted_peer(script) as peer:
        links.port.send(peer.provider, b"first")
        link = links.port._links[peer.provider.peer]
        async with asyncio.timeout(20):
            while not (link.wire and link.wire.takes):
                await asyncio.sleep(0)
            while link.wire and link.wire.takes:
                links.port.send(peer.provider, bytes(60_000))
                await asyncio.sleep(0)
            await until(lambda: links.lost == [peer.provider.peer])
        gone.set()
