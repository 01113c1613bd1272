"""Descriptors of small blobs that were read lately, so that to read one again costs neither a thread nor an open(2).

Rules:
- A descriptor gets here from the usual way, which checked its file. It is used only while the file is still linked and has
  the size that it should have (fstat(2) of an open file does not block); else the usual way decides anew.
- At most ``most`` of them, the least recently used go. What leaves the books is dropped before its file is removed, so that
  its room on the disk is free at once.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Final

from p2pdist.oci.digest import Digest

MAX_SIZE: Final = 64 * 1024
MAX_FILES: Final = 64


class HotFiles:
    """See the module's rules. Not for threads; ``close`` it."""

    def __init__(self, most: int = MAX_FILES) -> None:
        self._most = most
        self._files: OrderedDict[Digest, int] = OrderedDict()

    def keep(self, digest: Digest, descriptor: int) -> None:
        """Remember a copy of an open descriptor of that blob."""
        self.drop(digest)
        try:
            self._files[digest] = os.dup(descriptor)
        except OSError:  # too many are open: so it is opened the next time
            return
        if len(self._files) > self._most:
            os.close(self._files.popitem(last=False)[1])

    def open(self, digest: Digest, size: int) -> int | None:
        """A descriptor of the blob, the caller's own; None when it has to be opened the usual way."""
        descriptor = self._current(digest, size)
        try:
            return None if descriptor is None else os.dup(descriptor)
        except OSError:
            return None

    def read(self, digest: Digest, size: int) -> bytes | None:
        """All of the blob, if it can be had without waiting for a disk; else None."""
        descriptor = self._current(digest, size)
        return None if descriptor is None else read_cached(descriptor, 0, size)

    def drop(self, digest: Digest) -> None:
        descriptor = self._files.pop(digest, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def _current(self, digest: Digest, size: int) -> int | None:
        descriptor = self._files.get(digest)
        if descriptor is None:
            return None
        status = os.fstat(descriptor)
        if not status.st_nlink or status.st_size != size:
            self.drop(digest)
            return None
        self._files.move_to_end(digest)
        return descriptor


def read_cached(descriptor: int, offset: int, length: int) -> bytes | None:
    """So many bytes if the page cache has them all, without blocking (preadv2(2), RWF_NOWAIT); else None."""
    data = bytearray(length)
    try:
        found = os.preadv(descriptor, [data], offset, os.RWF_NOWAIT) if length else 0
    except OSError:  # not cached, or a file system that cannot tell
        return None
    return bytes(data) if found == length else None
