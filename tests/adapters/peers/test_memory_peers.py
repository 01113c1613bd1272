"""The fake of the Peers port fails as the real adapter does, at the byte that a test names."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from p2pdist.errors import (
    BusyError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    P2PDistError,
    ProtocolError,
    StalledError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.testing.memory_peers import MemoryPeer, MemoryPeers

DATA = bytes(range(256)) * 1000
DIGEST = Digest.of(DATA)


async def take(
    peers: MemoryPeers, peer: MemoryPeer, offset: int = 0, length: int | None = None
) -> tuple[bytes, P2PDistError | None]:
    received = bytearray()
    try:
        async with peers.blob(peer.provider(), DIGEST, offset, length) as stream:
            async for chunk in stream.chunks():
                received.extend(chunk)
    except P2PDistError as error:
        return bytes(received), error
    return bytes(received), None


@pytest.mark.parametrize(
    ("offset", "length"), [(0, None), (7, None), (7, 100_000), (len(DATA), None), (3, 0)]
)
async def test_parts_of_a_blob(offset: int, length: int | None) -> None:
    peers = MemoryPeers()
    peer = peers.add("seed", {DIGEST: DATA})
    stop = len(DATA) if length is None else offset + length
    assert await take(peers, peer, offset, length) == (DATA[offset:stop], None)
    assert peer.sent == stop - offset
    assert peer.open_streams == 0
    assert [(each.offset, each.length) for each in peers.asked(peer)] == [(offset, length)]


@pytest.mark.parametrize(
    ("knobs", "received", "error"),
    [
        ({"dead": True}, 0, UnreachableError),
        ({"denied": True}, 0, DeniedError),
        ({"busy": True, "retry_after": 2.0}, 0, BusyError),
        ({"wrong_range": True}, 0, ProtocolError),
        ({"stall_at": 100_000}, 100_000, StalledError),
        ({"cut_at": 0}, 0, UnreachableError),
        ({"cut_at": 70_000}, 70_000, UnreachableError),
    ],
)
async def test_each_knob_fails_at_its_byte(
    knobs: dict[str, Any], received: int, error: type[Exception]
) -> None:
    peers = MemoryPeers()
    peer = peers.add("bad", {DIGEST: DATA}, **knobs)
    data, raised = await take(peers, peer)
    assert data == DATA[:received]
    assert isinstance(raised, error)
    assert peer.open_streams == 0


async def test_what_a_peer_does_not_hold_is_not_found() -> None:
    peers = MemoryPeers()
    data, raised = await take(peers, peers.add("empty"))
    assert (data, type(raised)) == (b"", NotFoundError)


async def test_a_knob_behind_the_resumed_offset_still_bites() -> None:
    peers = MemoryPeers()
    peer = peers.add("cut", {DIGEST: DATA}, cut_at=1000)
    data, raised = await take(peers, peer, 2000)
    assert (data, type(raised)) == (b"", UnreachableError)


async def test_a_liar_changes_one_byte() -> None:
    peers = MemoryPeers()
    data, _ = await take(peers, peers.add("liar", {DIGEST: DATA}, wrong_at=70_001))
    assert [at for at, (one, other) in enumerate(zip(data, DATA, strict=True)) if one != other] == [70_001]


async def test_a_gate_holds_the_body_until_it_is_opened() -> None:
    peers = MemoryPeers()
    peer = peers.add("slow", {DIGEST: DATA}, gate_at=10)
    task = asyncio.create_task(take(peers, peer))
    while peer.sent < 10:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert peer.sent == 10
    peer.gate.set()
    assert await task == (DATA, None)


async def test_stat_and_bad_ranges() -> None:
    peers = MemoryPeers()
    peer = peers.add("seed")
    digest = peer.hold(DATA, "a/b")
    stat = await peers.stat(peer.provider(), digest)
    assert (stat.size, stat.media_type) == (len(DATA), "a/b")
    peer.wrong_size = 5
    assert (await peers.stat(peer.provider(), digest)).size == 5
    assert isinstance((await take(peers, peer, len(DATA), 1))[1], InvalidInputError)
    with pytest.raises(AttributeError):
        peers.add("typo", stal_at=5)
