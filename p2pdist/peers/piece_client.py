"""Pieces from peers: a pool of connections of our own (piece_wire.py) beside the general client.

Always true here: every wait is bounded (connect, no progress); a connection that failed in any way is never used again;
at most MAX_IDLE idle ones are kept for each address.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from p2pdist.clock import Clock
from p2pdist.errors import (
    BusyError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    P2PDistError,
    ProtocolError,
    StalledError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.oci.ranges import parse_content_range
from p2pdist.peers.piece_wire import Answer, PieceConnection
from p2pdist.peers.routes import usable_endpoints
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.wire.http_auth import NONCE_BYTES, Credentials, HttpAuth, PeerOffsets, SteadyWall, Target

MAX_IDLE = 8
IDLE_SECONDS = 20.0
_CHECK = 0.5
_MAX_RETRY = 60.0


@dataclass(slots=True)
class _Idle:
    connection: PieceConnection
    since: float


class PieceClient:
    """Used within one event loop; ``close`` it. Times in seconds."""

    def __init__(
        self,
        auth: HttpAuth,
        clock: Clock,
        offsets: PeerOffsets,
        *,
        connect_timeout: float = 1.0,
        progress_timeout: float = 2.0,
        tls: ssl.SSLContext | None = None,
        on_received: Callable[[PeerId, int], None] | None = None,
    ) -> None:
        self._auth = auth
        self._clock = clock
        self._offsets = offsets
        self._time = SteadyWall(clock.wall(), clock.now())
        self._connect_timeout = connect_timeout
        self._progress_timeout = progress_timeout
        self._tls = tls
        self._on_received = on_received or (lambda peer, size: None)
        self._idle: dict[Endpoint, list[_Idle]] = {}

    def close(self) -> None:
        """Close the idle connections."""
        for idle in self._idle.values():
            for each in idle:
                each.connection.abort()
        self._idle.clear()

    async def fetch(
        self,
        provider: Provider,
        digest: Digest,
        start: int,
        size: int,
        buffer: memoryview,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Fill ``buffer`` with the bytes from ``start`` of a blob of ``size`` bytes; errors as in the port.

        DeniedError may mean that the clocks differ: a greeting (``HttpPeers.hello``) learns by how much.
        """
        stop = start + len(buffer)
        endpoint, connection = await self._connect(provider)
        request, credentials = self._request(provider.peer, digest, start, stop, endpoint)
        result = connection.ask(request, buffer, on_progress)
        try:
            answer = await self._wait(connection, result)
        except BaseException:
            connection.abort()
            if result.done() and not result.cancelled():
                result.exception()  # it came as the caller left: nobody else will look at it
            raise
        finally:
            if connection.moved:
                self._on_received(provider.peer, connection.moved)
        self._keep(endpoint, connection)
        if answer.status == 401:
            raise DeniedError(f"peer {provider.peer.short} refuses this agent's proof")
        self._auth_check(answer, credentials, provider.peer)
        _check(answer, provider.peer, digest, (start, stop), size)

    def _request(
        self, peer: PeerId, digest: Digest, start: int, stop: int, endpoint: Endpoint
    ) -> tuple[bytes, Credentials]:
        span = f"bytes={start}-{stop - 1}"
        target = Target("GET", f"/p2p/v1/blobs/{digest}", span)
        time_ms = self._offsets.time_for(peer, self._time.ms(self._clock.now()))
        credentials = self._auth.sign(target, peer, time_ms, secrets.token_bytes(NONCE_BYTES))
        head = (
            f"GET {target.path} HTTP/1.1\r\nHost: {endpoint}\r\n"
            f"Authorization: {credentials.header()}\r\nRange: {span}\r\n\r\n"
        )
        return head.encode("ascii"), credentials

    def _auth_check(self, answer: Answer, credentials: Credentials, peer: PeerId) -> None:
        seal = answer.headers.get("p2pdist-mac", "")
        try:
            self._auth.check_seal(seal, credentials, peer, answer.status, answer.headers)
        except InvalidInputError as error:
            raise ProtocolError(f"the answer for peer {peer.short} is not from it: {error}") from error

    async def _connect(self, provider: Provider) -> tuple[Endpoint, PieceConnection]:
        endpoints = usable_endpoints(provider.endpoints)
        now = self._clock.now()
        for endpoint in endpoints:
            idle = self._idle.get(endpoint, [])
            while idle:
                each = idle.pop()
                if each.connection.alive and now - each.since < IDLE_SECONDS:
                    return endpoint, each.connection
                each.connection.abort()
        failure: P2PDistError = UnreachableError(f"peer {provider.peer.short} names no address")
        for endpoint in endpoints:
            try:
                return endpoint, await self._dial(endpoint)
            except (OSError, TimeoutError) as error:
                failure = UnreachableError(f"peer {provider.peer.short} at {endpoint}: {error!r}")
        raise failure

    async def _dial(self, endpoint: Endpoint) -> PieceConnection:
        async with asyncio.timeout(self._connect_timeout):
            _, protocol = await asyncio.get_running_loop().create_connection(
                PieceConnection,
                endpoint.host,
                endpoint.port,
                ssl=self._tls,
            )
        return protocol

    async def _wait(self, connection: PieceConnection, result: asyncio.Future[Answer]) -> Answer:
        """The answer, as long as bytes keep coming."""
        moved, quiet = 0, 0.0
        while True:
            done, _ = await asyncio.wait((result,), timeout=_CHECK)
            if done:
                return result.result()
            quiet = 0.0 if connection.moved > moved else quiet + _CHECK
            moved = connection.moved
            if quiet >= self._progress_timeout:
                raise StalledError(f"no byte of a piece came for {quiet:g} s")

    def _keep(self, endpoint: Endpoint, connection: PieceConnection) -> None:
        idle = self._idle.setdefault(endpoint, [])
        if connection.alive and len(idle) < MAX_IDLE:
            idle.append(_Idle(connection, self._clock.now()))
        else:
            connection.abort()


def _check(answer: Answer, peer: PeerId, digest: Digest, span: tuple[int, int], size: int) -> None:
    """Return for exactly what was asked for; else raise as the port says."""
    if answer.status == 404:
        raise NotFoundError(f"peer {peer.short} does not hold {digest}")
    if answer.status in (429, 503):
        raise BusyError(f"peer {peer.short} is busy", _retry_after(answer))
    if answer.status != 206:
        raise ProtocolError(f"peer {peer.short} answered {answer.status} to a Range")
    try:
        found, offered = parse_content_range(answer.headers.get("content-range", ""))
    except InvalidInputError as error:
        raise ProtocolError(f"peer {peer.short}: {error}") from error
    if found is None or (found.start, found.stop) != span or offered != size:
        raise ProtocolError(f"peer {peer.short} answered another range, or another size, for {digest}")


def _retry_after(answer: Answer) -> float | None:
    text = answer.headers.get("p2pdist-retry-ms", "")
    return min(_MAX_RETRY, int(text) / 1000) if text.isascii() and text.isdigit() and len(text) < 9 else None
