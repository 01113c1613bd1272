"""The blobs of the store in memory (memory_store.py), as one reads and writes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from p2pdist.errors import DigestMismatchError, InvalidInputError, StoreError
from p2pdist.oci.digest import Digest
from p2pdist.retention.ranges import RangeSet
from p2pdist.store.port import BlobInfo


@dataclass(slots=True)
class MemoryPart:
    """What an ingest left: the blob's size, bytes with holes, and which of them are held."""

    size: int
    data: bytearray = field(default_factory=bytearray)
    held: RangeSet = field(default_factory=RangeSet)


class MemoryReader:
    """See store/port.py, BlobReader."""

    def __init__(self, info: BlobInfo, data: bytes, release: Callable[[], None]) -> None:
        self._info = info
        self._data = data
        self._release = release
        self._closed = False

    @property
    def info(self) -> BlobInfo:
        return self._info

    @property
    def path(self) -> Path | None:
        return None

    def fileno(self) -> int | None:
        return None

    async def read(self, offset: int, length: int) -> bytes:
        if self._closed:
            raise StoreError(f"the reader of {self._info.digest} is closed")
        return self._data[offset : offset + max(0, length)]

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._release()


class IngestOwner(Protocol):
    """What an ingest tells the store that made it."""

    def check_disk(self) -> None:
        """Raise what a full disk makes of a write."""

    def publish(self, digest: Digest, data: bytes, media_type: str, *, shared: bool) -> BlobInfo:
        """An ingest is whole and right."""

    def ended(self, digest: Digest, part: MemoryPart | None) -> None:
        """An ingest was closed, and left ``part``."""


class MemoryIngest:
    """See store/port.py, Ingest."""

    def __init__(self, owner: IngestOwner, digest: Digest, part: MemoryPart) -> None:
        self._owner = owner
        self._digest = digest
        self._part = part
        self._resumed = part.held.total
        self._open = True

    @property
    def digest(self) -> Digest:
        return self._digest

    @property
    def size(self) -> int:
        return self._part.size

    @property
    def front(self) -> int:
        return self._part.held.front

    @property
    def resumed(self) -> int:
        return self._resumed

    def held(self) -> tuple[tuple[int, int], ...]:
        return tuple(self._part.held)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        body = bytes(data)
        stop = offset + len(body)
        if offset < 0 or stop > self.size:
            raise InvalidInputError(f"bytes {offset} to {stop} are beyond the {self.size} of {self._digest}")
        await asyncio.sleep(0)
        self._require_open()
        self._owner.check_disk()
        part = self._part
        part.data.extend(bytes(max(0, stop - len(part.data))))
        part.data[offset:stop] = body
        part.held = part.held.add(offset, stop)

    async def read(self, offset: int, length: int) -> bytes:
        await asyncio.sleep(0)
        if not self._open:
            return b""
        stop = min(self._part.held.held_from(offset), offset + max(0, length))
        return bytes(self._part.data[offset:stop])

    def duplicate(self) -> int | None:
        return None

    async def commit(self, media_type: str = "", *, shared: bool = True) -> BlobInfo:
        await asyncio.sleep(0)
        self._require_open()
        self._owner.check_disk()
        part = self._part
        if not part.held.covers(self.size):
            raise DigestMismatchError(
                f"{self._digest} is not complete: {part.held.total} of {self.size} bytes are held"
            )
        found = Digest.of(bytes(part.data), self._digest.algorithm)
        if found != self._digest:
            raise DigestMismatchError(
                f"the {self.size} bytes fetched for {self._digest} have the digest {found}"
            )
        self._open = False
        return self._owner.publish(self._digest, bytes(part.data), media_type, shared=shared)

    async def reset(self) -> None:
        self._require_open()
        self._part.data.clear()
        self._part.held = RangeSet()

    async def close(self) -> None:
        if self._open:
            self._open = False
            self._owner.ended(self._digest, self._part if self._part.held.bounds else None)

    async def discard(self) -> None:
        if self._open:
            self._open = False
            self._owner.ended(self._digest, None)

    def _require_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self._digest} is no longer being written: its ingest has ended")
