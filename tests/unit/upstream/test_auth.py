"""Tokens and passwords: who gets them, when they are renewed, and what a token server may answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import BusyError, DeniedError, P2PDistError, ProtocolError, UnreachableError
from p2pdist.testing.clock import ManualClock
from p2pdist.upstream.auth import Authorizer, TokenAnswer, TokenRequest, _read_token
from p2pdist.upstream.challenge import Challenge, parse_challenges
from p2pdist.upstream.credentials import Credentials
from p2pdist.upstream.settings import RegistrySettings

SCOPE = "repository:team/app:pull"
BEARER = parse_challenges([f'Bearer realm="https://auth.test/token",service="registry.test",scope="{SCOPE}"'])
BASIC = parse_challenges(['Basic realm="registry"'])


class Credible:
    """A CredentialSource with one answer, which may be changed."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self.credentials = credentials
        self.refusals = 0

    async def find(self, registry: str) -> Credentials | None:
        return self.credentials

    def refused(self, registry: str) -> None:
        self.refusals += 1


class TokenServer:
    """Gives numbered tokens; ``answer`` replaces them; holds requests while ``gate`` is shut."""

    def __init__(self) -> None:
        self.requests: list[TokenRequest] = []
        self.answer: Callable[[], TokenAnswer] | None = None
        self.lifetime: Any = 100
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: TokenRequest) -> TokenAnswer:
        self.requests.append(request)
        number = len(self.requests)
        await self.gate.wait()
        if self.answer is not None:
            return self.answer()
        return TokenAnswer(200, json.dumps({"token": f"t{number}", "expires_in": self.lifetime}).encode())


class World:
    def __init__(self, credentials: Credentials | None = None, url: str = "https://registry.test") -> None:
        self.clock = ManualClock()
        self.server = TokenServer()
        self.source = Credible(credentials)
        registry = RegistrySettings("registry.test", url)
        self.auth = Authorizer(registry, self.source, self.server, self.clock)


async def test_nothing_is_sent_before_it_was_asked_for() -> None:
    world = World(Credentials("u", "p"))
    assert await world.auth.header(SCOPE) is None
    assert not world.server.requests


async def test_basic_is_sent_at_once_after_the_first_challenge() -> None:
    world = World(Credentials("user", "pass"))
    assert await world.auth.answer(BASIC, SCOPE, None) == "Basic dXNlcjpwYXNz"
    assert await world.auth.header("repository:other:pull") == "Basic dXNlcjpwYXNz"
    assert await world.auth.answer(BASIC, SCOPE, "Basic dXNlcjpwYXNz") is None
    assert world.source.refusals == 1


async def test_basic_without_credentials_says_what_to_do() -> None:
    with pytest.raises(DeniedError, match="docker login"):
        await World().auth.answer(BASIC, SCOPE, None)


async def test_a_password_that_changed_is_tried_after_a_refusal() -> None:
    world = World(Credentials("user", "old"))
    used = await world.auth.answer(BASIC, SCOPE, None)
    world.source.credentials = Credentials("user", "new")
    renewed = await world.auth.answer(BASIC, SCOPE, used)
    assert renewed not in {None, used}


async def test_a_token_is_asked_for_with_service_scope_and_credentials() -> None:
    world = World(Credentials("user", "pass"))
    assert await world.auth.answer(BEARER, SCOPE, None) == "Bearer t1"
    (request,) = world.server.requests
    assert request.url.with_query(None).human_repr() == "https://auth.test/token"
    assert dict(request.url.query) == {
        "service": "registry.test",
        "scope": SCOPE,
        "account": "user",
        "client_id": "p2pdist",
    }
    assert request.authorization == "Basic dXNlcjpwYXNz"
    assert request.form is None


async def test_anonymous_asks_without_a_name() -> None:
    world = World()
    await world.auth.answer(BEARER, SCOPE, None)
    (request,) = world.server.requests
    assert request.authorization == ""
    assert set(request.url.query) == {"service", "scope"}


async def test_an_identity_token_is_posted() -> None:
    world = World(Credentials("u", identity_token="refresh"))
    await world.auth.answer(BEARER, SCOPE, None)
    (request,) = world.server.requests
    assert request.form is not None
    assert request.form["grant_type"] == "refresh_token"
    assert request.form["refresh_token"] == "refresh"
    assert request.form["scope"] == SCOPE
    assert not request.url.query
    assert "refresh" not in repr(request)


async def test_without_a_scope_in_the_challenge_ours_is_used() -> None:
    world = World()
    await world.auth.answer([Challenge("bearer", {"realm": "https://auth.test/token?x=1"})], SCOPE, None)
    assert dict(world.server.requests[0].url.query) == {"x": "1", "scope": SCOPE}


async def test_a_token_is_renewed_shortly_before_it_expires() -> None:
    world = World()
    await world.auth.answer(BEARER, SCOPE, None)
    await world.clock.advance(84)
    assert await world.auth.header(SCOPE) == "Bearer t1"
    await world.clock.advance(2)
    assert await world.auth.header(SCOPE) == "Bearer t2"
    assert await world.auth.header("repository:other:pull") is None


