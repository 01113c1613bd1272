"""A store in memory, with the rules of the one on disk: same books, no files.

Always true here: what store/port.py promises, but nothing outlives the object.
Knob: ``disk_full`` makes every write, and every commit, fail as a full disk does.

    store = MemoryStore(quota=1_000_000, clock=ManualClock())
    info = await store.put(digest, body, "application/vnd.oci.image.manifest.v1+json")
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from p2pdist.clock import Clock
from p2pdist.errors import InvalidInputError, StoreError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import parse_manifest
from p2pdist.oci.reference import Reference, Repository
from p2pdist.retention.policy import reachable
from p2pdist.store import tags as bounds
from p2pdist.store.accounts import Accounts
from p2pdist.store.hops import Turns
from p2pdist.store.port import BlobInfo, BlobReader, Ingest, TagEntry, Usage
from p2pdist.store.tags import MAX_HISTORY, TagBook, TagKey, newest_first
from p2pdist.testing.memory_blobs import MemoryIngest, MemoryPart, MemoryReader

STALE_PARTIAL = 86_400.0


class MemoryStore:
    """See store/port.py, Store, and the module's rules."""

    def __init__(self, quota: int, clock: Clock) -> None:
        self.disk_full = False
        self._clock = clock
        self._accounts = Accounts(quota)
        self._data: dict[Digest, bytes] = {}
        self._parts: dict[Digest, MemoryPart] = {}
        self._ingests: dict[Digest, MemoryIngest] = {}
        self._putting = Turns()
        self._book = TagBook()
        self._history: dict[TagKey, list[TagEntry]] = {}
        self._links: dict[Digest, dict[Repository, int | None]] = {}
        self._closed = False

    def check_disk(self) -> None:
        """Raise what a full disk makes of a write."""
        if self.disk_full:
            raise StoreFullError("the disk is full: writing to memory failed; unset disk_full")

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")

    # -- reading --

    async def stat(self, digest: Digest) -> BlobInfo | None:
        return self._accounts.info(digest)

    async def open(self, digest: Digest) -> BlobReader | None:
        self._require_open()
        if self._accounts.get(digest) is None:
            return None
        entry = self._accounts.hold(digest, self._clock.wall())
        return MemoryReader(self._info(digest), self._data[digest], partial(self._accounts.release, entry))

    def _info(self, digest: Digest) -> BlobInfo:
        info = self._accounts.info(digest)
        assert info is not None
        return info

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        self._require_open()
        entry = self._accounts.get(digest)
        if entry is None:
            return None
        if entry.size > limit:
            raise InvalidInputError(
                f"blob {digest} has {entry.size} bytes, and at most {limit} are read at once"
            )
        self._accounts.touch(digest, self._clock.wall())
        return self._data[digest]

    # -- writing --

    async def ingest(self, digest: Digest, size: int) -> Ingest:
        return self._admit(digest, size)

    def _admit(self, digest: Digest, size: int) -> MemoryIngest:
        self._require_open()
        for victim in self._accounts.reserve(digest, size):
            (self._parts if victim.partial else self._data).pop(victim.digest)
        part = self._parts.pop(digest, None)
        if part is None or part.size != size:
            part = MemoryPart(size)
        self._ingests[digest] = MemoryIngest(self, digest, part)
        return self._ingests[digest]

    def publish(self, digest: Digest, data: bytes, media_type: str, *, shared: bool) -> BlobInfo:
        """An ingest is whole and right."""
        del self._ingests[digest]
        self._data[digest] = data
        self._accounts.commit(digest, media_type=media_type, wall=self._clock.wall(), shared=shared)
        return self._info(digest)

    def ended(self, digest: Digest, part: MemoryPart | None) -> None:
        """An ingest was closed, and left ``part``."""
        del self._ingests[digest]
        self._accounts.shrink(digest, part.held.total if part else 0, self._clock.wall())
        if part is not None:
            self._parts[digest] = part

    async def put(
        self, digest: Digest, data: bytes, media_type: str = "", *, shared: bool = True
    ) -> BlobInfo:
        self._require_open()
        await self._putting.wait(digest)
        with self._putting.busy([digest]):
            entry = self._accounts.get(digest)
            if entry is not None:
                entry.media_type = entry.media_type or media_type
                entry.shared = entry.shared or shared
                return self._info(digest)
            ingest = self._admit(digest, len(data))
            try:
                await ingest.reset()
                await ingest.write(0, data)
                return await ingest.commit(media_type, shared=shared)
            finally:
                await ingest.discard()

    # -- going --

    async def delete(self, digest: Digest) -> bool:
        if self._accounts.get(digest) is None or not self._accounts.may_go(digest):
            return False
        self._accounts.drop(digest)
        del self._data[digest]
        return True

    async def collect(self, target: int | None = None) -> list[BlobInfo]:
        if target is not None:
            gone = self._accounts.shed(target)
        else:
            keep = self._reachable()
            gone = self._accounts.sweep([item for item in self._accounts.digests() if item not in keep])
            for victim in self._accounts.drop_partials(self._clock.wall() - STALE_PARTIAL):
                del self._parts[victim.digest]
        for info in gone:
            del self._data[info.digest]
        return gone

    def _reachable(self) -> set[Digest]:
        blobs: set[Digest] = set()

        def children(digest: Digest) -> list[Digest]:
            try:
                manifest = parse_manifest(self._data[digest])
            except (KeyError, InvalidInputError):
                return []
            blobs.update(item.digest for item in manifest.blobs())
            return [item.digest for item in manifest.children()]

        return reachable(self._book.targets() | self._accounts.pinned_digests(), children) | blobs

    def evicted(self) -> list[Digest]:
        return self._accounts.evicted()

    # -- what is known --

    async def blobs(self) -> list[BlobInfo]:
        return self._accounts.infos()

    async def usage(self) -> Usage:
        return self._accounts.usage()

    async def link(
        self, repository: Repository, digests: Iterable[Digest], *, sizes: dict[Digest, int]
    ) -> None:
        for digest in {*digests, *sizes}:
            known = self._links.setdefault(digest, {})
            known[repository] = sizes.get(digest, known.pop(repository, None))

    async def known_size(self, digest: Digest) -> int | None:
        entry = self._accounts.get(digest)
        if entry is not None:
            return entry.size
        sizes = [size for size in self._links.get(digest, {}).values() if size is not None]
        return sizes[-1] if sizes else None

    async def repositories(self, digest: Digest) -> list[Repository]:
        return list(self._links.get(digest, {}))

    async def record_tag(self, entry: TagEntry) -> None:
        recorded = self._book.record(entry)
        history = self._history.setdefault((entry.repository, entry.tag), [])
        if not recorded.moved:
            history.pop()
        history.append(recorded.entry)
        del history[:-MAX_HISTORY]
        if recorded.forgotten is not None:
            del self._history[recorded.forgotten]
        if recorded.moved:
            self._trim_history()

    def _trim_history(self) -> None:
        """The oldest resolutions beyond the bound go; a tag's newest one stays."""
        superseded = [
            (entry.resolved_at, key) for key, entries in self._history.items() for entry in entries[:-1]
        ]
        excess = len(self._history) + len(superseded) - bounds.MAX_RESOLUTIONS
        for _, key in sorted(superseded, key=lambda item: item[0])[: max(0, excess)]:
            del self._history[key][0]

    async def tag(self, repository: Repository, tag: str) -> TagEntry | None:
        return self._book.get(repository, tag)

    async def tags(self, repository: Repository | None = None, *, history: bool = False) -> list[TagEntry]:
        if not history:
            return self._book.newest(repository)
        return newest_first(
            entry
            for key, entries in self._history.items()
            if repository in (None, key[0])
            for entry in reversed(entries)
        )

    async def tag_history(self, repository: Repository, tag: str) -> list[TagEntry]:
        return list(reversed(self._history.get((repository, tag), [])))

    async def pin(self, reference: Reference, digests: Iterable[Digest]) -> None:
        self._accounts.pin(reference, digests)

    async def unpin(self, reference: Reference) -> bool:
        return self._accounts.unpin(reference)

    async def pins(self) -> list[Reference]:
        return self._accounts.pins()

    async def close(self) -> None:
        for ingest in list(self._ingests.values()):
            await ingest.close()
        self._closed = True
