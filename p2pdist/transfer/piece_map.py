"""A blob on its way as a short row of cells, for people to look at. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from p2pdist.retention.ranges import RangeSet
from p2pdist.swarm.geometry import Geometry

MAX_CELLS = 256
WHOLE, NONE = "#", "."


@dataclass(frozen=True, slots=True)
class PieceMap:
    """``count`` pieces of ``piece`` bytes in at most MAX_CELLS ``cells``, which hold the same number of pieces each (the
    last one perhaps fewer): "#" is whole, "1" to "9" that many tenths of its bytes, "." nothing."""

    piece: int
    count: int
    cells: str

    @classmethod
    def of(cls, held: RangeSet, size: int) -> PieceMap:
        """What is held of a blob of ``size`` bytes; the time it takes grows with the ranges and cells, not the size."""
        geometry = Geometry.of(size)
        per_cell = -(-geometry.count // MAX_CELLS)
        width = geometry.piece * max(1, per_cell)
        filled = [0] * -(-size // width)
        for start, stop in held.clip(size):
            first, last = start // width, (stop - 1) // width
            filled[first] += min(stop, (first + 1) * width) - start
            if last > first:
                filled[first + 1 : last] = [width] * (last - first - 1)
                filled[last] += stop - last * width
        cells = (_cell(count, min(width, size - at * width)) for at, count in enumerate(filled))
        return cls(geometry.piece, geometry.count, "".join(cells))


def _cell(count: int, whole: int) -> str:
    if count >= whole:
        return WHOLE
    return str(max(1, 10 * count // whole)) if count else NONE
