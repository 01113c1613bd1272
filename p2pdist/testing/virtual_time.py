"""A clock that jumps from one appointed action to the next: seconds pass in no time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class VirtualTime:
    """Actions in the order of their times; those of the same time in the order in which they were appointed."""

    def __init__(self) -> None:
        self.now = 0.0
        self._serial = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Appoint ``action(*arguments)`` for second ``when``."""
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, action, arguments))

    def step(self) -> bool:
        """Go on to the next action, and do it; False when there is none."""
        if not self._heap:
            return False
        self.now, _, action, arguments = heapq.heappop(self._heap)
        action(*arguments)
        return True
