"""Requests to other agents over HTTP, each proven, and answers that are proven to be the peer's own.

Always true here: a peer is asked only with a fresh proof of the cluster key, and believed only when its answer is
sealed by the peer that was meant; a clock that differs costs one repetition, never two; environment proxies, cookies,
redirects, names and compression play no part; connections are pooled per peer. Headers are bounded by aiohttp's parser
and the first-byte timeout. Errors are those of the port (port.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
from yarl import URL

from p2pdist.errors import DeniedError, InvalidInputError, ProtocolError, UnreachableError
from p2pdist.peers.routes import Route, RouteResolver, Routes, name_of
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.peers.signer import Signer
from p2pdist.records import Endpoint, PeerId
from p2pdist.wire.http_auth import CHALLENGE_HEADER, MAC_HEADER, Credentials, HttpAuth, Target

_PEER = "P2PDist-Peer"
_MAX_HEADERS = 32
_READ_BUFFER = 256 * 1024
_SMALL_ANSWER = 4096

Body = Callable[[Credentials], AsyncIterator[bytes]]


class ProvenHttp:
    """See the module's rules. Used within one event loop; ``close`` it."""

    def __init__(self, settings: PeerClientSettings, auth: HttpAuth, signer: Signer, routes: Routes) -> None:
        self._settings = settings
        self._auth = auth
        self._signer = signer
        self._resolver = RouteResolver()
        self._routes = routes
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def exchange(
        self, peer: PeerId | None, endpoints: tuple[Endpoint, ...], target: Target
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask ``peer`` (None: whoever answers there); its sealed answer, whatever the status."""
        response = await self._routes.ask(peer, endpoints, lambda route: self._ask(peer, route, target))
        try:
            if response.status not in (200, 206):
                await self._drain(response)
            yield response
        finally:
            response.release()  # closes the connection, unless the body has been read to its end

    async def upload(self, peer: PeerId, endpoint: Endpoint, path: str, body: Body) -> None:
        """POST what ``body`` yields, as it comes, until it ends or the peer hangs up.

        ``endpoint`` has just answered as that peer; what this answers is not checked, beyond its status.
        """
        credentials = self._signer.sign(Target("POST", path), peer)
        url, headers = self._url(peer, (endpoint,), path), _headers(credentials)
        try:
            async with self._open().post(
                url, headers=headers, data=body(credentials), allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise ProtocolError(f"peer {peer.short} answered {response.status} to {path}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UnreachableError(f"peer {peer.short} hung up: {error!r}"[:300]) from error

    # -- one proven exchange --

    async def _ask(self, peer: PeerId | None, route: Route, target: Target) -> aiohttp.ClientResponse:
        """Ask on one route; once more when the answer tells that the clocks differ."""
        credentials = self._signer.sign(target, peer)
        response = await self._send(peer, route, target, credentials)
        if response.status == 401:
            response.release()
            header = response.headers.get(CHALLENGE_HEADER, "")
            whose = self._signer.learn(header, credentials, peer)
            credentials = self._signer.sign(target, peer, time_of=whose)
            response = await self._send(peer, route, target, credentials)
        if response.status == 401:
            response.close()
            raise DeniedError(
                f"peer {name_of(peer)} refuses this agent's requests although it has the same cluster key"
            )
        self._check_seal(response, credentials, peer)
        return response

    async def _send(
        self, peer: PeerId | None, route: Route, target: Target, credentials: Credentials
    ) -> aiohttp.ClientResponse:
        settings = self._settings
        headers = _headers(credentials)
        if target.range:
            headers["Range"] = target.range
        url = self._url(peer, route, target.path)
        try:
            async with asyncio.timeout(settings.connect_timeout + settings.first_byte_timeout):
                return await self._open().request(target.method, url, headers=headers, allow_redirects=False)
        except TimeoutError as error:
            raise UnreachableError(
                f"peer {name_of(peer)} did not answer in time at {_where(route)}"
            ) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise DeniedError(
                f"peer {name_of(peer)} at {_where(route)} has no certificate of this cluster's authority: {_reason(error)}"
            ) from error
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise UnreachableError(
                f"peer {name_of(peer)} cannot be reached at {_where(route)}: {_reason(error)}"
            ) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise ProtocolError(
                f"what answers at {_where(route)} is not an agent: {_reason(error)}"
            ) from error

    def _check_seal(
        self, response: aiohttp.ClientResponse, credentials: Credentials, peer: PeerId | None
    ) -> None:
        try:
            sender = peer or sender_of(response)
            seal = response.headers.get(MAC_HEADER, "")
            self._auth.check_seal(seal, credentials, sender, response.status, response.headers)
        except InvalidInputError as error:
            response.close()
            raise ProtocolError(
                f"the answer {response.status} for peer {name_of(peer)} is not from it: {error}"
            ) from error

    async def _drain(self, response: aiohttp.ClientResponse) -> None:
        """Read the few bytes that come with an error, so that the connection can be used again."""
        if int(response.headers.get("Content-Length", _SMALL_ANSWER)) >= _SMALL_ANSWER:
            return
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(self._settings.progress_timeout):
                await response.read()

    # -- connections --

    def _url(self, peer: PeerId | None, route: Route, path: str) -> URL:
        scheme = "http" if self._settings.ssl is None else "https"
        return URL(f"{scheme}://{self._resolver.name(peer, route)}:1{path}", encoded=True)

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


def sender_of(response: aiohttp.ClientResponse) -> PeerId:
    """Who says that it answers; raises InvalidInputError. Proven only when the seal was checked against it."""
    text = response.headers.get(_PEER, "")
    try:
        return PeerId(bytes.fromhex(text[:64]))
    except ValueError as error:
        raise InvalidInputError(f"{_PEER} is not a peer id") from error


def _headers(credentials: Credentials) -> dict[str, str]:
    return {"Authorization": credentials.header(), "Accept-Encoding": "identity"}


def _where(route: Route) -> str:
    return " or ".join(map(str, route))


def _reason(error: Exception) -> str:
    """What is wrong, in a line; without the request, whose headers aiohttp's own texts may repeat."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)[:200]
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{error.status} {error.message}"[:200]
    return (str(error) or type(error).__name__)[:200]
