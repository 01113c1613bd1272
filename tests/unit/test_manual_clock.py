from __future__ import annotations

import asyncio

import pytest

from p2pdist.clock import Clock
from p2pdist.testing.clock import ManualClock


async def test_sleepers_wake_in_order_at_their_own_times() -> None:
    clock = ManualClock(now=100.0)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now()))

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("late", 5), ("early", 1), ("at once", 0), ("early too", 1), ("later", 5.5)):
            group.create_task(sleeper(name, seconds))
        await clock.advance(5)
        assert woken == [("at once", 100.0), ("early", 101.0), ("early too", 101.0), ("late", 105.0)]
        assert (clock.now(), clock.sleepers) == (105.0, 1)
        await clock.advance(1)
    assert woken[-1] == ("later", 105.5)
    assert clock.now() == 106.0


async def test_one_advance_carries_a_loop_of_sleeps() -> None:
    clock: ManualClock = ManualClock(now=0)
    ticks: list[float] = []

    async def tick(on: Clock) -> None:
        while True:
            await on.sleep(10)
            ticks.append(on.now())

    task = asyncio.create_task(tick(clock))
    await clock.advance(35)
    assert ticks == [10, 20, 30]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await clock.advance(100)
    assert (ticks, clock.sleepers) == ([10, 20, 30], 0)


async def test_what_a_waker_starts_runs_to_its_end() -> None:
    clock = ManualClock()
    steps = 0

    async def worker() -> None:
        nonlocal steps
        await clock.sleep(1)
        for _ in range(50):
            await asyncio.sleep(0)
            steps += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(worker())
        await clock.advance(1)
        assert steps == 50


async def test_the_wall_jumps_and_now_does_not() -> None:
    clock = ManualClock(now=10, wall=1_000)
    clock.set_wall(500)
    await clock.advance(5)
    assert (clock.now(), clock.wall()) == (15, 505)
    with pytest.raises(ValueError, match="does not go back"):
        await clock.advance(-1)
