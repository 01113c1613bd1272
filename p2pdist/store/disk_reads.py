"""How the blobs of the store on disk are read: counted as open, checked once, from descriptors kept at hand.

Rules:
- Whoever reads is counted in the books until it is done, so that what it reads is not evicted.
- A blob whose digest was only taken from its file's name is checked before it is read for the first time.
- A file that is gone, or not what it should be, is found when it is opened: the blob is struck off, and nobody reads it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial

from p2pdist.clock import Clock
from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.retention.policy import Candidate
from p2pdist.store.accounts import Accounts, Entry
from p2pdist.store.hops import Hops
from p2pdist.store.hot import MAX_SIZE, HotFiles
from p2pdist.store.layout import Layout
from p2pdist.store.notes import BlobNotes
from p2pdist.store.reader import DamagedBlobError, DiskReader, check_blob, close_reader, open_blob, read_blob

logger = logging.getLogger(__name__)

Remove = Callable[[list[Candidate]], Awaitable[None]]


class DiskReads:
    """See the module's rules. ``remove`` removes the files of what was struck off the books."""

    def __init__(
        self, layout: Layout, accounts: Accounts, notes: BlobNotes, hops: Hops, clock: Clock, remove: Remove
    ) -> None:
        self._layout = layout
        self._accounts = accounts
        self._notes = notes
        self._hops = hops
        self._clock = clock
        self._remove = remove
        self._verifying = asyncio.Lock()
        self._hot = HotFiles()

    def forget(self, digest: Digest) -> None:
        """Its file is about to be removed."""
        self._hot.drop(digest)

    def close(self) -> None:
        """Close what is kept open for those to come."""
        self._hot.close()

    async def open(self, digest: Digest) -> DiskReader | None:
        """As Store.open."""
        entry = self._accounts.get(digest)
        if entry is None:
            return None
        if entry.verified and (descriptor := self._hot.open(digest, entry.size)) is not None:
            return self._reader(digest, self._use(digest), descriptor)
        return await self._hops.whole(self._open(digest), undo=close_reader)

    async def _open(self, digest: Digest) -> DiskReader | None:
        entry = await self._hold(digest)
        if entry is None:
            return None
        try:
            descriptor = await self._hops.run(open_blob, self._layout.blob(digest), entry.size)
        except DamagedBlobError as error:
            self._accounts.release(entry)
            await self._drop_damaged(digest, entry, error)
            return None
        except BaseException:
            self._accounts.release(entry)
            raise
        self._keep_hot(digest, entry, descriptor)
        return self._reader(digest, entry, descriptor)

    def _reader(self, digest: Digest, entry: Entry, descriptor: int) -> DiskReader | None:
        """The reader that ``entry`` counts; None when another one found the blob damaged in the meantime."""
        info = self._accounts.info(digest)
        if info is None:
            os.close(descriptor)
            self._accounts.release(entry)
            return None
        release = partial(self._accounts.release, entry)
        return DiskReader(info, self._layout.blob(digest), descriptor, self._hops, release)

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        """As Store.read."""
        entry = self._accounts.get(digest)
        if entry is None:
            return None
        if entry.size > limit:
            raise InvalidInputError(
                f"blob {digest} has {entry.size} bytes, and at most {limit} are read at once"
            )
        if entry.verified and (body := self._hot.read(digest, entry.size)) is not None:
            self._accounts.release(self._use(digest))
            return body
        return await self._hops.whole(self._read(digest))

    async def _read(self, digest: Digest) -> bytes | None:
        entry = await self._hold(digest)
        if entry is None:
            return None
        try:
            body, descriptor = await self._hops.run(read_blob, self._layout.blob(digest), entry.size)
            self._keep_hot(digest, entry, descriptor)
            os.close(descriptor)
            return body
        except DamagedBlobError as error:
            await self._drop_damaged(digest, entry, error)
            return None
        finally:
            self._accounts.release(entry)

    async def _hold(self, digest: Digest) -> Entry | None:
        """Count a reader of a blob, its digest checked; None when it is not held (any more)."""
        if self._accounts.get(digest) is None:
            return None
        entry = self._use(digest)
        if entry.verified:
            return entry
        try:
            await self._verify(digest, entry)
        except DamagedBlobError as error:
            self._accounts.release(entry)
            await self._drop_damaged(digest, entry, error)
            return None
        except BaseException:
            self._accounts.release(entry)
            raise
        return entry

    def _use(self, digest: Digest) -> Entry:
        """Count a reader of what is held, and note when it was used."""
        wall = self._clock.wall()
        self._notes.used(digest, wall)
        return self._accounts.hold(digest, wall)

    def _keep_hot(self, digest: Digest, entry: Entry, descriptor: int) -> None:
        if entry.size <= MAX_SIZE and self._accounts.get(digest) is entry:
            self._hot.keep(digest, descriptor)

    async def _verify(self, digest: Digest, entry: Entry) -> None:
        async with self._verifying:
            if not entry.verified:
                await self._hops.run(check_blob, self._layout.blob(digest), digest, entry.size)
                entry.verified = True
                await self._notes.held(digest, entry)

    async def _drop_damaged(self, digest: Digest, entry: Entry, error: DamagedBlobError) -> None:
        logger.warning("blob %s is dropped from the store: %s", digest, error)
        if self._accounts.get(digest) is entry:
            self._accounts.drop(digest)
            await self._remove([Candidate(digest, entry.size)])
