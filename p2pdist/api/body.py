"""A response body on its way to a client: what it consists of, and the sending of it.

Always true here:
- a body has a Content-Length, and is either sent whole or its connection is aborted: never a short finished one;
- ``on_sent`` is told of body bytes when the kernel has taken them: exactly all of a body that was sent whole, and of one
  that was cut never more than the kernel took. Framing (multipart headers) counts for nothing;
- a client that takes no byte for ``progress_timeout`` seconds is cut off; one that is merely slow is not;
- at most one span and the transport's own buffer (64 KiB) are held in memory.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import struct
import termios
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from p2pdist.api.sendfile import send_file
from p2pdist.oci.ranges import ByteRange, content_range, if_range_matches, multipart_byteranges, parse_range
from p2pdist.transfer.content import BytesSpan, FileSpan, Source, Span

SMALL_FILE = 64 * 1024
_AT_ONCE = 32 * 1024

OnSent = Callable[[Source, int], None]


class SpanSource(Protocol):
    """The part of a Delivery that a body is made from."""

    def spans(self, start: int, stop: int) -> AsyncGenerator[Span, None]: ...


class ClientGoneError(Exception):
    """The client left, or took no byte for too long; its connection has been aborted."""


class BrokenBodyError(Exception):
    """The source of the body gave fewer or more bytes than were promised in the headers."""


@dataclass(frozen=True, slots=True)
class Piece:
    """``header`` (framing), then the bytes [start, stop) of the content."""

    header: bytes
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class BodyPlan:
    """A status and the body that goes with it; ``length`` is the Content-Length, in bytes."""

    status: int
    length: int
    pieces: tuple[Piece, ...]
    trailer: bytes
    headers: Mapping[str, str]


def plan_body(request_headers: Mapping[str, str], size: int, etag: str, media_type: str) -> BodyPlan:
    """What a GET gets of ``size`` bytes: all (200), or the ranges it asks for (206).

    Raises RangeNotSatisfiable. Source: RFC 9110 sections 14.2 and 13.1.5. Nothing has no ranges: as other servers do,
    a Range on empty content is ignored, since some clients send ``bytes=0-`` with every request.
    """
    ranges = None
    if size and if_range_matches(request_headers.get("If-Range"), etag):
        ranges = parse_range(request_headers.get("Range"), size)
    if ranges is None:
        return BodyPlan(200, size, (Piece(b"", 0, size),), b"", {"Content-Type": media_type})
    if len(ranges) == 1:
        return _single(ranges[0], size, media_type)
    # A random boundary of 128 bits does not occur in content that was made before it.
    framing = multipart_byteranges(ranges, size, media_type, secrets.token_hex(16))
    pieces = tuple(Piece(part.header, part.range.start, part.range.stop) for part in framing.parts)
    return BodyPlan(206, framing.length, pieces, framing.trailer, {"Content-Type": framing.content_type})


def _single(found: ByteRange, size: int, media_type: str) -> BodyPlan:
    headers = {"Content-Type": media_type, "Content-Range": content_range(found, size)}
    return BodyPlan(206, found.length, (Piece(b"", found.start, found.stop),), b"", headers)


async def plan_items(plan: BodyPlan, delivery: SpanSource) -> AsyncGenerator[bytes | Span, None]:
    """Framing and spans in order. A piece's framing comes only once its first span is there.

    So when the first item is there, the source delivers. Raises what ``delivery`` raises, and BrokenBodyError.
    """
    for piece in plan.pieces:
        left = piece.stop - piece.start
        async with aclosing(delivery.spans(piece.start, piece.stop)) as spans:
            framing = piece.header
            async for span in spans:
                left -= span.length
                if left < 0:
                    raise BrokenBodyError(f"{-left} bytes more than [{piece.start}, {piece.stop}) came")
                if framing:
                    yield framing
                    framing = b""
                yield span
        if left:
            raise BrokenBodyError(f"{left} bytes of [{piece.start}, {piece.stop}) never came")
    if plan.trailer:
        yield plan.trailer


class _CoalescingResponse(web.StreamResponse):
    """Its headers leave together with the first bytes of the body, as those of ``web.Response`` do."""

    _send_headers_immediately = False


class BodySender:
    """Sends one planned body; an async context manager that aborts the connection unless ``finish`` was reached."""

    def __init__(
        self,
        request: web.BaseRequest,
        status: int,
        headers: CIMultiDict[str],
        on_sent: OnSent,
        progress_timeout: float,
    ) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ClientGoneError("the client left before the answer")
        self.response: web.StreamResponse = _CoalescingResponse(status=status, headers=headers)
        self._request = request
        self._transport = transport
        self._meter = _Meter(transport, on_sent)
        self._watch = _Watch(transport, self._meter, progress_timeout)
        self._timeout = progress_timeout
        self._writer: AbstractStreamWriter | None = None
        self._finished = False

    @property
    def stalled(self) -> bool:
        """Whether the client was cut off because it took no byte for too long."""
        return self._watch.stalled

    async def __aenter__(self) -> Self:
        self._writer = await self.response.prepare(self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.stop()
        if not self._finished:
            self._meter.settle()
            self._transport.abort()

    async def send(self, item: bytes | Span) -> None:
        """Send the next item; returns when there is room for more. Raises ClientGoneError."""
        if self._meter.total or self._transport.get_write_buffer_size() or not _fits_at_once(item):
            self._watch.start()
        try:
            if isinstance(item, FileSpan):
                await self._send_file(item)
            elif isinstance(item, BytesSpan):
                await self._write(item.data, item.source)
            else:
                await self._write(item, None)
        except OSError as error:  # aiohttp says "closing transport" with a ConnectionResetError
            raise ClientGoneError("the client left in mid-body") from error

    async def finish(self) -> None:
        """Return when the kernel has the whole body. Raises ClientGoneError."""
        assert self._writer is not None
        try:
            # The headers of an empty body leave here; for any other there is nothing left to write.
            await self.response.write_eof()
            if self._transport.get_write_buffer_size():
                self._watch.start()
                await self._flush(self._writer)
        except OSError as error:
            raise ClientGoneError("the client left before the end of the body") from error
        if self._transport.is_closing():
            raise ClientGoneError("the client left before the end of the body")
        self._meter.settle()
        self._finished = True

    async def _flush(self, writer: AbstractStreamWriter) -> None:
        self._transport.set_write_buffer_limits(high=0)
        try:
            await writer.drain()
        finally:
            self._transport.set_write_buffer_limits()

    async def _write(self, data: bytes | bytearray, source: Source | None) -> None:
        self._meter.queue(source, len(data))
        await self.response.write(data)
        self._meter.settle()

    async def _send_file(self, span: FileSpan) -> None:
        if span.length <= SMALL_FILE:
            # One write of headers and body, where sendfile would need one of each.
            data: bytes | bytearray | None = _read_cached(span)
            if data is None:
                data = await span.reader.read(span.offset, span.length)
            if len(data) != span.length:
                raise BrokenBodyError(f"a stored file ends within [{span.offset}, +{span.length})")
            await self._write(data, span.source)
            return
        descriptor = span.reader.fileno()
        assert descriptor is not None, "a FileSpan is of a file"
        assert self._writer is not None
        self._writer.send_headers()
        sent = await send_file(
            self._request,
            self.response,
            descriptor,
            span.offset,
            span.length,
            on_sent=lambda count: self._meter.sent(span.source, count),
            progress_timeout=self._timeout,
        )
        if sent < span.length:
            raise ClientGoneError("the client left in mid-body")


def _fits_at_once(item: bytes | Span) -> bool:
    """Whether an item, written first, never waits for its client: the transport takes as much before it says stop."""
    return (len(item) if isinstance(item, bytes) else item.length) <= _AT_ONCE


def _read_cached(span: FileSpan) -> bytearray | None:
    """The span's bytes if the page cache has them all, without blocking (preadv2(2), RWF_NOWAIT); else None."""
    descriptor = span.reader.fileno()
    data = bytearray(span.length)
    try:
        if descriptor is None or os.preadv(descriptor, [data], span.offset, os.RWF_NOWAIT) < span.length:
            return None
    except OSError:  # not cached, or a file system that cannot tell
        return None
    return data


