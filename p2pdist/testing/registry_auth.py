"""The fake registry's doors: basic credentials, and Docker's token flow (distribution's token and oauth2 specifications).

Always true here: a token is good for the scopes it was given and until it expires; wrong credentials never get one.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass

from aiohttp import web

from p2pdist.clock import Clock
from p2pdist.testing.registry_faults import Counters, Faults

SERVICE = "fake-registry"


@dataclass(frozen=True, slots=True)
class _Token:
    scopes: frozenset[str]
    expires: float


class Doorkeeper:
    """Issues tokens and says who may come in."""

    def __init__(self, faults: Faults, counters: Counters, clock: Clock) -> None:
        self._faults, self._counters, self._clock = faults, counters, clock
        self._tokens: dict[str, _Token] = {}

    def revoke_all(self) -> None:
        """Make every token issued so far invalid, before its time."""
        self._tokens.clear()

    def challenge(self, request: web.Request, repository: str) -> web.Response | None:
        """The 401 answer, or None where the request may pass."""
        if self._faults.auth == "basic":
            if self._right_password(request):
                return None
            return _unauthorized('Basic realm="fake"')
        if self._faults.auth == "bearer":
            problem = self._token_problem(request, repository)
            return None if problem is None else _unauthorized(self._bearer(request, repository, problem))
        return None

    def _token_problem(self, request: web.Request, repository: str) -> str | None:
        """None where the token is good; "" for none at all, else the error code of RFC 6750."""
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return ""
        token = self._tokens.get(text)
        if token is None or token.expires <= self._clock.now():
            return "invalid_token"
        if repository and f"repository:{repository}:pull" not in token.scopes:
            return "insufficient_scope"
        return None

    def _bearer(self, request: web.Request, repository: str, problem: str) -> str:
        realm = self._faults.token_url or f"{request.scheme}://{request.host}/token"
        parts = [f'realm="{realm}"', f'service="{SERVICE}"']
        if repository and self._faults.challenge_scope:
            parts.append(f'scope="repository:{repository}:pull"')
        if problem:
            parts.append(f'error="{problem}"')
        return "Bearer " + ",".join(parts)

    async def token(self, request: web.Request) -> web.Response:
        """GET with basic credentials, or POST with a password or refresh token."""
        if request.method == "POST":
            form = await request.post()
            wanted = str(form.get("scope", "")).split()
            allowed = self._right_form({key: str(value) for key, value in form.items()})
        else:
            wanted = [scope for value in request.query.getall("scope", []) for scope in value.split()]
            anonymous = self._faults.anonymous_tokens and "Authorization" not in request.headers
            allowed = anonymous or self._right_password(request)
        if not allowed:
            self._counters.refused_tokens += 1
            return web.json_response({"details": "incorrect username or password"}, status=401)
        return self._issue(wanted)

    def _issue(self, wanted: list[str]) -> web.Response:
        text = secrets.token_urlsafe(24)
        expires = self._clock.now() + self._faults.token_ttl
        self._tokens[text] = _Token(
            frozenset(scope for item in wanted for scope in _split_actions(item)), expires
        )
        self._counters.tokens += 1
        return web.json_response({"token": text, "access_token": text, "expires_in": self._faults.token_ttl})

    def _right_form(self, form: dict[str, str]) -> bool:
        if form.get("grant_type") == "refresh_token":
            return (
                bool(self._faults.identity_token) and form.get("refresh_token") == self._faults.identity_token
            )
        return (form.get("username"), form.get("password")) == (self._faults.username, self._faults.password)

    def _right_password(self, request: web.Request) -> bool:
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        try:
            plain = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        return scheme.lower() == "basic" and plain == f"{self._faults.username}:{self._faults.password}"


def _split_actions(scope: str) -> list[str]:
    """``repository:a:pull,push`` as ``repository:a:pull`` and ``repository:a:push``."""
    resource, _, actions = scope.rpartition(":")
    return [f"{resource}:{action}" for action in actions.split(",")]


def _unauthorized(challenge: str) -> web.Response:
    body = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
    return web.json_response(body, status=401, headers={"WWW-Authenticate": challenge})
