"""Bandwidth limits: a token bucket that callers wait on."""

from __future__ import annotations

from p2pdist.clock import Clock


class TokenBucket:
    """Lets ``rate`` bytes a second pass, in bursts of at most ``burst`` seconds' worth; rate 0 lets everything pass.

    Takers are served in the order they came: each books its bytes at once and waits for its own turn.
    """

    def __init__(self, rate: int, clock: Clock, burst: float = 0.1) -> None:
        self._rate = rate
        self._clock = clock
        self._burst = burst
        self._free_at = clock.now()

    async def take(self, size: int) -> None:
        """Return when ``size`` bytes may have passed."""
        if not self._rate:
            return
        now = self._clock.now()
        self._free_at = max(self._free_at, now - self._burst) + size / self._rate
        if self._free_at > now:
            await self._clock.sleep(self._free_at - now)
