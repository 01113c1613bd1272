"""What one swarm session moves: piece buffers, and runs of pieces from upstream cut into steps."""

from __future__ import annotations

from p2pdist.swarm.geometry import Geometry
from p2pdist.wire.swarm_messages import PieceHasher

STEP = 128 * 1024
# Of a run that others are to divide: taking so little in costs less than breaking it off.
KEPT_TAIL = 256 * 1024


class Buffers:
    """Piece buffers that are used again: fresh memory costs the kernel as much as copying into it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """At least ``size`` bytes, which is at most a piece."""
        return self._free.pop() if self._free else bytearray(max(size, self._size))

    def give_back(self, buffer: bytearray) -> None:
        self._free.append(buffer)


class Run:
    """Where a run of pieces from upstream stands. Bytes are gathered into steps of at most STEP, within a piece: every
    step is written, and sent on to those who wait for it, by itself, which costs the same for few bytes as for many."""

    def __init__(self, geometry: Geometry, pieces: tuple[int, ...]) -> None:
        self.left = list(pieces)
        self.dropped: set[int] = set()
        self.offset = geometry.span(pieces[0])[0]
        self._geometry = geometry
        self._hasher = PieceHasher()
        self._parts: list[bytes | memoryview] = []
        self._gathered = 0
        self.written = 0.0

    def is_over(self) -> bool:
        """Whether nothing more is to come: all is here, or others are to fetch what is left."""
        if not self.left:
            return True
        if self.offset > self._geometry.span(self.left[0])[0] or not self.dropped.issuperset(self.left):
            return False
        return self._geometry.span(self.left[-1])[1] - self.offset > KEPT_TAIL

    def room(self) -> int:
        """Bytes to the end of the current step."""
        end = self._geometry.span(self.left[0])[1]
        return min(end - self.offset, STEP) - self._gathered

    def gather(self, part: memoryview) -> None:
        """Keep bytes for the current step."""
        self._parts.append(part)
        self._gathered += len(part)

    def step(self) -> bytes:
        """What was gathered."""
        parts, self._parts, self._gathered = self._parts, [], 0
        return b"".join(parts)

    def took(self, part: bytes) -> bytes | None:
        """Book bytes of the current piece; its digest when it is whole."""
        self._hasher.update(part)
        self.offset += len(part)
        if self.offset < self._geometry.span(self.left[0])[1]:
            return None
        digest = self._hasher.digest()
        self._hasher = PieceHasher()
        self.left.pop(0)
        return digest
