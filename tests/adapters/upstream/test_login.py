"""Private registries over real sockets: every flow, and where credentials never go."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from p2pdist.errors import DeniedError, UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from tests.adapters.upstream.world import DATA, MANIFEST, HastyClock, World, fake_registry, scripted

LOGIN = {"username": "user", "password": "password"}
WRONG = {"username": "user", "password": "s3cret"}


@pytest.mark.parametrize("registry_settings", [{}, LOGIN])
async def test_tokens_for_anyone_and_for_a_user(registry_settings: dict[str, Any]) -> None:
    async with (
        fake_registry() as (registry, digest),
        World(registry.url, registry=registry_settings) as world,
    ):
        registry.faults.auth = "bearer"
        registry.faults.anonymous_tokens = not registry_settings
        assert (await world.client.manifest(world.repository, "v1")).body == MANIFEST
        assert await world.blob(digest) == DATA
        # One token serves the whole repository; only the first request went without.
        assert registry.counters.tokens == 1
        assert [code for _, code in world.responses] == [401, 200, 200, 200]


async def test_each_repository_has_its_own_token() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        registry.faults.auth = "bearer"
        registry.put_blob("team/other", DATA)
        await world.client.tags(world.repository, {})
        await world.client.tags(Repository(world.name, "team/other"), {})
        await world.client.tags(world.repository, {})
        assert registry.counters.tokens == 2


async def test_a_challenge_without_a_scope() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.auth, registry.faults.challenge_scope = "bearer", False
        assert await world.blob(digest) == DATA


async def test_wrong_credentials_are_told_without_being_shown() -> None:
    async with fake_registry() as (registry, digest), World(registry.url, registry=WRONG) as world:
        registry.faults.auth = "bearer"
        with pytest.raises(
            DeniedError, match=r"token server of registry registry\.test .* refused user user"
        ) as caught:
            await world.blob(digest)
        assert "s3cret" not in str(caught.value)
        assert registry.counters.refused_tokens == 1
        registry.faults.auth = "basic"
        with pytest.raises(DeniedError, match="401"):
            await world.blob(digest)


async def test_no_credentials_where_some_are_needed() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.auth, registry.faults.anonymous_tokens = "bearer", False
        with pytest.raises(DeniedError, match="anonymous"):
            await world.blob(digest)
        registry.faults.auth = "basic"
        with pytest.raises(DeniedError, match="docker login"):
            await world.blob(digest)


async def test_basic_is_asked_for_once_and_then_sent_at_once() -> None:
    async with fake_registry() as (registry, digest), World(registry.url, registry=LOGIN) as world:
        registry.faults.auth = "basic"
        assert await world.blob(digest) == DATA
        assert (await world.client.manifest(world.repository, "v1")).body == MANIFEST
        assert [code for _, code in world.responses] == [401, 200, 200]
        assert "user name and password" in await world.client.ping(world.name)


async def test_credentials_from_docker_s_config(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    encoded = base64.b64encode(b"user:password").decode()
    file.write_text(json.dumps({"auths": {"registry.test": {"auth": encoded}}}))
    async with fake_registry() as (registry, digest), World(registry.url, docker_config=file) as world:
        registry.faults.auth, registry.faults.anonymous_tokens = "bearer", False
        assert await world.blob(digest) == DATA


async def test_an_identity_token_from_docker_s_config(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {"registry.test": {"identitytoken": "refresh-me"}}}))
    async with fake_registry() as (registry, digest), World(registry.url, docker_config=file) as world:
        registry.faults.auth, registry.faults.anonymous_tokens = "bearer", False
        registry.faults.identity_token = "refresh-me"
        assert await world.blob(digest) == DATA
        assert registry.counters.count("POST", "token") == 1


async def test_a_token_is_renewed_before_it_expires() -> None:
    clock = HastyClock()
    async with fake_registry(clock=clock) as (registry, _), World(registry.url, clock=clock) as world:
        registry.faults.auth, registry.faults.token_ttl = "bearer", 100
        await world.client.tags(world.repository, {})
        clock.time += 80
        await world.client.tags(world.repository, {})
        assert registry.counters.tokens == 1
        clock.time += 10
        await world.client.tags(world.repository, {})
        assert registry.counters.tokens == 2
        assert [code for kind, code in world.responses if kind == "tags"] == [401, 200, 200, 200]


async def test_a_token_that_is_revoked_is_renewed_once() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.auth = "bearer"
        await world.client.tags(world.repository, {})
        registry.doorkeeper.revoke_all()
        results = await asyncio.gather(*(world.blob(digest) for _ in range(8)))
        assert results == [DATA] * 8
        assert registry.counters.tokens == 2


async def test_a_token_that_never_works_is_denied_and_not_asked_for_without_end() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "useless"})
        challenge = f'Bearer realm="http://{request.host}/token",error="insufficient_scope"'
        return web.json_response({}, status=401, headers={"WWW-Authenticate": challenge})

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(DeniedError, match="401"):
            await world.client.manifest(world.repository, "v1")
        assert world.responses == [("manifest", 401), ("token", 200), ("manifest", 401)]


async def test_a_token_server_that_fails_for_a_moment() -> None:
    async with fake_registry() as (registry, digest):
        failures = [503, 503]

        async def handler(request: web.Request) -> web.StreamResponse:
            if failures:
                return web.Response(status=failures.pop())
            return await registry.doorkeeper.token(request)

        async with scripted(handler) as url, World(registry.url) as world:
            registry.faults.auth, registry.faults.token_url = "bearer", f"{url}/token"
            assert await world.blob(digest) == DATA
            assert not failures


async def test_a_token_server_that_is_gone() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        async with scripted(_nothing) as url:
            registry.faults.auth, registry.faults.token_url = "bearer", f"{url}/token"
        with pytest.raises(UnreachableError, match="Connection refused"):
            await world.blob(digest)


async def test_many_requests_at_once_need_one_token() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.auth = "bearer"
        results = await asyncio.gather(*(world.blob(digest) for _ in range(10)))
        assert results == [DATA] * 10
        assert registry.counters.tokens == 1


async def test_ping_says_how_it_came_in() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        registry.faults.auth = "bearer"
        assert "with a token" in await world.client.ping(world.name)


# -- where credentials never go --


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_the_blob_store_behind_a_redirect_sees_no_authorization(auth: str) -> None:
    async with fake_registry() as (registry, digest), World(registry.url, registry=LOGIN) as world:
        registry.faults.auth, registry.faults.redirect_blobs = auth, True
        assert await world.blob(digest, 100) == DATA[100:]
        assert registry.counters.redirects_followed == 1
        assert registry.counters.authorization_leaks == 0


async def test_a_redirect_within_the_registry_keeps_authorization_and_one_there_and_back_does_not() -> None:
    seen: list[tuple[str, bool]] = []

    async def home(request: web.Request) -> web.StreamResponse:
        seen.append((request.path, "Authorization" in request.headers))
        if "Authorization" not in request.headers and "/v2/" in request.path:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if request.path.startswith("/v2/"):
            return web.Response(status=308, headers={"Location": "/inside"})
        if request.path == "/inside":
            return web.Response(status=302, headers={"Location": f"{away}/outside"})
        return web.Response(body=DATA)

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        seen.append((request.path, "Authorization" in request.headers))
        return web.Response(status=301, headers={"Location": f"{url}/back"})

    async with scripted(home) as url, scripted(elsewhere) as away, World(url, registry=LOGIN) as world:
        await world.blob(Digest.of(DATA))
    assert seen[1:] == [
        (seen[0][0], True),
        ("/inside", True),
        ("/outside", False),
        ("/back", False),
    ]


async def test_a_challenge_from_a_redirect_s_target_is_not_answered() -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        assert "Authorization" not in request.headers
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="give me"'})

    async with scripted(elsewhere) as away:

        async def home(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"{away}/x"})

        async with scripted(home) as url, World(url, registry=LOGIN) as world:
            with pytest.raises(DeniedError):
                await world.blob(Digest.of(DATA))


async def test_a_token_server_that_redirects_gets_no_further() -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response({"token": "x"})

    async with scripted(elsewhere) as away:

        async def home(request: web.Request) -> web.StreamResponse:
            if request.path == "/token":
                return web.Response(status=307, headers={"Location": f"{away}/token"})
            challenge = f'Bearer realm="http://{request.host}/token"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})

        async with scripted(home) as url, World(url, registry=LOGIN) as world:
            with pytest.raises(Exception, match="answered 307"):
                await world.client.tags(world.repository, {})
    assert not asked


async def test_the_netrc_of_the_host_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password password\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        registry.faults.auth = "basic"
        with pytest.raises(DeniedError):
            await world.blob(digest)


async def _nothing(_request: web.Request) -> web.StreamResponse:
    return web.Response()
