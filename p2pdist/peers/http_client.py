"""Content from peers over HTTP: the real adapter of the Peers port.

Always true here: a peer is asked only with a fresh proof of the cluster key, and believed only when its answer is
sealed by the peer that was meant; a clock that differs costs one repetition, never two; environment proxies, cookies,
redirects, names and compression play no part; connections are pooled per peer. What a peer sends is bounded: headers
by aiohttp's parser and the first-byte timeout, bodies by the length asked for, chunks by MAX_CHUNK.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import aiohttp
from yarl import URL

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
from p2pdist.peers.body import BodySpan, HttpBody, answered_span, content_length
from p2pdist.peers.piece_client import PieceClient
from p2pdist.peers.routes import Route, RouteResolver, Routes, usable_endpoints
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.wire.http_auth import (
    CHALLENGE_HEADER,
    MAC_HEADER,
    NONCE_BYTES,
    Challenge,
    Credentials,
    HttpAuth,
    PeerOffsets,
    SteadyWall,
    Target,
)

_BLOBS = "/p2p/v1/blobs/"
_HELLO = "/p2p/v1/hello"
_HELLO_PARTS = ("Name", "Zone", "Version")
_MEDIA_TYPE = "P2PDist-Media-Type"
_PEER = "P2PDist-Peer"
_RETRY_MS = "P2PDist-Retry-Ms"
_MAX_HEADERS = 32
_READ_BUFFER = 256 * 1024
_SMALL_ANSWER = 4096
_MAX_RETRY_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class PeerClientSettings:
    """Times in seconds. ``head_start`` is what an endpoint gets before the next one is tried beside it."""

    connect_timeout: float = 1.0
    first_byte_timeout: float = 2.0
    progress_timeout: float = 3.0
    piece_timeout: float = 15.0
    head_start: float = 0.15
    keepalive: float = 30.0
    max_connections: int = 256
    ssl: ssl.SSLContext | None = None


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


@dataclass(frozen=True, slots=True)
class Switched:
    """A connection on which HTTP is over; ``protocol`` is to be told when it is lost, by whoever takes it over."""

    transport: asyncio.Transport
    protocol: asyncio.Protocol
    credentials: Credentials


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
        self._auth = auth
        self._clock = clock
        self._hooks = hooks or PeerClientHooks()
        self._time = SteadyWall(clock.wall(), clock.now())
        self._offsets = PeerOffsets()
        self._resolver = RouteResolver()
        self._routes = Routes()
        self._session: aiohttp.ClientSession | None = None
        self._pieces = PieceClient(
            auth,
            clock,
            self._offsets,
            connect_timeout=2.0 * settings.connect_timeout,
            progress_timeout=settings.piece_timeout,
            tls=settings.ssl,
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
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def stat(self, provider: Provider, digest: Digest) -> BlobStat:
        target = Target("HEAD", f"{_BLOBS}{digest}")
        async with self._exchange(provider.peer, provider.endpoints, target) as response:
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
            yield _Nothing(stat, min(offset, stat.size))
            return
        target = Target("GET", f"{_BLOBS}{digest}", _range_header(offset, length))
        started = self._clock.now()
        async with self._exchange(provider.peer, provider.endpoints, target) as response:
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
        try:
            await self._pieces.fetch(provider, digest, offset, size, buffer, on_progress)
        except DeniedError:
            await self._greet(provider)  # learns the peer's clock, if that was it
            await self._pieces.fetch(provider, digest, offset, size, buffer, on_progress)

    async def hello(self, endpoint: Endpoint, peer: PeerId | None = None) -> PeerHello:
        """Ask who is at ``endpoint`` (and insist on ``peer``, if one is given); errors as in the port."""
        async with self._exchange(peer, (endpoint,), Target("GET", _HELLO)) as response:
            if response.status != 200:
                raise ProtocolError(f"{endpoint} answered {response.status} to hello")
            texts = [unquote(response.headers.get(f"P2PDist-{part}", ""))[:128] for part in _HELLO_PARTS]
            return PeerHello(_sender(response), *texts)

    async def ask(self, peer: PeerId, endpoints: tuple[Endpoint, ...], target: Target, limit: int) -> Answer:
        """A small answer, whatever its status; its body is not covered by the seal. Errors as in the port."""
        async with self._exchange(peer, endpoints, target) as response:
            if content_length(response) > limit:
                raise ProtocolError(f"peer {peer.short} answered {target.path[:100]} at too great a length")
            try:
                async with asyncio.timeout(self._settings.progress_timeout):
                    body = await response.read()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise UnreachableError(f"peer {peer.short} broke off: {error!r}"[:300]) from error
            return Answer(response.status, response.headers, body)

    async def push(
        self, provider: Provider, path: str, body: Callable[[Credentials], AsyncIterator[bytes]]
    ) -> None:
        """POST what ``body`` yields, as it comes, until it ends or the peer hangs up; errors as in the port.

        A greeting goes first: it finds the address that works, proves the peer, and learns its clock.
        """
        endpoint = await self._greet(provider)
        target = Target("POST", path)
        time_ms = self._offsets.time_for(provider.peer, self._time.ms(self._clock.now()))
        credentials = self._auth.sign(target, provider.peer, time_ms, secrets.token_bytes(NONCE_BYTES))
        scheme = "http" if self._settings.ssl is None else "https"
        name = self._resolver.name(provider.peer, (endpoint,))
        url = URL(f"{scheme}://{name}:1{path}", encoded=True)
        headers = {"Authorization": credentials.header(), "Accept-Encoding": "identity"}
        try:
            async with self._open().post(
                url, headers=headers, data=body(credentials), allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise ProtocolError(f"peer {provider.peer.short} answered {response.status} to {path}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UnreachableError(f"peer {provider.peer.short} hung up: {error!r}"[:300]) from error

    @asynccontextmanager
    async def switched(self, provider: Provider, path: str) -> AsyncIterator[Switched | int]:
        """GET what is answered 101: the connection, which the end of the context closes; else the status."""
        async with self._exchange(provider.peer, provider.endpoints, Target("GET", path)) as response:
            connection = response.connection
            if response.status != 101:
                yield response.status
            elif connection is None or connection.transport is None or connection.protocol is None:
                raise ProtocolError(
                    f"peer {provider.peer.short} answered 101 to {path}, and switches to nothing"
                )
            else:
                credentials = Credentials.parse(response.request_info.headers["Authorization"])
                yield Switched(connection.transport, connection.protocol, credentials)

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

    # -- one proven exchange --

    @asynccontextmanager
    async def _exchange(
        self, peer: PeerId | None, endpoints: tuple[Endpoint, ...], target: Target
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        response = await self._ask_on_some_route(peer, endpoints, target)
        try:
            if response.status not in (200, 206):
                await self._drain(response)
            yield response
        finally:
            response.release()  # closes the connection, unless the body has been read to its end

    async def _ask_on_some_route(
        self, peer: PeerId | None, endpoints: tuple[Endpoint, ...], target: Target
    ) -> aiohttp.ClientResponse:
        usable = usable_endpoints(endpoints)
        failure: P2PDistError = UnreachableError(
            f"peer {_name(peer)} names no address that can be asked: {', '.join(map(str, endpoints[:4])) or 'none'}"
        )
        for attempt, route in enumerate(self._routes.to_try(peer, usable)):
            try:
                response = await self._ask(peer, route, target)
            except UnreachableError as error:
                if attempt == 0:
                    self._routes.failed(peer, usable)
                    raise
                failure = failure if isinstance(failure, DeniedError | ProtocolError) else error
            except (DeniedError, ProtocolError) as error:
                # Somebody else answered: the peer may still be found at another of its addresses.
                failure = error
            else:
                self._routes.worked(peer, usable, route)
                return response
        raise failure

    async def _ask(self, peer: PeerId | None, route: Route, target: Target) -> aiohttp.ClientResponse:
        """Ask on one route; once more when the answer tells that the clocks differ."""
        now = self._time.ms(self._clock.now())
        time_ms = now if peer is None else self._offsets.time_for(peer, now)
        response, credentials = await self._send(peer, route, target, time_ms)
        if response.status == 401:
            challenge = _challenge(self._auth, response, credentials, peer)
            now = self._time.ms(self._clock.now())
            self._offsets.learn(challenge, now)
            time_ms = self._offsets.time_for(challenge.peer, now)
            response, credentials = await self._send(peer, route, target, time_ms)
        if response.status == 401:
            response.close()
            raise DeniedError(
                f"peer {_name(peer)} refuses this agent's requests although it has the same cluster key"
            )
        self._check_seal(response, credentials, peer)
        return response

    async def _send(
        self, peer: PeerId | None, route: Route, target: Target, time_ms: int
    ) -> tuple[aiohttp.ClientResponse, Credentials]:
        settings = self._settings
        credentials = self._auth.sign(target, peer, time_ms, secrets.token_bytes(NONCE_BYTES))
        headers = {"Authorization": credentials.header(), "Accept-Encoding": "identity"}
        if target.range:
            headers["Range"] = target.range
        scheme = "http" if settings.ssl is None else "https"
        url = URL(f"{scheme}://{self._resolver.name(peer, route)}:1{target.path}", encoded=True)
        try:
            async with asyncio.timeout(settings.connect_timeout + settings.first_byte_timeout):
                response = await self._open().request(
                    target.method, url, headers=headers, allow_redirects=False
                )
        except TimeoutError as error:
            raise UnreachableError(f"peer {_name(peer)} did not answer in time at {_where(route)}") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise DeniedError(
                f"peer {_name(peer)} at {_where(route)} has no certificate of this cluster's authority: {_reason(error)}"
            ) from error
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise UnreachableError(
                f"peer {_name(peer)} cannot be reached at {_where(route)}: {_reason(error)}"
            ) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise ProtocolError(
                f"what answers at {_where(route)} is not an agent: {_reason(error)}"
            ) from error
        return response, credentials

    def _check_seal(
        self, response: aiohttp.ClientResponse, credentials: Credentials, peer: PeerId | None
    ) -> None:
        try:
            sender = peer or _sender(response)
            seal = response.headers.get(MAC_HEADER, "")
            self._auth.check_seal(seal, credentials, sender, response.status, response.headers)
        except InvalidInputError as error:
            response.close()
            raise ProtocolError(
                f"the answer {response.status} for peer {_name(peer)} is not from it: {error}"
            ) from error

    async def _drain(self, response: aiohttp.ClientResponse) -> None:
        """Read the few bytes that come with an error, so that the connection can be used again."""
        if int(response.headers.get("Content-Length", _SMALL_ANSWER)) >= _SMALL_ANSWER:
            return
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(self._settings.progress_timeout):
                await response.read()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            settings = self._settings
            connector = aiohttp.TCPConnector(
                limit=settings.max_connections,
                keepalive_timeout=settings.keepalive,
                resolver=self._resolver,
                use_dns_cache=False,
                happy_eyeballs_delay=settings.head_start,
                ssl=settings.ssl or False,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                read_bufsize=_READ_BUFFER,
                max_headers=_MAX_HEADERS,
            )
        return self._session


class _Counted:
    """Counts one body's bytes on their way to the hooks."""

    def __init__(self, hooks: PeerClientHooks, peer: PeerId) -> None:
        self.size = 0
        self._hooks = hooks
        self._peer = peer

    def add(self, size: int) -> None:
        self.size += size
        self._hooks.received(self._peer, size)


