"""Manifests and pages over real sockets."""

from __future__ import annotations

import pytest
from aiohttp import web

from p2pdist.errors import (
    DeniedError,
    DigestMismatchError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
)
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from tests.adapters.upstream.world import MANIFEST, NAME, World, fake_registry, scripted

DIGEST = Digest.of(MANIFEST)


@pytest.mark.parametrize("target", ["v1", DIGEST])
async def test_by_tag_and_by_digest(target: str | Digest) -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        found = await world.client.manifest(world.repository, target)
        assert (found.digest, found.media_type, found.size) == (
            DIGEST,
            media_types.OCI_MANIFEST,
            len(MANIFEST),
        )
        assert found.body == MANIFEST
        assert world.received[world.name] == registry.counters.manifest_bytes == len(MANIFEST)
        assert world.responses == [("manifest", 200)]


@pytest.mark.parametrize("target", ["v1", DIGEST])
async def test_a_head_downloads_nothing(target: str | Digest) -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        found = await world.client.manifest(world.repository, target, head=True)
        assert (found.digest, found.media_type, found.size) == (
            DIGEST,
            media_types.OCI_MANIFEST,
            len(MANIFEST),
        )
        assert found.body is None
        assert registry.counters.count("GET", "manifest") == 0


@pytest.mark.parametrize("fault", ["no_digest_header", "no_content_type", "no_head"])
async def test_a_head_that_does_not_tell_enough_is_repeated_as_a_get(fault: str) -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        setattr(registry.faults, fault, True)
        found = await world.client.manifest(world.repository, "v1", head=True)
        assert (found.digest, found.media_type, found.size) == (
            DIGEST,
            media_types.OCI_MANIFEST,
            len(MANIFEST),
        )
        assert found.body is None
        assert registry.counters.count("GET", "manifest") == 1


@pytest.mark.parametrize("head", [False, True])
async def test_what_is_not_there(head: bool) -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        for target in ("v9", Digest.of(b"absent")):
            with pytest.raises(NotFoundError, match="MANIFEST_UNKNOWN"):
                await world.client.manifest(world.repository, target, head=head)
        with pytest.raises(NotFoundError):
            await world.client.manifest(Repository(world.name, "no/such"), "v1", head=head)


async def test_every_known_type_is_accepted_unless_the_caller_names_some() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        registry.faults.strict_accept = True
        assert (await world.client.manifest(world.repository, "v1")).digest == DIGEST
        named = [media_types.OCI_MANIFEST]
        assert (await world.client.manifest(world.repository, "v1", accept=named)).digest == DIGEST
        with pytest.raises(NotFoundError):
            await world.client.manifest(world.repository, "v1", accept=[media_types.DOCKER_MANIFEST])
        with pytest.raises(InvalidInputError):
            await world.client.manifest(world.repository, "v1", accept=["a/b\r\nX-Evil: 1"])


async def test_a_wrong_digest_header_is_told_for_a_tag_and_harmless_for_a_digest() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        registry.faults.wrong_digest_header = True
        with pytest.raises(ProtocolError):
            await world.client.manifest(world.repository, "v1")
        assert (await world.client.manifest(world.repository, DIGEST)).digest == DIGEST


async def test_other_bytes_than_the_digest_s() -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b'{"schemaVersion":2}', content_type=media_types.OCI_MANIFEST)

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(DigestMismatchError, match=str(DIGEST)):
            await world.client.manifest(world.repository, DIGEST)


async def test_sha512() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        digest = registry.put_manifest(NAME, MANIFEST, media_types.OCI_MANIFEST, "long", "sha512")
        assert digest.algorithm == "sha512"
        for target in ("long", digest):
            assert (await world.client.manifest(world.repository, target)).digest == digest


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_manifest_that_is_too_large(chunked: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": media_types.OCI_MANIFEST})
        if chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = 4 * 1024 * 1024 + 1
        await response.prepare(request)
        if request.method == "GET":
            for _ in range(4096):
                await response.write(b" " * 1024)
            await response.write(b" ")
        return response

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(ProtocolError, match="more than 4194304 bytes"):
            await world.client.manifest(world.repository, "v1")
        with pytest.raises(ProtocolError, match="more than 4194304 bytes"):
            await world.client.manifest(world.repository, "v1", head=True)


async def test_what_is_no_manifest() -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>please log in to the network</html>", content_type="text/html")

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(ProtocolError, match="no manifest"):
            await world.client.manifest(world.repository, "v1")


async def test_a_manifest_that_is_cut_is_asked_for_again() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        registry.faults.body_kinds = ["manifest"]
        registry.faults.cut_after, registry.faults.cut_times = 10, 1
        assert (await world.client.manifest(world.repository, "v1")).body == MANIFEST
        assert registry.counters.count("GET", "manifest") == 2


# -- pages, ping, and what is not configured --


async def test_tags_page_by_page() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        registry.set_tag(NAME, "v2", DIGEST)
        page = await world.client.tags(world.repository, {"n": "1", "evil": "x&y"})
        assert page.body == b'{"name":"team/app","tags":["v1"]}'
        assert page.headers["Content-Type"] == media_types.JSON
        assert page.headers["Link"] == '</v2/team/app/tags/list?n=1&last=v1>; rel="next"'
        assert registry.counters.paths[-1] == "GET /v2/team/app/tags/list?n=1"
        page = await world.client.tags(world.repository, {"n": "1", "last": "v1"})
        assert page.body == b'{"name":"team/app","tags":["v2"]}'
        assert "Link" not in page.headers


async def test_referrers() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        page = await world.client.referrers(world.repository, DIGEST, {"artifactType": "a/b+c"})
        assert page.headers == {"Content-Type": media_types.OCI_INDEX, "OCI-Filters-Applied": "artifactType"}
        assert b'"manifests":[]' in page.body
        registry.faults.no_referrers = True
        with pytest.raises(NotFoundError):
            await world.client.referrers(world.repository, DIGEST, {})


async def test_a_page_that_is_too_large() -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b" " * (4 * 1024 * 1024 + 1))

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(ProtocolError, match="tags of"):
            await world.client.tags(world.repository, {})


async def test_ping() -> None:
    async with fake_registry() as (registry, _), World(registry.url) as world:
        line = await world.client.ping(world.name)
        assert registry.url in line
        assert "without credentials" in line


async def test_a_registry_that_is_not_configured_is_never_asked() -> None:
    async with fake_registry() as (registry, digest), World(registry.url) as world:
        other = Repository(registry.netloc, NAME)
        assert world.client.allows(world.name)
        assert not world.client.allows(registry.netloc)
        for ask in (
            world.client.manifest(other, "v1"),
            world.client.stat(other, digest),
            world.client.tags(other, {}),
            world.client.referrers(other, digest, {}),
            world.client.ping(registry.netloc),
        ):
            with pytest.raises(DeniedError, match="not configured"):
                await ask
        with pytest.raises(DeniedError, match="not configured"):
            async with world.client.blob(other, digest):
                pass
        assert not registry.counters.requests
