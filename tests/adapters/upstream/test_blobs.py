"""Blobs over real sockets: ranges, cuts that nobody sees, answers that lie, and bytes counted exactly."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from p2pdist.errors import (
    BusyError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    StalledError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from tests.adapters.upstream.world import DATA, NAME, World, fake_registry, scripted

SIZE = len(DATA)


async def test_a_whole_blob_takes_one_request_and_every_byte_is_counted() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        async with world.client.blob(world.repository, digest) as stream:
            assert (stream.size, stream.start, stream.media_type) == (SIZE, 0, "application/octet-stream")
            assert b"".join([chunk async for chunk in stream.chunks()]) == DATA
        assert world.responses == [("blob", 200)]
        assert world.received == {world.name: SIZE} == {world.name: registry.counters.total_blob_bytes}


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 10), (10, 100), (SIZE - 1, 1), (SIZE - 5, None), (1, None), (0, SIZE)]
)
@pytest.mark.parametrize("ignore_range", [False, True])
async def test_ranges_also_where_the_registry_ignores_them(
    offset: int, length: int | None, ignore_range: bool
) -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.ignore_range = ignore_range
        stop = SIZE if length is None else offset + length
        assert await world.blob(digest, offset, length) == DATA[offset:stop]
        assert world.received[world.name] >= stop - offset
        if not ignore_range:
            assert world.received[world.name] == stop - offset


async def test_nothing_is_a_range_too() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        assert await world.blob(digest, 5, 0) == b""
        assert await world.blob(digest, SIZE) == b""
        assert await world.blob(digest, SIZE, 0) == b""
        empty = registry.put_blob(NAME, b"")
        assert await world.blob(empty) == b""
        assert await world.blob(empty, 0, 0) == b""
        assert registry.counters.total_blob_bytes == 0


@pytest.mark.parametrize(
    ("offset", "length"), [(SIZE + 1, None), (SIZE, 1), (SIZE - 1, 2), (-1, None), (0, -1), (0, SIZE + 1)]
)
async def test_a_range_beyond_the_blob_is_invalid(offset: int, length: int | None) -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        with pytest.raises(InvalidInputError):
            await world.blob(digest, offset, length)


async def test_a_blob_with_another_algorithm() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        digest = registry.put_blob(NAME, DATA, Digest.of(DATA, "sha512"))
        assert await world.blob(digest) == DATA


async def test_what_is_not_there() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        absent = Digest.of(b"absent")
        with pytest.raises(NotFoundError, match=r"BLOB_UNKNOWN"):
            await world.blob(absent)
        with pytest.raises(NotFoundError):
            await world.client.stat(world.repository, absent)
        assert not world.clock.sleeps


async def test_stat_downloads_nothing() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        stat = await world.client.stat(world.repository, digest)
        assert (stat.digest, stat.size, stat.media_type) == (digest, SIZE, "application/octet-stream")
        assert registry.counters.count("GET", "blob") == 0
        registry.faults.no_head = True
        assert (await world.client.stat(world.repository, digest)).size == SIZE
        assert registry.counters.total_blob_bytes <= 1


# -- cuts --


@pytest.mark.parametrize("by_reset", [False, True])
@pytest.mark.parametrize("redirect", [False, True])
async def test_a_body_that_is_cut_goes_on_at_the_same_byte(by_reset: bool, redirect: bool) -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        faults = registry.faults
        faults.cut_after, faults.cut_times, faults.cut_by_reset = 70_001, 3, by_reset
        faults.redirect_blobs = redirect
        assert await world.blob(digest, 11, SIZE - 22) == DATA[11:-11]
        assert faults.cut_times == 0
        if not by_reset:  # a reset may destroy what was on its way
            assert world.received[world.name] == registry.counters.total_blob_bytes == SIZE - 22


async def test_cuts_without_progress_are_given_up_after_some() -> None:
    async with fake_registry() as (registry, digest), World(registry.url, resumes=3) as world:
        registry.faults.cut_after, registry.faults.cut_times = 100, -1
        async with world.client.blob(world.repository, digest) as stream:
            chunks = stream.chunks()
            assert b"".join([await anext(chunks) for _ in range(4)]) == DATA[:400]
            with pytest.raises(UnreachableError, match="cut"):
                await anext(chunks)
        assert registry.counters.count("GET", "blob") == 4
        assert len(world.clock.sleeps) == 2


async def test_progress_makes_the_count_of_cuts_start_again() -> None:
    async with (
        fake_registry() as (registry, digest),
        World(registry.url, resumes=1, resume_progress=10_000) as world,
    ):
        registry.faults.cut_after, registry.faults.cut_times = 10_000, -1
        assert await world.blob(digest) == DATA
        assert registry.counters.count("GET", "blob") == 30


async def test_a_cut_where_range_is_ignored_skips_forward() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.cut_after, registry.faults.cut_times = 200_000, 1
        registry.faults.ignore_range = True
        assert await world.blob(digest) == DATA
        assert world.received[world.name] == registry.counters.total_blob_bytes == SIZE + 200_000


async def test_a_registry_that_goes_away_in_mid_body_is_unreachable() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.cut_after, registry.faults.cut_times = 100_000, 1
        world.clock.on_sleep = None
        async with world.client.blob(world.repository, digest) as stream:
            chunks = stream.chunks()
            got = b""
            while len(got) < 100_000:
                got += await anext(chunks)
            assert got == DATA[:100_000]
            await registry.close()
            with pytest.raises(UnreachableError):
                await anext(chunks)


async def test_a_length_that_is_too_long_is_found_out_on_resuming() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.length_delta = 5
        async with world.client.blob(world.repository, digest) as stream:
            assert stream.size == SIZE + 5
            with pytest.raises(ProtocolError):
                async for _ in stream.chunks():
                    pass


@pytest.mark.parametrize("delta", [-5, 5])
async def test_a_length_that_contradicts_the_range(delta: int) -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.length_delta = delta
        with pytest.raises(ProtocolError, match="Content-Length"):
            await world.blob(digest, 100, 100)


async def test_wrong_bytes_are_for_the_consumer_to_find() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.flip_at, registry.faults.flip_times = 1000, 1
        assert await world.blob(digest) != DATA


async def test_a_body_that_changes_between_two_answers() -> None:
    answers = [(b"a" * 50, '"one"'), (b"b" * 50, '"two"')]

    async def handler(request: web.Request) -> web.StreamResponse:
        body, etag = answers.pop(0)
        start = 20 if "Range" in request.headers else 0
        headers = {"ETag": etag, "Content-Length": str(50 - start)}
        if start:
            headers["Content-Range"] = "bytes 20-49/50"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await response.write(body[start:20] if not start else body[start:])
        assert request.transport is not None
        request.transport.close()
        return response

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(ProtocolError, match="ETag"):
            await world.blob(Digest.of(b"x"))
        assert not answers


async def test_a_size_that_changes_between_two_answers() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        ranged = "Range" in request.headers
        headers = {"Content-Length": "51"} if not ranged else {"Content-Range": "bytes 50-50/70"}
        response = web.StreamResponse(status=206 if ranged else 200, headers=headers)
        await response.prepare(request)
        await response.write(b"a" * 50 if not ranged else b"a")
        assert request.transport is not None
        request.transport.close()
        return response

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(ProtocolError, match="70 bytes on resuming, and had 51"):
            await world.blob(Digest.of(b"x"))


async def test_a_shorter_range_than_asked_for_is_continued() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        asked = request.http_range.start or 0
        stop = min(asked + 100_000, SIZE)
        headers = {"Content-Range": f"bytes {asked}-{stop - 1}/{SIZE}"}
        return web.Response(status=206, body=DATA[asked:stop], headers=headers)

    async with scripted(handler) as url, World(url) as world:
        assert await world.blob(Digest.of(DATA), 1) == DATA[1:]


async def test_a_size_that_is_not_told_with_the_body_is_asked_for() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(headers={"Content-Length": str(SIZE)})
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(DATA)
        return response

    async with scripted(handler) as url, World(url) as world:
        assert await world.blob(Digest.of(DATA)) == DATA
        assert world.received[world.name] == SIZE


async def test_a_compressed_transfer_is_not_asked_for_nor_undone() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=DATA, headers={"Content-Encoding": "gzip"})

    async with scripted(handler) as url, World(url) as world:
        assert await world.blob(Digest.of(DATA)) == DATA


# -- waits and bounds --


async def test_a_body_that_stalls_is_told_as_stalled() -> None:
    async with fake_registry() as (registry, digest), World(registry.url, progress_timeout=1.5) as world:
        registry.faults.stall_after, registry.faults.stall_times = 100_000, 1
        async with world.client.blob(world.repository, digest) as stream:
            chunks = stream.chunks()
            got = await anext(chunks)
            while len(got) < 100_000:
                got += await anext(chunks)
            assert got == DATA[:100_000]
            with pytest.raises(StalledError, match=r"no byte came for 1\.5 s"):
                await anext(chunks)


async def test_a_registry_that_never_answers_is_unreachable() -> None:
    settings = {"connect_timeout": 0.1, "first_byte_timeout": 0.1}
    async with fake_registry() as (registry, digest), World(registry.url, **settings) as world:
        registry.faults.hang_times = -1
        with pytest.raises(UnreachableError, match="did not answer in time"):
            await world.blob(digest)
        assert set(world.responses) == {("blob", 0)}


async def test_blobs_wait_for_a_connection_but_manifests_do_not_wait_for_blobs() -> None:
    bounds = {"registry": {"max_connections": 4}, "queue_timeout": 0.1}
    async with fake_registry() as (registry, digest), World(registry.url, **bounds) as world:
        registry.faults.stall_after, registry.faults.stall_times = 1, 3
        async with (
            world.client.blob(world.repository, digest),
            world.client.blob(world.repository, digest),
            world.client.blob(world.repository, digest),
        ):
            with pytest.raises(BusyError, match="max_connections"):
                await world.blob(digest)
            await world.client.manifest(world.repository, "v1")
        registry.release()
        assert await world.blob(digest) == DATA


async def test_leaving_early_drops_the_connection_and_frees_its_place() -> None:
    bounds = {"registry": {"max_connections": 1}}
    async with fake_registry() as (registry, digest), World(registry.url, **bounds) as world:
        for _ in range(3):
            async with world.client.blob(world.repository, digest) as stream:
                assert DATA.startswith(await anext(stream.chunks()))
        assert await world.blob(digest) == DATA


async def test_a_cancelled_consumer_frees_its_place() -> None:
    bounds = {"registry": {"max_connections": 1}}
    async with fake_registry() as (registry, digest), World(registry.url, **bounds) as world:
        registry.faults.hang_times = 1
        task = asyncio.ensure_future(world.blob(digest))
        while not registry.counters.count("GET", "blob"):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        registry.release()
        assert await world.blob(digest) == DATA


async def test_connections_are_used_again() -> None:
    peers: set[object] = set()

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(body=DATA)

    async with scripted(handler) as url, World(url) as world:
        for _ in range(5):
            assert await world.blob(Digest.of(DATA)) == DATA
    assert len(peers) == 1
