"""What one swarm session moves: piece buffers, and runs of pieces from upstream cut into steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from mmap import mmap

from p2pdist.errors import P2PDistError
from p2pdist.records import PeerId, Provider
from p2pdist.swarm.geometry import Geometry
from p2pdist.wire.swarm_messages import PieceHasher

STEP = 256 * 1024
MAX_STEP = 1024 * 1024
RELAY_STEP = 256 * 1024
STEP_PAUSE = 0.03
SLOW_STEP = 32 * 1024
SLOW_PAUSE = 0.1
TakeStep = Callable[[int, memoryview, Provider], Coroutine[None, None, None]]
# Of a run that others are to divide: taking so little in costs less than breaking it off.
KEPT_TAIL = 512 * 1024


class Hurry:
    """Whether this host is short of CPU: ``hurried`` for some seconds after it was late by LATE seconds with anything."""

    LATE = 0.03

    def __init__(self) -> None:
        self._late = 0.0

    @property
    def hurried(self) -> bool:
        return self._late > self.LATE

    def was_late(self, seconds: float) -> None:
        """To be told several times a second by how much something came late that was due."""
        self._late = max(seconds, 0.8 * self._late)


class Inflow:
    """A piece on its way from peers into its buffer: written out step by step, to be passed on while it arrives.

    ``take`` writes a step, given its offset in the piece, the bytes and who sent them; its errors are raised by
    ``finish``. One step at a time is under way; what comes meanwhile goes with the next. When a peer is left in mid-piece
    the next one goes on at ``filled``.
    """

    def __init__(
        self, buffer: mmap, size: int, take: TakeStep, tasks: asyncio.TaskGroup, hurry: Hurry | None = None
    ) -> None:
        self.buffer = buffer
        self.filled = 0
        self._view = memoryview(buffer)[:size]
        self._take = take
        self._tasks = tasks
        self._hurry = hurry or Hurry()
        self._hasher = PieceHasher()
        self._taken = 0
        self._provider: Provider | None = None
        self.senders: dict[PeerId, None] = {}
        self._step: asyncio.Task[None] | None = None
        self._error: P2PDistError | None = None
        self._stepped = time.monotonic()

    @property
    def rest(self) -> memoryview:
        """Where the bytes that are missing belong."""
        return self._view[self.filled :]

    def advance(self, provider: Provider) -> Callable[[int], None]:
        """To be told how many bytes of ``rest``, as it is now, have come from ``provider``."""
        base, self._provider = self.filled, provider
        self.senders[provider.peer] = None

        def moved(count: int) -> None:
            self.filled = base + count
            idle = self._step is None or self._step.done()
            if idle and self._error is None and self._is_time(self.filled - self._taken):
                self._step = self._tasks.create_task(self._guarded())

        return moved

    def _is_time(self, waiting: int) -> bool:
        """Not so often that steps cost more than they gain: what comes fast goes in larger ones. What comes slowly goes in
        smaller ones, if there is CPU for them: over slow links a step is the delay of each hop."""
        if waiting < (RELAY_STEP if self._hurry.hurried else SLOW_STEP):
            return False
        now = time.monotonic()
        if now - self._stepped < (STEP_PAUSE if waiting >= RELAY_STEP else SLOW_PAUSE):
            return False
        self._stepped = now
        return True

    async def _guarded(self) -> None:
        try:
            await self._write()
        except P2PDistError as error:
            self._error = error

    async def _write(self) -> None:
        at, stop = self._taken, self.filled
        part = self._view[at:stop]
        assert self._provider is not None
        await self._take(at, part, self._provider)
        self._hasher.update(part)
        self._taken = stop

    async def finish(self) -> None:
        """All of ``rest`` has come: write what is left; raises what a step raised."""
        self.filled = len(self._view)
        while True:
            if self._step is not None:
                await asyncio.shield(
                    self._step
                )  # whoever goes on with the piece after a cancellation waits for it too
            if self._error is not None:
                raise self._error
            if self._taken == self.filled:
                return
            self._step = self._tasks.create_task(self._guarded())

    def digest(self) -> bytes:
        """The piece's digest, once it is finished."""
        return self._hasher.digest()


class Inflows:
    """The pieces that come from peers, those that were left in the middle among them; at most ``most`` of these."""

    def __init__(self, size: int, most: int) -> None:
        self.hurry = Hurry()
        self._size = size
        self._most = most
        self._free: list[mmap] = []
        self._left: dict[int, Inflow] = {}

    def take(self, piece: int, size: int, take: TakeStep, tasks: asyncio.TaskGroup) -> Inflow:
        """Go on with a piece, or begin it."""
        left = self._left.pop(piece, None)
        if left is not None:
            return left
        # Fresh memory costs the kernel as much as copying into it, so it is used again; and a piece that waits for its
        # first byte has none, since pages are given out when they are written.
        buffer = self._free.pop() if self._free else mmap(-1, max(size, self._size))
        return Inflow(buffer, size, take, tasks, self.hurry)

    def keep(self, piece: int, inflow: Inflow) -> None:
        """The piece was left in the middle."""
        if inflow.filled and len(self._left) < self._most:
            self._left[piece] = inflow

    def forget(self, piece: int) -> None:
        """The piece is here, or what came of it is not to be used."""
        self._left.pop(piece, None)

    def done(self, inflow: Inflow) -> None:
        """The piece is whole, and nobody looks at its buffer any more."""
        self._free.append(inflow.buffer)


class Run:
    """Where a run of pieces from upstream stands. Bytes are gathered into steps of STEP (of at most MAX_STEP, when so much
    comes at once), within a piece: every step is written, and sent on to those who wait for it, by itself, which costs
    the same for few bytes as for many."""

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
        if not self.dropped.issuperset(self.left):
            return False
        return self._geometry.span(self.left[-1])[1] - self.offset > KEPT_TAIL

    def room(self) -> int:
        """Bytes to the end of the current step, if it is to be as large as can be."""
        end = self._geometry.span(self.left[0])[1]
        return min(end - self.offset, MAX_STEP) - self._gathered

    def is_due(self) -> bool:
        """Whether a step is gathered."""
        return self._gathered >= STEP or self.room() == 0

    def gather(self, part: memoryview) -> None:
        """Keep bytes for the current step."""
        self._parts.append(part)
        self._gathered += len(part)

    def step(self) -> bytes | memoryview:
        """What was gathered."""
        parts, self._parts, self._gathered = self._parts, [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def took(self, part: bytes | memoryview) -> bytes | None:
        """Book bytes of the current piece; its digest when it is whole."""
        self._hasher.update(part)
        self.offset += len(part)
        if self.offset < self._geometry.span(self.left[0])[1]:
            return None
        digest = self._hasher.digest()
        self._hasher = PieceHasher()
        self.left.pop(0)
        return digest
