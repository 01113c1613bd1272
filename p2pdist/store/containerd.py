"""containerd's content store, read where it lies: its blobs are held here too, without a copy.

    CONTENT/blobs/ALG/HEX      whole blobs, put there by rename (containerd, plugins/content/local)

Rules:
- Nothing there is ever written, changed or removed, and none of it counts against the quota: it is containerd's.
- A blob is held only after its bytes were checked against its name, once per file (containerd_marks.py); until then it is
  as if it were not there. Checking goes on beside everything else at ``RATE``, the smallest first, so that manifests come
  at once and a start is no storm. What an earlier process checked is told one blob per ``PACE`` seconds.
- What is gone, or is another file than the one checked, is no longer held from the moment that this is seen: at the next
  look at the directory (every ``POLL`` seconds, when it changed), or when it is opened.
- Only regular files whose name is a digest are looked at, and at most MAX_BLOBS of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from p2pdist.clock import Clock
from p2pdist.errors import InvalidInputError, StoreError
from p2pdist.oci.digest import Digest, Hasher
from p2pdist.store.containerd_marks import MAX_BLOBS, Stamp, read_marks, write_marks
from p2pdist.store.hops import Hops
from p2pdist.store.port import BlobInfo
from p2pdist.store.reader import DamagedBlobError, DiskReader, close_reader, open_blob

logger = logging.getLogger(__name__)

RATE = 64 * 1024 * 1024
POLL = 2.0
FULL_SCAN = 300.0
PACE = 0.005
WRITE_EVERY = 30.0
_SLICE = 8 * 1024 * 1024
# A directory that changed within its clock's tick before a look may change again without showing it.
_TICK_NS = 1_000_000_000
_ALGORITHMS = ("sha256", "sha512")


OnHeld = Callable[[Digest, bool], None]


@dataclass(frozen=True, slots=True)
class _Held:
    """A checked blob."""

    stamp: Stamp
    shared: bool
    used_at: float


class ContainerdContent:
    """See the module's rules. ``load`` first, then ``run`` for as long as it is used, then ``close``."""

    def __init__(self, root: Path, marks: Path, clock: Clock) -> None:
        self.root = root
        self._marks_file = marks
        self._clock = clock
        self._hops = Hops(2, "containerd")
        self._marks: dict[Digest, Stamp] = {}
        self._held: dict[Digest, _Held] = {}
        self._pending: dict[Digest, Stamp] = {}
        self._bad: dict[Digest, Stamp] = {}
        self._gone: dict[Digest, None] = {}
        self._checking: Digest | None = None
        self._work = asyncio.Event()
        self._shares: Callable[[Digest], Awaitable[bool]] | None = None
        self._on_held: OnHeld = lambda digest, shared: None
        self._seen: tuple[int, ...] | None = None
        self._scanned_at = 0.0
        self._marks_changed = False
        self._written_at = 0.0
        self._complaint = ""

    async def load(self, shares: Callable[[Digest], Awaitable[bool]]) -> None:
        """Take up what an earlier process checked; ``shares`` decides whether other hosts may have a blob."""
        self._shares = shares
        self._marks = await self._hops.run(read_marks, self._marks_file)

    async def close(self) -> None:
        """Write down what was checked, and end the threads."""
        await self._write_marks()
        await self._hops.close()

    # -- what is held --

    def info(self, digest: Digest) -> BlobInfo | None:
        held = self._held.get(digest)
        if held is None:
            return None
        at = held.stamp.mtime_ns / 1e9
        return BlobInfo(digest, held.stamp.size, "", at, held.used_at, pinned=False, shared=held.shared)

    def infos(self) -> list[BlobInfo]:
        """All of them, most recently used first."""
        found = [info for digest in self._held if (info := self.info(digest)) is not None]
        return sorted(found, key=lambda info: info.used_at, reverse=True)

    def usage(self) -> tuple[int, int, int]:
        """How many blobs, how many bytes, and how many blobs are still to be checked."""
        return len(self._held), sum(each.stamp.size for each in self._held.values()), len(self._pending)

    @property
    def complaint(self) -> str:
        """Why nothing, or not all, is held; "" when there is nothing to say."""
        return self._complaint

    def offered(self) -> tuple[int, int]:
        """How many of the blobs that are held may go to other hosts, and their bytes."""
        sizes = [each.stamp.size for each in self._held.values() if each.shared]
        return len(sizes), sum(sizes)

    def gone(self) -> list[Digest]:
        """What is no longer held, since the last call."""
        found, self._gone = list(self._gone), {}
        return found

    async def open(self, digest: Digest) -> DiskReader | None:
        """The blob, if its file is still the one that was checked."""
        held = self._held.get(digest)
        if held is None:
            return None
        return await self._hops.whole(self._open(digest, held), undo=close_reader)

    async def _open(self, digest: Digest, held: _Held) -> DiskReader | None:
        path = self._path(digest)
        try:
            descriptor = await self._hops.run(_open_same, path, held.stamp)
        except (DamagedBlobError, StoreError) as error:
            logger.info("blob %s of containerd is no longer held: %s", digest, error)
            current = self._held.get(digest)
            if current is not None and current.stamp == held.stamp:
                self._drop(digest)
            return None
        info, now = self.info(digest), self._held.get(digest)
        if (
            info is None or now is None or now.stamp != held.stamp
        ):  # it went, or was replaced, in the meantime
            os.close(descriptor)
            return None
        self._held[digest] = replace(now, used_at=self._clock.wall())
        return DiskReader(info, path, descriptor, self._hops, lambda: None)

    def _path(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.algorithm / digest.hex

    def _drop(self, digest: Digest) -> None:
        if self._held.pop(digest, None) is not None:
            self._gone[digest] = None
            self._marks_changed = True

    # -- keeping up --

    async def run(self, on_held: OnHeld, on_gone: Callable[[], None]) -> None:
        """Look and check until cancelled. ``on_held`` is told of each blob and whether it is shared, when it is new or
        that has changed; ``on_gone`` that ``gone`` has something to tell."""
        self._on_held = on_held
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_looking(on_gone))
            tasks.create_task(self._keep_checking())

    async def _keep_looking(self, on_gone: Callable[[], None]) -> None:
        while True:
            try:
                await self.look()
            except StoreError as error:
                self._complain(str(error))
            if self._gone:
                on_gone()
            if not self._pending or self._clock.now() - self._written_at >= WRITE_EVERY:
                await self._write_marks()
            await self._clock.sleep(POLL)

    async def _keep_checking(self) -> None:
        while True:
            await self._work.wait()
            if not await self.check_next():
                self._work.clear()

    async def look(self) -> None:
        """Look at the directory, if it may have changed. Raises StoreError when it cannot be read."""
        seen = await self._hops.run(self._signature)
        now = self._clock.now()
        if seen is not None and seen == self._seen and now - self._scanned_at < FULL_SCAN:
            return
        found = await self._hops.run(self._scan)
        self._seen, self._scanned_at = seen, now
        for digest in self._compare(found):
            await self._hold(digest, self._marks[digest])
            await self._clock.sleep(PACE)
        if self._pending:
            self._work.set()

    async def check_next(self) -> bool:
        """Check the smallest blob that waits for it; whether there was one."""
        if not self._pending:
            return False
        digest, stamp = self._pending.popitem()
        self._checking = digest
        try:
            await self._check(digest, stamp)
        except (
            DamagedBlobError,
            StoreError,
            OSError,
        ) as error:  # it comes in line again at the next full scan
            logger.info("blob %s of containerd was not checked: %s", digest, error)
        finally:
            self._checking = None
        return True

    def _signature(self) -> tuple[int, ...] | None:
        """In a thread: something that changes when files come or go; None when they may have, without its showing."""
        times = []
        for algorithm in _ALGORITHMS:
            try:
                times.append(os.stat(self.root / "blobs" / algorithm).st_mtime_ns)
            except OSError:
                times.append(0)
        return None if 0 <= self._clock.wall() * 1e9 - max(times) < _TICK_NS else tuple(times)

    def _scan(self) -> dict[Digest, Stamp]:
        """In a thread: the files that are there. Raises StoreError when the directory cannot be read."""
        found: dict[Digest, Stamp] = {}
        for algorithm in _ALGORITHMS:
            directory = self.root / "blobs" / algorithm
            try:
                with os.scandir(directory) as entries:
                    for digest, stamp in _stamps(algorithm, entries):
                        found[digest] = stamp
                        if len(found) >= MAX_BLOBS:
                            self._complain(
                                f"{self.root} holds more than {MAX_BLOBS} blobs: the rest is left out"
                            )
                            return found
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(
                    f"containerd's content in {directory} cannot be read ({error.strerror}): let the agent read it "
                    "(AmbientCapabilities=CAP_DAC_READ_SEARCH), or take store.containerd_content out of the configuration"
                ) from error
        return found

    def _compare(self, found: dict[Digest, Stamp]) -> list[Digest]:
        """Drop what is gone or changed, and put what is new in line; those that were checked by an earlier process."""
        if not found:
            self._complain(f"there is no content in {self.root / 'blobs'} (yet)")
        elif len(found) < MAX_BLOBS:
            self._complain("")
        for digest, held in list(self._held.items()):
            if found.get(digest) != held.stamp:
                self._drop(digest)
        fresh = {digest: stamp for digest, stamp in found.items() if digest not in self._held}
        known = [digest for digest, stamp in fresh.items() if self._marks.get(digest) == stamp]
        self._bad = {digest: stamp for digest, stamp in self._bad.items() if found.get(digest) == stamp}
        waiting = [
            (digest, stamp)
            for digest, stamp in fresh.items()
            if digest not in self._bad and digest != self._checking and self._marks.get(digest) != stamp
        ]
        waiting.sort(key=lambda item: item[1].size, reverse=True)  # the smallest last, which goes first
        self._pending = dict(waiting)
        return known

    def _complain(self, text: str) -> None:
        """Once per state."""
        if text and text != self._complaint:
            logger.warning("%s", text)
        self._complaint = text

    async def _check(self, digest: Digest, stamp: Stamp) -> None:
        if await self._has_digest(digest, stamp):
            await self._hold(digest, stamp)
        else:
            self._bad[digest] = stamp
            logger.warning("%s does not have the digest of its name: it is left alone", self._path(digest))

    async def _has_digest(self, digest: Digest, stamp: Stamp) -> bool:
        hasher = digest.hasher()
        descriptor = await self._hops.run(_open_same, self._path(digest), stamp)
        try:
            for offset in range(0, stamp.size, _SLICE):
                started = self._clock.now()
                length = min(_SLICE, stamp.size - offset)
                await self._hops.run(_hash, descriptor, hasher, offset, length)
                await self._clock.sleep(max(0.0, started + length / RATE - self._clock.now()))
            if Stamp.of(os.fstat(descriptor)) != stamp:
                raise DamagedBlobError(f"{self._path(digest)} was changed while it was checked")
        finally:
            os.close(descriptor)
        return digest.matches(hasher)

    async def _hold(self, digest: Digest, stamp: Stamp) -> None:
        shared = await self._may_share(digest)
        self._held[digest] = _Held(stamp, shared, stamp.mtime_ns / 1e9)
        self._gone.pop(digest, None)
        self._marks_changed = True
        self._on_held(digest, shared)

    async def _may_share(self, digest: Digest) -> bool:
        return self._shares is not None and await self._shares(digest)

    async def reconsider(self, digests: Iterable[Digest]) -> None:
        """More may be known of these now: some that were for this host only may be shared."""
        for digest in digests:
            held = self._held.get(digest)
            if held is None or held.shared or not await self._may_share(digest):
                continue
            if self._held.get(digest) is held:
                self._held[digest] = replace(held, shared=True)
                self._on_held(digest, True)

    async def _write_marks(self) -> None:
        # A directory that is empty now may be one that is not mounted: what was checked there stays so.
        if self._marks_changed and self._held:
            self._marks_changed, self._written_at = False, self._clock.now()
            self._marks = {digest: held.stamp for digest, held in self._held.items()}
            await self._hops.run(write_marks, self._marks_file, self._marks)


def _stamps(algorithm: str, entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[Digest, Stamp]]:
    for entry in entries:
        try:
            digest = Digest.parse(f"{algorithm}:{entry.name}")
            status = entry.stat(follow_symlinks=False)
        except (InvalidInputError, FileNotFoundError):
            continue
        if stat.S_ISREG(status.st_mode):
            yield digest, Stamp.of(status)


def _open_same(path: Path, stamp: Stamp) -> int:
    """In a thread: a descriptor of that very file; raises DamagedBlobError, StoreError."""
    descriptor = open_blob(path, stamp.size)
    if Stamp.of(os.fstat(descriptor)) != stamp:
        os.close(descriptor)
        raise DamagedBlobError(f"{path} is another file now")
    return descriptor


def _hash(descriptor: int, hasher: Hasher, offset: int, length: int) -> None:
    """In a thread; a read that comes short shows as another digest."""
    stop = offset + length
    while offset < stop:
        data = os.pread(descriptor, min(1024 * 1024, stop - offset), offset)
        if not data:
            return
        hasher.update(data)
        offset += len(data)
