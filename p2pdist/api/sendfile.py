"""A range of a file to an HTTP client, for the least CPU per byte on uvloop and on the standard loop alike.

How: the headers are flushed, then ``os.sendfile`` runs on a duplicate of the connection's (non-blocking) socket, in the
loop's thread pool because the page cache may have to go to the disk; when the socket is full the loop, not the thread,
waits until it is writable. uvloop has no ``loop.sendfile``; this needs none. TLS, whose records the kernel does not
make here, takes large reads instead.

Always true here:
- a thread is busy only while it moves bytes or reads the disk: a slow client costs a descriptor and a future;
- the duplicate descriptor is closed after the last thread that uses it has returned, whatever was cancelled;
- ``on_sent`` has been told exactly the bytes that the kernel (TLS: the transport) took, also when this ends early;
- a client that takes no byte for ``progress_timeout`` seconds is cut off.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from p2pdist.errors import StoreError
from p2pdist.store.hops import outlast

PROGRESS_TIMEOUT = 30.0
_CALL = 1024 * 1024
_BURST = 8 * _CALL
_PACED_BURST = 256 * 1024

OnSent = Callable[[int], None]
Pace = Callable[[int], Awaitable[None]]


def _ignore(_: int) -> None:
    return None


async def send_file(
    request: web.BaseRequest,
    response: web.StreamResponse,
    fd: int,
    offset: int,
    length: int,
    *,
    on_sent: OnSent = _ignore,
    pace: Pace | None = None,
    progress_timeout: float = PROGRESS_TIMEOUT,
) -> int:
    """Send ``length`` bytes of the regular file ``fd`` from ``offset`` as (a part of) the body; return how many went out.

    ``response`` is prepared here if it is not, and must have a Content-Length that covers the bytes; call this as often
    as there are spans, mixed with ``response.write`` if need be. ``fd`` stays open and its position is not used.
    ``on_sent`` is told of bytes as they go; ``pace`` is awaited with the same numbers afterwards, to hold a rate.
    Fewer than ``length`` means that the client left or stopped reading: the connection has been aborted, there is
    nothing more to write, return the response. Raises StoreError (connection aborted) when the file is too short.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        return 0
    sending = _Sending(transport, fd, on_sent, pace, progress_timeout)
    try:
        writer = await response.prepare(request)
        if writer is None:
            raise ConnectionResetError("the response has ended already")
        if transport.get_extra_info("sslcontext") is None:
            await sending.kernel(writer, offset, length)
        else:
            await sending.reads(response, offset, length)
    except (OSError, TimeoutError):  # aiohttp's "closing transport" is a ConnectionResetError too
        transport.abort()
    except BaseException:
        transport.abort()
        raise
    return sending.sent


class _Burst(NamedTuple):
    """What one stay in a thread achieved. ``full``: the socket takes no more; ``ended``: the file has no more."""

    sent: int
    full: bool = False
    ended: bool = False
    error: OSError | None = None


class _Sending:
    """One range on its way to one connection."""

    def __init__(
        self,
        transport: asyncio.Transport,
        fd: int,
        on_sent: OnSent,
        pace: Pace | None,
        progress_timeout: float,
    ) -> None:
        self.sent = 0
        self._transport = transport
        self._fd = fd
        self._on_sent = on_sent
        self._pace = pace
        self._timeout = progress_timeout
        self._burst = _BURST if pace is None else _PACED_BURST

    async def kernel(self, writer: AbstractStreamWriter, offset: int, length: int) -> None:
        await self._flush(writer)
        sock = os.dup(self._transport.get_extra_info("socket").fileno())
        try:
            while self.sent < length:
                burst = await self._in_thread(
                    _send_burst, sock, self._fd, offset + self.sent, min(length - self.sent, self._burst)
                )
                if burst.error is not None:
                    raise burst.error
                if burst.ended:
                    raise _too_short(offset + self.sent, offset + length)
                if self._pace is not None:
                    await self._pace(burst.sent)
                if burst.full:
                    await writable(sock, self._timeout)
        finally:
            os.close(sock)

    async def reads(self, response: web.StreamResponse, offset: int, length: int) -> None:
        loop = asyncio.get_running_loop()
        done = 0
        while done < length:
            wanted = min(length - done, _CALL if self._pace is None else self._burst)
            data = await loop.run_in_executor(None, os.pread, self._fd, wanted, offset + done)
            if not data:
                raise _too_short(offset + done, offset + length)
            done += len(data)
            async with asyncio.timeout(self._timeout):
                await response.write(data)
            self._count(len(data))
            if self._pace is not None:
                await self._pace(len(data))

    async def _flush(self, writer: AbstractStreamWriter) -> None:
        """Wait until the transport has no byte of its own left to send, or else the file's bytes would overtake it."""
        self._transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(self._timeout):
                await writer.drain()
        finally:
            self._transport.set_write_buffer_limits()
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            raise ConnectionResetError("the client left before the body")

    async def _in_thread(self, work: Callable[..., _Burst], *arguments: int) -> _Burst:
        """Run ``work`` in the pool, wait for its end even when cancelled, and count what it sent."""
        future = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
        try:
            return await outlast(future)
        finally:
            self._count(future.result().sent)

    def _count(self, sent: int) -> None:
        self.sent += sent
        if sent:
            self._on_sent(sent)


def _send_burst(sock: int, fd: int, offset: int, length: int) -> _Burst:
    sent = 0
    while sent < length:
        try:
            count = os.sendfile(sock, fd, offset + sent, min(length - sent, _CALL))
        except BlockingIOError:
            return _Burst(sent, full=True)
        except OSError as error:
            return _Burst(sent, error=error)
        if count == 0:
            return _Burst(sent, ended=True)
        sent += count
    return _Burst(sent)


def _too_short(end: int, wanted: int) -> StoreError:
    return StoreError(
        f"a stored file ends at byte {end}, not {wanted}: it was changed from outside; delete the blob"
    )


async def writable(sock: int, timeout: float = PROGRESS_TIMEOUT) -> None:
    """Wait until ``sock`` takes bytes; TimeoutError when in ``timeout`` seconds the other side took none.

    A socket becomes writable only when a good part of its buffer is free, so a slow reader is told from a dead one by
    what is left in the buffer.
    """
    while True:
        queued = _unsent(sock)
        if await _writable_within(sock, timeout):
            return
        if _unsent(sock) >= queued:
            raise TimeoutError


async def _writable_within(sock: int, timeout: float) -> bool:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake(writable: bool) -> None:
        if not ready.done():
            ready.set_result(writable)

    timer = loop.call_later(timeout, wake, False)
    loop.add_writer(sock, wake, True)
    try:
        return bool(await ready)
    finally:
        loop.remove_writer(sock)
        timer.cancel()


def _unsent(sock: int) -> int:
    """Bytes in the socket's send buffer that the other side has not acknowledged (tcp(7), SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
