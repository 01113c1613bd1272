"""What is noted about parts of a blob: disjoint segments (start, stop, value), sorted by offset.

Always true here: segments do not overlap; neighbours with one value are one segment; what was noted last holds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Generic, TypeVar

V = TypeVar("V")


class IntervalMap(Generic[V]):
    """See the module. Offsets are bytes, segments half-open; each call costs the segments it touches."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._segments: list[tuple[int, int, V]] = []

    def __bool__(self) -> bool:
        return bool(self._segments)

    def __iter__(self) -> Iterator[tuple[int, int, V]]:
        return iter(self._segments)

    def put(self, start: int, stop: int, value: V) -> None:
        """Note ``value`` for [start, stop), in place of what was noted for it before."""
        if start >= stop:
            return
        self.take(start, stop)
        low = high = bisect_left(self._starts, start)
        if low and self._segments[low - 1][1:] == (start, value):
            low -= 1
            start = self._starts[low]
        if high < len(self._starts) and self._starts[high] == stop and self._segments[high][2] == value:
            stop = self._segments[high][1]
            high += 1
        self._replace(low, high, [(start, stop, value)])

    def take(self, start: int, stop: int) -> list[tuple[int, int, V]]:
        """Remove and return what is noted within [start, stop), cut to it."""
        if start >= stop:
            return []
        low = bisect_left(self._starts, start)
        if low and self._segments[low - 1][1] > start:
            low -= 1
        high = bisect_left(self._starts, stop, low)
        taken = self._segments[low:high]
        if not taken:
            return []
        kept: list[tuple[int, int, V]] = []
        first, last = taken[0], taken[-1]
        if first[0] < start:
            kept.append((first[0], start, first[2]))
        if last[1] > stop:
            kept.append((stop, last[1], last[2]))
        self._replace(low, high, kept)
        return [(max(low, start), min(high, stop), value) for low, high, value in taken]

    def _replace(self, low: int, high: int, segments: list[tuple[int, int, V]]) -> None:
        self._segments[low:high] = segments
        self._starts[low:high] = [segment[0] for segment in segments]
