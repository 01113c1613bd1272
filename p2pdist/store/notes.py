"""What the store writes down about blobs in the catalog, from the event loop.

Rules: a failing catalog is logged, never raised: the blobs are on disk, and what the catalog lacks is found when the
store opens next. Times of use are written in batches: a read is no write.
"""

from __future__ import annotations

import logging

from p2pdist.clock import Clock
from p2pdist.errors import P2PDistError
from p2pdist.oci.digest import Digest
from p2pdist.store.accounts import Entry
from p2pdist.store.catalog import BlobRow, Catalog
from p2pdist.store.hops import Hops

logger = logging.getLogger(__name__)

_USED_BATCH = 512
_USED_SECONDS = 60.0


class BlobNotes:
    """See the module's rules; ``catalog`` is used in the one thread of ``hops``."""

    def __init__(self, catalog: Catalog, hops: Hops, clock: Clock) -> None:
        self._catalog = catalog
        self._hops = hops
        self._clock = clock
        self._used: dict[Digest, float] = {}
        self._used_since = clock.now()

    async def held(self, digest: Digest, entry: Entry) -> None:
        """Bring the row of a blob up to date."""
        row = BlobRow(
            digest,
            entry.size,
            entry.media_type,
            entry.committed_at,
            entry.used_at,
            entry.shared,
            entry.verified,
        )
        try:
            await self._hops.run(self._catalog.put_blobs, [row])
        except P2PDistError as error:
            logger.warning("blob %s is held, but not in the catalog yet: %s", digest, error)

    async def gone(self, digests: list[Digest]) -> None:
        """Remove the rows of blobs that were dropped."""
        try:
            await self._hops.run(self._catalog.remove_blobs, digests)
        except P2PDistError as error:
            logger.warning("%d dropped blobs are still in the catalog: %s", len(digests), error)

    def used(self, digest: Digest, wall: float) -> None:
        """Note a use, to be written with others."""
        self._used[digest] = wall
        if len(self._used) >= _USED_BATCH or self._clock.now() - self._used_since >= _USED_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the times of use down, soon."""
        used, self._used, self._used_since = self._used, {}, self._clock.now()
        if used:
            self._hops.later(self._write_used, used)

    def _write_used(self, used: dict[Digest, float]) -> None:
        try:
            self._catalog.used(used.items())
        except P2PDistError as error:
            logger.warning("times of use were not written down: %s", error)
