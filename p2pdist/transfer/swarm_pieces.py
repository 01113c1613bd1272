"""What one swarm session moves: piece buffers, and runs of pieces from upstream cut into steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from p2pdist.errors import P2PDistError
from p2pdist.swarm.geometry import Geometry
from p2pdist.wire.swarm_messages import PieceHasher

STEP = 128 * 1024
RELAY_STEP = 256 * 1024
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


class Inflow:
    """A piece on its way from a peer into its buffer: written out step by step, to be passed on while it arrives.

    ``take`` writes one step, given its offset in the piece; its errors are raised by ``finish``. One step at a time is
    under way; what comes meanwhile goes with the next.
    """

    def __init__(
        self,
        view: memoryview,
        take: Callable[[int, memoryview], Coroutine[None, None, None]],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._view = view
        self._take = take
        self._tasks = tasks
        self._hasher = PieceHasher()
        self._taken = 0
        self._step: asyncio.Task[None] | None = None
        self._error: P2PDistError | None = None

    def advance(self, filled: int) -> None:
        """So many bytes from the start are there."""
        idle = self._step is None or self._step.done()
        if idle and self._error is None and filled - self._taken >= RELAY_STEP:
            self._step = self._tasks.create_task(self._guarded(filled))

    async def _guarded(self, filled: int) -> None:
        try:
            await self._write(filled)
        except P2PDistError as error:
            self._error = error

    async def _write(self, filled: int) -> None:
        at, part = self._taken, self._view[self._taken : filled]
        self._taken = filled
        self._hasher.update(part)
        await self._take(at, part)

    async def finish(self) -> None:
        """Write the rest; raises what a step raised."""
        if self._step is not None:
            await self._step
        if self._error is not None:
            raise self._error
        if self._taken < len(self._view):
            await self._write(len(self._view))

    def digest(self) -> bytes:
        """The piece's digest, once it is finished."""
        return self._hasher.digest()


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
