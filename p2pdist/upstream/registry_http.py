"""HTTP with one registry: connections, authority, redirects, retries and bounds; what is asked is the caller's matter.

Rules:
- A response that ``open`` returns has a status that was expected; its body is the caller's, who closes it.
- Authorization is sent to the registry's own origin only; a redirect elsewhere loses it for good.
- Every response is observed once, redirects and refusals too; a request without an answer is observed as status 0.
- No total timeout: a connection, the first byte, and each next byte are waited for within bounds of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp
from yarl import URL

from p2pdist.clock import Clock
from p2pdist.errors import BusyError, P2PDistError, ProtocolError, UnreachableError
from p2pdist.upstream import answers
from p2pdist.upstream.auth import Authorizer, TokenAnswer, TokenRequest
from p2pdist.upstream.body_reader import BodyReader
from p2pdist.upstream.challenge import parse_challenges
from p2pdist.upstream.credentials import CredentialSource
from p2pdist.upstream.failures import FOREIGN, translate
from p2pdist.upstream.proxies import Proxies
from p2pdist.upstream.redirects import FOLLOWED, redirect_target, token_redirect
from p2pdist.upstream.retry import LastingError, parse_retry_after
from p2pdist.upstream.settings import RegistrySettings, UpstreamSettings

MAX_ERROR_BODY = 16 * 1024
MAX_TOKEN_BODY = 256 * 1024
_MAX_HEADER = 32 * 1024
_KEEP_ALIVE = 30.0
_CHALLENGING = frozenset({401, 403})

T = TypeVar("T")
Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Observer:
    """``response(registry, kind, status)`` and ``received(registry, body bytes)``; called on the event loop.

    ``request(registry, kind, method, url without query)`` is called before one is sent, and what it returns with the status
    of the answer, 0 when there is none.
    """

    response: Callable[[str, str, int], None] = lambda _registry, _kind, _code: None
    received: Callable[[str, int], None] = lambda _registry, _count: None
    request: Callable[[str, str, str, str], Callable[[int], None]] = lambda _registry, _kind, _method, _url: (
        _unobserved
    )


@dataclass(frozen=True, slots=True)
class Environment:
    """What all registries share."""

    settings: UpstreamSettings
    clock: Clock
    credentials: CredentialSource
    proxies: Proxies
    observer: Observer
    jitter: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. ``kind`` is for the observer, ``what`` for people; ``path`` is percent-encoded."""

    kind: str
    path: str
    what: str
    scope: str = ""
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    expected: frozenset[int] = frozenset({200})


