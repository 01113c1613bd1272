"""How one registry is asked with authority: Basic, or Docker's token flow (distribution's token and oauth2 specifications).

Rules:
- Nothing is sent before the registry's own challenge asked for it; from then on it is sent at once (Basic to the whole
  registry, a token per scope).
- A password or identity token goes to the registry and to the token server that it names, and the latter must be https
  unless the operator configured the registry itself with http://.
- A token is renewed a little before it expires; at most one request per scope is at the token server, and
  whoever waited for it shares its result, good or bad.
- What a token server answers is bounded and checked before it is put into a header.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from p2pdist.clock import Clock
from p2pdist.errors import BusyError, DeniedError, P2PDistError, ProtocolError, UnreachableError
from p2pdist.upstream.challenge import Challenge
from p2pdist.upstream.credentials import Credentials, CredentialSource
from p2pdist.upstream.settings import RegistrySettings

log = logging.getLogger(__name__)

CLIENT_ID = "p2pdist"
DEFAULT_LIFETIME = 60.0
_MAX_LIFETIME = 24 * 3600.0
_MARGIN = 15.0
_MAX_TOKEN = 128 * 1024
_MAX_SCOPES = 1024
_MAX_SCOPE = 1024


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request to a token server; ``form`` makes it a POST."""

    url: URL
    authorization: str = field(default="", repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """Its answer: at most some hundred KiB of body; ``retry_after`` in seconds."""

    status: int
    body: bytes = field(repr=False)
    retry_after: float | None = None


TokenTransport = Callable[[TokenRequest], Awaitable[TokenAnswer]]
"""Sends one, without retries or redirects; raises UnreachableError."""


@dataclass(slots=True)
class _Scope:
    """What is known of one scope. ``asked`` and ``answered`` are the last request's number, when it began and ended."""

    challenge: Challenge | None = None
    token: str = field(default="", repr=False)
    renew_at: float = 0.0
    asked: int = 0
    answered: int = 0
    error: P2PDistError | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Authorizer:
    """Keeps the authority for one registry; used by one event loop."""

    def __init__(
        self, registry: RegistrySettings, source: CredentialSource, transport: TokenTransport, clock: Clock
    ) -> None:
        self._registry = registry
        self._source = source
        self._transport = transport
        self._clock = clock
        self._basic = False
        self._scopes: dict[str, _Scope] = {}

    async def header(self, scope: str) -> str | None:
        """The Authorization to send with a request for ``scope``, None while no challenge asked for one."""
        if self._basic:
            credentials = await self._source.find(self._registry.name)
            return credentials.basic if credentials and credentials.password else None
        known = self._scopes.get(scope)
        if known is None or known.challenge is None:
            return None
        return await self._token(known, known.challenge, scope, stale="")

    async def answer(self, challenges: Sequence[Challenge], scope: str, used: str | None) -> str | None:
        """The Authorization for a second try after a 401 to one with ``used``; None when there is nothing else to try.

        Raises DeniedError for a challenge that must not or cannot be met, and what a token server's failure means.
        """
        by_scheme = {item.scheme: item for item in reversed(challenges)}
        if "bearer" in by_scheme:
            return await self._bearer(by_scheme["bearer"], scope, used)
        if "basic" in by_scheme:
            return await self._answer_basic(used)
        offered = ", ".join(sorted(by_scheme))[:100] or "no scheme"
        raise DeniedError(
            f"{self._name} wants authentication by {offered}; only Basic and Bearer are supported"
        )

    @property
    def description(self) -> str:
        """For people: what the registry asked for, as far as is known."""
        if self._basic:
            return "with user name and password"
        return "with a token" if self._scopes else "without credentials"

    @property
    def _name(self) -> str:
        return f"registry {self._registry.name}"

    async def _answer_basic(self, used: str | None) -> str | None:
        credentials = await self._source.find(self._registry.name)
        if credentials is None or not credentials.password:
            raise DeniedError(
                f"{self._name} wants a user name and password; set them in its configuration, or log in with docker login"
            )
        self._basic = True
        if used != credentials.basic:
            return credentials.basic
        self._source.refused(self._registry.name)
        fresh = await self._source.find(self._registry.name)
        return fresh.basic if fresh and fresh.password and fresh.basic != used else None

    async def _bearer(self, challenge: Challenge, scope: str, used: str | None) -> str:
        self._check_realm(challenge)
        known = self._scopes.get(scope)
        if known is None:
            self._make_room()
            known = self._scopes.setdefault(scope, _Scope())
        known.challenge = challenge
        return await self._token(known, challenge, scope, stale=used or "")

    def _make_room(self) -> None:
        while len(self._scopes) >= _MAX_SCOPES:
            del self._scopes[next(iter(self._scopes))]

    def _check_realm(self, challenge: Challenge) -> None:
        realm = challenge.parameters.get("realm", "")
        try:
            url = URL(realm)
            valid = url.scheme in {"http", "https"} and bool(url.host)
        except ValueError:
            valid = False
        if not valid:
            raise ProtocolError(f"{self._name} names {realm[:200]!r} as its token server, which is no URL")
        if url.scheme != "https" and not self._registry.plain_http:
            raise DeniedError(
                f"{self._name} names a token server without TLS, {url.scheme}://{url.authority}: no credentials are sent "
                f"there. Only a registry whose url is configured with http:// may do that"
            )

    async def _token(self, known: _Scope, challenge: Challenge, scope: str, stale: str) -> str:
        """A header with a token that is not ``stale``: the one at hand, the one being fetched, or a new one."""
        # The number of the request whose failure would be this caller's too: the one in flight, else the next.
        mine = known.asked if known.asked > known.answered else known.asked + 1
        async with known.lock:
            if known.token and known.token != stale and self._clock.now() < known.renew_at:
                return known.token
            if known.answered >= mine and known.error is not None:
                raise known.error
            known.asked, known.error = known.asked + 1, None
            try:
                known.token, lifetime = await self._fetch(challenge, scope)
            except P2PDistError as error:
                # Without its challenge the next request asks the registry again, which may want something else by now.
                known.token, known.error, known.challenge = "", error, None
                raise
            else:
                known.renew_at = self._clock.now() + lifetime - min(_MARGIN, lifetime / 5)
            finally:
                known.answered = known.asked
            return known.token

    async def _fetch(self, challenge: Challenge, scope: str) -> tuple[str, float]:
        parameters = challenge.parameters
        wanted = parameters.get("scope", "")[:_MAX_SCOPE] or scope
        credentials = await self._source.find(self._registry.name)
        request = _token_request(URL(parameters["realm"]), parameters.get("service", ""), wanted, credentials)
        answer = await self._transport(request)
        self._check(answer, request.url, credentials)
        return _read_token(answer.body, f"the token server of {self._name}")

    def _check(self, answer: TokenAnswer, url: URL, credentials: Credentials | None) -> None:
        server = f"the token server of {self._name} ({url.authority})"
        if answer.status == 200:
            return
        if answer.status == 429:
            raise BusyError(f"{server} answered 429, too many requests", answer.retry_after)
        if answer.status >= 500:
            raise UnreachableError(f"{server} answered {answer.status}")
        if answer.status in {400, 401, 403, 404}:
            self._source.refused(self._registry.name)
            who = (
                f"user {credentials.username or 'of the identity token'}"
                if credentials
                else "anonymous access"
            )
            raise DeniedError(
                f"{server} refused {who} with {answer.status}; check the credentials, or log in again"
            )
        raise ProtocolError(f"{server} answered {answer.status}, which is no token")


def _token_request(realm: URL, service: str, scope: str, credentials: Credentials | None) -> TokenRequest:
    query = {"service": service, "scope": scope}
    query = {key: value for key, value in query.items() if value}
    if credentials is not None and credentials.identity_token:
        form = {
            **query,
            "grant_type": "refresh_token",
            "client_id": CLIENT_ID,
            "refresh_token": credentials.identity_token,
        }
        return TokenRequest(realm, form=form)
    if credentials is None:
        return TokenRequest(realm.update_query(query))
    query["account"] = credentials.username
    query["client_id"] = CLIENT_ID
    return TokenRequest(realm.update_query(query), credentials.basic)


def _read_token(body: bytes, server: str) -> tuple[str, float]:
    """The Authorization header's value and the token's lifetime in seconds (token specification, "Requesting a Token")."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{server} answered 200 with something that is not JSON") from error
    fields = document if isinstance(document, dict) else {}
    token = fields.get("token") or fields.get("access_token")
    if not isinstance(token, str) or not token or len(token) > _MAX_TOKEN:
        raise ProtocolError(f"{server} answered 200 without a token")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ProtocolError(f"{server} gave a token that cannot stand in a header")
    return f"Bearer {token}", _lifetime(fields.get("expires_in"))


def _lifetime(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return DEFAULT_LIFETIME
    return min(float(value), _MAX_LIFETIME)
