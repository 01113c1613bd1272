"""Pieces over a flow, from peers that keep to the protocol: concurrency, cancelling, accounts, endings."""

from __future__ import annotations

import asyncio
import random
import time
from itertools import groupby

import pytest

from p2pdist.clock import SystemClock
from p2pdist.errors import BusyError, DeniedError, NotFoundError, ProtocolError, UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.peers import piece_client
from p2pdist.peers.http_client import HttpPeers
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.records import Endpoint, Provider
from p2pdist.testing.clock import ManualClock
from tests.support_flow import open_descriptors, until
from tests.support_peers import (
    KEY,
    OTHER_KEY,
    CountingClientHooks,
    PeerBench,
    ServedPeer,
    auth_of,
    peer_id,
)

KIB = 1024
MIB = 1024 * KIB
DATA = random.Random(1).randbytes(6 * MIB)
OTHER = random.Random(2).randbytes(3 * MIB + 17)


def nothing(count: int) -> None:
    """Progress that nobody looks at."""


async def piece(
    peers: HttpPeers, seed: ServedPeer, digest: Digest, offset: int, length: int, size: int
) -> bytes:
    buffer = bytearray(length)
    await peers.piece(seed.provider, digest, offset, size, memoryview(buffer), nothing)
    return bytes(buffer)


async def test_many_wants_share_one_connection_and_come_one_after_the_other(bench: PeerBench) -> None:
    hooks, order = CountingClientHooks(), list[int]()
    async with bench.peer() as seed, bench.client(hooks=hooks) as peers:
        blobs = [(seed.shelf.put(data), data) for data in (DATA, OTHER)]
        await piece(peers, seed, blobs[0][0], 0, 1, len(DATA))  # a listener just started asks for a greeting
        before = seed.listener.connections
        jobs = [(*blobs[index % 2], index * 200 * KIB, MIB + index) for index in range(8)]
        buffers = [bytearray(length) for _, _, _, length in jobs]

        async def fetch(index: int) -> None:
            digest, data, offset, _ = jobs[index]
            view = memoryview(buffers[index])
            await peers.piece(
                seed.provider, digest, offset, len(data), view, lambda count: order.append(index)
            )

        await asyncio.gather(*(fetch(index) for index in range(8)))
        assert seed.listener.connections == before
        assert buffers == [data[at : at + length] for _, data, at, length in jobs]
        total = 1 + sum(map(len, buffers))
        assert hooks.bytes_received == await seed.bytes_sent() == total
    assert [index for index, _ in groupby(order)] == list(range(8))


async def test_progress_grows_to_less_than_the_whole(bench: PeerBench) -> None:
    told = list[int]()
    async with bench.peer() as seed, bench.client() as peers:
        digest, buffer = seed.shelf.put(DATA), bytearray(4 * MIB)
        await peers.piece(seed.provider, digest, 5, len(DATA), memoryview(buffer), told.append)
    assert buffer == DATA[5 : 5 + 4 * MIB]
    assert told
    assert told == sorted(set(told))
    assert told[-1] < 4 * MIB


async def test_a_refusal_is_of_one_want_and_not_of_the_flow(bench: PeerBench) -> None:
    async with bench.peer() as seed, bench.client() as peers:
        digest, private = seed.shelf.put(DATA), seed.shelf.put(OTHER, shared=False)
        await piece(peers, seed, digest, 0, 1, len(DATA))
        before = seed.listener.connections
        for refused, size in ((Digest.of(b"absent"), 10), (private, len(OTHER))):
            with pytest.raises(NotFoundError):
                await piece(peers, seed, refused, 0, 10, size)
        with pytest.raises(ProtocolError, match="409"):
            await piece(peers, seed, digest, 0, 10, len(DATA) - 1)
        assert await piece(peers, seed, digest, 0, 10, len(DATA)) == DATA[:10]
        assert seed.listener.connections == before


