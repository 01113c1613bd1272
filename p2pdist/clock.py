"""Time as a dependency, so that tests and the simulator own it.

``now`` never goes back and is what every wait, timeout and expiry is computed with; ``wall`` is what people
and other hosts call the time, may jump, and is only ever stored or shown.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic and wall time, in seconds."""

    def now(self) -> float:
        """Seconds on a clock that never goes back; its zero means nothing."""

    def wall(self) -> float:
        """Seconds since the Unix epoch; may jump."""

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` (>= 0) on the monotonic clock."""


class SystemClock:
    """The host's clocks."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
