"""Content from peers over HTTP: the real adapter of the Peers port, and the commands that go the same way.

Always true here: what a peer sends is bounded: headers by proven_http.py, bodies by the length asked for, chunks by
MAX_CHUNK; every wait for it is. Who answers is proven (proven_http.py), but not that what it says is true.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import aiohttp

from p2pdist.clock import Clock
from p2pdist.errors import (
    BusyError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    P2PDistError,
    ProtocolError,
    UnreachableError,
)
from p2pdist.oci.content import BlobStat, ContentStream
from p2pdist.oci.digest import Digest
from p2pdist.peers.body import BodySpan, EmptyBody, HttpBody, answered_span, content_length
from p2pdist.peers.piece_client import PieceClient
from p2pdist.peers.proven_http import Body, ProvenHttp, sender_of
from p2pdist.peers.routes import Routes, usable_endpoints
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.peers.signer import Signer
from p2pdist.peers.upgrade import Connection, Opened, Upgrader
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.wire.http_auth import HttpAuth, Target

_BLOBS = "/p2p/v1/blobs/"
_HELLO = "/p2p/v1/hello"
_HELLO_PARTS = ("Name", "Zone", "Version")
_MEDIA_TYPE = "P2PDist-Media-Type"
_RETRY_MS = "P2PDist-Retry-Ms"
_MAX_RETRY_AFTER = 60.0


class PeerClientHooks:
    """Override what is of interest; each call is cheap and must not raise."""

    def received(self, peer: PeerId, size: int) -> None:
        """``size`` body bytes of a blob came from ``peer``."""

    def finished(self, peer: PeerId, size: int, seconds: float) -> None:
        """A body was left, at its end or before: how much of it came, in which time."""


@dataclass(frozen=True, slots=True)
class PeerHello:
    """Who answers at an endpoint."""

    peer: PeerId
    name: str
    zone: str
    version: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer to a command: what a proven peer said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpPeers:
    """The Peers port; see the module's rules. Used within one event loop; ``close`` it, or use ``async with``."""

    def __init__(
        self,
        settings: PeerClientSettings,
        auth: HttpAuth,
        clock: Clock,
        hooks: PeerClientHooks | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._hooks = hooks or PeerClientHooks()
        signer, routes = Signer(auth, clock), Routes()
        self._http = ProvenHttp(settings, auth, signer, routes)
        self._upgrader = Upgrader(
            auth,
            signer,
            connect_timeout=2.0 * settings.connect_timeout,
            head_start=settings.head_start,
            routes=routes,
            tls=settings.ssl,
        )
        self._pieces = PieceClient(
            auth,
            self._upgrader,
            answer_timeout=2.0 * settings.first_byte_timeout,
            progress_timeout=settings.piece_timeout,
            on_received=self._hooks.received,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        self._pieces.close()
        await self._http.close()

    async def stat(self, provider: Provider, digest: Digest) -> BlobStat:
        target = Target("HEAD", f"{_BLOBS}{digest}")
        async with self._http.exchange(provider.peer, provider.endpoints, target) as response:
            _check_status(response, digest, provider.peer)
            return BlobStat(digest, content_length(response), response.headers.get(_MEDIA_TYPE, ""))

    def blob(
        self, provider: Provider, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ContentStream]:
        if offset < 0 or (length is not None and length < 0):
            raise InvalidInputError(f"cannot ask for {length} bytes at {offset}")
        return self._blob(provider, digest, offset, length)

    @asynccontextmanager
    async def _blob(
        self, provider: Provider, digest: Digest, offset: int, length: int | None
    ) -> AsyncIterator[ContentStream]:
        if length == 0:
            stat = await self.stat(provider, digest)
            yield EmptyBody(stat, min(offset, stat.size))
            return
        target = Target("GET", f"{_BLOBS}{digest}", _range_header(offset, length))
        started = self._clock.now()
        async with self._http.exchange(provider.peer, provider.endpoints, target) as response:
            _check_status(response, digest, provider.peer)
            counted = _Counted(self._hooks, provider.peer)
            try:
                yield self._body(response, answered_span(response, offset, length), counted)
            finally:
                self._hooks.finished(provider.peer, counted.size, self._clock.now() - started)

    def _body(self, response: aiohttp.ClientResponse, span: BodySpan, counted: _Counted) -> HttpBody:
        media_type = response.headers.get(_MEDIA_TYPE, "")
        return HttpBody(response, span, media_type, self._settings.progress_timeout, counted.add)

    async def piece(
        self,
        provider: Provider,
        digest: Digest,
        offset: int,
        size: int,
        buffer: memoryview,
        on_progress: Callable[[int], None],
    ) -> None:
        await self._pieces.fetch(provider, digest, offset, size, buffer, on_progress)

    async def hello(self, endpoint: Endpoint, peer: PeerId | None = None) -> PeerHello:
        """Ask who is at ``endpoint`` (and insist on ``peer``, if one is given); errors as in the port."""
        async with self._http.exchange(peer, (endpoint,), Target("GET", _HELLO)) as response:
            if response.status != 200:
                raise ProtocolError(f"{endpoint} answered {response.status} to hello")
            texts = [unquote(response.headers.get(f"P2PDist-{part}", ""))[:128] for part in _HELLO_PARTS]
            return PeerHello(peer or sender_of(response), *texts)

    async def ask(self, peer: PeerId, endpoints: tuple[Endpoint, ...], target: Target, limit: int) -> Answer:
        """A small answer, whatever its status; its body is not covered by the seal. Errors as in the port."""
        async with self._http.exchange(peer, endpoints, target) as response:
            if content_length(response) > limit:
                raise ProtocolError(f"peer {peer.short} answered {target.path[:100]} at too great a length")
            try:
                async with asyncio.timeout(self._settings.progress_timeout):
                    body = await response.read()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise UnreachableError(f"peer {peer.short} broke off: {error!r}"[:300]) from error
            return Answer(response.status, response.headers, body)

    async def push(self, provider: Provider, path: str, body: Body) -> None:
        """POST what ``body`` yields, as it comes, until it ends or the peer hangs up; errors as in the port.

        A greeting goes first: it finds the address that works, proves the peer, and learns its clock.
        """
        endpoint = await self._greet(provider)
        await self._http.upload(provider.peer, endpoint, path, body)

    async def switched(
        self, provider: Provider, path: str, make: Callable[[], Connection], patience: float
    ) -> Opened[Connection]:
        """GET what is answered 101, within ``patience`` seconds; errors as Upgrader.open."""
        return await self._upgrader.open(provider, path, make, patience)

    async def _greet(self, provider: Provider) -> Endpoint:
        failure: P2PDistError = UnreachableError(f"peer {provider.peer.short} names no address")
        for route in usable_endpoints(provider.endpoints):
            try:
                await self.hello(route, provider.peer)
            except (UnreachableError, ProtocolError, DeniedError) as error:
                failure = error
            else:
                return route
        raise failure


class _Counted:
    """Counts one body's bytes on their way to the hooks."""

    def __init__(self, hooks: PeerClientHooks, peer: PeerId) -> None:
        self.size = 0
        self._hooks = hooks
        self._peer = peer

    def add(self, size: int) -> None:
        self.size += size
        self._hooks.received(self._peer, size)


def _range_header(offset: int, length: int | None) -> str:
    if length is None:
        return f"bytes={offset}-" if offset else ""
    return f"bytes={offset}-{offset + length - 1}"


def _check_status(response: aiohttp.ClientResponse, digest: Digest, peer: PeerId) -> None:
    """Return for an answer that may carry the blob; raise what the port names for the others."""
    status = response.status
    if status in (200, 206, 416):
        return
    if status == 404:
        raise NotFoundError(f"peer {peer.short} does not hold {digest}")
    if status in (429, 503):
        raise BusyError(f"peer {peer.short} is busy", _retry_after(response))
    raise ProtocolError(f"peer {peer.short} answered {status} for {digest}")


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    for header, unit in ((_RETRY_MS, 0.001), ("Retry-After", 1.0)):
        text = response.headers.get(header, "")
        if text.isascii() and text.isdigit() and len(text) < 10:
            return min(_MAX_RETRY_AFTER, int(text) * unit)
    return None
