"""Blobs for clients: from the store, by joining the fetch in progress, or by starting one.

Always true here: at most one fetch per digest is in progress on this host.
"""

from __future__ import annotations

import asyncio
import logging

from p2pdist.errors import (
    DeniedError,
    NotFoundError,
    P2PDistError,
    SourceError,
    StoreError,
    StoreFullError,
    UnreachableError,
)
from p2pdist.oci.content import BlobStat
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.swarm.geometry import Geometry
from p2pdist.transfer.content import Delivery
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.delivery import FetchDelivery, PassThroughDelivery, StoredDelivery
from p2pdist.transfer.fetch import BlobFetch, Committed
from p2pdist.transfer.fill import Fill
from p2pdist.transfer.sequential_fill import SequentialFill
from p2pdist.transfer.single_flight import SingleFlight
from p2pdist.transfer.source_plan import note_failure
from p2pdist.transfer.swarm_fill import SwarmFill
from p2pdist.transfer.swarm_hub import SwarmHub
from p2pdist.wire.swarm_messages import MAX_PIECES

logger = logging.getLogger(__name__)

OPEN_TRIES = 3
PEERS_ASKED = 3


class BlobService:
    """See the module's rules. ``tasks`` owns the fetches; cancelling it leaves resumable partials."""

    def __init__(
        self,
        context: TransferContext,
        tasks: asyncio.TaskGroup,
        on_commit: Committed,
        hub: SwarmHub | None = None,
    ) -> None:
        self._context = context
        self._hub = hub
        self._tasks = tasks
        self._on_commit = on_commit
        self._fetches: dict[Digest, BlobFetch] = {}
        self._starting: SingleFlight[BlobFetch | None] = SingleFlight(tasks)

    def fetches(self) -> list[BlobFetch]:
        """What is in progress now."""
        return [fetch for fetch in self._fetches.values() if not fetch.finished]

    def arriving(self, digest: Digest) -> BlobFetch | None:
        """The fetch of this blob that is in progress, if peers may have it."""
        fetch = self._fetches.get(digest)
        shares = self._context.policy.shares
        return fetch if fetch is not None and shares(fetch.repository.registry) else None

    async def stat(self, repository: Repository, digest: Digest) -> BlobStat:
        """A blob's size, without downloading it. Raises as Mirror.blob_stat."""
        info = await self._context.store.stat(digest)
        if info is not None:
            return BlobStat(digest, info.size)
        fetch = self._fetches.get(digest)
        size = fetch.size if fetch else await self._context.store.known_size(digest)
        return BlobStat(digest, size) if size is not None else await self._ask_size(repository, digest)

    async def open(self, repository: Repository, digest: Digest) -> Delivery:
        """One client's way to the blob. Raises as Mirror.blob."""
        for _ in range(OPEN_TRIES):
            reader = await self._context.store.open(digest)
            if reader is not None:
                return StoredDelivery(reader, self._context.ledger)
            fetch: BlobFetch | None = None
            try:
                fetch = await self.fetch(repository, digest)
                delivery = await self._join(fetch) if fetch is not None else None
            except (StoreFullError, StoreError) as error:
                return await self._pass_through(repository, digest, error)
            except (NotFoundError, DeniedError):
                if fetch is None or fetch.repository == repository:
                    raise
                continue  # another repository's fetch: what it was refused may be given to this one
            if delivery is not None:
                return delivery
        raise UnreachableError(f"blob {digest} was evicted as soon as it was fetched, {OPEN_TRIES} times")

    async def _join(self, fetch: BlobFetch) -> Delivery | None:
        """A delivery once a source delivers; None when the fetch has ended well already."""
        delivery = FetchDelivery(fetch, self._context)
        try:
            await fetch.wait_started()
        except BaseException:
            delivery.close()
            raise
        if fetch.finished and fetch.reader is None:
            delivery.close()
            return None
        return delivery

    async def _pass_through(
        self, repository: Repository, digest: Digest, error: P2PDistError
    ) -> PassThroughDelivery:
        logger.warning("blob %s is passed through and not kept: %s", digest, error)
        stat = await self.stat(repository, digest)
        return PassThroughDelivery(self._context, repository, digest, stat.size)

    async def fetch(self, repository: Repository, digest: Digest) -> BlobFetch | None:
        """The fetch in progress, started if need be; None when the blob is held already."""
        running = self._fetches.get(digest)
        if running is not None and not running.finished:
            return running
        return await self._starting.run(digest, lambda: self._start(repository, digest))

    async def _start(self, repository: Repository, digest: Digest) -> BlobFetch | None:
        store = self._context.store
        if await store.stat(digest) is not None:
            return None
        size = await store.known_size(digest)
        if size is None:
            size = (await self._ask_size(repository, digest)).size
        ingest = await store.ingest(digest, size)
        fetch = BlobFetch(self._context, repository, ingest, self._fill(repository, size), self._on_commit)
        self._fetches[digest] = fetch
        self._context.hooks.begun(repository, digest, "blob")
        task = self._tasks.create_task(fetch.run())
        task.add_done_callback(lambda _: self._ended(fetch))
        return fetch

    def _fill(self, repository: Repository, size: int) -> Fill:
        shared = self._context.policy.shares(repository.registry)
        if self._hub is not None and shared and Geometry.of(size).count <= MAX_PIECES:
            return SwarmFill(self._context, self._hub)
        return SequentialFill(self._context)

    def _ended(self, fetch: BlobFetch) -> None:
        """Also when the task was cancelled before it ever ran."""
        fetch.abandon()
        if self._fetches.get(fetch.digest) is fetch:
            del self._fetches[fetch.digest]

    async def _ask_size(self, repository: Repository, digest: Digest) -> BlobStat:
        """Upstream's word on a size that no manifest told; in an outage that of a peer."""
        try:
            return await self._context.upstream.stat(repository, digest)
        except SourceError:
            shares = self._context.policy.shares(repository.registry)
            found = await self._ask_peers_size(digest) if shares else None
            if found is None:
                raise
            return found

    async def _ask_peers_size(self, digest: Digest) -> BlobStat | None:
        context = self._context
        found = await context.discovery.find(digest)
        ordered = context.health.order(found, context.clock.now(), context.policy.zone)
        for provider in [each for each in ordered if each.complete][:PEERS_ASKED]:
            try:
                return await context.peers.stat(provider, digest)
            except P2PDistError as error:
                note_failure(context, provider.peer, error, progressed=False)
        return None
