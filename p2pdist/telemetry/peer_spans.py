"""What each peer gave of one blob, gathered into one span for each of them: the Peers port, watched.

Rules:
- A pull asks its peers for hundreds of pieces. One span tells of all that one peer was asked of one digest, and at most
  MAX_PEERS of them are drawn for a digest; what is beyond is told together in one more.
- Bytes are those that arrived, also of a piece that was left in the middle.
- Nobody is watched while traces are off: the agent then uses the port itself (agent/tracing.py).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from p2pdist.oci.content import BlobStat, ContentStream
from p2pdist.oci.digest import Digest
from p2pdist.peers.port import Peers
from p2pdist.records import PeerId, Provider

MAX_PEERS: Final = 48
MAX_DIGESTS: Final = 8
_MAX_TEXT: Final = 200


@dataclass(slots=True)
class PeerPart:
    """What one peer (``provider`` None: the ``peers`` that had no part of their own) was asked of one digest.

    Times are nanoseconds: ``began`` and ``ended`` since 1970, ``active`` how long at least one request was under way.
    """

    provider: Provider | None
    began: int
    ended: int = 0
    active: int = 0
    size: int = 0
    requests: int = 0
    failures: int = 0
    error: str = ""
    peers: set[PeerId] = field(default_factory=set)
    _open: int = 0
    _since: int = 0

    @contextmanager
    def asked(self) -> Iterator[Request]:
        """One request: the caller tells how many bytes came of it. A cancelled one is no failure of the peer."""
        request = Request()
        self.requests += 1
        self._begin()
        try:
            yield request
        except Exception as error:
            self.failures += 1
            self.error = f"{type(error).__name__}: {error}"[:_MAX_TEXT]
            raise
        finally:
            self.size += request.size
            self._end()

    def _begin(self) -> None:
        if not self._open:
            self._since = time.time_ns()
        self._open += 1

    def _end(self) -> None:
        self._open -= 1
        self.ended = time.time_ns()
        if not self._open:
            self.active += max(0, self.ended - self._since)

    def attributes(self) -> dict[str, str | int]:
        """For the span; ``p2pdist.active_ms`` is in milliseconds."""
        under_way = time.time_ns() - self._since if self._open else 0
        found: dict[str, str | int] = {
            "p2pdist.peer_bytes": self.size,
            "p2pdist.requests": self.requests,
            "p2pdist.failures": self.failures,
            "p2pdist.active_ms": (self.active + under_way) // 1_000_000,
        }
        if self.error:
            found["p2pdist.last_error"] = self.error
        if self.provider is None:
            return found | {"p2pdist.peers": len(self.peers)}
        found["p2pdist.peer"] = self.provider.peer.hex
        if self.provider.zone:
            found["p2pdist.peer_zone"] = self.provider.zone
        if self.provider.endpoints:
            at = self.provider.endpoints[0]
            found |= {"server.address": at.host, "server.port": at.port}
        return found


@dataclass(slots=True)
class Request:
    """How many bytes have come."""

    size: int = 0


class PeerTally:
    """The parts of one digest."""

    def __init__(self) -> None:
        self._parts: dict[PeerId, PeerPart] = {}
        self._rest: PeerPart | None = None

    def of(self, provider: Provider) -> PeerPart:
        """That peer's part, made if need be."""
        part = self._parts.get(provider.peer)
        if part is not None:
            return part
        if len(self._parts) < MAX_PEERS:
            part = self._parts[provider.peer] = PeerPart(provider, time.time_ns())
            return part
        if self._rest is None:
            self._rest = PeerPart(None, time.time_ns())
        self._rest.peers.add(provider.peer)
        return self._rest

    def parts(self) -> list[PeerPart]:
        """In the order in which the peers were first asked."""
        return [*self._parts.values(), *([self._rest] if self._rest else [])]


class PeerWatch(Protocol):
    """Whoever draws spans (telemetry/tracing.py)."""

    def peer_part(self, digest: Digest, provider: Provider, kind: str) -> PeerPart | None:
        """Where to note what this peer gives; None when nobody will look at it. ``kind``: blob or stat."""


class TracedPeers:
    """The Peers port, watched."""

    def __init__(self, inner: Peers, watch: PeerWatch) -> None:
        self._inner = inner
        self._watch = watch

    async def stat(self, provider: Provider, digest: Digest) -> BlobStat:
        part = self._watch.peer_part(digest, provider, "stat")
        if part is None:
            return await self._inner.stat(provider, digest)
        with part.asked():
            return await self._inner.stat(provider, digest)

    async def piece(
        self,
        provider: Provider,
        digest: Digest,
        offset: int,
        size: int,
        buffer: memoryview,
        on_progress: Callable[[int], None],
    ) -> None:
        part = self._watch.peer_part(digest, provider, "blob")
        if part is None:
            await self._inner.piece(provider, digest, offset, size, buffer, on_progress)
            return
        with part.asked() as request:

            def moved(count: int) -> None:
                request.size = count
                on_progress(count)

            await self._inner.piece(provider, digest, offset, size, buffer, moved)
            request.size = len(buffer)

    def blob(
        self, provider: Provider, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ContentStream]:
        part = self._watch.peer_part(digest, provider, "blob")
        inner = self._inner.blob(provider, digest, offset, length)
        return inner if part is None else _counted(part, inner)


@asynccontextmanager
async def _counted(
    part: PeerPart, inner: AbstractAsyncContextManager[ContentStream]
) -> AsyncIterator[ContentStream]:
    with part.asked() as request:
        async with inner as stream:
            yield _CountedStream(stream, request)


class _CountedStream:
    def __init__(self, inner: ContentStream, request: Request) -> None:
        self._inner = inner
        self._request = request

    @property
    def size(self) -> int:
        return self._inner.size

    @property
    def start(self) -> int:
        return self._inner.start

    @property
    def media_type(self) -> str:
        return self._inner.media_type

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner.chunks():
            self._request.size += len(chunk)
            yield chunk
