"""The store on disk: composes the books (accounts.py), the files (layout.py, part.py), the catalog (catalog.py)
and what reads (disk_reads.py).

Rules:
- The books live on the event loop and decide; they change in the same step as the decision. Files and catalog follow.
- Order at a commit: sync, size and digest (part.py), rename, sync of the directory (layout.py), books, catalog.
- Order at an eviction: books, index.json when it named one of them, files, catalog. Room is given out only when the
  files are gone, and a digest on its way out is not ingested before it is gone.
- kill -9 between any two steps leaves what stocktaking.py mends.
- A failing catalog never undoes a commit or an eviction (notes.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from p2pdist.clock import Clock
from p2pdist.errors import StoreError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference, Repository
from p2pdist.retention.policy import Candidate
from p2pdist.store.disk_reads import DiskReads
from p2pdist.store.disk_tags import DiskTags
from p2pdist.store.hops import Hops, Turns
from p2pdist.store.ingest import DiskIngest
from p2pdist.store.layout import SHARED_MODE, translate
from p2pdist.store.notes import BlobNotes
from p2pdist.store.part import PartFile
from p2pdist.store.port import BlobInfo, BlobReader, Ingest, TagEntry, Usage
from p2pdist.store.reachable import reachable_blobs
from p2pdist.store.stocktaking import Stock, open_directory

logger = logging.getLogger(__name__)

STALE_PARTIAL = 86_400.0
_THREADS = 4


class DiskStore:
    """See store/port.py, Store, and the module's rules. Made by ``open_dir``."""

    def __init__(self, stock: Stock, clock: Clock, catalog_hops: Hops) -> None:
        self._layout = stock.layout
        self._catalog = stock.catalog
        self._accounts = stock.accounts
        self._clock = clock
        self._hops = Hops(_THREADS, "store")
        self._catalog_hops = catalog_hops
        self._tags = DiskTags(
            stock.layout, stock.catalog, stock.tags, stock.accounts, self._hops, catalog_hops
        )
        self._ingests: dict[Digest, DiskIngest] = {}
        self._leaving = Turns()
        self._putting = Turns()
        self._notes = BlobNotes(stock.catalog, catalog_hops, clock)
        self._reads = DiskReads(stock.layout, stock.accounts, self._notes, self._hops, clock, self._remove)
        self._closed = False

    @classmethod
    async def open_dir(cls, path: Path, quota: int, clock: Clock) -> DiskStore:
        """Open (or make) the data directory ``path`` with ``quota`` bytes for blobs, and lock it.

        Raises StoreError with how to mend it: foreign, newer, damaged, unwritable, or in use by another agent.
        """
        catalog_hops = Hops(1, "catalog")
        try:
            return await catalog_hops.whole(cls._open_dir(path, quota, clock, catalog_hops), undo=cls.close)
        except BaseException:
            await catalog_hops.close()
            raise

    @classmethod
    async def _open_dir(cls, path: Path, quota: int, clock: Clock, catalog_hops: Hops) -> DiskStore:
        store = cls(await catalog_hops.run(open_directory, path, quota), clock, catalog_hops)
        await store._tags.write_index()
        return store

    async def close(self) -> None:
        """Close what is being written (it resumes later), and let another agent have the directory."""
        if self._closed:
            return
        self._closed = True
        for ingest in list(self._ingests.values()):
            await ingest.close()
        await self._hops.close()
        self._reads.close()
        self._notes.flush()
        await self._catalog_hops.run(self._catalog.close)
        await self._catalog_hops.close()
        self._layout.release()

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store in {self._layout.data} is closed")

    # -- reading --

    async def stat(self, digest: Digest) -> BlobInfo | None:
        return self._accounts.info(digest)

    async def open(self, digest: Digest) -> BlobReader | None:
        self._require_open()
        return await self._reads.open(digest)

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        self._require_open()
        return await self._reads.read(digest, limit)

    def _info(self, digest: Digest) -> BlobInfo:
        info = self._accounts.info(digest)
        assert info is not None, "the caller knows that it is held"
        return info

    # -- writing --

    async def ingest(self, digest: Digest, size: int) -> Ingest:
        return await self._ingest(digest, size)

    async def _ingest(self, digest: Digest, size: int) -> DiskIngest:
        self._require_open()
        return await self._hops.whole(self._admit(digest, size), undo=DiskIngest.close)

    async def _admit(self, digest: Digest, size: int) -> DiskIngest:
        await self._leaving.wait(digest)
        left = self._accounts.partial(digest)
        await self._hops.run(self._layout.require_room, digest, size, self._unwritten())
        victims = self._accounts.reserve(digest, size)
        try:
            await self._remove(victims)
            part = await self._hops.run(PartFile, self._layout, digest, size)
        except BaseException:
            self._accounts.shrink(digest, left, self._clock.wall())
            raise
        ingest = DiskIngest(part, self, self._hops, self._clock)
        self._ingests[digest] = ingest
        return ingest

    def _unwritten(self) -> int:
        """Bytes that open ingests still have to write."""
        return sum(ingest.size - ingest.written for ingest in self._ingests.values())

    def will_be_shared(self, digest: Digest, *, shared: bool) -> bool:
        entry = self._accounts.get(digest)
        return shared or (entry is not None and entry.shared)

    def ended(self, digest: Digest, held: int) -> None:
        del self._ingests[digest]
        self._accounts.shrink(digest, held, self._clock.wall())

    async def publish(self, part: PartFile, media_type: str, *, shared: bool) -> BlobInfo:
        digest = part.digest
        await self._leaving.wait(digest)
        try:
            await self._hops.run(self._layout.publish, digest)
        except OSError as error:
            raise translate(error, "committing", self._layout.blob(digest)) from error
        del self._ingests[digest]
        wall = self._clock.wall()
        entry = self._accounts.commit(digest, media_type=media_type, wall=wall, shared=shared)
        info = self._info(digest)
        await self._notes.held(digest, entry)
        await self._tags.held_changed([digest])
        return info

    async def put(
        self, digest: Digest, data: bytes, media_type: str = "", *, shared: bool = True
    ) -> BlobInfo:
        self._require_open()
        return await self._hops.whole(self._put(digest, data, media_type, shared))

    async def _put(self, digest: Digest, data: bytes, media_type: str, shared: bool) -> BlobInfo:
        await self._putting.wait(digest)
        with self._putting.busy([digest]):
            if self._accounts.get(digest) is not None:
                return await self._improve(digest, media_type, shared)
            ingest = await self._admit(digest, len(data))
            try:
                if ingest.resumed:
                    await ingest.reset()
                await ingest.write(0, data)
                return await ingest.commit(media_type, shared=shared)
            finally:
                await ingest.discard()

    async def _improve(self, digest: Digest, media_type: str, shared: bool) -> BlobInfo:
        """A blob that is held came again, perhaps with more known of it."""
        entry = self._accounts.get(digest)
        assert entry is not None, "the caller looked"
        known = entry.media_type, entry.shared
        entry.media_type = entry.media_type or media_type
        entry.shared = entry.shared or shared
        info = self._info(digest)
        if known != (entry.media_type, entry.shared):
            if entry.shared:
                await self._hops.run(_set_mode, self._layout.blob(digest), SHARED_MODE)
            await self._notes.held(digest, entry)
        return info

    # -- going --

    async def delete(self, digest: Digest) -> bool:
        self._require_open()
        return await self._hops.whole(self._delete(digest))

    async def _delete(self, digest: Digest) -> bool:
        if self._accounts.get(digest) is None or not self._accounts.may_go(digest):
            return False
        entry = self._accounts.drop(digest)
        await self._remove([Candidate(digest, entry.size)])
        return True

    async def _remove(self, victims: list[Candidate]) -> None:
        """Remove what the books no longer have; call it in the step that struck it off."""
        if not victims:
            return
        blobs = [victim.digest for victim in victims if not victim.partial]
        for digest in blobs:
            self._reads.forget(digest)
        with self._leaving.busy(victim.digest for victim in victims):
            await self._tags.held_changed(blobs)
            try:
                await self._hops.run(self._layout.remove, victims)
            except OSError as error:
                raise translate(error, "removing blobs from", self._layout.store) from error
            await self._notes.gone(blobs)

    async def collect(self, target: int | None = None) -> list[BlobInfo]:
        self._require_open()
        return await self._hops.whole(self._collect(target))

    async def _collect(self, target: int | None) -> list[BlobInfo]:
        stale: list[Candidate] = []
        if target is not None:
            gone = self._accounts.shed(target)
        else:
            before = list(self._accounts.digests())
            keep = await self._hops.run(reachable_blobs, self._layout, self._roots())
            keep |= self._roots()  # what came while the manifests were read
            gone = self._accounts.sweep(digest for digest in before if digest not in keep)
            stale = self._accounts.drop_partials(self._clock.wall() - STALE_PARTIAL)
        await self._remove([Candidate(info.digest, info.size) for info in gone] + stale)
        return gone

    def _roots(self) -> set[Digest]:
        return self._tags.targets() | self._accounts.pinned_digests()

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
        self._require_open()
        known: dict[Digest, int | None] = dict.fromkeys(digests)
        known.update(sizes)
        await self._catalog_hops.run(self._catalog.link, repository, known)

    async def known_size(self, digest: Digest) -> int | None:
        self._require_open()
        entry = self._accounts.get(digest)
        return entry.size if entry else await self._catalog_hops.run(self._catalog.known_size, digest)

    async def repositories(self, digest: Digest) -> list[Repository]:
        self._require_open()
        return await self._catalog_hops.run(self._catalog.repositories, digest)

    async def record_tag(self, entry: TagEntry) -> None:
        self._require_open()
        await self._hops.whole(self._tags.record(entry))

    async def tag(self, repository: Repository, tag: str) -> TagEntry | None:
        return self._tags.get(repository, tag)

    async def tags(self, repository: Repository | None = None, *, history: bool = False) -> list[TagEntry]:
        self._require_open()
        return await self._tags.entries(repository, history=history)

    async def tag_history(self, repository: Repository, tag: str) -> list[TagEntry]:
        self._require_open()
        return await self._tags.history_of(repository, tag)

    async def pin(self, reference: Reference, digests: Iterable[Digest]) -> None:
        self._require_open()
        pinned = list(digests)
        self._accounts.pin(reference, pinned)
        await self._catalog_hops.run(self._catalog.pin, reference, pinned)

    async def unpin(self, reference: Reference) -> bool:
        self._require_open()
        known = self._accounts.unpin(reference)
        await self._catalog_hops.run(self._catalog.unpin, reference)
        return known

    async def pins(self) -> list[Reference]:
        return self._accounts.pins()


def _set_mode(path: Path, mode: int) -> None:
    try:
        os.chmod(path, mode)
    except OSError as error:
        logger.warning("the mode of %s was not changed: %s", path, error)
