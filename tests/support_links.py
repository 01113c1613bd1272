"""Both ends of a swarm link for tests: a listener whose inbox remembers, and a sender that sends what a test tells it to."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from p2pdist.api.peer import PeerServerSettings, build_peer_app
from p2pdist.api.peer_listener import PeerListener
from p2pdist.clock import SystemClock
from p2pdist.peers.link_wire import PATH
from p2pdist.peers.swarm_port import Work
from p2pdist.peers.tls import PeerTls
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.store.port import Store
from p2pdist.wire.http_auth import Target
from p2pdist.wire.sealed_frames import FrameSeal
from tests.support_flow import CLOCK, TIME
from tests.support_peers import BlobShelf, auth_of, peer_id


class Inbox:
    """Implements SwarmInbox; ``work`` makes what a frame asks for that takes time."""

    def __init__(self) -> None:
        self.frames: list[tuple[PeerId, bytes]] = []
        self.lost_peers: list[PeerId] = []
        self.work: Callable[[bytes], Work | None] = lambda frame: None

    def received(self, sender: PeerId, frame: bytes) -> Work | None:
        self.frames.append((sender, frame))
        return self.work(frame)

    def lost(self, peer: PeerId) -> None:
        self.lost_peers.append(peer)

    @property
    def payloads(self) -> list[bytes]:
        return [frame for _, frame in self.frames]


class Seed:
    """A listening agent."""

    def __init__(self, listener: PeerListener) -> None:
        self.inbox = Inbox()
        self.listener = listener

    @property
    def provider(self) -> Provider:
        return Provider(peer_id("seed"), (Endpoint("127.0.0.1", self.listener.port),))


@asynccontextmanager
async def seed(tls: PeerTls | None = None) -> AsyncIterator[Seed]:
    inbox = Inbox()
    app = build_peer_app(
        cast(Store, BlobShelf()), auth_of("seed"), SystemClock(), PeerServerSettings(), inbox=inbox
    )
    agent = Seed(PeerListener(app, grace=0.1))
    agent.inbox = inbox
    await agent.listener.start("127.0.0.1", 0, tls.server_context() if tls else None)
    try:
        yield agent
    finally:
        await agent.listener.close()


class Sender:
    """A proven link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seal: FrameSeal) -> None:
        self.reader = reader
        self.writer = writer
        self.seal = seal

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(packed(frame, self.seal.next(frame)) for frame in frames))

    async def ended(self) -> bytes:
        """What came until the other side closed the connection."""
        try:
            async with asyncio.timeout(20):
                return await self.reader.read()
        except ConnectionError:
            return b""


def packed(frame: bytes, mac: bytes) -> bytes:
    return len(frame).to_bytes(4, "big") + mac + frame


@asynccontextmanager
async def sender(
    agent: Seed, *, status: int = 101, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Sender]:
    """From "leech" to ``agent``, whose answer has ``status``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.listener.port, ssl=tls)
    auth = auth_of("leech")
    time_ms = TIME.ms(CLOCK.now()) + 2000  # later than the listener's start, as a fresh verifier demands
    credentials = auth.sign(Target("GET", PATH), peer_id("seed"), time_ms, os.urandom(16))
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {credentials.header()}\r\n\r\n".encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), head
        yield Sender(reader, writer, auth.frames(credentials))
    finally:
        writer.transport.abort()
