"""How the frames of a flow leave, in clear or under TLS; the body bytes among them are counted as they do.

Always true here: ``count`` has been told of exactly the body bytes that the kernel (TLS: the transport) took; a peer that
takes no byte for PROGRESS_TIMEOUT seconds is a TimeoutError.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Protocol

from p2pdist.api.flow_source import BlobSource
from p2pdist.api.sendfile import PROGRESS_TIMEOUT, writable
from p2pdist.store.hops import outlast
from p2pdist.wire.flow_frames import DATA, HEAD, REFUSED

Count = Callable[[int], None]


class FlowOutput(Protocol):
    """See the module's rules; OSError when the connection is broken."""

    async def data(self, handle: int, source: BlobSource, offset: int, length: int) -> None:
        """A DATA frame of bytes that are ready."""

    async def refuse(self, handle: int, status: int) -> None:
        """A REFUSED frame."""

    async def write(self, data: bytes) -> None:
        """What is no frame."""

    def close(self) -> None: ...


def flow_output(transport: asyncio.Transport, count: Count, room: asyncio.Event) -> FlowOutput:
    """The output for this connection; ``room`` is set while its transport takes more."""
    if transport.get_extra_info("sslcontext") is None:
        return PlainOutput(transport, count)
    return TlsOutput(transport, count, room)


class PlainOutput:
    """By sendfile on a duplicate of the connection's socket, which is non-blocking: the loop waits, not a thread.

    A thread is needed only to read what may have to come from the disk.
    """

    def __init__(self, transport: asyncio.Transport, count: Count) -> None:
        self._count = count
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._socket.setblocking(False)

    async def data(self, handle: int, source: BlobSource, offset: int, length: int) -> None:
        await self._write(HEAD.pack(DATA, handle, length), socket.MSG_MORE)
        if source.file is None:
            await self._write(await source.read(offset, length), count=self._count)
            return
        send = self._sendfile_in_thread if source.cold else self._sendfile
        stop = offset + length
        while offset < stop:
            try:
                sent = await send(source.file, offset, stop - offset)
            except BlockingIOError:
                await writable(self._socket.fileno(), PROGRESS_TIMEOUT)
                continue
            if not sent:
                raise ConnectionAbortedError("a file became shorter while it was sent")
            self._count(sent)
            offset += sent

    async def _sendfile(self, file: int, offset: int, length: int) -> int:
        return os.sendfile(self._socket.fileno(), file, offset, length)

    async def _sendfile_in_thread(self, file: int, offset: int, length: int) -> int:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, os.sendfile, self._socket.fileno(), file, offset, length)
        try:
            return await outlast(future)
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:
                self._count(future.result())
            raise

    async def refuse(self, handle: int, status: int) -> None:
        await self.write(HEAD.pack(REFUSED, handle, status))

    async def write(self, data: bytes) -> None:
        await self._write(data)

    async def _write(self, data: bytes, flags: int = 0, count: Count | None = None) -> None:
        view = memoryview(data)
        while view:
            try:
                sent = self._socket.send(view, flags)
            except BlockingIOError:
                await writable(self._socket.fileno(), PROGRESS_TIMEOUT)
                continue
            view = view[sent:]
            if count is not None:
                count(sent)

    def close(self) -> None:
        self._socket.close()


class TlsOutput:
    """Through the transport, which makes TLS records."""

    def __init__(self, transport: asyncio.Transport, count: Count, room: asyncio.Event) -> None:
        self._transport = transport
        self._count = count
        self._room = room

    async def data(self, handle: int, source: BlobSource, offset: int, length: int) -> None:
        data = await source.read(offset, length)
        if self._transport.is_closing():
            raise ConnectionResetError("the flow's connection is closed")
        self._transport.write(HEAD.pack(DATA, handle, length) + data)
        self._count(length)
        await self._drained()

    async def refuse(self, handle: int, status: int) -> None:
        await self.write(HEAD.pack(REFUSED, handle, status))

    async def write(self, data: bytes) -> None:
        self._transport.write(data)
        await self._drained()

    async def _drained(self) -> None:
        async with asyncio.timeout(PROGRESS_TIMEOUT):
            await self._room.wait()

    def close(self) -> None:
        """Nothing of its own."""
