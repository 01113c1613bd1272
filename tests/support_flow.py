"""Both ends of a flow for tests, frame by frame, and a blob that arrives as a test tells it to."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from p2pdist.clock import SystemClock
from p2pdist.errors import UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.retention.ranges import RangeSet
from p2pdist.wire.flow_frames import (
    DATA,
    HEAD,
    PATH,
    REFUSED,
    REQUESTS,
    Cancel,
    Want,
    decode_request,
    encode_cancel,
    encode_want,
)
from p2pdist.wire.http_auth import SteadyWall, Target
from p2pdist.wire.sealed_frames import FrameSeal
from tests.support_peers import ServedPeer, auth_of, peer_id
from tests.support_scripted_peer import Exchange

CLOCK = SystemClock()
TIME = SteadyWall(CLOCK.wall(), CLOCK.now())
UPGRADE = {"Connection": "Upgrade", "Upgrade": "p2pdist-flow"}


class Source:
    """The answering end, on a scripted peer: what it sends is the test's affair."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._seal = exchange.auth.frames(exchange.credentials)

    @classmethod
    def opened(cls, exchange: Exchange) -> Source:
        exchange.answer(101, UPGRADE)
        return cls(exchange)

    async def request(self) -> Want | Cancel:
        """The next request; its seal holds."""
        reader = self._exchange.reader
        length = int.from_bytes(await reader.readexactly(2), "big")
        mac, payload = await reader.readexactly(FrameSeal.SIZE), await reader.readexactly(length)
        assert mac == self._seal.next(payload)
        return decode_request(payload)

    async def want(self) -> Want:
        request = await self.request()
        assert isinstance(request, Want)
        return request

    async def cancelled(self) -> int:
        request = await self.request()
        assert isinstance(request, Cancel)
        return request.handle

    async def send(self, data: bytes) -> None:
        await self._exchange.send(data)

    async def data(self, handle: int, data: bytes, *, announced: int | None = None) -> None:
        await self.send(HEAD.pack(DATA, handle, len(data) if announced is None else announced) + data)

    async def refuse(self, handle: int, status: int) -> None:
        await self.send(HEAD.pack(REFUSED, handle, status))

    async def ended(self) -> None:
        """Return when the other side has closed the connection."""
        try:
            while await self._exchange.reader.read(65536):
                pass
        except ConnectionError:
            pass


class Asker:
    """The asking end, against a real listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seal: FrameSeal) -> None:
        self.reader = reader
        self.writer = writer
        self.seal = seal

    def send(self, payload: bytes) -> None:
        self.writer.write(REQUESTS.pack(self.seal.next(payload), payload))

    def want(self, handle: int, digest: Digest, offset: int, length: int, size: int) -> None:
        self.send(encode_want(Want(handle, digest, offset, length, size)))

    def cancel(self, handle: int) -> None:
        self.send(encode_cancel(handle))

    async def frame(self) -> tuple[int, int, bytes | int]:
        """(kind, handle, body or status)."""
        kind, handle, number = HEAD.unpack(await self.reader.readexactly(HEAD.size))
        if kind == DATA:
            return kind, handle, await self.reader.readexactly(number)
        return kind, handle, number

    async def body(self, handle: int, length: int) -> bytes:
        """So many bytes, all of one handle."""
        got = b""
        while len(got) < length:
            kind, name, data = await self.frame()
            assert (kind, name) == (DATA, handle)
            assert isinstance(data, bytes)
            got += data
        assert len(got) == length
        return got

    async def refused(self) -> tuple[int, int]:
        """(handle, status) of a frame that must be a refusal."""
        kind, handle, status = await self.frame()
        assert kind == REFUSED
        assert isinstance(status, int)
        return handle, status

    async def ended(self) -> int:
        """Return, once the other side has closed the connection, how many bytes came until then."""
        count = 0
        try:
            while data := await self.reader.read(65536):
                count += len(data)
        except ConnectionError:
            pass
        return count


@asynccontextmanager
async def asker(
    peer: ServedPeer, *, name: str = "leech", tls: ssl.SSLContext | None = None, status: int = 101
) -> AsyncIterator[Asker]:
    """A proven flow to ``peer``, whose answer has ``status``."""
    reader, writer = await asyncio.open_connection(peer.host, peer.listener.port, ssl=tls)
    time_ms = (
        TIME.ms(CLOCK.now()) + 2000
    )  # later than the listener's start, as a verifier just started demands
    auth = auth_of(name)
    credentials = auth.sign(Target("GET", PATH), peer_id(peer.name), time_ms, os.urandom(16))
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {credentials.header()}\r\n\r\n".encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), head
        yield Asker(reader, writer, auth.frames(credentials))
    finally:
        writer.transport.abort()


class Arriving:
    """A PartialBlob over a file of its own; ``come`` and ``fail`` are its news."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.digest = Digest.of(data)
        self.size = len(data)
        self.failed = False
        self.has_file = True
        self.watchers: list[Callable[[], None]] = []
        self._data = data
        self._held = RangeSet()
        path.write_bytes(b"")

    def come(self, start: int, stop: int) -> None:
        with self.path.open("r+b") as file:
            file.seek(start)
            file.write(self._data[start:stop])
        self._held = self._held.add(start, stop)
        self.tell()

    def fail(self) -> None:
        self.failed = True
        self.tell()

    def tell(self) -> None:
        for told in list(self.watchers):
            told()

    def held_from(self, offset: int) -> int:
        return offset if self.failed else self._held.held_from(offset)

    async def wait_held(self, offset: int) -> int:
        raise UnreachableError("flows do not ask this")

    def duplicate(self) -> int | None:
        return os.open(self.path, os.O_RDONLY) if self.has_file else None

    def watch(self, told: Callable[[], None]) -> None:
        self.watchers.append(told)

    def unwatch(self, told: Callable[[], None]) -> None:
        self.watchers.remove(told)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(true: Callable[[], bool]) -> None:
    """Return once ``true`` holds; the other end runs in this loop, and only needs its turns."""
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)
