"""One client's way to one blob: from the store, from a fetch in progress, or straight through from upstream."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from p2pdist.errors import DigestMismatchError, P2PDistError, UnreachableError
from p2pdist.oci.content import BlobStat
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.store.port import BlobReader
from p2pdist.transfer.content import BytesSpan, FileSpan, Source, Span
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.evidence import hash_bytes
from p2pdist.transfer.fetch import BlobFetch
from p2pdist.transfer.ledger import Ledger, Segment
from p2pdist.transfer.part_reader import PartReader

logger = logging.getLogger(__name__)

CHUNK = 256 * 1024
UNCHARGED_SPAN = 4 * 1024 * 1024
TRAIL = 2 * UNCHARGED_SPAN
LONGEST_PATIENCE = 20.0


class _Delivery:
    """What the three kinds share: a context manager around ``close``, and a trail of what was last yielded."""

    def __init__(self, digest: Digest, size: int, ledger: Ledger) -> None:
        self._stat = BlobStat(digest, size)
        self._ledger = ledger
        self._trail: deque[Segment] = deque()
        self._trailing = 0
        self._yielded = 0

    @property
    def stat(self) -> BlobStat:
        return self._stat

    def reached(self, total: int) -> None:
        """As Delivery.reached."""
        missing = self._yielded - total
        while missing > 0 and self._trail:
            start, stop, source = self._trail.pop()
            low = max(start, stop - missing)
            missing -= stop - low
            self._ledger.give_back(self._stat.digest, [(low, stop, source)])

    def _given(self, start: int, stop: int, source: Source) -> None:
        """Note what is about to be yielded; what is further back than any buffer has surely left."""
        self._yielded += stop - start
        self._trailing += stop - start
        self._trail.append((start, stop, source))
        while self._trailing - (self._trail[0][1] - self._trail[0][0]) > TRAIL:
            gone = self._trail.popleft()
            self._trailing -= gone[1] - gone[0]

    async def _stored(self, reader: BlobReader, start: int, stop: int) -> AsyncGenerator[Span, None]:
        """A committed blob's [start, stop): file parts where there is a file, split where the sources differ."""
        digest = self._stat.digest
        while start < stop:
            uncharged = self._ledger.has_uncharged(digest)
            end = min(stop, start + UNCHARGED_SPAN) if uncharged else stop
            left = deque(self._ledger.charge(digest, start, end))
            try:
                while left:
                    low, high, source = left[0]
                    span = await _span(reader, low, high, source)
                    left[0] = (low + span.length, high, source)
                    self._given(low, low + span.length, source)
                    yield span
                    if left[0][0] == high:
                        left.popleft()
            finally:
                self._ledger.give_back(digest, list(left))
            start = end

    def close(self) -> None:
        """Let go of what is held; for who does not enter the context."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _span(reader: BlobReader, start: int, stop: int, source: Source) -> Span:
    if reader.fileno() is not None:
        return FileSpan(reader, start, stop - start, source)
    data = await reader.read(start, min(CHUNK, stop - start))
    if not data:
        raise UnreachableError(f"blob {reader.info.digest} ended early in the store")
    return BytesSpan(data, source)


class StoredDelivery(_Delivery):
    """A blob that the store holds."""

    def __init__(self, reader: BlobReader, ledger: Ledger) -> None:
        super().__init__(reader.info.digest, reader.info.size, ledger)
        self._reader = reader

    def spans(self, start: int, stop: int) -> AsyncGenerator[Span, None]:
        return self._stored(self._reader, start, stop)

    def close(self) -> None:
        self._reader.close()


@dataclass(frozen=True, slots=True)
class _Streamed:
    """Bytes that went to the client before the digest held; ``attempt`` None: a slice with a hash of its own."""

    attempt: int | None
    start: int
    stop: int
    hash: bytes = b""


class FetchDelivery(_Delivery):
    """A blob on its way: what may be streamed through at once, the rest when the digest holds."""

    def __init__(self, fetch: BlobFetch, context: TransferContext) -> None:
        super().__init__(fetch.digest, fetch.size, context.ledger)
        self._fetch = fetch
        self._context = context
        self._open = True
        self._part: PartReader | None = None
        fetch.users += 1

    def close(self) -> None:
        if self._open:
            self._open = False
            self._fetch.leave()
        if self._part is not None:
            self._part.close()
            self._part = None

    async def spans(self, start: int, stop: int) -> AsyncGenerator[Span, None]:
        position, streamed, slices = start, list[_Streamed](), 0
        while position < stop:
            limit = await self._wait(position, slices)
            if limit is None:
                async with aclosing(self._committed(position, stop, streamed)) as rest:
                    async for span in rest:
                        yield span
                return
            if limit > position:
                attempt, begun, slices = self._fetch.attempt, position, 0
                async with aclosing(self._arriving(position, min(limit, stop))) as arriving:
                    async for span in arriving:
                        _note(streamed, attempt, position, position + span.length)
                        yield span
                        position += span.length
                        self._check_same(attempt)
                if position == begun and attempt == self._fetch.attempt:
                    await self._fetch.wait_changed()
            else:
                data = await self._slice_from_upstream(position, stop)
                if not data:
                    continue
                slices += 1
                streamed.append(_Streamed(None, position, position + len(data), hash_bytes(data)))
                self._ledger.charge(self._fetch.digest, position, position + len(data))
                self._given(position, position + len(data), Source.UPSTREAM)
                yield BytesSpan(data, Source.UPSTREAM)
                position += len(data)

    async def _arriving(self, start: int, stop: int) -> AsyncGenerator[Span, None]:
        """Bytes that may go out before the commit: parts of the file where there is one; none when they are gone."""
        if self._part is None and (descriptor := self._fetch.duplicate()) is not None:
            self._part = PartReader(descriptor)
        data = b""
        if self._part is None:
            attempt = self._fetch.attempt
            data = await self._fetch.read(start, min(stop - start, CHUNK))
            if attempt != self._fetch.attempt:
                return
            stop = start + len(data)
        digest = self._fetch.digest
        left = deque(self._ledger.charge(digest, start, stop))
        try:
            while left:
                low, high, source = left.popleft()
                self._given(low, high, source)
                if self._part is not None:
                    yield FileSpan(self._part, low, high - low, source)
                else:
                    yield BytesSpan(data[low - start : high - start], source)
        finally:
            self._ledger.give_back(digest, list(left))

    def _check_same(self, attempt: int) -> None:
        """Raises DigestMismatchError when all bytes were thrown away while some were on their way to the client."""
        if attempt != self._fetch.attempt and self._part is not None:
            raise DigestMismatchError(
                f"what had come of {self._fetch.digest} proved false while it was passed on"
            )

    async def _wait(self, position: int, slices: int) -> int | None:
        """As BlobFetch.wait_beyond, but returns ``position`` when the client was patient for long; each time for longer,
        since all hosts of a slow swarm ask for slices."""
        patience = self._context.policy.patience
        longest = max(patience, LONGEST_PATIENCE)
        try:
            async with asyncio.timeout(min(longest, patience * 1.5 ** min(slices, 10))):
                return await self._fetch.wait_beyond(position)
        except TimeoutError:
            return position

    async def _slice_from_upstream(self, position: int, stop: int) -> bytes:
        """A little of the body from upstream itself, so that a client which watches for progress stays.

        b"" when there is none to be had now; of what the client has all but the end, nothing is asked.
        """
        fetch, context = self._fetch, self._context
        length = min(context.policy.slice, stop - position, fetch.size - 1 - position)
        if length <= 0:
            await fetch.wait_done()
            return b""
        if context.slices.locked():
            return b""
        try:
            async with (
                context.slices,
                context.upstream.blob(fetch.repository, fetch.digest, position, length) as stream,
            ):
                parts = [chunk async for chunk in stream.chunks()]
            await context.upstream_limit.take(length)
            return b"".join(parts)
        except P2PDistError as error:
            logger.info("no slice of %s from upstream for a waiting client: %s", fetch.digest, error)
            return b""

    async def _committed(
        self, position: int, stop: int, streamed: list[_Streamed]
    ) -> AsyncGenerator[Span, None]:
        reader = self._fetch.reader or await self._context.store.open(self._fetch.digest)
        if reader is None:
            raise UnreachableError(f"blob {self._fetch.digest} was evicted while it was being read")
        try:
            await self._check_streamed(reader, streamed)
            async with aclosing(self._stored(reader, position, stop)) as spans:
                async for span in spans:
                    yield span
        finally:
            if reader is not self._fetch.reader:
                reader.close()

    async def _check_streamed(self, reader: BlobReader, streamed: list[_Streamed]) -> None:
        """Raises DigestMismatchError when the client was given bytes that are not the blob's."""
        for part in streamed:
            if part.attempt is not None:
                false = self._fetch.was_false(part.attempt, part.start, part.stop)
            else:
                false = hash_bytes(await reader.read(part.start, part.stop - part.start)) != part.hash
            if false:
                raise DigestMismatchError(
                    f"upstream's first bytes for {self._fetch.digest} proved false after they were passed on"
                )