class _Meter:
    """Tells bytes that the kernel took from those that still wait in the transport's buffer."""

    def __init__(self, transport: asyncio.Transport, on_sent: OnSent) -> None:
        self.total = 0
        self._transport = transport
        self._on_sent = on_sent
        self._queued: deque[tuple[Source | None, int]] = deque()
        self._waiting = 0

    def queue(self, source: Source | None, count: int) -> None:
        """``count`` bytes are about to be written."""
        self._queued.append((source, count))
        self._waiting += count
        self.total += count

    def sent(self, source: Source, count: int) -> None:
        """The kernel took ``count`` bytes of a file, so it has all that was queued before."""
        self.total += count
        self._settle_to(0)
        self._on_sent(source, count)

    def settle(self) -> None:
        """Tell of what has left the buffer; what a broken connection drops from its buffer is not told of."""
        if not self._transport.is_closing():
            self._settle_to(self._transport.get_write_buffer_size())

    def _settle_to(self, left: int) -> None:
        """All but the last ``left`` bytes have gone."""
        while self._waiting > left:
            source, count = self._queued.popleft()
            gone = min(count, self._waiting - left)
            self._waiting -= gone
            if gone < count:
                self._queued.appendleft((source, count - gone))
            if source is not None:
                self._on_sent(source, gone)


class _Watch:
    """Aborts the connection when its client has taken no byte for ``timeout`` seconds, though some wait for it."""

    _CHECKS = 8

    def __init__(self, transport: asyncio.Transport, meter: _Meter, timeout: float) -> None:
        self.stalled = False
        self._transport = transport
        self._meter = meter
        self._interval = timeout / self._CHECKS
        self._taken = 0
        self._idle = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch from now on; nothing when it is at it already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._check)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if self._transport.is_closing():
            return
        left = self._transport.get_write_buffer_size() + _unacknowledged(self._transport)
        taken = self._meter.total - left
        self._idle = self._idle + 1 if left and taken == self._taken else 0
        self._taken = taken
        if self._idle >= self._CHECKS:
            self.stalled = True
            self._transport.abort()
        else:
            self.start()


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes in the socket's send buffer that the client has not acknowledged (tcp(7), SIOCOUTQ)."""
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return 0
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
