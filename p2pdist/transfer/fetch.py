"""One blob on its way into this host's store, from peers and upstream, for any number of clients.

Rules:
- How the bytes are got is the fill's affair (fill.py): one source after the other, or a swarm.
- Before the digest holds, ``deliverable`` passes only bytes from upstream, and bytes of peers whose piece digest is the
  one that its fetcher attested; never the last ``hold_back`` bytes. So a peer that corrupts what it passes on, or holds a
  damaged copy, costs time, and no client ever sees its bytes.
- When the digest does not hold, everything is fetched again from upstream alone (recovery.py), and who sent other bytes is
  banned. A client that was streamed bytes which proved false meanwhile is never given the rest.
- The fetch goes on when its clients leave: what was begun is kept, for the next client and for the other hosts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from p2pdist.errors import (
    DigestMismatchError,
    P2PDistError,
    SourceError,
    StoreFullError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import Provider
from p2pdist.retention.ranges import RangeSet
from p2pdist.store.port import BlobReader, Ingest
from p2pdist.transfer.content import Source
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.evidence import Evidence
from p2pdist.transfer.fill import Fill
from p2pdist.transfer.recovery import Recovery
from p2pdist.transfer.sequential_fill import WrongSizeError

logger = logging.getLogger(__name__)


class Committed(Protocol):
    """Told when a blob became visible in the store."""

    def __call__(self, digest: Digest, *, shared: bool) -> None: ...


class BlobFetch:
    """See the module's rules. ``run`` is started once, by the owner of the tasks; all else is for its clients."""

    def __init__(
        self,
        context: TransferContext,
        repository: Repository,
        ingest: Ingest,
        fill: Fill,
        on_commit: Committed,
    ) -> None:
        self.repository = repository
        self.digest = ingest.digest
        self.size = ingest.size
        self.by_source = {Source.PEER: 0, Source.UPSTREAM: 0}
        self.users = 0
        self.started = context.clock.now()
        self.reader: BlobReader | None = None
        self._context = context
        self._ingest = ingest
        self._on_commit = on_commit
        self._fill = fill
        self._held = RangeSet.of(ingest.held())
        self._evidence = Evidence(self._held.total)
        self._trusted = RangeSet()
        self._flowing = False
        self._attempt = 0
        self._false: dict[int, RangeSet] = {}
        self._watchers: list[Callable[[], None]] = []
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._done = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    # -- for clients --

    @property
    def received(self) -> int:
        """How many bytes are here, proven or not: for progress displays."""
        return self.size if self._done and self._error is None else self._held.total

    @property
    def held(self) -> RangeSet:
        """Which bytes are here, proven or not."""
        return self._held

    @property
    def finished(self) -> bool:
        return self._done

    @property
    def failed(self) -> bool:
        """It ended without the blob."""
        return self._done and self._error is not None

    def held_from(self, offset: int) -> int:
        """Where the held range that contains ``offset`` stops; ``offset`` itself when that byte is not held."""
        if self._done:
            return self.size if self._error is None else offset
        return self._held.held_from(offset)

    def watch(self, told: Callable[[], None]) -> None:
        """``told`` is called whenever bytes came or the fetch ended, until ``unwatch``."""
        self._watchers.append(told)

    def unwatch(self, told: Callable[[], None]) -> None:
        self._watchers.remove(told)

    @property
    def attempt(self) -> int:
        """Grows each time that all bytes are thrown away and fetched anew."""
        return self._attempt

    def deliverable(self, position: int) -> int:
        """How far clients may read from ``position`` on before the commit; ``position`` itself if not at all."""
        limit = self.size - self._context.policy.hold_back
        return max(position, min(self._trusted.held_from(position), limit))

    def was_false(self, attempt: int, start: int, stop: int) -> bool:
        """Whether what was deliverable of [start, stop) in an earlier attempt proved not to be the blob's."""
        false = self._false.get(attempt)
        return false is not None and any(bad for _, _, bad in false.within(start, stop))

    async def wait_started(self) -> None:
        """Return once a source delivers (or the blob is whole); raises why none does."""
        while not self._done and not self._flowing:
            await self._changed.wait()
        self._raise_error()

    async def wait_beyond(self, position: int) -> int | None:
        """How far to read past ``position``, or None when the blob is committed; raises why it will not be."""
        while not self._done:
            limit = self.deliverable(position)
            if limit > position:
                return limit
            await self._changed.wait()
        self._raise_error()
        return None

    async def wait_changed(self) -> None:
        """Return at the next news; at once when there will be none."""
        if not self._done:
            await self._changed.wait()

    async def wait_done(self) -> None:
        """Return when the blob is committed; raises why it is not."""
        while not self._done:
            await self._changed.wait()
        self._raise_error()

    async def wait_held(self, offset: int) -> int:
        """Where the held range that contains ``offset`` stops, once the byte there is held; raises why it will not be."""
        while not self._done:
            stop = self._held.held_from(offset)
            if stop > offset:
                return stop
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((offset, waiter))
            try:
                await waiter
            finally:
                self._waiters.remove((offset, waiter))
        self._raise_error()
        return self.size

    def duplicate(self) -> int | None:
        """A descriptor of the bytes held, for sendfile (see Ingest.duplicate); None when there is no file any more."""
        return None if self._done else self._ingest.duplicate()

    async def read(self, offset: int, length: int) -> bytes:
        """Bytes below ``deliverable``; b"" when they were thrown away in the meantime."""
        return await self._ingest.read(offset, length)

    def leave(self) -> None:
        """A client is gone; the last one lets go of the committed file."""
        self.users -= 1
        if self.users == 0 and self._done:
            self._close_reader()

    def _close_reader(self) -> None:
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def abandon(self) -> None:
        """The owner of the tasks has ended this one."""
        if not self._done:
            self._finish(UnreachableError(f"the agent is stopping while fetching {self.digest}"))

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _finish(self, error: Exception | None = None) -> None:
        self._error = error
        self._done = True
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._notify()

    def _notify(self) -> None:
        for told in self._watchers:
            told()
        self._changed.set()
        self._changed = asyncio.Event()

    # -- the work --

    async def run(self) -> None:
        """Fetch, prove and commit; never raises but CancelledError."""
        try:
            await self._fetch_and_commit()
        except asyncio.CancelledError:
            self.abandon()
            await asyncio.shield(self._ingest.close())
            raise
        except WrongSizeError as error:
            sizes = {self.digest: error.offered}
            await self._context.store.link(self.repository, [self.digest], sizes=sizes)
            await self._fail(error, self._ingest.discard)
        except (StoreFullError, DigestMismatchError) as error:
            await self._fail(error, self._ingest.discard)
        except P2PDistError as error:
            await self._fail(error, self._ingest.close)
        except Exception as error:
            logger.exception("fetching %s failed in an unforeseen way", self.digest)
            wrapped = SourceError(f"internal error while fetching {self.digest}: {error!r}")
            await self._fail(wrapped, self._ingest.close)
        else:
            self._finish()
            moved = {source.value: count for source, count in self.by_source.items() if count}
            seconds = self._context.clock.now() - self.started
            self._context.hooks.fetched(self.repository, self.digest, "blob", seconds, moved)

    async def _fail(self, error: Exception, stop: Callable[[], Awaitable[None]]) -> None:
        """Whatever the store makes of it, those who wait are told."""
        try:
            await stop()
            if self._context.policy.shares(self.repository.registry):
                await self._context.discovery.withdraw(self.digest)
        except P2PDistError as failure:
            logger.warning("the store could not end the fetch of %s: %s", self.digest, failure)
        finally:
            self._finish(error)
        self._context.hooks.failed(self.repository, self.digest, "blob", error)

    async def _fetch_and_commit(self) -> None:
        await self._fill.run(self)
        try:
            await self.commit()
        except DigestMismatchError as error:
            recovery = Recovery(self._context, self, self._ingest, self._evidence)
            self._false[0] = await recovery.run(error)

    async def commit(self) -> None:
        """Prove and publish what is held; raises DigestMismatchError, and StoreFullError."""
        shared = self._context.policy.shares(self.repository.registry)
        await self._ingest.commit(shared=shared)
        self.reader = await self._context.store.open(self.digest)
        if self.users == 0:
            self._close_reader()
        self._on_commit(self.digest, shared=shared)

    async def start_over(self) -> Evidence:
        """Throw all bytes away; the evidence that will be collected about those to come."""
        await self._ingest.reset()
        self._context.ledger.forget(self.digest)
        self._evidence = Evidence(0)
        self._trusted = self._held = RangeSet()
        self._attempt += 1
        return self._evidence

    async def receive(
        self, offset: int, chunk: bytes | memoryview, source: Source, provider: Provider | None
    ) -> None:
        """As Target.receive."""
        await self._ingest.write(offset, chunk)
        stop = offset + len(chunk)
        self._held = self._held.add(offset, stop)
        self._context.ledger.fetched(self.digest, offset, stop, source)
        self._evidence.add(offset, stop, provider)
        self.by_source[source] += len(chunk)
        self._flowing = True
        if source is Source.UPSTREAM:
            self._trusted = self._trusted.add(offset, stop)
        self._wake(offset, stop)

    def vouch(self, start: int, stop: int) -> None:
        """As Target.vouch."""
        self._trusted = self._trusted.add(start, stop)
        self._notify()

    def blame(self, start: int, stop: int, provider: Provider | None) -> None:
        """As Target.blame."""
        self._evidence.blame(start, stop, provider)

    def _wake(self, start: int, stop: int) -> None:
        for offset, waiter in self._waiters:
            if start <= offset < stop and not waiter.done():
                waiter.set_result(None)
        self._notify()
