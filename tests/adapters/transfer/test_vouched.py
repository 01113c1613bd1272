"""Peers' bytes that their fetcher attested reach clients before the blob's digest holds, and no others."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pdist.clock import SystemClock
from p2pdist.errors import DigestMismatchError
from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId, Provider
from p2pdist.store.disk import DiskStore
from p2pdist.swarm.peer_health import Standing
from p2pdist.transfer.content import FileSpan, Source
from p2pdist.transfer.delivery import FetchDelivery
from p2pdist.transfer.fetch import BlobFetch
from p2pdist.transfer.fill import Target
from p2pdist.transfer.part_reader import PartReader
from tests.support_flow import open_descriptors
from tests.unit.transfer.world import APP, HOLD, KIB, MIB, Client, SlowClient, World, blob

SIZE = 2 * MIB
DATA = blob(SIZE)
FALSE = bytes(byte ^ 0xFF for byte in DATA[:MIB])
ANNA = Provider(PeerId(hashlib.sha256(b"anna").digest()[:20]), ())


class TestedFill:
    """A fill whose bytes come when the test says so."""

    __test__ = False

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.end = asyncio.Event()
        self.target: Target

    async def run(self, target: Target) -> None:
        self.target = target
        self.begun.set()
        await self.end.wait()

    async def peer(self, start: int, data: bytes) -> None:
        await self.target.receive(start, data, Source.PEER, ANNA)


def committed(digest: Digest, *, shared: bool) -> None:
    """Nobody is to be told."""


class Scene:
    """One fetch, its fill, and one client of it."""

    def __init__(self, world: World, fetch: BlobFetch, fill: TestedFill, slow: SlowClient) -> None:
        self.world = world
        self.fetch = fetch
        self.fill = fill
        self.slow = slow

    async def waits(self, taking: asyncio.Future[object]) -> bool:
        """Whether the client still has nothing, after everything that could run has run."""
        for _ in range(20):
            await asyncio.sleep(0.001)
        return not taking.done()


@pytest.fixture(params=["memory", "disk"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made = World(clock=SystemClock())
    if request.param == "disk":
        made.store = await DiskStore.open_dir(tmp_path, 1 << 30, made.clock)  # type: ignore[assignment]
    made.has(DATA)
    yield made
    await made.store.close()


@asynccontextmanager
async def scene(world: World) -> AsyncIterator[Scene]:
    context, fill = world.context(), TestedFill()
    fetch = BlobFetch(context, APP, await world.store.ingest(Digest.of(DATA), SIZE), fill, committed)
    task = asyncio.ensure_future(fetch.run())
    await fill.begun.wait()
    async with FetchDelivery(fetch, context) as delivery:
        spans = delivery.spans(0, SIZE)
        try:
            yield Scene(world, fetch, fill, SlowClient(Client(delivery), spans))
        finally:
            await spans.aclose()
            fill.end.set()
            await task


async def test_attested_bytes_are_streamed_and_others_wait(world: World) -> None:
    async with scene(world) as s:
        taking = asyncio.ensure_future(s.slow.take())
        await s.fill.peer(0, DATA[:MIB])
        assert await s.waits(taking)
        s.fill.target.vouch(0, 512 * KIB)
        await taking
        while len(s.slow.client.data) < 512 * KIB:
            await s.slow.take()
        assert s.slow.client.data == DATA[: 512 * KIB]
        assert s.slow.client.moved == {"peer": 512 * KIB}
        assert not s.fetch.finished
        taking = asyncio.ensure_future(s.slow.take())
        assert await s.waits(taking)
        await s.fill.peer(MIB, DATA[MIB:])
        s.fill.end.set()  # whole: the digest holds
        await taking
        assert await s.slow.take_rest() == DATA
    assert s.slow.client.moved == {"peer": SIZE}


async def test_the_last_bytes_wait_for_the_digest_whoever_attests_them(world: World) -> None:
    async with scene(world) as s:
        await s.fill.peer(0, DATA)
        s.fill.target.vouch(0, SIZE)
        while len(s.slow.client.data) < SIZE - HOLD:
            await s.slow.take()
        assert len(s.slow.client.data) == SIZE - HOLD
        taking = asyncio.ensure_future(s.slow.take())
        assert await s.waits(taking)
        s.fill.end.set()
        await taking
        assert await s.slow.take_rest() == DATA


async def test_a_consistent_liar_costs_the_client_its_body_but_never_gives_it_a_wrong_one(
    world: World,
) -> None:
    """It attests the false bytes that it sends: who was streamed them is cut, and it is banned; the host has the blob."""
    async with scene(world) as s:
        await s.fill.peer(0, FALSE)
        s.fill.target.vouch(0, MIB)
        await s.fill.peer(MIB, DATA[MIB:])
        while len(s.slow.client.data) < MIB:
            await s.slow.take()
        assert s.slow.client.data == FALSE
        s.fill.end.set()
        with pytest.raises(DigestMismatchError, match="proved false"):
            await s.slow.take_rest()
        await s.fetch.wait_done()
    assert len(s.slow.client.data) < SIZE
    now = world.clock.now()
    assert world.health.standing(ANNA.peer, now) is Standing.BANNED
    assert world.seen.bans == [ANNA.peer]
    reader = await world.store.open(Digest.of(DATA))
    assert reader is not None
    assert await reader.read(0, SIZE) == DATA
    reader.close()


async def test_who_was_streamed_true_bytes_only_gets_all_of_the_blob(world: World) -> None:
    """The false ones were not attested: they cost time, and no client."""
    async with scene(world) as s:
        await s.fill.peer(0, DATA[:MIB])
        s.fill.target.vouch(0, MIB)
        await s.fill.peer(MIB, FALSE)
        while len(s.slow.client.data) < MIB:
            await s.slow.take()
        taking = asyncio.ensure_future(s.slow.take())
        s.fill.end.set()
        await taking
        assert await s.slow.take_rest() == DATA


async def test_all_bytes_thrown_away_in_mid_span_cut_the_client(tmp_path: Path) -> None:
    """The span is a part of a file whose bytes were replaced while they were sent: nobody knows which ones went out."""
    world = World(clock=SystemClock())
    world.store = await DiskStore.open_dir(tmp_path, 1 << 30, world.clock)  # type: ignore[assignment]
    world.has(DATA)
    async with scene(world) as s:
        await s.fill.peer(0, DATA[:MIB])
        s.fill.target.vouch(0, MIB)
        await s.fill.peer(MIB, FALSE)
        span = await anext(s.slow.spans)
        assert isinstance(span, FileSpan)
        s.fill.end.set()
        await s.fetch.wait_done()
        assert s.fetch.attempt == 1
        with pytest.raises(DigestMismatchError, match="while it was passed on"):
            await anext(s.slow.spans)
    await world.store.close()


async def test_the_part_of_a_client_that_left_is_closed(world: World) -> None:
    before = open_descriptors()
    async with scene(world) as s:
        await s.fill.peer(0, DATA)
        s.fill.target.vouch(0, MIB)
        await s.slow.take()
        during = open_descriptors()
    assert open_descriptors() <= max(before, during - 1)


async def test_a_part_reader_reads_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        reader = PartReader(os.dup(file.fileno()))
    path.rename(tmp_path / "whole")
    assert await reader.read(100, 50) == DATA[100:150]
    assert await reader.read(SIZE - 5, 50) == DATA[-5:]
    descriptor = reader.fileno()
    assert descriptor is not None
    reader.close()
    reader.close()
    assert reader.fileno() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
