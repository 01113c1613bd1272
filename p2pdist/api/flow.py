"""The sending end of flows (wire/flow_frames.py): pieces of blobs that are held, or that are still arriving.

Always true here:
- only who has proven the cluster key opens a flow, and every request on it is sealed;
- a frame's bytes are all there before its head is sent, so that nothing on the connection waits for what is still to come;
- a peer that takes no byte for PROGRESS_TIMEOUT seconds is cut off;
- every want ends: sent, cancelled, or refused when nothing of it has come for WAIT seconds;
- at most MAX_WANTS wants and MAX_BLOBS open files a flow; MAX_FLOWS flows a peer;
- ``hooks.sent`` has been told of exactly the body bytes that the kernel (TLS: the transport) took.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from aiohttp import web

from p2pdist.api.peer_gate import CREDENTIALS
from p2pdist.api.sendfile import PROGRESS_TIMEOUT, Pace, writable
from p2pdist.api.switching import welcome
from p2pdist.clock import Clock
from p2pdist.errors import InvalidInputError, P2PDistError
from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId
from p2pdist.store.port import BlobReader, Store
from p2pdist.wire.flow_frames import DATA, HEAD, REFUSED, Cancel, Requests, Want, decode_request
from p2pdist.wire.http_auth import Credentials, FrameSeal, HttpAuth

logger = logging.getLogger(__name__)

FRAME = 512 * 1024
WAIT = 12.0
IDLE = 60.0
MAX_WANTS = 256
MAX_BLOBS = 32
MAX_FLOWS = 4
_CHECK = 0.5
_BUSY, _GONE, _OTHER_SIZE = 503, 404, 409


class PartialBlob(Protocol):
    """A blob that is still arriving (transfer.fetch.BlobFetch)."""

    @property
    def size(self) -> int: ...

    @property
    def failed(self) -> bool:
        """It will not come any more."""

    def held_from(self, offset: int) -> int:
        """Where the held range that contains ``offset`` stops; ``offset`` itself when that byte is not held."""

    async def wait_held(self, offset: int) -> int:
        """As ``held_from``, once the byte at ``offset`` is there."""

    def duplicate(self) -> int | None:
        """A descriptor of the file that holds the bytes at their offsets; the caller closes it."""

    def watch(self, told: Callable[[], None]) -> None:
        """``told`` is called at all news, until ``unwatch``."""

    def unwatch(self, told: Callable[[], None]) -> None: ...


Partials = Callable[[Digest], "PartialBlob | None"]
Sent = Callable[[PeerId, int], None]
Count = Callable[[int], None]


class _Source:
    """Where the bytes of one blob are: a file, or a reader that has none."""

    def __init__(self, told: Callable[[], None], reader: BlobReader | None, blob: PartialBlob | None) -> None:
        self.wants = 0
        self.reader = reader
        self._blob = blob
        self._told = told
        self.size = reader.info.size if reader else blob.size if blob else 0
        self.file = reader.fileno() if reader else None
        if blob is not None:
            self.file = blob.duplicate()
            blob.watch(told)

    @property
    def failed(self) -> bool:
        return self._blob is not None and self._blob.failed

    @property
    def cold(self) -> bool:
        """Whether reading may have to wait for the disk."""
        return self.reader is not None

    def ready(self, offset: int) -> int:
        return self.size if self._blob is None else self._blob.held_from(offset)

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()
        if self._blob is not None:
            self._blob.unwatch(self._told)
            if self.file is not None:
                os.close(self.file)


class _Open:
    """A want that is not yet served to its end."""

    __slots__ = ("handle", "position", "since", "source", "stop")

    def __init__(self, want: Want, source: _Source, now: float) -> None:
        self.handle = want.handle
        self.position = want.offset
        self.stop = want.offset + want.length
        self.source = source
        self.since = now


class FlowDoor:
    """Opens flows for proven peers."""

    def __init__(
        self, store: Store, partials: Partials, auth: HttpAuth, clock: Clock, sent: Sent, pace: Pace | None
    ) -> None:
        self._store = store
        self._partials = partials
        self._auth = auth
        self._clock = clock
        self._sent = sent
        self._pace = pace
        self._flows: Counter[PeerId] = Counter()

    async def open(self, request: web.Request) -> web.StreamResponse:
        """The handler of ``GET /p2p/v1/flow``: takes the connection over until it ends."""
        credentials, transport = request[CREDENTIALS], request.transport
        if self._flows[credentials.peer] >= MAX_FLOWS:
            return web.Response(status=_BUSY, body=b"busy\n")
        if transport is None or transport.is_closing():
            return web.Response(status=400, body=b"gone\n")
        flow = _Flow(self, credentials, transport, cast(asyncio.Protocol, request.protocol))
        transport.set_protocol(flow)
        self._flows[credentials.peer] += 1
        try:
            await flow.run(welcome(self._auth, credentials, "p2pdist-flow"))
        finally:
            self._flows[credentials.peer] -= 1
            if not self._flows[credentials.peer]:
                del self._flows[credentials.peer]
            transport.abort()
        return web.Response(status=400, body=b"over\n")  # the connection is gone: nobody gets this

    async def source(self, digest: Digest, told: Callable[[], None]) -> _Source | None:
        """Where the blob's bytes are, if peers may have them."""
        reader = await self._store.open(digest)
        if reader is not None:
            if reader.info.shared:
                return _Source(told, reader, None)
            reader.close()
            return None
        blob = self._partials(digest)
        source = None if blob is None or blob.failed else _Source(told, None, blob)
        if source is not None and source.file is None:
            source.close()
            return None
        return source

    def now(self) -> float:
        return self._clock.now()

    def seal(self, credentials: Credentials) -> FrameSeal:
        return self._auth.frames(credentials)

    def sent(self, peer: PeerId, size: int) -> None:
        """So many body bytes have left."""
        self._sent(peer, size)

    async def pace(self, size: int) -> None:
        """Wait until the upload limit allows more, after ``size`` bytes."""
        if self._pace is not None:
            await self._pace(size)


