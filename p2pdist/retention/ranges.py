"""Which bytes of a blob are held: an immutable set of half-open ranges.

Always true here: the offsets are strictly increasing, so ranges are sorted, disjoint and non-adjacent. A value never
changes, so a thread may read one while another thread makes the next.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class RangeSet:
    """``bounds`` is start, stop, start, stop, ... in bytes; the number of bounds below an offset tells whether it is in."""

    bounds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.bounds) % 2 or (self.bounds and self.bounds[0] < 0):
            raise ValueError("ranges are pairs of offsets from 0 on")
        if any(low >= high for low, high in pairwise(self.bounds)):
            raise ValueError("ranges are sorted, disjoint, non-adjacent and not empty")

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> RangeSet:
        """The union of ``ranges``, in any order; empty ones count for nothing."""
        result = cls()
        for start, stop in ranges:
            result = result.add(start, stop)
        return result

    def add(self, start: int, stop: int) -> RangeSet:
        """With [start, stop) in it."""
        if start >= stop:
            return self
        bounds = self.bounds
        if not bounds or start > bounds[-1]:
            return _trusted((*bounds, start, stop))
        # An odd index lies inside, or at the end of, a held range, which then simply grows.
        left, right = bisect_left(bounds, start), bisect_right(bounds, stop)
        middle = ((start,) if left % 2 == 0 else ()) + ((stop,) if right % 2 == 0 else ())
        return _trusted(bounds[:left] + middle + bounds[right:])

    def clip(self, stop: int) -> RangeSet:
        """Without what is at ``stop`` or beyond."""
        index = bisect_left(self.bounds, stop)
        return _trusted(self.bounds[:index] + ((stop,) if index % 2 else ()))

    def first(self, count: int) -> RangeSet:
        """Only the first ``count`` ranges."""
        return _trusted(self.bounds[: 2 * count])

    def held_from(self, offset: int) -> int:
        """Where the held range that contains ``offset`` stops; ``offset`` itself when it is in a gap."""
        index = bisect_right(self.bounds, offset)
        return self.bounds[index] if index % 2 else offset

    def within(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """[start, stop) cut where it enters and leaves held ranges: (start, stop, whether it is held), in order."""
        index = bisect_right(self.bounds, start)
        while start < stop:
            end = min(stop, self.bounds[index]) if index < len(self.bounds) else stop
            yield start, end, index % 2 == 1
            start, index = end, index + 1

    @property
    def front(self) -> int:
        """Length of the contiguous prefix."""
        return self.bounds[1] if self.bounds and self.bounds[0] == 0 else 0

    @property
    def total(self) -> int:
        """How many bytes are in it."""
        return sum(self.bounds[1::2]) - sum(self.bounds[::2])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self.bounds[::2], self.bounds[1::2], strict=True))

    def __len__(self) -> int:
        return len(self.bounds) // 2

    def covers(self, size: int) -> bool:
        """Whether it is exactly [0, size)."""
        return self.bounds == ((0, size) if size else ())


def _trusted(bounds: tuple[int, ...]) -> RangeSet:
    """A set whose bounds are right by construction: checking them again would make each write linear in Python."""
    result = object.__new__(RangeSet)
    object.__setattr__(result, "bounds", bounds)
    return result