class RegistryHttp:
    """See the module's rules."""

    def __init__(
        self, registry: RegistrySettings, environment: Environment, tls: ssl.SSLContext | bool
    ) -> None:
        self.registry = registry
        self.environment = environment
        self._settings = environment.settings
        self._base = registry.base_url
        self._origin = URL(self._base).origin()
        self._auth = Authorizer(registry, environment.credentials, self._ask_token_server, environment.clock)
        small = max(1, registry.max_connections // 4)
        self._small_slots = asyncio.Semaphore(small)
        self._blob_slots = asyncio.Semaphore(max(1, registry.max_connections - small))
        self._session = self._new_session(tls)

    def _new_session(self, tls: ssl.SSLContext | bool) -> aiohttp.ClientSession:
        settings = self._settings
        return aiohttp.ClientSession(
            # The slots bound the connections; a limit of the pool's own would deadlock with the token requests.
            connector=aiohttp.TCPConnector(ssl=tls, limit=0, keepalive_timeout=_KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout, sock_read=None),
            headers={"User-Agent": settings.user_agent, "Accept-Encoding": "identity"},
            auto_decompress=False,
            # Proxies are read by ours; aiohttp's reading would also send what is in ~/.netrc to any host.
            trust_env=False,
            read_bufsize=settings.read_buffer,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )

    @property
    def authority(self) -> str:
        """For people: how it was asked last."""
        return self._auth.description

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    def blob_slot(self) -> contextlib.AbstractAsyncContextManager[None]:
        """One of the registry's connections for a blob; BusyError when none becomes free in time."""
        return self._slot(self._blob_slots)

    def small_slot(self) -> contextlib.AbstractAsyncContextManager[None]:
        """One of those kept for what is small."""
        return self._slot(self._small_slots)

    @contextlib.asynccontextmanager
    async def _slot(self, slots: asyncio.Semaphore) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.queue_timeout):
                await slots.acquire()
        except TimeoutError as error:
            raise BusyError(
                f"registry {self.registry.name}: no connection became free in {self._settings.queue_timeout:g} s; "
                f"raise its max_connections, or pull less at once"
            ) from error
        try:
            yield
        finally:
            slots.release()

    async def open(self, ask: Ask) -> aiohttp.ClientResponse:
        """Ask, and ask again as the policy allows; raises what the port names for anything that was not expected."""
        return await self._retried(lambda: self._open_once(ask))

    async def fetch(self, ask: Ask, limit: int, *, counted: bool = False) -> tuple[Headers, bytes]:
        """As ``open``, with the whole body in the tries; ProtocolError beyond ``limit`` bytes."""

        async def once() -> tuple[Headers, bytes]:
            response = await self._open_once(ask)
            return response.headers, await self._read(response, limit, ask.what, counted=counted)

        return await self._retried(once)

    async def _retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        clock, policy = self.environment.clock, self._settings.retry
        started, done = clock.now(), 0
        while True:
            try:
                return await attempt()
            except LastingError:
                raise
            except (UnreachableError, BusyError) as error:
                done += 1
                asked_for = error.retry_after if isinstance(error, BusyError) else None
                pause = policy.wait(done, clock.now() - started, self.environment.jitter(), asked_for)
                if pause is None:
                    raise
            await clock.sleep(pause)

    async def _open_once(self, ask: Ask) -> aiohttp.ClientResponse:
        response = await self._authorized(ask)
        if response.status in ask.expected:
            return response
        raise await self._refusal(ask, response)

    async def _refusal(self, ask: Ask, response: aiohttp.ClientResponse) -> P2PDistError:
        retry_after = self._retry_after(response)
        try:
            detail = answers.error_detail(await self._read(response, MAX_ERROR_BODY, ask.what))
        except P2PDistError:
            detail = ""
        return answers.refusal(response.status, ask.what, detail, retry_after)

    def _retry_after(self, response: aiohttp.ClientResponse) -> float | None:
        return parse_retry_after(response.headers.get("Retry-After"), self.environment.clock.wall())

    # -- authority and redirects --

    async def _authorized(self, ask: Ask) -> aiohttp.ClientResponse:
        used = await self._auth.header(ask.scope)
        response = await self._follow(ask, used)
        # A challenge in a 403 is one as well: some registries answer so to who comes without a token, or with an old one.
        if response.status not in _CHALLENGING or response.url.origin() != self._origin:
            return response
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        if not challenges:
            return response
        response.release()
        renewed = await self._auth.answer(challenges, ask.scope, used)
        return await self._follow(ask, renewed if renewed is not None else used)

    async def _follow(self, ask: Ask, authorization: str | None) -> aiohttp.ClientResponse:
        url = URL(self._base + ask.path, encoded=True)
        headers = dict(ask.headers)
        if authorization is not None:
            headers["Authorization"] = authorization
        for _ in range(self._settings.max_redirects + 1):
            response = await self._send(ask.kind, ask.method, url, headers)
            if response.status not in FOLLOWED:
                return response
            response.release()
            url = redirect_target(
                url, response.headers.get("Location", ""), plain_http=self.registry.plain_http, what=ask.what
            )
            if url.origin() != self._origin:
                headers.pop("Authorization", None)
        raise ProtocolError(f"{ask.what} was redirected more than {self._settings.max_redirects} times")

    async def _send(
        self,
        kind: str,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        where = f"registry {self.registry.name}"
        if url.origin() != self._origin:
            where += f" (at {url.authority})"
        observe = self.environment.observer.response
        answered = self.environment.observer.request(
            self.registry.name, kind, method, str(url.with_query(None).with_user(None))
        )
        status = 0
        try:
            async with asyncio.timeout(self._settings.connect_timeout + self._settings.first_byte_timeout):
                response = await self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=form,
                    allow_redirects=False,
                    proxy=self.environment.proxies.for_url(url),
                )
                status = response.status
        except FOREIGN as error:
            observe(self.registry.name, kind, 0)
            raise translate(error, where) from error
        finally:
            answered(status)
        observe(self.registry.name, kind, response.status)
        return response

    async def _ask_token_server(self, request: TokenRequest) -> TokenAnswer:
        headers = {"Authorization": request.authorization} if request.authorization else {}
        method = "GET" if request.form is None else "POST"
        url, what = request.url, f"a token for registry {self.registry.name}"
        for _ in range(self._settings.max_redirects):
            response = await self._send("token", method, url, headers, request.form)
            if method != "GET" or response.status not in FOLLOWED:
                break
            target = token_redirect(url, response.headers.get("Location", ""), what=what)
            if target is None:
                break
            response.release()
            url = target
        else:
            raise ProtocolError(f"{what} was redirected more than {self._settings.max_redirects} times")
        body = await self._read(response, MAX_TOKEN_BODY, what)
        return TokenAnswer(response.status, body, self._retry_after(response))

    # -- bodies --

    async def _read(
        self, response: aiohttp.ClientResponse, limit: int, what: str, *, counted: bool = False
    ) -> bytes:
        """The whole body, and close it; ``counted`` bytes are observed."""
        reader = self.reader(response, what, counted=counted)
        parts: list[bytes] = []
        size = 0
        try:
            while part := await reader.next():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise ProtocolError(f"{what} has more than {limit} bytes")
        finally:
            reader.close()
        return b"".join(parts)

    def reader(self, response: aiohttp.ClientResponse, what: str, *, counted: bool = True) -> BodyReader:
        """To read a body piece by piece; close it."""
        received = self.environment.observer.received if counted else _ignore
        return BodyReader(response, what, self._settings, self.registry.name, received)


def _ignore(_registry: str, _count: int) -> None:
    pass


def _unobserved(_status: int) -> None:
    pass
