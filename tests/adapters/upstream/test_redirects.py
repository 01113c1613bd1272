"""Redirects over real sockets: to object stores, in circles, and down to http."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from p2pdist.errors import DeniedError, ProtocolError
from p2pdist.oci.digest import Digest
from tests.adapters.upstream.world import DATA, MANIFEST, Authority, World, fake_registry, scripted

DIGEST = Digest.of(DATA)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_every_redirect_is_followed_with_its_range(status: int) -> None:
    async with fake_registry() as (registry, digest):

        async def handler(request: web.Request) -> web.StreamResponse:
            location = f"{registry.url}{request.path}?X-Signature=a%2Fb%2Bc+d~"
            return web.Response(status=status, headers={"Location": location})

        async with scripted(handler) as url, World(url) as world:
            assert await world.blob(digest, 100, 50) == DATA[100:150]
            assert world.received[world.name] == 50
            assert (await world.client.stat(world.repository, digest)).size == len(DATA)
            assert (await world.client.manifest(world.repository, "v1")).body == MANIFEST
        # The signature arrives as it was sent: a byte of it changed, and it would not hold.
        assert "?X-Signature=a%2Fb%2Bc+d~" in registry.counters.paths[0]


async def test_circles_are_left() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": request.path})

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(ProtocolError, match="more than 5 times"):
            await world.blob(DIGEST)
        assert len(world.responses) == 6


@pytest.mark.parametrize("location", [None, "", "ftp://elsewhere/", "http://user:pw@elsewhere/"])
async def test_a_location_that_leads_nowhere(location: str | None) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={} if location is None else {"Location": location})

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(ProtocolError, match="redirected"):
            await world.blob(DIGEST)


async def test_https_is_never_left_for_http(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    asked: list[str] = []

    async def plain(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=DATA)

    async with scripted(plain) as target:

        async def handler(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"{target}/x?signature=s3cret"})

        async with (
            scripted(handler, authority.server_context("127.0.0.1")) as url,
            World(url, registry={"ca_file": authority.ca_file}) as world,
        ):
            with pytest.raises(DeniedError, match="without TLS") as caught:
                await world.blob(DIGEST)
    assert "s3cret" not in str(caught.value)
    assert not asked


async def test_a_target_that_fails_is_named_without_its_signature() -> None:
    async def gone(_request: web.Request) -> web.StreamResponse:
        return web.Response()

    async with scripted(gone) as target:
        pass

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{target}/x?signature=s3cret"})

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(Exception, match=target.removeprefix("http://")) as caught:
            await world.blob(DIGEST)
        assert "s3cret" not in str(caught.value)
