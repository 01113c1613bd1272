"""What comes in on a swarm link: frames of its sender, in their order, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from p2pdist.api.peer import PeerServerSettings, build_peer_app
from p2pdist.api.peer_listener import PeerListener
from p2pdist.clock import SystemClock
from p2pdist.errors import P2PDistError
from p2pdist.peers.swarm_links import PATH
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.store.port import Store
from p2pdist.wire.http_auth import Credentials, FrameSeal
from p2pdist.wire.swarm_messages import MAX_FRAME
from tests.support_peers import BlobShelf, PeerBench, auth_of, peer_id

Pack = Callable[[FrameSeal], bytes]


class Inbox:
    """Implements SwarmInbox."""

    def __init__(self) -> None:
        self.frames: list[tuple[PeerId, bytes]] = []

    async def received(self, sender: PeerId, frame: bytes) -> None:
        self.frames.append((sender, frame))

    def lost(self, peer: PeerId) -> None:
        raise AssertionError("this end sends nothing")


def packed(frame: bytes, mac: bytes) -> bytes:
    return len(frame).to_bytes(4, "big") + mac + frame


def honest(seal: FrameSeal) -> bytes:
    return bytes(4) + b"".join(packed(frame, seal.next(frame)) for frame in (b"one", b"two"))


def other_frame(seal: FrameSeal) -> bytes:
    return packed(b"forged", seal.next(b"another"))


def wrong_order(seal: FrameSeal) -> bytes:
    seal.next(b"left out")
    return packed(b"second", seal.next(b"second"))


def too_long(seal: FrameSeal) -> bytes:
    return (MAX_FRAME + 1).to_bytes(4, "big")


async def deliver(directory: Path, pack: Pack) -> tuple[Inbox, bool]:
    """Push one body from "leech" to a listener; what arrived, and whether the listener was content."""
    inbox, clock = Inbox(), SystemClock()
    store = cast(Store, BlobShelf())
    app = build_peer_app(store, auth_of("seed"), clock, PeerServerSettings(name="seed"), inbox=inbox)
    listener = PeerListener(app, grace=0.1)
    await listener.start("127.0.0.1", 0)
    seed = Provider(peer_id("seed"), (Endpoint("127.0.0.1", listener.port),))

    async def body(credentials: Credentials) -> AsyncIterator[bytes]:
        yield pack(auth_of("leech").frames(credentials))

    try:
        async with PeerBench(directory).client() as peers:
            await peers.push(seed, PATH, lambda credentials: body(credentials))
    except P2PDistError:
        return inbox, False
    finally:
        await listener.close()
    return inbox, True


async def test_frames_arrive_in_order_as_their_senders(tmp_path: Path) -> None:
    inbox, content = await deliver(tmp_path, honest)
    assert content
    assert inbox.frames == [(peer_id("leech"), b"one"), (peer_id("leech"), b"two")]


@pytest.mark.parametrize("pack", [other_frame, wrong_order, too_long])
async def test_a_frame_that_its_sender_did_not_make_ends_the_link(tmp_path: Path, pack: Pack) -> None:
    inbox, content = await deliver(tmp_path, pack)
    assert (inbox.frames, content) == ([], False)
