"""Where the bytes that flows send come from: blobs that are held, and blobs that are still arriving."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

from p2pdist.oci.digest import Digest
from p2pdist.store.port import BlobReader, Store


class PartialBlob(Protocol):
    """A blob that is still arriving (transfer.fetch.BlobFetch)."""

    @property
    def size(self) -> int: ...

    @property
    def failed(self) -> bool:
        """It will not come any more."""

    def held_from(self, offset: int) -> int:
        """Where the held range that contains ``offset`` stops; ``offset`` itself when that byte is not held."""

    async def wait_held(self, offset: int) -> int:
        """As ``held_from``, once the byte at ``offset`` is there."""

    def duplicate(self) -> int | None:
        """A descriptor of the file that holds the bytes at their offsets; the caller closes it."""

    def watch(self, told: Callable[[], None]) -> None:
        """``told`` is called at all news, until ``unwatch``."""

    def unwatch(self, told: Callable[[], None]) -> None: ...


Partials = Callable[[Digest], "PartialBlob | None"]


class BlobSource(Protocol):
    """One blob's bytes, until ``close``."""

    @property
    def size(self) -> int: ...

    @property
    def file(self) -> int | None:
        """A descriptor of a file that holds the bytes at their offsets; None: ``read`` is the only way to them."""

    @property
    def cold(self) -> bool:
        """Whether reading may have to wait for the disk."""

    @property
    def failed(self) -> bool:
        """What is not ready now will not be."""

    def ready(self, offset: int) -> int:
        """Where the bytes stop that can be read from ``offset`` on; ``offset`` itself when there are none."""

    async def read(self, offset: int, length: int) -> bytes:
        """Bytes that are ready; raises ConnectionAbortedError when they are there no more."""

    def close(self) -> None: ...


async def open_source(
    store: Store, partials: Partials, digest: Digest, told: Callable[[], None]
) -> BlobSource | None:
    """The blob's bytes, if it is here and peers may have it; ``told`` is called when more of them have come."""
    reader = await store.open(digest)
    if reader is not None:
        if reader.info.shared:
            return HeldSource(reader)
        reader.close()
        return None
    blob = partials(digest)
    file = None if blob is None or blob.failed else blob.duplicate()
    return None if blob is None or file is None else ArrivingSource(blob, file, told)


class HeldSource:
    """See BlobSource: a blob of the store."""

    cold = True
    failed = False

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader
        self.size = reader.info.size
        self.file = reader.fileno()

    def ready(self, offset: int) -> int:
        return self.size

    async def read(self, offset: int, length: int) -> bytes:
        if self.file is not None:
            return await _read_file(self.file, offset, length)
        return _whole(await self._reader.read(offset, length), length)

    def close(self) -> None:
        self._reader.close()


class ArrivingSource:
    """See BlobSource: a blob that is being fetched, by way of a descriptor that this closes.

    What has only just arrived is in memory, so it is not ``cold``.
    """

    cold = False

    def __init__(self, blob: PartialBlob, file: int, told: Callable[[], None]) -> None:
        self._blob = blob
        self._told = told
        self.size = blob.size
        self.file = file
        blob.watch(told)

    @property
    def failed(self) -> bool:
        return self._blob.failed

    def ready(self, offset: int) -> int:
        return self._blob.held_from(offset)

    async def read(self, offset: int, length: int) -> bytes:
        return await _read_file(self.file, offset, length)

    def close(self) -> None:
        self._blob.unwatch(self._told)
        os.close(self.file)


async def _read_file(file: int, offset: int, length: int) -> bytes:
    loop = asyncio.get_running_loop()
    return _whole(await loop.run_in_executor(None, os.pread, file, length, offset), length)


def _whole(data: bytes, length: int) -> bytes:
    if len(data) < length:
        raise ConnectionAbortedError("a blob became shorter while it was sent")
    return data
