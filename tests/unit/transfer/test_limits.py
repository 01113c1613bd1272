"""A token bucket lets no more pass than its rate, and everything when there is none."""

from __future__ import annotations

from p2pdist.transfer.limits import TokenBucket


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