class _Flow(asyncio.Protocol):
    """One flow; it hands the connection's end on to the protocol that it replaced."""

    def __init__(
        self,
        door: FlowDoor,
        credentials: Credentials,
        transport: asyncio.Transport,
        before: asyncio.Protocol,
    ) -> None:
        self._door = door
        self._transport = transport
        self._peer = credentials.peer
        self._before = before
        self._requests = Requests(FrameSeal.SIZE)
        self._seal = door.seal(credentials)
        self._arrived: list[Want | Cancel] = []
        self._wants: dict[int, _Open] = {}
        self._sources: dict[Digest, _Source] = {}
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._over = False
        self._look_at = 0.0

    # -- asyncio.Protocol --

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        try:
            for mac, payload in self._requests.feed(data):
                if not hmac.compare_digest(mac, self._seal.next(payload)):
                    raise InvalidInputError("a flow request that its sender did not make")
                self._arrived.append(decode_request(payload))
            if len(self._arrived) > 2 * MAX_WANTS:
                raise InvalidInputError("too many flow requests at once")
        except InvalidInputError as error:
            logger.info("flow to peer %s ended: %s", self._peer.short, error)
            self._end()
        self._news.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._before.connection_lost(exc)

    def _end(self) -> None:
        self._over = True
        self._news.set()
        self._room.set()

    # -- serving --

    async def run(self, welcome: bytes) -> None:
        """Say ``welcome``, and serve until the connection ends."""
        plain = self._transport.get_extra_info("sslcontext") is None
        count = partial(self._door.sent, self._peer)
        out = _Plain(self._transport, count) if plain else _Sealed(self._transport, count, self._room)
        try:
            await out.write(welcome)
            await self._serve(out)
        except (OSError, TimeoutError, P2PDistError) as error:
            logger.info("flow to peer %s ended: %r", self._peer.short, error)
        finally:
            for source in self._sources.values():
                source.close()
            out.close()

    async def _serve(self, out: _Out) -> None:
        quiet = 0.0
        while not self._over:
            self._news.clear()
            await self._take_requests(out)
            await self._refuse_late(out)
            want = self._ready()
            if want is not None:
                quiet = 0.0
                await self._send(out, want)
                continue
            try:
                async with asyncio.timeout(_CHECK):
                    await self._news.wait()
            except TimeoutError:
                quiet = 0.0 if self._wants else quiet + _CHECK
                if quiet >= IDLE:
                    return

    async def _take_requests(self, out: _Out) -> None:
        arrived, self._arrived = self._arrived, []
        for request in arrived:
            if isinstance(request, Cancel):
                self._forget(request.handle)
                continue
            refusal = await self._take(request)
            if refusal is not None:
                await out.refuse(request.handle, refusal)

    async def _take(self, want: Want) -> int | None:
        """Take a want on; else the status that refuses it."""
        if len(self._wants) >= MAX_WANTS:
            return _BUSY
        if want.handle in self._wants:
            return _GONE
        if len(self._sources) >= MAX_BLOBS and want.digest not in self._sources:
            return _BUSY
        source = await self._source(want.digest)
        if source is None:
            return _GONE
        if source.size != want.size:
            self._leave(want.digest, source)
            return _OTHER_SIZE
        source.wants += 1
        self._wants[want.handle] = _Open(want, source, self._door.now())
        return None

    async def _source(self, digest: Digest) -> _Source | None:
        source = self._sources.get(digest)
        if source is not None and source.failed:
            del self._sources[digest]
            source.close()
            source = None
        if source is None:
            source = await self._door.source(digest, self._news.set)
            if source is not None:
                self._sources[digest] = source
        return source

    def _leave(self, digest: Digest, source: _Source) -> None:
        if not source.wants and self._sources.get(digest) is source:
            del self._sources[digest]
            source.close()

    def _forget(self, handle: int) -> None:
        want = self._wants.pop(handle, None)
        if want is not None:
            want.source.wants -= 1
            if not want.source.wants:
                for digest, source in list(self._sources.items()):
                    self._leave(digest, source)

    def _ready(self) -> _Open | None:
        """The first want of which something can be sent: so pieces come one after the other, and not all at once, late."""
        for want in self._wants.values():
            if want.source.ready(want.position) > want.position:
                return want
        return None

    async def _refuse_late(self, out: _Out) -> None:
        """Looks once in _CHECK seconds, however busy the flow is with other wants."""
        now = self._door.now()
        if now < self._look_at:
            return
        self._look_at, before = now + _CHECK, now - WAIT
        for handle, want in list(self._wants.items()):
            if want.since < before or want.source.failed:
                self._forget(handle)
                await out.refuse(handle, _GONE)

    async def _send(self, out: _Out, want: _Open) -> None:
        offset = want.position
        length = min(want.source.ready(offset), want.stop, offset + FRAME) - offset
        await out.data(want.handle, want.source, offset, length)
        want.position += length
        want.since = self._door.now()
        if want.position >= want.stop:
            self._forget(want.handle)
        await self._door.pace(length)


