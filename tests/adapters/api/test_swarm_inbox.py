"""What comes in on a swarm link, and on its older form: frames of its sender, in their order, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from p2pdist.api.swarm_inbox import MAX_LINKS
from p2pdist.clock import SystemClock
from p2pdist.errors import P2PDistError, StoreError
from p2pdist.peers.http_client import HttpPeers
from p2pdist.peers.link_wire import MAX_AT_ONCE
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.peers.swarm_links import POST_PATH
from p2pdist.wire.http_auth import Credentials
from p2pdist.wire.sealed_frames import FrameSeal
from p2pdist.wire.swarm_messages import MAX_FRAME
from tests.support_flow import until
from tests.support_links import Seed, packed, seed, sender
from tests.support_peers import auth_of, peer_id

Pack = Callable[[FrameSeal], bytes]
Deliver = Callable[[Seed, Pack], Awaitable[bool]]


@pytest.fixture
async def agent() -> AsyncIterator[Seed]:
    async with seed() as agent:
        yield agent


def honest(seal: FrameSeal) -> bytes:
    return bytes(4) + b"".join(packed(frame, seal.next(frame)) for frame in (b"one", b"two"))


def other_frame(seal: FrameSeal) -> bytes:
    return packed(b"forged", seal.next(b"another"))


def wrong_order(seal: FrameSeal) -> bytes:
    seal.next(b"left out")
    return packed(b"second", seal.next(b"second"))


def too_long(seal: FrameSeal) -> bytes:
    return (MAX_FRAME + 1).to_bytes(4, "big")


def garbage(seal: FrameSeal) -> bytes:
    return b"\xff" * 5000


def http(seal: FrameSeal) -> bytes:
    return b"GET /p2p/v1/hello HTTP/1.1\r\n\r\n"


async def by_post(agent: Seed, pack: Pack) -> bool:
    """Whether the listener was content with the one body."""

    async def body(credentials: Credentials) -> AsyncIterator[bytes]:
        yield pack(auth_of("leech").frames(credentials))

    try:
        async with HttpPeers(PeerClientSettings(), auth_of("leech"), SystemClock()) as peers:
            await peers.push(agent.provider, POST_PATH, lambda credentials: body(credentials))
    except P2PDistError:
        return False
    return True


async def by_link(agent: Seed, pack: Pack) -> bool:
    """Whether the listener went on reading."""
    async with sender(agent) as link:
        link.writer.write(pack(link.seal))
        link.send(b"more")
        reading = asyncio.ensure_future(link.ended())
        await until(lambda: b"more" in agent.inbox.payloads or reading.done())
        content = not reading.done()
        reading.cancel()
        return content


@pytest.mark.parametrize("deliver", [by_post, by_link])
async def test_frames_arrive_in_order_as_their_senders(agent: Seed, deliver: Deliver) -> None:
    assert await deliver(agent, honest)
    assert agent.inbox.frames[:2] == [(peer_id("leech"), b"one"), (peer_id("leech"), b"two")]


@pytest.mark.parametrize("deliver", [by_post, by_link])
@pytest.mark.parametrize("pack", [other_frame, wrong_order, too_long, garbage, http])
async def test_a_frame_that_its_sender_did_not_make_ends_the_link(
    agent: Seed, deliver: Deliver, pack: Pack
) -> None:
    assert not await deliver(agent, pack)
    assert agent.inbox.frames == []


async def test_nothing_more_is_handed_over_while_a_frame_is_worked_on(agent: Seed) -> None:
    done = asyncio.Event()

    async def slowly() -> None:
        await done.wait()

    agent.inbox.work = lambda frame: slowly() if frame == b"slow" else None
    async with sender(agent) as link:
        link.send(b"first", b"slow", b"second")
        await until(lambda: b"slow" in agent.inbox.payloads)
        link.send(b"third")
        async with sender(agent) as other:
            other.send(b"of another")
            await until(lambda: b"of another" in agent.inbox.payloads)
        assert agent.inbox.payloads == [b"first", b"slow", b"of another"]
        done.set()
        await until(lambda: len(agent.inbox.frames) == 5)
    assert agent.inbox.payloads[3:] == [b"second", b"third"]


async def test_work_that_fails_ends_the_link(agent: Seed) -> None:
    async def fails() -> None:
        raise StoreError("the disk is gone")

    agent.inbox.work = lambda frame: fails()
    async with sender(agent) as link:
        link.send(b"first", b"second")
        assert await link.ended() == b""
    assert agent.inbox.payloads == [b"first"]


async def test_a_listener_that_ends_leaves_work_behind() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    async with seed() as agent:
        agent.inbox.work = lambda frame: forever()
        async with sender(agent) as link:
            link.send(b"first", b"second")
            await until(lambda: bool(agent.inbox.frames))
            await agent.listener.close()
            assert await link.ended() == b""


async def test_a_flood_is_taken_in_order_and_leaves_turns_to_others(agent: Seed) -> None:
    frames = [b"%d" % number for number in range(20 * MAX_AT_ONCE)]
    turns = []
    async with sender(agent) as link:
        link.send(*frames)
        while len(agent.inbox.frames) < len(frames):
            before = len(agent.inbox.frames)
            await asyncio.sleep(0)
            turns.append(len(agent.inbox.frames) - before)
    assert agent.inbox.payloads == frames
    assert max(turns) <= 2 * MAX_AT_ONCE


async def test_a_peer_has_a_bounded_number_of_links(agent: Seed) -> None:
    links = [sender(agent) for _ in range(MAX_LINKS)]
    for link in links:
        await link.__aenter__()
    async with sender(agent, status=503):
        pass
    assert not await by_post(agent, honest)
    for link in links:
        await link.__aexit__(None, None, None)
    await until(lambda: agent.listener.connections == 0)
    assert await by_link(agent, honest)


async def test_silence_ends_a_link(agent: Seed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdist.peers.link_wire.ALIVE_EVERY", 0.02)
    monkeypatch.setattr("p2pdist.peers.link_wire.SILENCE", 0.1)
    async with sender(agent) as link:
        link.send(b"hello")
        assert await link.ended() == b""
    assert agent.inbox.payloads == [b"hello"]
    await until(lambda: agent.listener.connections == 0)
