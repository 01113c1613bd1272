"""How a blob is cut into pieces. Every member of a swarm computes the same cut from the blob's size alone."""

from __future__ import annotations

from dataclasses import dataclass

MIN_PIECE = 512 * 1024
MAX_PIECE = 4 * 1024 * 1024
TARGET_PIECES = 64


@dataclass(frozen=True, slots=True)
class Geometry:
    """``size`` bytes in ``count`` pieces of ``piece`` bytes; the last one may be shorter. Sizes in bytes."""

    size: int
    piece: int
    count: int

    @classmethod
    def of(cls, size: int) -> Geometry:
        """Powers of two from 512 KiB to 4 MiB, for about 64 pieces; an empty blob has none."""
        piece = MIN_PIECE
        while piece < MAX_PIECE and size > piece * TARGET_PIECES:
            piece *= 2
        return cls(size, piece, -(-size // piece))

    def span(self, index: int) -> tuple[int, int]:
        """The (start, stop) offsets of a piece."""
        start = index * self.piece
        return start, min(start + self.piece, self.size)

    def whole_pieces(self, start: int, stop: int) -> range:
        """The pieces that lie entirely within [start, stop)."""
        first = -(-start // self.piece)
        last = self.count if stop >= self.size else stop // self.piece
        return range(first, max(first, last))

    def touching(self, start: int, stop: int) -> range:
        """The pieces that hold any byte of [start, stop)."""
        if start >= stop:
            return range(0)
        return range(start // self.piece, -(-stop // self.piece))