class _Out(Protocol):
    """How frames leave. The body bytes among them are counted as they do."""

    async def data(self, handle: int, source: _Source, offset: int, length: int) -> None: ...

    async def refuse(self, handle: int, status: int) -> None: ...

    async def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class _Plain:
    """By sendfile on a duplicate of the connection's socket, which is non-blocking: the loop waits, not a thread. Bytes
    that have only just arrived are in memory, so no thread is needed to read them either."""

    def __init__(self, transport: asyncio.Transport, count: Count) -> None:
        self._count = count
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._socket.setblocking(False)

    async def data(self, handle: int, source: _Source, offset: int, length: int) -> None:
        await self._write(HEAD.pack(DATA, handle, length), socket.MSG_MORE)
        if source.file is None:
            await self._write(await _read(source, offset, length), count=self._count)
            return
        stop = offset + length
        while offset < stop:
            try:
                sent = await self._sendfile(source, offset, stop - offset)
            except BlockingIOError:
                await writable(self._socket.fileno(), PROGRESS_TIMEOUT)
                continue
            if not sent:
                raise ConnectionAbortedError("a file became shorter while it was sent")
            self._count(sent)
            offset += sent

    async def _sendfile(self, source: _Source, offset: int, length: int) -> int:
        assert source.file is not None
        if not source.cold:
            return os.sendfile(self._socket.fileno(), source.file, offset, length)
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, os.sendfile, self._socket.fileno(), source.file, offset, length)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
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


async def _read(source: _Source, offset: int, length: int) -> bytes:
    if source.file is not None:
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(None, os.pread, source.file, length, offset)
    else:
        assert source.reader is not None
        data = await source.reader.read(offset, length)
    if len(data) < length:
        raise ConnectionAbortedError("a blob became shorter while it was sent")
    return data


class _Sealed:
    """Through the transport, which makes TLS records."""

    def __init__(self, transport: asyncio.Transport, count: Count, room: asyncio.Event) -> None:
        self._transport = transport
        self._count = count
        self._room = room

    async def data(self, handle: int, source: _Source, offset: int, length: int) -> None:
        data = await _read(source, offset, length)
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
