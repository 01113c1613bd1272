"""The transfer layer on the store on disk: files to send, kill and resume, a full quota."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from p2pdist.clock import SystemClock
from p2pdist.oci.digest import Digest
from p2pdist.store.disk import DiskStore
from p2pdist.transfer.content import FileSpan
from tests.unit.transfer.world import KIB, MIB, Agent, SlowClient, World, blob, pull, reading

DATA = blob(3 * MIB)


async def world_on(directory: Path, quota: int = 1 << 30) -> World:
    world = World(clock=SystemClock())
    world.store = await DiskStore.open_dir(directory, quota, world.clock)  # type: ignore[assignment]
    world.has(DATA)
    return world


async def rest_of(slow: SlowClient) -> list[FileSpan]:
    files = []
    while len(slow.client.data) < len(DATA):
        span = await slow.take()
        if isinstance(span, FileSpan):
            files.append(span)
    return files


async def test_once_it_is_committed_the_rest_of_a_blob_is_a_file(tmp_path: Path) -> None:
    world = await world_on(tmp_path)
    async with world.agent() as agent, reading(agent, Digest.of(DATA)) as slow:
        files = await rest_of(slow)
        for span in files:
            descriptor = span.reader.fileno()
            assert descriptor is not None
            assert (
                os.pread(descriptor, span.length, span.offset)
                == (DATA[span.offset : span.offset + span.length])
            )
        assert slow.client.data == DATA
        assert slow.client.moved == {"upstream": len(DATA)}
    assert files  # the tail at least was held back until then
    await world.store.close()


async def received(agent: Agent, count: int) -> None:
    while not agent.blobs.fetches() or agent.blobs.fetches()[0].received < count:
        await asyncio.sleep(0.001)


async def test_what_a_killed_agent_left_is_resumed_and_counted_once(tmp_path: Path) -> None:
    world = await world_on(tmp_path)
    world.upstream.gate_at = 2 * MIB
    async with world.agent() as agent:
        doomed = asyncio.ensure_future(pull(agent, Digest.of(DATA)))
        await received(agent, 2 * MIB)
    await asyncio.gather(doomed, return_exceptions=True)
    await world.store.close()

    again = await world_on(tmp_path)
    async with again.agent() as agent:
        client = await pull(agent, Digest.of(DATA))
    assert client.data == DATA
    assert world.upstream.sent + again.upstream.sent == len(DATA)
    assert client.moved == {"store": 2 * MIB, "upstream": MIB}
    await again.store.close()


async def test_a_liar_on_disk_too_leaves_nothing_behind(tmp_path: Path) -> None:
    world = await world_on(tmp_path)
    liar = await world.peer("liar", DATA, wrong_at=2 * MIB + 7)
    async with world.agent() as agent:
        client = await pull(agent, Digest.of(DATA))
    assert client.data == DATA
    assert world.seen.bans == [liar.id]
    assert (await world.store.usage()).reserved == 0
    await world.store.close()


@pytest.mark.parametrize("quota", [MIB, 3 * MIB])
async def test_a_quota_that_is_too_small_passes_through_and_one_that_fits_keeps(
    tmp_path: Path, quota: int
) -> None:
    world = await world_on(tmp_path, quota)
    async with world.agent() as agent:
        client = await pull(agent, Digest.of(DATA))
    assert client.data == DATA
    kept = await world.store.stat(Digest.of(DATA)) is not None
    assert kept is (quota >= len(DATA))
    await world.store.close()


async def test_many_clients_of_one_fetch_read_the_same_file(tmp_path: Path) -> None:
    world = await world_on(tmp_path)
    world.upstream.chunk = 100 * KIB
    async with world.agent() as agent:
        clients = await asyncio.gather(*(pull(agent, Digest.of(DATA)) for _ in range(8)))
    assert all(client.data == DATA for client in clients)
    assert sum(client.moved.get("upstream", 0) for client in clients) == len(DATA) == world.upstream.sent
    await world.store.close()
