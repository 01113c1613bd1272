"""One client's way to one blob: from the store, from a fetch in progress, or straight through from upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from p2pdist.errors import DigestMismatchError, UnreachableError
from p2pdist.oci.content import BlobStat
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.store.port import BlobReader
from p2pdist.transfer.content import BytesSpan, FileSpan, Source, Span
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.fetch import BlobFetch
from p2pdist.transfer.ledger import Ledger

CHUNK = 256 * 1024
UNCHARGED_SPAN = 4 * 1024 * 1024


class _Delivery:
    """What the three kinds share: a context manager around ``_close``."""

    def __init__(self, digest: Digest, size: int) -> None:
        self._stat = BlobStat(digest, size)

    @property
    def stat(self) -> BlobStat:
        return self._stat

    def _close(self) -> None:
        """Let go of what is held."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


async def stored_spans(
    reader: BlobReader, ledger: Ledger, start: int, stop: int
) -> AsyncGenerator[Span, None]:
    """A committed blob's [start, stop): file parts where there is a file, split where the sources differ."""
    digest = reader.info.digest
    while start < stop:
        end = min(stop, start + UNCHARGED_SPAN) if ledger.has_uncharged(digest) else stop
        for low, high, source in ledger.charge(digest, start, end):
            delivered = False
            try:
                async for span in _file_or_bytes(reader, low, high, source):
                    yield span
                delivered = True
            finally:
                if not delivered:
                    ledger.give_back(digest, [(low, high, source)])
        start = end


async def _file_or_bytes(
    reader: BlobReader, start: int, stop: int, source: Source
) -> AsyncGenerator[Span, None]:
    if reader.fileno() is not None:
        yield FileSpan(reader, start, stop - start, source)
        return
    while start < stop:
        data = await reader.read(start, min(CHUNK, stop - start))
        if not data:
            raise UnreachableError(f"blob {reader.info.digest} ended early in the store")
        yield BytesSpan(data, source)
        start += len(data)


class StoredDelivery(_Delivery):
    """A blob that the store holds."""

    def __init__(self, reader: BlobReader, ledger: Ledger) -> None:
        super().__init__(reader.info.digest, reader.info.size)
        self._reader = reader
        self._ledger = ledger

    def spans(self, start: int, stop: int) -> AsyncGenerator[Span, None]:
        return stored_spans(self._reader, self._ledger, start, stop)

    def _close(self) -> None:
        self._reader.close()


class FetchDelivery(_Delivery):
    """A blob on its way: what may be streamed through at once, the rest when the digest holds."""

    def __init__(self, fetch: BlobFetch, context: TransferContext) -> None:
        super().__init__(fetch.digest, fetch.size)
        self._fetch = fetch
        self._context = context
        fetch.users += 1

    def _close(self) -> None:
        self._fetch.leave()

    async def spans(self, start: int, stop: int) -> AsyncGenerator[Span, None]:
        position = start
        while position < stop:
            limit = await self._wait(position)
            if limit is None:
                async for span in self._committed(position, stop):
                    yield span
                return
            if limit <= position:
                data = await self._slice_from_upstream(position, stop)
                self._context.ledger.charge(self._fetch.digest, position, position + len(data))
                if data:
                    yield BytesSpan(data, Source.UPSTREAM)
                position += len(data)
                continue
            data = await self._fetch.read(position, min(limit - position, stop - position, CHUNK))
            if not data:  # committed, or thrown away, since
                await self._fetch.wait_changed()
            async for span in self._charged(position, data):
                yield span
            position += len(data)

    async def _wait(self, position: int) -> int | None:
        """As BlobFetch.wait_beyond, but returns ``position`` when the client has been patient for long."""
        try:
            async with asyncio.timeout(self._context.policy.patience):
                return await self._fetch.wait_beyond(position)
        except TimeoutError:
            return position

    async def _slice_from_upstream(self, position: int, stop: int) -> bytes:
        """A little of the body from upstream itself, so that a client which watches for progress stays."""
        fetch = self._fetch
        length = min(self._context.policy.hold_back, stop - position, fetch.size - 1 - position)
        if length <= 0:
            await fetch.wait_done()
            return b""
        try:
            async with self._context.upstream.blob(
                fetch.repository, fetch.digest, position, length
            ) as stream:
                return b"".join([chunk async for chunk in stream.chunks()])
        except Exception:
            await fetch.wait_done()
            return b""

    async def _charged(self, position: int, data: bytes) -> AsyncGenerator[Span, None]:
        ledger, digest = self._context.ledger, self._fetch.digest
        for low, high, source in ledger.charge(digest, position, position + len(data)):
            delivered = False
            try:
                yield BytesSpan(data[low - position : high - position], source)
                delivered = True
            finally:
                if not delivered:
                    ledger.give_back(digest, [(low, high, source)])

    async def _committed(self, position: int, stop: int) -> AsyncGenerator[Span, None]:
        reader = self._fetch.reader
        if reader is not None:
            async for span in stored_spans(reader, self._context.ledger, position, stop):
                yield span
            return
        opened = await self._context.store.open(self._fetch.digest)
        if opened is None:
            raise UnreachableError(f"blob {self._fetch.digest} was evicted while it was being read")
        try:
            async for span in stored_spans(opened, self._context.ledger, position, stop):
                yield span
        finally:
            opened.close()


class PassThroughDelivery(_Delivery):
    """A blob that the store cannot admit: upstream's bytes, the last of them only when the digest holds."""

    def __init__(self, context: TransferContext, repository: Repository, digest: Digest, size: int) -> None:
        super().__init__(digest, size)
        self._context = context
        self._repository = repository

    async def spans(self, start: int, stop: int) -> AsyncGenerator[Span, None]:
        digest = self.stat.digest
        hasher = digest.hasher() if (start, stop) == (0, self.stat.size) else None
        held = b""
        async with self._context.upstream.blob(self._repository, digest, start, stop - start) as stream:
            if stream.size != self.stat.size:
                raise DigestMismatchError(
                    f"upstream's {digest} has {stream.size} bytes, not {self.stat.size}"
                )
            async for chunk in stream.chunks():
                await self._context.upstream_limit.take(len(chunk))
                if held:
                    yield BytesSpan(held, Source.UPSTREAM)
                held = chunk
                if hasher is not None:
                    hasher.update(chunk)
        if hasher is not None and not digest.matches(hasher):
            self._context.hooks.verify_failed("upstream", digest, None)
            raise DigestMismatchError(
                f"what upstream sent for {digest} has another digest; cut before its end"
            )
        if held:
            yield BytesSpan(held, Source.UPSTREAM)
