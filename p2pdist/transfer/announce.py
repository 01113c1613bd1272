"""Tells the cluster what this host holds: at each commit, at start, and no longer after an eviction.

Rules: nothing waits for an announcement; the queue is bounded by the number of blobs held (a digest is in it once); what
is told of one digest is told in order, by what the store holds at that moment; at start the store's shared blobs are
announced at a measured pace, most recently used first.
"""

from __future__ import annotations

import asyncio
import logging

from p2pdist.clock import Clock
from p2pdist.discovery.port import Discovery
from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId, TagRecord
from p2pdist.store.port import Store
from p2pdist.transfer.context import TransferPolicy

logger = logging.getLogger(__name__)

WORKERS = 4
START_PACE = 0.005
TAGS_AT_START = 1000


class Announcer:
    """Run ``run`` in the agent's task group; ``committed`` and ``evictions`` may be called at any time."""

    def __init__(self, store: Store, discovery: Discovery, clock: Clock, policy: TransferPolicy) -> None:
        self._store = store
        self._discovery = discovery
        self._clock = clock
        self._policy = policy
        self._queue: asyncio.Queue[Digest] = asyncio.Queue()
        self._queued: set[Digest] = set()
        self._telling: set[Digest] = set()
        self._again: set[Digest] = set()

    def committed(self, digest: Digest, *, shared: bool) -> None:
        """A blob became visible in the store (and others may have had to go for it)."""
        if shared:
            self._put(digest)
        self.evictions()

    def evictions(self) -> None:
        """Take back the announcements of what the store dropped."""
        for digest in self._store.evicted():
            self._put(digest)

    def _put(self, digest: Digest) -> None:
        if digest not in self._queued:
            self._queued.add(digest)
            self._queue.put_nowait(digest)

    async def run(self) -> None:
        """Announce until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WORKERS):
                tasks.create_task(self._work())
            tasks.create_task(self._announce_held())

    async def _work(self) -> None:
        while True:
            digest = await self._queue.get()
            self._queued.discard(digest)
            if digest in self._telling:
                self._again.add(digest)
                continue
            self._telling.add(digest)
            try:
                await self._tell(digest)
            except Exception:
                logger.exception("announcing %s failed", digest)
            finally:
                self._telling.discard(digest)
            if digest in self._again:
                self._again.discard(digest)
                self._put(digest)

    async def _tell(self, digest: Digest) -> None:
        info = await self._store.stat(digest)
        if info is not None and info.shared:
            await self._discovery.announce(digest)
        elif info is None:
            await self._discovery.withdraw(digest)

    async def _announce_held(self) -> None:
        for info in await self._store.blobs():
            if info.shared:
                self._put(info.digest)
                await self._clock.sleep(START_PACE)
        for entry in (await self._store.tags())[:TAGS_AT_START]:
            age = max(0.0, self._clock.wall() - entry.resolved_at)
            useful = age <= self._policy.tag_stale and self._policy.shares(entry.repository.registry)
            if useful and await self._store.stat(entry.digest) is not None:
                record = TagRecord(PeerId(bytes(20)), entry.digest, entry.media_type, entry.size, age)
                await self._discovery.announce_tag(entry.repository, entry.tag, record)
                await self._clock.sleep(START_PACE)