def _note(streamed: list[_Streamed], attempt: int, start: int, stop: int) -> None:
    """Add to what was streamed; a part that goes on is one part."""
    if streamed and streamed[-1].attempt == attempt and streamed[-1].stop == start:
        start = streamed.pop().start
    streamed.append(_Streamed(attempt, start, stop))


class PassThroughDelivery(_Delivery):
    """A blob that the store cannot admit: upstream's bytes, the last of them only when the digest holds."""

    def __init__(self, context: TransferContext, repository: Repository, digest: Digest, size: int) -> None:
        super().__init__(digest, size, context.ledger)
        self._context = context
        self._repository = repository

    async def spans(self, start: int, stop: int) -> AsyncGenerator[Span, None]:
        digest = self.stat.digest
        hasher = digest.hasher() if (start, stop) == (0, self.stat.size) else None
        context, held = self._context, b""
        async with context.upstream.blob(self._repository, digest, start, stop - start) as stream:
            if stream.size != self.stat.size:
                raise DigestMismatchError(
                    f"upstream's {digest} has {stream.size} bytes, not {self.stat.size}"
                )
            async for chunk in stream.chunks():
                await context.upstream_limit.take(len(chunk))
                await context.download.take(len(chunk))
                if held:
                    yield BytesSpan(held, Source.UPSTREAM)
                held = chunk
                if hasher is not None:
                    hasher.update(chunk)
        if hasher is not None and not digest.matches(hasher):
            context.hooks.verify_failed("upstream", digest, None)
            raise DigestMismatchError(
                f"what upstream sent for {digest} has another digest; cut before its end"
            )
        if held:
            yield BytesSpan(held, Source.UPSTREAM)
