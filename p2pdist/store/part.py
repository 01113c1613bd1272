"""The file of a blob being written, for use in threads: sparse, resumable, hashed as its front grows.

Rules:
- ``held`` names only bytes that are in the file. It is an immutable value, replaced after the write.
- The hash covers [0, hashed) exactly as the file has it. A byte that is written again with another value restarts the
  hash; one that is written again with the same value changes nothing.
- Writing and hashing never wait for each other: ``write`` hashes its own bytes, still warm, when the hash has got that
  far and nobody else is hashing; else ``hash_more`` reads them back. So memory does not grow with the blob.
- One caller at a time for ``write``, ``seal``, ``reset``, ``save`` and ``remove`` (the ingest's lock); ``read`` and
  ``hash_more`` may run beside them.
- What ``save`` wrote is what a later process resumes from. It is not synced: after a power cut it may name bytes that
  are lost, which the digest then tells.
"""

from __future__ import annotations

import os
import threading

from p2pdist.errors import DigestMismatchError, InvalidInputError, StoreError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.retention.ranges import RangeSet
from p2pdist.store.held_file import MAX_BYTES, encode_held, parse_held
from p2pdist.store.layout import PRIVATE_MODE, SHARED_MODE, Layout, translate

CHECKPOINT_BYTES = 4 * 1024 * 1024
CHECKPOINT_SECONDS = 1.0
_READ_BACK = 1024 * 1024