@pytest.mark.parametrize("lifetime", [None, 0, -5, "60", True, [1]])
async def test_a_lifetime_that_is_none_is_a_minute(lifetime: object) -> None:
    world = World()
    world.server.lifetime = lifetime
    await world.auth.answer(BEARER, SCOPE, None)
    await world.clock.advance(47)
    assert await world.auth.header(SCOPE) == "Bearer t1"
    await world.clock.advance(2)
    assert await world.auth.header(SCOPE) == "Bearer t2"


async def test_a_refused_token_is_renewed_once_for_all_who_used_it() -> None:
    world = World()
    used = await world.auth.answer(BEARER, SCOPE, None)
    renewed = await asyncio.gather(*(world.auth.answer(BEARER, SCOPE, used) for _ in range(10)))
    assert renewed == ["Bearer t2"] * 10
    assert len(world.server.requests) == 2


async def test_many_who_need_a_token_ask_once() -> None:
    world = World()
    world.server.gate.clear()
    tasks = [asyncio.ensure_future(world.auth.answer(BEARER, SCOPE, None)) for _ in range(20)]
    await world.clock.settle()
    world.server.gate.set()
    assert await asyncio.gather(*tasks) == ["Bearer t1"] * 20
    assert len(world.server.requests) == 1


async def test_who_waited_for_a_failure_shares_it_and_who_comes_later_asks_anew() -> None:
    world = World()
    world.server.gate.clear()
    world.server.answer = lambda: TokenAnswer(503, b"")
    tasks = [asyncio.ensure_future(world.auth.answer(BEARER, SCOPE, None)) for _ in range(20)]
    await world.clock.settle()
    world.server.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, UnreachableError) for result in results)
    assert len(world.server.requests) == 1
    world.server.answer = None
    assert await world.auth.answer(BEARER, SCOPE, None) == "Bearer t2"


async def test_when_the_first_is_cancelled_the_next_asks() -> None:
    world = World()
    world.server.gate.clear()
    first, second = (asyncio.ensure_future(world.auth.answer(BEARER, SCOPE, None)) for _ in range(2))
    await world.clock.settle()
    first.cancel()
    await world.clock.settle()
    world.server.gate.set()
    assert await second == "Bearer t2"
    assert first.cancelled()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, DeniedError),
        (401, DeniedError),
        (403, DeniedError),
        (404, DeniedError),
        (429, BusyError),
        (500, UnreachableError),
        (503, UnreachableError),
        (302, ProtocolError),
        (204, ProtocolError),
    ],
)
async def test_a_token_server_that_refuses(status: int, error: type[P2PDistError]) -> None:
    world = World(Credentials("user", "s3cret"))
    world.server.answer = lambda: TokenAnswer(status, b"s3cret", 3.0)
    with pytest.raises(error, match=r"auth\.test") as caught:
        await world.auth.answer(BEARER, SCOPE, None)
    assert "s3cret" not in str(caught.value)
    assert world.source.refusals == (1 if error is DeniedError else 0)


async def test_a_token_server_must_have_tls_unless_the_registry_has_none() -> None:
    plain = parse_challenges(['Bearer realm="http://auth.test/token"'])
    world = World(Credentials("u", "p"))
    with pytest.raises(DeniedError, match="without TLS"):
        await world.auth.answer(plain, SCOPE, None)
    assert not world.server.requests
    world = World(Credentials("u", "p"), "http://registry.test")
    assert await world.auth.answer(plain, SCOPE, None) == "Bearer t1"


@pytest.mark.parametrize(
    "realm", ["", "auth.test/token", "ftp://auth.test", "https://", "https://[", "file:///etc"]
)
async def test_a_realm_that_is_no_url(realm: str) -> None:
    world = World(Credentials("u", "p"))
    with pytest.raises(ProtocolError, match="token server"):
        await world.auth.answer([Challenge("bearer", {"realm": realm})], SCOPE, None)
    assert not world.server.requests


async def test_other_schemes_are_named() -> None:
    with pytest.raises(DeniedError, match="negotiate"):
        await World().auth.answer(parse_challenges(["Negotiate"]), SCOPE, None)


async def test_bearer_is_taken_before_basic() -> None:
    world = World(Credentials("u", "p"))
    assert await world.auth.answer(BASIC + BEARER, SCOPE, None) == "Bearer t1"


async def test_the_number_of_scopes_is_bounded() -> None:
    world = World()
    for number in range(1100):
        await world.auth.answer(
            [Challenge("bearer", {"realm": "https://a.test/"})], f"repository:{number}:pull", None
        )
    assert len(world.auth._scopes) <= 1024


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda d: json.dumps(d).encode(),
        st.dictionaries(
            st.sampled_from(["token", "access_token", "expires_in"]),
            st.text() | st.integers() | st.none() | st.floats(),
            max_size=3,
        ),
    )
)
def test_any_answer_is_a_clean_header_or_a_protocol_error(body: bytes) -> None:
    try:
        header, lifetime = _read_token(body, "the token server")
    except ProtocolError:
        return
    assert header.startswith("Bearer ")
    assert header.isascii()
    assert header.isprintable()
    assert 0 < lifetime <= 86400
