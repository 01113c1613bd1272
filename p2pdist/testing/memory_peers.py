"""Peers in memory, with a knob for each way in which a real one fails.

Always true here: the errors are those that the port names, raised where the real adapter raises them (a stall is raised
as StalledError at once: the fake waits for no timeout; ``gate`` is for tests that want to hold a body in mid-air and
let it go themselves). Every request is recorded before it fails or succeeds.

    peers = MemoryPeers()
    liar = peers.add("liar", {digest: data}, wrong_at=70_000)
    slow = peers.add("slow", {digest: data}, gate_at=10)        # ... slow.gate.set() lets it go on
    async with peers.blob(liar.provider(), digest, 0) as stream: ...
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from p2pdist.errors import (
    BusyError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    StalledError,
    UnreachableError,
)
from p2pdist.oci.content import BlobStat, ContentStream
from p2pdist.oci.digest import Digest
from p2pdist.records import Endpoint, PeerId, Provider


def peer_id(name: str) -> PeerId:
    """The same 20 bytes for the same name, always."""
    return PeerId(hashlib.blake2b(name.encode(), digest_size=20).digest())


@dataclass(frozen=True, slots=True)
class PeerRequest:
    """What was asked of a fake peer. ``kind`` is ``stat`` or ``blob``."""

    peer: PeerId
    kind: str
    digest: Digest
    offset: int = 0
    length: int | None = None


@dataclass(slots=True)
class MemoryPeer:
    """One fake peer; change its knobs at any time. All positions are offsets in the blob, in bytes."""

    name: str
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    media_types: dict[Digest, str] = field(default_factory=dict)
    zone: str = ""
    dead: bool = False
    denied: bool = False
    busy: bool = False
    retry_after: float | None = None
    stall_at: int | None = None
    cut_at: int | None = None
    wrong_at: int | None = None
    wrong_size: int | None = None
    wrong_range: bool = False
    gate_at: int | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    chunk: int = 64 * 1024
    sent: int = 0
    open_streams: int = 0

    @property
    def id(self) -> PeerId:
        return peer_id(self.name)

    def provider(self, *, complete: bool = True) -> Provider:
        """The record by which others find this peer."""
        return Provider(self.id, (Endpoint("192.0.2.1", 5051),), self.zone, complete)

    def hold(self, data: bytes, media_type: str = "") -> Digest:
        """Give the peer a blob."""
        digest = Digest.of(data)
        self.blobs[digest] = data
        self.media_types[digest] = media_type
        return digest


class MemoryPeers:
    """The Peers port over fake peers; ``requests`` is all that was asked, in order."""

    def __init__(self) -> None:
        self.requests: list[PeerRequest] = []
        self._peers: dict[PeerId, MemoryPeer] = {}

    def add(self, name: str, blobs: Mapping[Digest, bytes] | None = None, **knobs: object) -> MemoryPeer:
        """A new peer; ``knobs`` are fields of MemoryPeer."""
        peer = MemoryPeer(name, dict(blobs or {}))
        for knob, value in knobs.items():
            setattr(peer, knob, value)
        self._peers[peer.id] = peer
        return peer

    def asked(self, peer: MemoryPeer, kind: str = "blob") -> list[PeerRequest]:
        """The requests of one kind that reached (or tried to reach) one peer."""
        return [r for r in self.requests if r.peer == peer.id and r.kind == kind]

    async def stat(self, provider: Provider, digest: Digest) -> BlobStat:
        self.requests.append(PeerRequest(provider.peer, "stat", digest))
        peer, data = self._admit(provider, digest)
        size = len(data) if peer.wrong_size is None else peer.wrong_size
        return BlobStat(digest, size, peer.media_types.get(digest, ""))

    async def piece(
        self,
        provider: Provider,
        digest: Digest,
        offset: int,
        size: int,
        buffer: memoryview,
        on_progress: Callable[[int], None],
    ) -> None:
        filled = 0
        async with self.blob(provider, digest, offset, len(buffer)) as stream:
            if stream.size != size:
                raise ProtocolError(f"peer {provider.peer.short} offers another size for {digest}")
            async for chunk in stream.chunks():
                buffer[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
                on_progress(filled)

    def blob(
        self, provider: Provider, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ContentStream]:
        self.requests.append(PeerRequest(provider.peer, "blob", digest, offset, length))
        return self._blob(provider, digest, offset, length)

    @asynccontextmanager
    async def _blob(
        self, provider: Provider, digest: Digest, offset: int, length: int | None
    ) -> AsyncIterator[ContentStream]:
        peer, data = self._admit(provider, digest)
        stop = len(data) if length is None else offset + length
        if not 0 <= offset <= stop <= len(data):
            raise InvalidInputError(f"range {offset}-{stop} is outside of blob {digest} of {len(data)} bytes")
        if peer.wrong_range:
            raise ProtocolError(f"peer {peer.name} answered with another range than it was asked for")
        peer.open_streams += 1
        try:
            yield _MemoryStream(peer, digest, data, offset, stop)
        finally:
            peer.open_streams -= 1

    def _admit(self, provider: Provider, digest: Digest) -> tuple[MemoryPeer, bytes]:
        peer = self._peers.get(provider.peer)
        if peer is None or peer.dead:
            raise UnreachableError(f"peer {provider.peer.short} does not answer")
        if peer.denied:
            raise DeniedError(f"peer {peer.name} has another cluster key")
        if peer.busy:
            raise BusyError(f"peer {peer.name} is busy", peer.retry_after)
        if digest not in peer.blobs:
            raise NotFoundError(f"peer {peer.name} does not hold {digest}")
        return peer, peer.blobs[digest]


class _MemoryStream:
    def __init__(self, peer: MemoryPeer, digest: Digest, data: bytes, start: int, stop: int) -> None:
        self._peer = peer
        self._digest = digest
        self._data = data
        self._start = start
        self._stop = stop

    @property
    def size(self) -> int:
        return len(self._data) if self._peer.wrong_size is None else self._peer.wrong_size

    @property
    def start(self) -> int:
        return self._start

    @property
    def media_type(self) -> str:
        return self._peer.media_types.get(self._digest, "")

    async def chunks(self) -> AsyncIterator[bytes]:
        position = self._start
        while position < self._stop:
            await self._fail_at(position)
            stop = min(self._next_mark(position), position + self._peer.chunk, self._stop)
            yield self._bytes(position, stop)
            self._peer.sent += stop - position
            position = stop
            await asyncio.sleep(0)

    def _next_mark(self, position: int) -> int:
        marks = (self._peer.stall_at, self._peer.cut_at, self._peer.gate_at)
        return min((mark for mark in marks if mark is not None and mark > position), default=self._stop)

    async def _fail_at(self, position: int) -> None:
        """Do what the knobs say for reaching ``position``: a knob at k lets exactly the bytes before k through."""
        peer = self._peer
        if peer.gate_at is not None and position >= peer.gate_at:
            await peer.gate.wait()
        if peer.dead or (peer.cut_at is not None and position >= peer.cut_at):
            raise UnreachableError(
                f"peer {peer.name} cut the connection at byte {position} of {self._digest}"
            )
        if peer.stall_at is not None and position >= peer.stall_at:
            raise StalledError(f"peer {peer.name} stalled at byte {position} of {self._digest}")

    def _bytes(self, start: int, stop: int) -> bytes:
        data = self._data[start:stop]
        wrong = self._peer.wrong_at
        if wrong is None or not start <= wrong < stop:
            return data
        at = wrong - start
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
