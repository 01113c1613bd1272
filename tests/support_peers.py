"""An agent's peer side for tests: a listener over a handful of blobs, and a client, both on real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from p2pdist.api.flow_source import Partials
from p2pdist.api.peer import PeerServerHooks, PeerServerSettings, build_peer_app
from p2pdist.api.peer_listener import ConnectionLimits, PeerListener
from p2pdist.api.sendfile import Pace
from p2pdist.clock import Clock, SystemClock
from p2pdist.oci.digest import Digest
from p2pdist.peers.http_client import HttpPeers, PeerClientHooks
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.peers.tls import PeerTls
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.store.port import BlobInfo, Store
from p2pdist.wire.http_auth import HttpAuth
from p2pdist.wire.http_verifier import Refusal
from p2pdist.wire.keys import ClusterKey

KEY = ClusterKey(b"k" * 32)
OTHER_KEY = ClusterKey(b"x" * 32)


def peer_id(name: str) -> PeerId:
    return PeerId(hashlib.blake2b(name.encode(), digest_size=20).digest())


def auth_of(name: str, key: ClusterKey = KEY) -> HttpAuth:
    return HttpAuth(key.derive("peer-http"), peer_id(name))


class BlobShelf:
    """The one method of a Store that the peer listener uses, over files (or memory when there is no directory)."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._blobs: dict[Digest, tuple[BlobInfo, bytes]] = {}
        self.open_readers = 0

    def put(self, data: bytes, media_type: str = "", *, shared: bool = True) -> Digest:
        digest = Digest.of(data)
        info = BlobInfo(digest, len(data), media_type, 0.0, 0.0, pinned=False, shared=shared)
        self._blobs[digest] = (info, data)
        if self._directory is not None:
            (self._directory / digest.hex).write_bytes(data)
        return digest

    def damage(self, digest: Digest, size: int) -> None:
        """Cut the file behind the store's back."""
        assert self._directory is not None
        os.truncate(self._directory / digest.hex, size)

    async def open(self, digest: Digest) -> _Reader | None:
        held = self._blobs.get(digest)
        if held is None:
            return None
        self.open_readers += 1
        return _Reader(self, held[0], held[1], self._directory and self._directory / digest.hex)


class _Reader:
    def __init__(self, shelf: BlobShelf, info: BlobInfo, data: bytes, path: Path | None) -> None:
        self.info = info
        self.path = path
        self._shelf = shelf
        self._data = data
        self._descriptor = None if path is None else os.open(path, os.O_RDONLY)

    def fileno(self) -> int | None:
        return self._descriptor

    async def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def close(self) -> None:
        self._shelf.open_readers -= 1
        if self._descriptor is not None:
            os.close(self._descriptor)


class CountingServerHooks(PeerServerHooks):
    def __init__(self) -> None:
        self.bytes_sent = 0
        self.refusals: list[Refusal] = []
        self.times_busy = 0

    def sent(self, peer: PeerId, size: int) -> None:
        self.bytes_sent += size

    def refused(self, reason: Refusal) -> None:
        self.refusals.append(reason)

    def busy(self, peer: PeerId) -> None:
        self.times_busy += 1


class CountingClientHooks(PeerClientHooks):
    def __init__(self) -> None:
        self.bytes_received = 0
        self.bodies: list[tuple[PeerId, int]] = []

    def received(self, peer: PeerId, size: int) -> None:
        self.bytes_received += size

    def finished(self, peer: PeerId, size: int, seconds: float) -> None:
        self.bodies.append((peer, size))


@dataclass
class ServedPeer:
    """A listening peer; ``provider`` is how others find it."""

    name: str
    shelf: BlobShelf
    hooks: CountingServerHooks
    listener: PeerListener
    host: str

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.host, self.listener.port)

    @property
    def provider(self) -> Provider:
        return Provider(peer_id(self.name), (self.endpoint,))

    async def bytes_sent(self) -> int:
        """What was sent, once every answer has ended: a client may have it all before the server has counted it."""
        async with asyncio.timeout(20):
            while self.shelf.open_readers:
                await asyncio.sleep(0.005)
        return self.hooks.bytes_sent


@dataclass
class PeerBench:
    """Makes peers and clients that share a directory, a key and (perhaps) TLS."""

    directory: Path
    tls: PeerTls | None = None
    client_settings: PeerClientSettings = field(default_factory=PeerClientSettings)
    files: bool = True

    @asynccontextmanager
    async def peer(
        self,
        name: str = "seed",
        *,
        key: ClusterKey = KEY,
        clock: Clock | None = None,
        settings: PeerServerSettings | None = None,
        limits: ConnectionLimits | None = None,
        pace: Pace | None = None,
        partials: Partials | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: PeerTls | None = None,
    ) -> AsyncIterator[ServedPeer]:
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        shelf = BlobShelf(folder if self.files else None)
        hooks = CountingServerHooks()
        app = build_peer_app(
            cast(Store, shelf),
            auth_of(name, key),
            clock or SystemClock(),
            settings or PeerServerSettings(name=name),
            hooks,
            pace,
            partials,
        )
        listener = PeerListener(app, limits, grace=0.1)
        tls = tls or self.tls
        await listener.start(host, port, tls.server_context() if tls else None)
        try:
            yield ServedPeer(name, shelf, hooks, listener, host)
        finally:
            await listener.close()

    def client(
        self,
        name: str = "leech",
        *,
        key: ClusterKey = KEY,
        clock: Clock | None = None,
        hooks: PeerClientHooks | None = None,
        tls: PeerTls | None = None,
    ) -> HttpPeers:
        tls = tls or self.tls
        settings = replace(self.client_settings, ssl=tls.client_context() if tls else None)
        return HttpPeers(settings, auth_of(name, key), clock or SystemClock(), hooks)


async def fetch(
    peers: HttpPeers, provider: Provider, digest: Digest, offset: int = 0, length: int | None = None
) -> bytes:
    async with peers.blob(provider, digest, offset, length) as stream:
        return b"".join([chunk async for chunk in stream.chunks()])
