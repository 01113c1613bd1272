"""A committed blob, open for reading."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from p2pdist.errors import StoreError
from p2pdist.oci.digest import Digest
from p2pdist.store.hops import Hops
from p2pdist.store.layout import translate
from p2pdist.store.port import BlobInfo

_CHUNK = 1024 * 1024


class DamagedBlobError(StoreError):
    """A blob's file is missing, or does not have the size or the digest it should have."""


def open_blob(path: Path, size: int) -> int:
    """In a thread: a descriptor of the blob's file. Raises DamagedBlobError, StoreError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise DamagedBlobError(f"{path} is gone") from error
    except OSError as error:
        raise translate(error, "opening", path) from error
    found = os.fstat(descriptor).st_size
    if found != size:
        os.close(descriptor)
        raise DamagedBlobError(f"{path} has {found} bytes instead of {size}")
    return descriptor


def read_blob(path: Path, size: int) -> tuple[bytes, int]:
    """In a thread: all of a small blob, and a descriptor of it, which the caller closes. Raises as ``open_blob`` does."""
    descriptor = open_blob(path, size)
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(), descriptor
    except OSError as error:
        os.close(descriptor)
        raise translate(error, "reading", path) from error


def check_blob(path: Path, digest: Digest, size: int) -> None:
    """In a thread: read all of a blob and check its digest. Raises as ``open_blob`` does."""
    hasher = digest.hasher()
    descriptor = open_blob(path, size)
    try:
        for offset in range(0, size, _CHUNK):
            hasher.update(os.pread(descriptor, _CHUNK, offset))
    except OSError as error:
        raise translate(error, "reading", path) from error
    finally:
        os.close(descriptor)
    if not digest.matches(hasher):
        raise DamagedBlobError(f"{path} does not have the digest of its name")


class DiskReader:
    """See store/port.py, BlobReader. ``release`` is told once, when it is closed."""

    def __init__(self, info: BlobInfo, path: Path, fd: int, hops: Hops, release: Callable[[], None]) -> None:
        self._info = info
        self._path = path
        self._fd = fd
        self._hops = hops
        self._release = release
        self._reading = 0
        self._closed = False

    @property
    def info(self) -> BlobInfo:
        return self._info

    @property
    def path(self) -> Path | None:
        return self._path

    def fileno(self) -> int | None:
        return None if self._closed else self._fd

    async def read(self, offset: int, length: int) -> bytes:
        if self._closed:
            raise StoreError(f"the reader of {self._info.digest} is closed")
        self._reading += 1
        try:
            return await self._hops.run(os.pread, self._fd, max(0, length), offset)
        except OSError as error:
            raise translate(error, "reading", self._path) from error
        finally:
            self._reading -= 1
            self._close_if_unused()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        # A descriptor that is closed under a read in a thread could be another file's by then.
        if self._closed and not self._reading and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._release()


async def close_reader(reader: DiskReader | None) -> None:
    """Close it, if there is one."""
    if reader is not None:
        reader.close()