class _Nothing:
    """The stream of a part that is empty."""

    def __init__(self, stat: BlobStat, start: int) -> None:
        self.size = stat.size
        self.start = start
        self.media_type = stat.media_type

    async def chunks(self) -> AsyncIterator[bytes]:
        nothing: tuple[bytes, ...] = ()
        for chunk in nothing:
            yield chunk


def _range_header(offset: int, length: int | None) -> str:
    if length is None:
        return f"bytes={offset}-" if offset else ""
    return f"bytes={offset}-{offset + length - 1}"


def _challenge(
    auth: HttpAuth, response: aiohttp.ClientResponse, credentials: Credentials, peer: PeerId | None
) -> Challenge:
    """The proven time of a refusal; raises DeniedError (no member), ProtocolError (another member)."""
    response.release()
    try:
        challenge = auth.read_challenge(response.headers.get(CHALLENGE_HEADER, ""), credentials.nonce)
    except InvalidInputError as error:
        raise DeniedError(
            f"peer {_name(peer)} refused: it has another cluster key, or is not an agent ({error})"
        ) from error
    if peer is not None and challenge.peer != peer:
        raise ProtocolError(f"peer {_name(challenge.peer)} answers where peer {_name(peer)} was expected")
    return challenge


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


def _sender(response: aiohttp.ClientResponse) -> PeerId:
    text = response.headers.get(_PEER, "")
    try:
        return PeerId(bytes.fromhex(text[:64]))
    except ValueError as error:
        raise InvalidInputError(f"{_PEER} is not a peer id") from error


def _name(peer: PeerId | None) -> str:
    return "(any)" if peer is None else peer.short


def _where(route: Route) -> str:
    return " or ".join(map(str, route))


def _reason(error: Exception) -> str:
    """What is wrong, in a line; without the request, whose headers aiohttp's own texts may repeat."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)[:200]
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{error.status} {error.message}"[:200]
    return (str(error) or type(error).__name__)[:200]
