"""A blob's way to clients: from the store, streamed through, or joined while it is on its way."""

from __future__ import annotations

import asyncio

import pytest

from p2pdist.errors import (
    DeniedError,
    DigestMismatchError,
    NotFoundError,
    P2PDistError,
    StoreFullError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.transfer.content import BytesSpan
from p2pdist.transfer.context import TransferPolicy
from tests.unit.transfer.world import APP, HOLD, KIB, SIZE, World, blob, opened, pull, reading, until


async def test_a_held_blob_comes_from_the_store_and_asks_nobody() -> None:
    world, data = World(), blob()
    digest = Digest.of(data)
    await world.store.put(digest, data)
    async with world.agent() as agent:
        client = await pull(agent, digest)
    assert client.data == data
    assert client.moved == {"store": SIZE}
    assert world.upstream.requests == world.peers.requests == []


async def test_a_cold_blob_streams_through_while_it_arrives_but_for_its_end() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    world.upstream.gate_at = 128 * KIB
    async with world.agent() as agent, reading(agent, digest) as slow:
        for at in (0, 64 * KIB):
            span = await slow.take()
            assert isinstance(span, BytesSpan)
            assert span.data == data[at : at + 64 * KIB]
        assert await world.store.stat(digest) is None  # the blob is not whole yet

        world.upstream.gate_at = SIZE - 1
        world.upstream.gate.set()
        world.upstream.gate = asyncio.Event()
        while len(slow.client.data) < SIZE - HOLD:
            await slow.take()
        end = asyncio.ensure_future(slow.take())
        await world.manual.settle()
        assert not end.done()  # the tail waits until the digest holds

        world.upstream.gate.set()
        await end
        assert slow.client.data == data
        assert slow.client.moved == {"upstream": SIZE}
        assert await world.store.stat(digest) is not None


async def test_ten_clients_at_once_are_one_fetch() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    async with world.agent() as agent:
        clients = await asyncio.gather(*(pull(agent, digest) for _ in range(10)))
    assert all(client.data == data for client in clients)
    assert world.upstream.sent == SIZE
    assert len(world.upstream.asked("blob")) == 1
    assert sum(client.moved.get("upstream", 0) for client in clients) == SIZE
    assert world.seen.done == [(digest, "blob", {"upstream": SIZE})]


async def test_a_client_leaves_early_and_the_fetch_goes_on() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    world.upstream.gate_at = 128 * KIB
    async with world.agent() as agent:
        async with reading(agent, digest) as slow:
            await slow.take()
        world.upstream.gate.set()
        await until(lambda: not agent.blobs.fetches())
        client = await pull(agent, digest)
    assert client.data == data
    assert client.moved == {"store": 64 * KIB, "upstream": SIZE - 64 * KIB}
    assert world.upstream.sent == SIZE


async def test_the_last_client_lets_go_of_the_file() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    async with world.agent() as agent:
        async with opened(agent, digest) as client:
            await client.read_all()
            assert not await world.store.delete(digest)  # it is being read
        assert await world.store.delete(digest)


@pytest.mark.parametrize("known", [True, False])
async def test_a_head_downloads_nothing(known: bool) -> None:
    world, data = World(), blob()
    digest = world.has(data)
    if known:
        await world.store.link(APP, [digest], sizes={digest: SIZE})
    async with world.agent() as agent:
        assert (await agent.mirror.blob_stat(APP, digest)).size == SIZE
        assert agent.blobs.fetches() == []
    assert [request.kind for request in world.upstream.requests] == ([] if known else ["stat"])
    assert world.upstream.sent == 0


async def test_a_size_that_nobody_told_is_asked_for_and_in_an_outage_peers_know_it() -> None:
    world, data = World(), blob()
    await world.peer("denying", data, denied=True)
    await world.peer("dead", data, dead=True)
    await world.peer("anna", data)
    world.upstream.down = True
    async with world.agent() as agent:
        client = await pull(agent, Digest.of(data))
    assert client.data == data
    assert client.moved == {"peer": SIZE}


async def test_an_empty_blob_passes() -> None:
    world = World()
    digest = world.has(b"")
    async with world.agent() as agent:
        assert (await pull(agent, digest)).data == b""
    assert await world.store.stat(digest) is not None


async def test_what_nobody_has_is_not_found_and_leaves_nothing() -> None:
    world = World()
    world.has(b"something else")
    async with world.agent() as agent:
        with pytest.raises(NotFoundError):
            await pull(agent, Digest.of(b"unheard of"))
        assert agent.blobs.fetches() == []
    assert (await world.store.usage()).reserved == 0


async def test_registries_that_are_not_configured_are_refused_even_when_the_blob_is_held() -> None:
    world, data = World(), blob()
    await world.store.put(Digest.of(data), data)
    async with world.agent() as agent:
        with pytest.raises(DeniedError, match=r"elsewhere\.test"):
            await agent.mirror.blob(Repository("elsewhere.test", "app"), Digest.of(data))


async def test_what_one_repository_is_refused_another_may_have() -> None:
    world, data = World(), blob()
    digest, other = Digest.of(data), Repository("docker.io", "library/other")
    world.upstream.put_blob(other, data)
    for repository in (APP, other):
        await world.store.link(repository, [digest], sizes={digest: SIZE})
    world.upstream.answer_gate = asyncio.Event()
    async with world.agent() as agent:
        refused = asyncio.ensure_future(pull(agent, digest, repository=APP))
        await until(lambda: bool(agent.blobs.fetches()))
        served = asyncio.ensure_future(pull(agent, digest, repository=other))
        await world.manual.settle()
        world.upstream.answer_gate.set()
        with pytest.raises(NotFoundError):
            await refused
        assert (await served).data == data


async def test_a_wrong_size_in_a_manifest_costs_one_failure_and_is_corrected() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    await world.store.link(APP, [digest], sizes={digest: SIZE + 5})
    async with world.agent() as agent:
        with pytest.raises(DigestMismatchError, match=str(SIZE)):
            await pull(agent, digest)
        assert (await pull(agent, digest)).data == data


# -- the store is full --


async def test_a_full_store_passes_through_and_verifies() -> None:
    world, data = World(quota=100 * KIB), blob()
    digest = world.has(data)
    async with world.agent() as agent:
        client = await pull(agent, digest)
    assert client.data == data
    assert client.moved == {"upstream": SIZE}
    assert await world.store.stat(digest) is None


async def test_wrong_bytes_that_pass_through_are_cut_before_the_last() -> None:
    world, data = World(quota=100 * KIB), blob()
    digest = world.has(data)
    world.upstream.wrong_at = 1000
    async with world.agent() as agent, opened(agent, digest) as client:
        with pytest.raises(DigestMismatchError):
            await client.read_all()
    assert len(client.data) < SIZE
    assert world.seen.mismatches == [("upstream", None)]


async def test_a_disk_that_fills_up_in_mid_blob_cuts_cleanly_and_then_passes_through() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    world.upstream.gate_at = 128 * KIB
    async with world.agent() as agent:
        async with reading(agent, digest) as slow:
            await slow.take()
            world.store.disk_full = True
            world.upstream.gate.set()
            with pytest.raises(StoreFullError):
                await slow.take_rest()
            assert data.startswith(slow.client.data)
        assert (await world.store.usage()).reserved == 0

        client = await pull(agent, digest)
    assert client.data == data
    assert client.moved == {"upstream": SIZE}


# -- restarts --


async def test_a_stop_in_mid_fetch_leaves_a_partial_that_the_next_start_resumes() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    world.upstream.gate_at = 128 * KIB
    async with world.agent() as agent, reading(agent, digest) as slow:
        await slow.take()
        await slow.take()
        waiting = asyncio.ensure_future(slow.take())
        await world.manual.settle()
        fetch = agent.blobs.fetches()[0]
        assert fetch.received == 128 * KIB
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert world.upstream.open_streams == 0

    world.upstream.gate.set()
    async with world.agent() as agent:
        client = await pull(agent, digest)
    assert client.data == data
    assert world.upstream.sent == SIZE
    assert client.moved == {"store": 128 * KIB, "upstream": SIZE - 128 * KIB}
    assert world.seen.done == [(digest, "blob", {"upstream": SIZE - 128 * KIB})]


async def test_a_client_of_an_agent_that_stops_gets_an_error_not_silence() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    world.upstream.gate_at = 0
    async with world.agent() as agent:
        client = asyncio.ensure_future(pull(agent, digest))
        await until(lambda: bool(agent.blobs.fetches()))
    with pytest.raises(UnreachableError, match="stopping"):
        await client


async def test_a_corrupted_partial_is_fetched_again_and_nobody_is_blamed() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    await world.peer("anna", data)
    ingest = await world.store.ingest(digest, SIZE)
    await ingest.write(0, bytes(100 * KIB))
    await ingest.close()
    async with world.agent() as agent:
        client = await pull(agent, digest)
    assert client.data == data
    assert world.seen.bans == []
    assert [source for source, _ in world.seen.mismatches] == ["peer"]
    assert client.moved == {"upstream": SIZE}


async def test_a_partial_with_holes_is_filled_without_fetching_what_is_held() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    ingest = await world.store.ingest(digest, SIZE)
    for start, stop in ((0, 50 * KIB), (100 * KIB, 150 * KIB), (200 * KIB, 290 * KIB)):
        await ingest.write(start, data[start:stop])
    await ingest.close()
    async with world.agent() as agent:
        client = await pull(agent, digest)
    assert client.data == data
    assert world.upstream.sent == SIZE - (50 + 50 + 90) * KIB
    assert client.moved["upstream"] == world.upstream.sent


async def test_a_partial_does_not_promise_a_client_what_no_source_delivers() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    ingest = await world.store.ingest(digest, SIZE)
    await ingest.write(0, data[: 200 * KIB])
    await ingest.close()
    world.upstream.down = True
    async with world.agent() as agent:
        with pytest.raises(P2PDistError):  # from blob(): no header has left
            await agent.mirror.blob(APP, digest)
    assert (await world.store.usage()).reserved == 200 * KIB  # and the partial stays


async def test_a_blob_that_is_evicted_as_soon_as_it_is_fetched_is_fetched_again() -> None:
    world, data = World(), blob(10 * KIB)
    digest = world.has(data)
    async with world.agent() as agent:
        fetch = await agent.blobs.fetch(APP, digest)
        assert fetch is not None
        await fetch.wait_done()
        assert await world.store.delete(digest)
        assert (await pull(agent, digest)).data == data
    assert world.upstream.sent == 2 * len(data)


# -- ranges and patience --


async def test_a_range_in_the_middle_comes_with_the_fetch() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    async with world.agent() as agent:
        client = await pull(agent, digest, 100 * KIB, 200 * KIB)
        assert client.data == data[100 * KIB : 200 * KIB]
        rest = await pull(agent, digest)
    assert rest.data == data
    assert rest.moved["upstream"] + client.moved["upstream"] == SIZE == world.upstream.sent


async def test_a_client_that_waits_long_is_shown_that_the_body_is_alive() -> None:
    world = World(policy=TransferPolicy(patience=0.0))
    data = blob()
    digest = world.has(data)
    anna = await world.peer("anna", data, gate_at=200 * KIB)
    async with world.agent() as agent, reading(agent, digest) as slow:
        span = await slow.take()
        assert (
            span.length == TransferPolicy().slice == 16 * KIB
        )  # little: every host of a slow swarm asks for it
        assert slow.client.data == data[: 16 * KIB]  # from upstream: a peer's bytes are not proven
        anna.gate.set()
        await slow.take_rest()
    assert slow.client.data == data
    assert slow.client.moved["upstream"] == world.upstream.sent


async def test_a_client_that_goes_on_waiting_is_shown_another_slice_each_time() -> None:
    world = World(policy=TransferPolicy(patience=0.0, slice=1000))
    data = blob()
    digest = world.has(data)
    anna = await world.peer("anna", data, gate_at=200 * KIB)
    async with world.agent() as agent, reading(agent, digest) as slow:
        for _ in range(3):
            assert (await slow.take()).length == 1000
        asked = [(request.offset, request.length) for request in world.upstream.asked("blob")]
        assert asked[:3] == [(0, 1000), (1000, 1000), (2000, 1000)]
        assert slow.client.data == data[:3000]
        anna.gate.set()
        await slow.take_rest()
    assert slow.client.data == data


async def test_a_slice_that_failed_is_asked_for_again_after_the_next_patience() -> None:
    """Upstream may be back long before the peers are done, and the client gone by then."""
    world = World(policy=TransferPolicy(patience=0.0))
    data = blob()
    digest = world.has(data)
    world.upstream.down = True
    anna = await world.peer("anna", data, gate_at=200 * KIB)
    async with world.agent() as agent, reading(agent, digest) as slow:
        waiting = asyncio.ensure_future(slow.take())
        await until(lambda: len(world.upstream.asked("blob")) >= 3)
        assert not waiting.done()
        world.upstream.down = False
        assert (await waiting).length == 16 * KIB
        assert not anna.gate.is_set()
        assert slow.client.data == data[: 16 * KIB]
        anna.gate.set()
        await slow.take_rest()
    assert slow.client.data == data


async def test_of_the_last_byte_no_slice_is_asked() -> None:
    """It is given only when the digest holds."""
    world = World(policy=TransferPolicy(patience=0.0, slice=SIZE))
    data = blob()
    digest = world.has(data)
    anna = await world.peer("anna", data, gate_at=200 * KIB)
    async with world.agent() as agent, reading(agent, digest) as slow:
        while len(slow.client.data) < SIZE - 1:
            await slow.take()
        asked = len(world.upstream.asked("blob"))
        assert all(r.offset + (r.length or SIZE) < SIZE for r in world.upstream.asked("blob"))
        last = asyncio.ensure_future(slow.take())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not last.done()
        assert len(world.upstream.asked("blob")) == asked
        anna.gate.set()
        await last
        await slow.take_rest()
    assert slow.client.data == data


async def test_a_slice_that_proves_false_cuts_the_body() -> None:
    world = World(policy=TransferPolicy(patience=0.0))
    data = blob()
    digest = world.has(data)
    world.upstream.wrong_at, world.upstream.wrong_times = 5, 1
    anna = await world.peer("anna", data, gate_at=200 * KIB)
    async with world.agent() as agent, reading(agent, digest) as slow:
        await slow.take()
        anna.gate.set()
        with pytest.raises(DigestMismatchError):
            await slow.take_rest()
    assert len(slow.client.data) < SIZE
    assert await world.store.stat(digest) is not None


async def test_a_client_waits_longer_for_each_slice_and_again_not_so_long_when_something_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All hosts of a slow swarm ask for slices, of an upstream that has enough to do."""
    waits = list[float]()
    timeout = asyncio.timeout

    def at_once(seconds: float) -> asyncio.Timeout:
        waits.append(seconds)
        return timeout(0)

    world = World(policy=TransferPolicy(patience=8.0, slice=1000))
    data = blob()
    digest = world.has(data)
    anna = await world.peer("anna", data, gate_at=200 * KIB)
    async with world.agent() as agent, reading(agent, digest) as slow:
        monkeypatch.setattr("p2pdist.transfer.delivery.asyncio.timeout", at_once)
        for _ in range(6):
            assert (await slow.take()).length == 1000
        monkeypatch.undo()
        anna.gate.set()
        await slow.take_rest()
    assert slow.client.data == data
    assert [wait for wait in waits if wait >= 8.0][:6] == [8.0, 12.0, 18.0, 20.0, 20.0, 20.0]
