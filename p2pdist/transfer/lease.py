"""Who of several hosts that want the same small thing in the same moment goes to upstream for it.

Rules:
- Whoever announced its wish first goes; announcing tells each how many were ahead (discovery/port.py).
- The others look for the first one's result in short steps. One that has waited ``FIRST_TURN`` seconds, and a little more
  for each host ahead of it, goes by itself: so the hosts take turns, and nobody waits longer than ``LONGEST_WAIT``.
- Where nobody was ahead (a lone agent always), there is no wait at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from p2pdist.clock import Clock

FIRST_TURN = 2.0
NEXT_TURN = 0.3
LONGEST_WAIT = 4.0
FIRST_STEP = 0.05
LONGEST_STEP = 0.3


def turn(ahead: int) -> float:
    """After how many seconds it is the turn of a host with so many ahead of it."""
    return min(LONGEST_WAIT, FIRST_TURN + NEXT_TURN * (ahead - 1)) if ahead > 0 else 0.0


async def looks(clock: Clock, ahead: int) -> AsyncIterator[None]:
    """Yields each time that it is worth to look for the result; ends when it is this host's turn."""
    end, step = clock.now() + turn(ahead), FIRST_STEP
    while clock.now() < end:
        yield
        await clock.sleep(min(step, max(0.0, end - clock.now())))
        step = min(LONGEST_STEP, step * 1.5)
