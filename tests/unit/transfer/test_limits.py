"""A token bucket lets no more pass than its rate, and everything when there is none."""

from __future__ import annotations

import asyncio

import pytest

from p2pdist.transfer.limits import TokenBucket
from tests.unit.transfer.world import KIB, SIZE, World, blob, pull


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


async def test_the_long_run_rate_is_the_limit() -> None:
    clock = Clock()
    bucket = TokenBucket(1000, clock)
    for _ in range(100):
        await bucket.take(100)
    assert 9.5 <= clock.time <= 10.5


async def test_no_limit_costs_no_time() -> None:
    clock = Clock()
    await TokenBucket(0, clock).take(1 << 40)
    assert clock.time == 0


async def test_an_idle_bucket_saves_up_only_its_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(1000, clock, burst=0.1)
    clock.time = 3600.0
    await bucket.take(100)
    assert clock.time == 3600.0
    await bucket.take(100)
    assert clock.time > 3600.0


async def test_one_take_larger_than_the_burst_passes_in_its_time() -> None:
    clock = Clock()
    await TokenBucket(1000, clock).take(5000)
    assert 4.8 <= clock.time <= 5.0


@pytest.mark.parametrize("limit", ["download", "upstream"])
async def test_a_fetch_keeps_to_its_limit(limit: str) -> None:
    world, data = World(), blob()
    digest = world.has(data)
    rate = 64 * KIB
    async with world.agent(**{limit: rate}) as agent:
        client = asyncio.ensure_future(pull(agent, digest))
        await world.manual.settle()
        started = world.clock.now()
        await world.manual.advance(SIZE / rate * 0.9)
        assert not client.done()
        assert world.upstream.sent <= rate * (world.clock.now() - started) + 2 * world.upstream.chunk
        await world.manual.advance(SIZE / rate * 0.2)
        assert (await client).data == data


async def test_the_upstream_limit_does_not_slow_peers() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    await world.peer("anna", data)
    async with world.agent(upstream=1) as agent:
        assert (await pull(agent, digest)).data == data


async def test_what_passes_through_keeps_to_the_limits_too() -> None:
    world, data = World(quota=1), blob()
    digest = world.has(data)
    async with world.agent(download=64 * KIB) as agent:
        client = asyncio.ensure_future(pull(agent, digest))
        await world.manual.advance(SIZE / (64 * KIB) * 0.9)
        assert not client.done()
        await world.manual.advance(SIZE / (64 * KIB) * 0.2)
        assert (await client).data == data
