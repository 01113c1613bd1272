"""Tags on disk: the book of what they point at now, the catalog for all that they ever did, and index.json.

Rule: index.json is derived, and never fails what changed it: when it cannot be written, that is logged, and the next
change (or the next start) writes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.store.accounts import Accounts
from p2pdist.store.catalog import Catalog
from p2pdist.store.hops import Hops
from p2pdist.store.index import build_index
from p2pdist.store.layout import Layout
from p2pdist.store.port import BlobInfo, TagEntry
from p2pdist.store.tags import TagBook

logger = logging.getLogger(__name__)


class DiskTags:
    """See the module's rule; ``catalog`` is used in the one thread of ``catalog_hops``."""

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        book: TagBook,
        accounts: Accounts,
        hops: Hops,
        catalog_hops: Hops,
    ) -> None:
        self._layout = layout
        self._catalog = catalog
        self._book = book
        self._accounts = accounts
        self._hops = hops
        self._catalog_hops = catalog_hops
        self._index_lock = asyncio.Lock()
        self._index_wanted = 0
        self._index_written = 0

    async def record(self, entry: TagEntry) -> None:
        recorded = self._book.record(entry)
        if not recorded.moved:
            await self._catalog_hops.run(self._catalog.refresh_tag, recorded.entry)
            return
        await self._catalog_hops.run(self._catalog.append_tag, recorded.entry, recorded.forgotten)
        await self.write_index()

    def get(self, repository: Repository, tag: str) -> TagEntry | None:
        return self._book.get(repository, tag)

    async def entries(self, repository: Repository | None, *, history: bool) -> list[TagEntry]:
        if history:
            return await self._catalog_hops.run(self._catalog.tag_history, repository)
        return self._book.newest(repository)

    async def history_of(self, repository: Repository, tag: str) -> list[TagEntry]:
        return await self._catalog_hops.run(self._catalog.history_of_tag, repository, tag)

    def targets(self) -> set[Digest]:
        return self._book.targets()

    async def held_changed(self, digests: Iterable[Digest]) -> None:
        """These blobs came or went: rewrite the index if a tag points at one of them."""
        if any(self._book.is_target(digest) for digest in digests):
            await self.write_index()

    async def write_index(self) -> None:
        """Bring index.json up to date; callers that come while it is being written share the next writing."""
        self._index_wanted += 1
        wanted = self._index_wanted
        async with self._index_lock:
            if self._index_written >= wanted:
                return
            number, listed = self._index_wanted, self._listed()
            try:
                await self._hops.run(self._write, listed)
            except OSError as error:
                logger.warning("%s was not brought up to date: %s", self._layout.index, error)
            else:
                self._index_written = number

    def _listed(self) -> list[tuple[TagEntry, BlobInfo]]:
        pairs = ((entry, self._accounts.info(entry.digest)) for entry in self._book.newest())
        return [(entry, info) for entry, info in pairs if info is not None]

    def _write(self, listed: list[tuple[TagEntry, BlobInfo]]) -> None:
        self._layout.write_index(build_index(listed))
