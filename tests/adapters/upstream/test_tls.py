"""TLS is always verified; a registry's own CA is trusted in addition to the system's."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from aiohttp import web

from p2pdist.errors import ConfigError, DeniedError, UnreachableError
from tests.adapters.upstream.world import DATA, Authority, World, fake_registry, scripted


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("redirect", [False, True])
async def test_a_registry_with_its_own_authority(authority: Authority, redirect: bool) -> None:
    server = authority.server_context("127.0.0.1")
    trust = {"ca_file": authority.ca_file, "username": "user", "password": "password"}
    async with (
        fake_registry(ssl_context=server) as (registry, digest),
        World(registry.url, registry=trust) as world,
    ):
        registry.faults.auth, registry.faults.redirect_blobs = "bearer", redirect
        registry.faults.cut_after, registry.faults.cut_times = 100_000, 1
        assert await world.blob(digest) == DATA
        assert registry.counters.authorization_leaks == 0


async def test_without_the_authority_it_is_not_trusted_and_not_asked_again(authority: Authority) -> None:
    server = authority.server_context("127.0.0.1")
    async with fake_registry(ssl_context=server) as (registry, digest), World(registry.url) as world:
        with pytest.raises(UnreachableError, match=r"not trusted .*ca_file"):
            await world.blob(digest)
        assert not world.clock.sleeps
        assert not registry.counters.requests


async def test_a_certificate_for_another_name(authority: Authority) -> None:
    server, trust = authority.server_context("other.test"), {"ca_file": authority.ca_file}
    async with (
        fake_registry(ssl_context=server) as (registry, digest),
        World(registry.url, registry=trust) as world,
    ):
        with pytest.raises(UnreachableError, match="not trusted"):
            await world.blob(digest)


async def test_the_system_s_authorities_stay_trusted(authority: Authority) -> None:
    async with World("https://127.0.0.1:1", registry={"ca_file": authority.ca_file}) as world:
        context = world.client._tls.of(world.client._settings.registries[world.name])
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert len(context.get_ca_certs()) == len(ssl.create_default_context().get_ca_certs()) + 1


async def test_a_registry_that_speaks_no_tls_where_tls_is_asked_for() -> None:
    async with fake_registry() as (registry, digest), World(registry.url.replace("http:", "https:")) as world:
        with pytest.raises(UnreachableError, match="TLS failed"):
            await world.blob(digest)
        assert not world.clock.sleeps


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
async def test_an_authority_s_file_that_cannot_be_used_is_told_at_the_start(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"registry\.test.*ca\.pem"):
        World("https://127.0.0.1:1", registry={"ca_file": file})


async def test_a_token_server_without_tls_gets_nothing(authority: Authority) -> None:
    asked: list[str] = []

    async def token_server(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response({"token": "x"})

    server = authority.server_context("127.0.0.1")
    trust = {"ca_file": authority.ca_file, "username": "user", "password": "password"}
    async with (
        scripted(token_server) as plain,
        fake_registry(ssl_context=server) as (registry, digest),
        World(registry.url, registry=trust) as world,
    ):
        registry.faults.auth, registry.faults.token_url = "bearer", f"{plain}/token"
        with pytest.raises(DeniedError, match="without TLS"):
            await world.blob(digest)
    assert not asked