class PartFile:
    """See the module's rules. Offsets and sizes are bytes; errors of the disk are StoreFullError or StoreError."""

    def __init__(self, layout: Layout, digest: Digest, size: int) -> None:
        self.digest = digest
        self.size = size
        self.held = read_held(layout, digest, size) or RangeSet()
        self._layout = layout
        self._path = layout.part(digest)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if self.held.bounds else os.O_TRUNC)
        try:
            if not self.held.bounds:
                layout.held(digest).unlink(missing_ok=True)
            self._fd = os.open(self._path, flags, PRIVATE_MODE)
        except OSError as error:
            raise translate(error, "opening", self._path) from error
        self._hasher = digest.hasher()
        self._hashed = 0
        self._hash_lock = threading.Lock()
        self._hash_is_stale = False
        self._unsaved = 0
        self._saved_at = float("-inf")
        self._users = 0
        self._users_lock = threading.Lock()
        self._closing = False

    @property
    def hash_lag(self) -> int:
        """Bytes of the front that are not hashed yet."""
        return self.held.front - self._hashed

    def write(self, offset: int, data: bytes | bytearray | memoryview, now: float) -> None:
        """Write, hash what can be hashed, and at times ``save``; ``now`` is monotonic seconds."""
        view = memoryview(data).cast("B")
        try:
            for start, stop, held in self.held.within(offset, offset + len(view)):
                piece = view[start - offset : stop - offset]
                if not held:
                    self._append(start, piece)
                elif not self._holds(start, piece):
                    self._replace(start, piece)
        except OSError as error:
            raise translate(error, "writing to", self._path) from error
        if self._unsaved and (
            self._unsaved >= CHECKPOINT_BYTES or now - self._saved_at >= CHECKPOINT_SECONDS
        ):
            self.save()
            self._saved_at = now

    def _append(self, start: int, piece: memoryview) -> None:
        self._put(start, piece)
        stop = start + len(piece)
        self.held = self.held.add(start, stop)
        self._unsaved += len(piece)
        if not self._hash_lock.acquire(blocking=False):
            return
        try:
            if start == self._hashed and not self._hash_is_stale:
                self._hasher.update(piece)
                self._hashed = stop
            self._hash_back(
                4 * len(piece)
            )  # catches up with a front that jumped, at a bounded cost for this write
        finally:
            self._hash_lock.release()

    def _replace(self, start: int, piece: memoryview) -> None:
        self._put(start, piece)
        # Set after the bytes are in the file: who reads them back before sees the mark later, and starts again.
        self._hash_is_stale = True

    def _put(self, offset: int, piece: memoryview) -> None:
        while piece:
            written = os.pwrite(self._fd, piece, offset)
            piece, offset = piece[written:], offset + written

    def _holds(self, offset: int, piece: memoryview) -> bool:
        for low in range(0, len(piece), _READ_BACK):
            expected = piece[low : low + _READ_BACK]
            if os.pread(self._fd, len(expected), offset + low) != expected:
                return False
        return True

    def hash_more(self, budget: int) -> int:
        """Hash up to ``budget`` bytes of the front by reading them back; how many are left."""
        with self._hash_lock:
            self._hash_back(budget)
        return self.hash_lag

    def _hash_back(self, budget: int) -> None:
        if self._hash_is_stale:
            self._hash_is_stale = False
            self._hasher, self._hashed = self.digest.hasher(), 0
        while budget > 0 and self._hashed < (front := self.held.front):
            try:
                data = os.pread(self._fd, min(_READ_BACK, budget, front - self._hashed), self._hashed)
            except OSError as error:
                raise translate(error, "reading", self._path) from error
            if not data:
                raise StoreError(
                    f"{self._path} became shorter while it was written; leave the ingest directory alone"
                )
            self._hasher.update(data)
            self._hashed += len(data)
            budget -= len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes that are held, up to the first gap; b"" once the file is closed."""
        stop = self.held.held_from(offset)
        with self._users_lock:
            if self._closing:
                return b""
            self._users += 1
        try:
            return os.pread(self._fd, max(0, min(length, stop - offset)), offset)
        except OSError as error:
            raise translate(error, "reading", self._path) from error
        finally:
            with self._users_lock:
                self._users -= 1
                self._close_if_unused()

    def duplicate(self) -> int:
        """Another descriptor of the same file; it stays good when this one is closed, and when the file is renamed."""
        return os.dup(self._fd)

    def seal(self, *, shared: bool) -> None:
        """Sync, then check size and digest: afterwards the file may be published. Raises DigestMismatchError."""
        try:
            os.fchmod(self._fd, SHARED_MODE if shared else PRIVATE_MODE)
            os.fsync(self._fd)
            length = os.fstat(self._fd).st_size
        except OSError as error:
            raise translate(error, "syncing", self._path) from error
        if length != self.size or not self.held.covers(self.size):
            raise DigestMismatchError(
                f"{self.digest} is not complete: {self.held.total} of {self.size} bytes are held"
            )
        with self._hash_lock:
            while self._hash_is_stale or self.hash_lag:
                self._hash_back(self.size)
        if not self.digest.matches(self._hasher):
            raise DigestMismatchError(
                f"the {self.size} bytes fetched for {self.digest} have the digest "
                f"{self.digest.algorithm}:{self._hasher.hexdigest()}"
            )

    def reset(self) -> None:
        """Forget all bytes."""
        try:
            self._layout.held(self.digest).unlink(missing_ok=True)
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise translate(error, "emptying", self._path) from error
        with self._hash_lock:
            self.held = RangeSet()
            self._hasher, self._hashed, self._hash_is_stale = self.digest.hasher(), 0, False
        self._unsaved = 0

    def save(self) -> int:
        """Write down what is held, for a later process; how many bytes of it that process will trust."""
        path = self._layout.held(self.digest)
        temporary = path.with_suffix(".tmp")
        held = self.held
        body = encode_held(self.size, held)
        try:
            temporary.write_bytes(body)
            os.replace(temporary, path)
        except OSError as error:
            raise translate(error, "writing", path) from error
        self._unsaved = 0
        return parse_held(body)[1].total

    def leave(self) -> int:
        """Close, and leave on disk what a later process may trust; how many bytes of the blob that is."""
        try:
            held = self.save() if self.held.bounds else 0
        except StoreFullError:
            earlier = read_held(
                self._layout, self.digest, self.size
            )  # the last checkpoint is as true as it was
            held = earlier.total if earlier else 0
        if held:
            self.close()
        else:
            self.remove()
        return held

    def close(self) -> None:
        """Close the file as soon as no read is under way."""
        with self._users_lock:
            if not self._closing:
                self._closing = True
                self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._closing and self._users == 0 and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Delete the file and what was written down of it."""
        try:
            self._layout.remove_part(self.digest)
        except OSError as error:
            raise translate(error, "removing", self._path) from error
        finally:
            self.close()


def read_held(layout: Layout, digest: Digest, size: int | None = None) -> RangeSet | None:
    """What may be trusted of a part on disk; None when nothing, or when it is of a blob that is not ``size`` long."""
    try:
        with layout.held(digest).open("rb") as file:
            found, held = parse_held(file.read(MAX_BYTES + 1))
        length = layout.part(digest).stat().st_size
    except (OSError, InvalidInputError):
        return None
    if size not in (None, found):
        return None
    return held.clip(length)
