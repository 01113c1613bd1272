"""One blob being written to disk, as the event loop sees it.

Life: open -> committed | closed | discarded, once; afterwards writes are refused, reads give b"", and there is no file.
A write is one hop to a thread. Writes may be issued by several tasks at once: they take turns. A task that is cancelled
in a write leaves when the thread has let go of its buffer.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Protocol

from p2pdist.clock import Clock
from p2pdist.errors import InvalidInputError, StoreError
from p2pdist.oci.digest import Digest
from p2pdist.store.hops import Hops
from p2pdist.store.part import PartFile
from p2pdist.store.port import BlobInfo

_HASH_SLICE = 32 * 1024 * 1024


class _State(enum.Enum):
    OPEN = "being written"
    COMMITTED = "committed"
    CLOSED = "closed"
    DISCARDED = "discarded"


class IngestOwner(Protocol):
    """What an ingest tells the store that made it."""

    async def publish(self, part: PartFile, media_type: str, *, shared: bool) -> BlobInfo:
        """The part is sealed: rename it, and make it visible."""

    def will_be_shared(self, digest: Digest, *, shared: bool) -> bool:
        """Whether the blob may go to other hosts, with what is known of it from before."""

    def ended(self, digest: Digest, held: int) -> None:
        """The ingest ended with ``held`` bytes left on disk."""


class DiskIngest:
    """See store/port.py, Ingest, and the module's rules."""

    def __init__(self, part: PartFile, owner: IngestOwner, hops: Hops, clock: Clock) -> None:
        self._part = part
        self._owner = owner
        self._hops = hops
        self._clock = clock
        self._resumed = part.held.total
        self._state = _State.OPEN
        self._lock = asyncio.Lock()
        self._rehashing: asyncio.Task[None] | None = None
        if part.hash_lag:
            self._rehashing = asyncio.get_running_loop().create_task(self._rehash())

    @property
    def digest(self) -> Digest:
        return self._part.digest

    @property
    def size(self) -> int:
        return self._part.size

    @property
    def front(self) -> int:
        return self._part.held.front

    @property
    def written(self) -> int:
        """How many bytes of it are on disk."""
        return self._part.held.total

    @property
    def resumed(self) -> int:
        return self._resumed

    def held(self) -> tuple[tuple[int, int], ...]:
        return tuple(self._part.held)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        length = data.nbytes if isinstance(data, memoryview) else len(data)
        if offset < 0 or offset + length > self.size:
            raise InvalidInputError(
                f"bytes {offset} to {offset + length} are beyond the {self.size} of {self.digest}"
            )
        async with self._lock:
            self._require_open()
            await self._hops.run(self._part.write, offset, data, self._clock.now())

    async def read(self, offset: int, length: int) -> bytes:
        if self._state is not _State.OPEN or self._part.held.held_from(offset) == offset:
            return b""
        return await self._hops.run(self._part.read, offset, length)

    def duplicate(self) -> int | None:
        return self._part.duplicate() if self._state is _State.OPEN else None

    async def commit(self, media_type: str = "", *, shared: bool = True) -> BlobInfo:
        return await self._hops.whole(self._commit(media_type, shared))

    async def _commit(self, media_type: str, shared: bool) -> BlobInfo:
        async with self._lock:
            self._require_open()
            await self._stop_rehashing()
            shared = self._owner.will_be_shared(self.digest, shared=shared)
            await self._hops.run(self._part.seal, shared=shared)
            info = await self._owner.publish(self._part, media_type, shared=shared)
            self._state = _State.COMMITTED
            self._part.close()
            return info

    async def reset(self) -> None:
        async with self._lock:
            self._require_open()
            await self._stop_rehashing()
            await self._hops.run(self._part.reset)

    async def close(self) -> None:
        await self._hops.whole(self._end(_State.CLOSED))

    async def discard(self) -> None:
        await self._hops.whole(self._end(_State.DISCARDED))

    async def _end(self, state: _State) -> None:
        async with self._lock:
            if self._state is not _State.OPEN:
                return
            await self._stop_rehashing()
            self._state, held = state, 0
            try:
                if state is _State.CLOSED:
                    held = await self._hops.run(self._part.leave)
                else:
                    await self._hops.run(self._part.remove)
            finally:
                self._owner.ended(self.digest, held)

    def _require_open(self) -> None:
        if self._state is not _State.OPEN:
            raise StoreError(f"{self.digest} is no longer being written: its ingest is {self._state.value}")

    async def _rehash(self) -> None:
        """Hash what an earlier process left, beside the writes; in slices, so that others get their turn."""
        while await self._hops.run(self._part.hash_more, _HASH_SLICE):
            pass

    async def _stop_rehashing(self) -> None:
        """Whoever seals hashes the rest; an error of the disk shows there as well."""
        if self._rehashing is not None:
            self._rehashing.cancel()
            await asyncio.wait([self._rehashing])
            if not self._rehashing.cancelled():
                self._rehashing.exception()
            self._rehashing = None
