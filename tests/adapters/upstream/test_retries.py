"""What is asked again, when, and what is told when it does not help."""

from __future__ import annotations

import email.utils

import pytest
from aiohttp import web

from p2pdist.errors import BusyError, DeniedError, ProtocolError, UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.testing.registry import FakeRegistry
from p2pdist.upstream.retry import RetryPolicy
from tests.adapters.upstream.world import DATA, MANIFEST, World, fake_registry, scripted

TRIES = RetryPolicy().tries


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
async def test_a_passing_failure_is_not_seen(status: int) -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.error_times, registry.faults.error_status = 2, status
        assert await world.blob(digest) == DATA
        assert world.responses == [("blob", status), ("blob", status), ("blob", 200)]
        assert world.clock.sleeps == pytest.approx([0.15, 0.3])


async def test_a_lasting_failure_is_told_after_some_tries() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        registry.faults.error_times = -1
        with pytest.raises(
            UnreachableError, match=r"registry\.test/team/app:v1: answered 503 \(UNAVAILABLE: an injected"
        ):
            await world.client.manifest(world.repository, "v1")
        assert registry.counters.count("GET", "manifest") == TRIES


@pytest.mark.parametrize(
    ("status", "error"), [(400, ProtocolError), (403, DeniedError), (501, ProtocolError)]
)
async def test_what_another_try_would_not_change_is_told_at_once(status: int, error: type[Exception]) -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.error_times, registry.faults.error_status = -1, status
        with pytest.raises(error, match=str(status)):
            await world.blob(digest)
        assert not world.clock.sleeps
        assert registry.counters.count("GET", "blob") == 1


async def test_a_busy_registry_is_not_asked_before_it_said() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.busy_times, registry.faults.retry_after = 2, "3"
        assert await world.blob(digest) == DATA
        assert len(world.clock.sleeps) == 2
        assert all(3 <= pause < 4 for pause in world.clock.sleeps)


async def test_a_date_in_retry_after() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.busy_times = 1
        registry.faults.retry_after = email.utils.formatdate(world.clock.wall() + 4, usegmt=True)
        assert await world.blob(digest) == DATA
        assert 4 <= world.clock.sleeps[0] < 5


@pytest.mark.parametrize("retry_after", ["60", "100000"])
async def test_a_registry_that_is_busy_for_long_is_told_as_busy_at_once(retry_after: str) -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.busy_times, registry.faults.retry_after = -1, retry_after
        with pytest.raises(BusyError, match="TOOMANYREQUESTS") as caught:
            await world.blob(digest)
        assert caught.value.retry_after == float(retry_after)
        assert not world.clock.sleeps


async def test_waits_for_a_busy_registry_are_bounded_in_all() -> None:
    async with (
        fake_registry() as (registry, digest),
        World(registry.url, retry=RetryPolicy(tries=100)) as world,
    ):
        registry.faults.busy_times, registry.faults.retry_after = -1, "3"
        with pytest.raises(BusyError):
            await world.blob(digest)
        assert sum(world.clock.sleeps) <= 10


async def test_a_registry_that_is_not_there() -> None:
    async with FakeRegistry() as registry:
        url = registry.url
    async with World(url) as world:
        with pytest.raises(
            UnreachableError, match=r"registry\.test .*cannot be reached \(Connection refused\)"
        ):
            await world.client.manifest(world.repository, "v1")
        assert world.responses == [("manifest", 0)] * TRIES


async def test_a_registry_that_comes_back_is_found() -> None:
    async with fake_registry() as (registry, digest):
        await registry.close()
        async with World(registry.url) as world:
            world.clock.on_sleep = registry.start
            assert await world.blob(digest) == DATA
            assert len(world.clock.sleeps) == 1


async def test_a_name_that_cannot_be_resolved() -> None:
    async with World("http://no-such-host.invalid") as world:
        with pytest.raises(UnreachableError, match=r"no-such-host\.invalid cannot be resolved"):
            await world.client.manifest(world.repository, "v1")


async def test_an_answer_that_is_not_http() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n\x00\xff" * 3)
        request.transport.close()
        return web.Response()

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(ProtocolError, match="not HTTP"):
            await world.client.manifest(world.repository, "v1")


async def test_a_client_that_was_closed_in_mid_body_tells_it() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.stall_after, registry.faults.stall_times = 100, -1
        async with world.client.blob(world.repository, digest) as stream:
            chunks = stream.chunks()
            assert await anext(chunks) == DATA[:100]
            await world.client.close()
            with pytest.raises(UnreachableError):
                await anext(chunks)


async def test_the_answer_s_words_are_told_without_its_control_characters() -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        body = {"errors": [{"code": "DENIED", "message": "no\x1b[31m\nway " + "x" * 1000}]}
        return web.json_response(body, status=403)

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(DeniedError) as caught:
            await world.client.manifest(world.repository, Digest.of(MANIFEST))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 600
