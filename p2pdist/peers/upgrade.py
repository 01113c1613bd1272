"""Connections that leave HTTP after one proven request, opened without the general client, which costs half as much again.

Always true here: who answers is proven before the connection is used; every wait is bounded; an answer is read only up to
MAX_HEAD. Which of a peer's addresses is used is found as for other requests (routes.py).
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

import aiohappyeyeballs

from p2pdist.errors import (
    BusyError,
    DeniedError,
    InvalidInputError,
    P2PDistError,
    ProtocolError,
    UnreachableError,
)
from p2pdist.peers.routes import Route, Routes
from p2pdist.peers.signer import Signer
from p2pdist.records import PeerId, Provider
from p2pdist.wire.http_auth import CHALLENGE_HEADER, MAC_HEADER, Credentials, HttpAuth, Target

MAX_HEAD = 8192
_END = b"\r\n\r\n"
_MAX_HEADERS = 32
_RETRY = 0.5
_CHALLENGE, _MAC = CHALLENGE_HEADER.lower(), MAC_HEADER.lower()
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9])(?: |\Z)")


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and headers (names in lower case; a name that comes twice is refused)."""

    status: int
    headers: dict[str, str]


def parse_head(head: bytes) -> Answer:
    """A status line and headers, without the empty line; raises ProtocolError."""
    lines = head.split(b"\r\n")
    match = _STATUS.match(lines[0])
    if match is None or len(lines) > _MAX_HEADERS + 1:
        raise ProtocolError("what answers there is not an agent")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        key = name.decode("latin-1").lower()
        if not colon or not key or key != key.strip() or key in headers:
            raise ProtocolError("an answer with a malformed or repeated header")
        headers[key] = value.strip().decode("latin-1")
    return Answer(int(match[1]), headers)


class NotSwitchedError(ProtocolError):
    """The peer itself answered, and with another status than 101."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Opening(Protocol):
    """A connection's protocol, while it is being opened."""

    def greet(self, request: bytes) -> asyncio.Future[Answer]:
        """Send the request; its answer."""

    def close(self) -> None:
        """End the connection."""


Connection = TypeVar("Connection", bound=Opening)


@dataclass(frozen=True, slots=True)
class Opened(Generic[Connection]):
    """A connection that was switched, and what it was switched with."""

    connection: Connection
    credentials: Credentials
    answer: Answer


class Upgrader:
    """Times in seconds; ``routes`` is shared with whoever else asks the same peers."""

    def __init__(
        self,
        auth: HttpAuth,
        signer: Signer,
        *,
        connect_timeout: float,
        head_start: float,
        routes: Routes,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._auth = auth
        self._signer = signer
        self._connect_timeout = connect_timeout
        self._head_start = head_start
        self._routes = routes
        self._tls = tls

    async def open(
        self, provider: Provider, path: str, make: Callable[[], Connection], patience: float
    ) -> Opened[Connection]:
        """GET ``path``, answered with a sealed 101 within ``patience`` seconds; a clock that differs costs one repetition.

        NotSwitchedError: the peer answered otherwise; BusyError: it has no room; else errors as in the port.
        """
        peer = provider.peer
        opened = await self._routes.ask(
            peer, provider.endpoints, lambda route: self._open(peer, route, path, make, patience)
        )
        status = opened.answer.status
        if status == 101:
            return opened
        opened.connection.close()
        if status in (429, 503):
            raise BusyError(f"peer {peer.short} has no room for another connection", _RETRY)
        raise NotSwitchedError(f"peer {peer.short} answered {status} to {path}", status)

    async def _open(
        self, peer: PeerId, route: Route, path: str, make: Callable[[], Connection], patience: float
    ) -> Opened[Connection]:
        """On one route; once more when the answer tells that the clocks differ."""
        opened = await self._ask(peer, route, path, make, patience)
        if opened.answer.status == 401:
            opened.connection.close()
            self._signer.learn(opened.answer.headers.get(_CHALLENGE, ""), opened.credentials, peer)
            opened = await self._ask(peer, route, path, make, patience)
        try:
            self._check_seal(peer, opened)
        except P2PDistError:
            opened.connection.close()
            raise
        return opened

    async def _ask(
        self, peer: PeerId, route: Route, path: str, make: Callable[[], Connection], patience: float
    ) -> Opened[Connection]:
        where = " or ".join(map(str, route))
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._connect(route, make)
        except ssl.SSLCertVerificationError as error:
            raise DeniedError(
                f"peer {peer.short} at {where} has no certificate of this cluster's authority: {error.verify_message}"
            ) from error
        except (OSError, TimeoutError) as error:
            raise UnreachableError(f"peer {peer.short} at {where}: {error!r}") from error
        try:
            credentials = self._signer.sign(Target("GET", path), peer)
            request = (
                f"GET {path} HTTP/1.1\r\nHost: {route[0]}\r\nAuthorization: {credentials.header()}\r\n\r\n"
            )
            async with asyncio.timeout(patience):
                answer = await connection.greet(request.encode("ascii"))
        except TimeoutError as error:
            connection.close()
            raise UnreachableError(f"peer {peer.short} does not answer at {where}") from error
        except BaseException:
            connection.close()
            raise
        return Opened(connection, credentials, answer)

    async def _connect(self, route: Route, make: Callable[[], Connection]) -> Connection:
        loop = asyncio.get_running_loop()
        factory = cast(Callable[[], asyncio.BaseProtocol], make)
        if len(route) == 1:
            _, protocol = await loop.create_connection(factory, route[0].host, route[0].port, ssl=self._tls)
        else:
            connected = await aiohappyeyeballs.start_connection(
                [
                    (
                        socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET,
                        socket.SOCK_STREAM,
                        socket.IPPROTO_TCP,
                        "",
                        (endpoint.host, endpoint.port),
                    )
                    for endpoint in route
                ],
                happy_eyeballs_delay=self._head_start,
            )
            name = route[0].host if self._tls else None
            _, protocol = await loop.create_connection(
                factory, sock=connected, ssl=self._tls, server_hostname=name
            )
        return cast(Connection, protocol)

    def _check_seal(self, peer: PeerId, opened: Opened[Connection]) -> None:
        answer = opened.answer
        if answer.status == 401:
            raise DeniedError(
                f"peer {peer.short} refuses this agent's requests although it has the same cluster key"
            )
        try:
            seal = answer.headers.get(_MAC, "")
            self._auth.check_seal(seal, opened.credentials, peer, answer.status, answer.headers)
        except InvalidInputError as error:
            raise ProtocolError(f"the answer for peer {peer.short} is not from it: {error}") from error


class HeadReader:
    """Gathers the head of an answer, whatever it is cut into."""

    def __init__(self) -> None:
        self._data = b""

    def push(self, data: bytes) -> tuple[Answer, bytes] | None:
        """The answer once it is whole, and what came after it; raises ProtocolError."""
        self._data += data
        end = self._data.find(_END)
        if end > MAX_HEAD or (end < 0 and len(self._data) > MAX_HEAD):
            raise ProtocolError("an answer with endless headers")
        if end < 0:
            return None
        return parse_head(self._data[:end]), self._data[end + len(_END) :]