async def test_busy_is_told_as_busy(bench: PeerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdist.api.flow.MAX_FLOWS", 0)
    async with bench.peer() as seed, bench.client() as peers:
        with pytest.raises(BusyError):
            await piece(peers, seed, seed.shelf.put(DATA), 0, 10, len(DATA))


async def test_another_clusters_agent_is_denied(bench: PeerBench) -> None:
    async with bench.peer() as seed, bench.client(key=OTHER_KEY) as peers:
        with pytest.raises(DeniedError):
            await piece(peers, seed, seed.shelf.put(DATA), 0, 10, len(DATA))


async def test_clocks_that_differ_are_learned(bench: PeerBench) -> None:
    ahead = ManualClock(wall=ManualClock().wall() + 3600)
    async with bench.peer(clock=ahead) as seed, bench.client(clock=ManualClock()) as peers:
        digest = seed.shelf.put(DATA)
        await ahead.advance(5)
        assert await piece(peers, seed, digest, 0, 10, len(DATA)) == DATA[:10]


async def test_nothing_is_left_when_a_client_closes(bench: PeerBench) -> None:
    async with bench.peer() as seed:
        digest = seed.shelf.put(DATA)
        await asyncio.to_thread(int)  # the pool's first thread
        before = open_descriptors()
        for _ in range(3):
            async with bench.client() as peers:
                await piece(peers, seed, digest, 0, MIB, len(DATA))
                running = asyncio.ensure_future(piece(peers, seed, digest, 0, 4 * MIB, len(DATA)))
                await asyncio.sleep(0)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
        await until(lambda: seed.listener.connections == 0)
        await until(lambda: open_descriptors() <= before)


async def test_a_cancelled_piece_can_be_had_again(bench: PeerBench) -> None:
    async with bench.peer() as seed, bench.client() as peers:
        digest = seed.shelf.put(DATA)
        begun = asyncio.Event()
        first = bytearray(4 * MIB)
        task = asyncio.ensure_future(
            peers.piece(seed.provider, digest, 0, len(DATA), memoryview(first), lambda count: begun.set())
        )
        await begun.wait()
        before = seed.listener.connections
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        first[:] = bytes(len(first))  # the memory is its owner's again
        assert await piece(peers, seed, digest, MIB, 2 * MIB, len(DATA)) == DATA[MIB : 3 * MIB]
        assert not any(first)
        assert seed.listener.connections == before


async def test_an_idle_flow_is_closed_without_being_asked(
    bench: PeerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.peers.flow._CHECK", 0.02)
    monkeypatch.setattr(piece_client, "IDLE_SECONDS", 0.05)
    async with bench.peer() as seed, bench.client() as peers:
        digest = seed.shelf.put(DATA)
        assert await piece(peers, seed, digest, 0, 10, len(DATA)) == DATA[:10]
        before = seed.listener.connections
        await until(lambda: seed.listener.connections < before)
        assert await piece(peers, seed, digest, 0, 10, len(DATA)) == DATA[:10]


async def test_those_who_ask_a_silent_peer_at_once_wait_no_longer_than_one() -> None:
    """However many ask, one connection is tried, and all are told of its failure."""
    tried = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        try:
            await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    provider = Provider(peer_id("silent"), (Endpoint("127.0.0.1", server.sockets[0].getsockname()[1]),))
    settings = PeerClientSettings(connect_timeout=0.1)
    async with HttpPeers(settings, auth_of("leech"), SystemClock()) as peers:
        asked = [
            peers.piece(provider, Digest.of(b"x"), 0, 10, memoryview(bytearray(10)), nothing)
            for _ in range(5)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
    server.close()
    assert all(isinstance(answer, UnreachableError) for answer in answers)
    assert tried == 1


@pytest.mark.parametrize("other", ["nobody", "another", "stranger"])
async def test_a_peer_is_found_at_any_of_its_addresses(bench: PeerBench, other: str) -> None:
    """Of what a host says of itself, some leads nowhere, and some (a bridge's address) to another agent."""
    key = OTHER_KEY if other == "stranger" else KEY
    async with bench.peer() as seed, bench.peer("another", key=key) as another, bench.client() as peers:
        first = Endpoint("127.0.0.1", 9) if other == "nobody" else another.endpoint
        known = Provider(seed.provider.peer, (first, *seed.provider.endpoints))
        digest = seed.shelf.put(DATA)
        for _ in range(2):
            buffer = bytearray(1000)
            await peers.piece(known, digest, 7, len(DATA), memoryview(buffer), nothing)
            assert buffer == DATA[7:1007]
        assert await another.bytes_sent() == 0


async def test_a_peer_whose_clock_differs_is_asked_twice_at_most(bench: PeerBench) -> None:
    ahead = ManualClock(wall=time.time() + 3600)
    async with bench.peer(clock=ahead) as seed, bench.client() as peers:
        digest, buffer = seed.shelf.put(DATA), bytearray(1000)
        await peers.piece(seed.provider, digest, 0, len(DATA), memoryview(buffer), nothing)
        assert buffer == DATA[:1000]
        assert len(seed.hooks.refusals) == 1
