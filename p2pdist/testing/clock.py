"""A clock that moves only when a test says so.

Always true here: time never moves by itself; sleepers wake in the order of their times, each seeing ``now`` as exactly
the time that it asked for; what became ready has run before the next one wakes.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools

_MAX_TURNS = 1000


class ManualClock:
    """Implements p2pdist.clock.Clock; times are in seconds."""

    def __init__(self, now: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        self._wall_offset = wall - now
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._wall_offset

    def set_wall(self, wall: float) -> None:
        """Make the wall clock jump, as an administrator or NTP does; ``now`` stays."""
        self._wall_offset = wall - self._now

    @property
    def sleepers(self) -> int:
        """How many tasks sleep on this clock."""
        return sum(not waiter.done() for _, _, waiter in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), waiter))
        await waiter

    async def advance(self, seconds: float) -> None:
        """Move time on by ``seconds`` (>= 0), waking on the way whoever sleeps, also those who start to sleep then.

        Returns when nothing on the loop is ready to run; work on sockets and in threads is not waited for.
        """
        if seconds < 0:
            raise ValueError("time does not go back; set_wall makes the wall clock jump")
        target = self._now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, waiter = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not waiter.done():
                waiter.set_result(None)
                await self.settle()
        self._now = target
        await self.settle()

    async def settle(self) -> None:
        """Let everything run that is ready now, and what that makes ready, without moving time."""
        for _ in range(_MAX_TURNS):
            await asyncio.sleep(0)
            # No public way to ask whether a loop has work; a loop that keeps no such queue gets every turn.
            if not getattr(asyncio.get_running_loop(), "_ready", True):
                return
