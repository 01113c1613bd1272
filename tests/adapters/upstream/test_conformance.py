"""What every Upstream does, asked of the one over HTTP and of the one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from p2pdist.errors import DeniedError, InvalidInputError, NotFoundError
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.testing.memory_upstream import MemoryUpstream
from p2pdist.upstream.port import Upstream
from tests.adapters.upstream.world import DATA, MANIFEST, NAME, World, fake_registry

REPOSITORY = Repository("registry.test", NAME)
BLOB = Digest.of(DATA)
DIGEST = Digest.of(MANIFEST)
ABSENT = Digest.of(b"absent")


@pytest.fixture(params=["http", "memory"])
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    if request.param == "memory":
        memory = MemoryUpstream("registry.test")
        memory.put_blob(REPOSITORY, DATA)
        memory.put_manifest(REPOSITORY, MANIFEST, media_types.OCI_MANIFEST, "v1")
        yield memory
        return
    async with fake_registry() as (registry, _), World(registry.url) as world:
        yield world.client


async def read(upstream: Upstream, digest: Digest, offset: int = 0, length: int | None = None) -> bytes:
    async with upstream.blob(REPOSITORY, digest, offset, length) as stream:
        assert (stream.size, stream.start) == (len(DATA), offset)
        return b"".join([chunk async for chunk in stream.chunks()])


async def test_blobs_and_their_parts(upstream: Upstream) -> None:
    assert await read(upstream, BLOB) == DATA
    assert await read(upstream, BLOB, 7, 100_000) == DATA[7:100_007]
    assert await read(upstream, BLOB, len(DATA) - 1) == DATA[-1:]
    assert await read(upstream, BLOB, len(DATA)) == b""
    assert await read(upstream, BLOB, 3, 0) == b""
    stat = await upstream.stat(REPOSITORY, BLOB)
    assert (stat.digest, stat.size) == (BLOB, len(DATA))
    for offset, length in ((len(DATA) + 1, None), (0, len(DATA) + 1), (-1, None)):
        with pytest.raises(InvalidInputError):
            await read(upstream, BLOB, offset, length)


@pytest.mark.parametrize("target", ["v1", DIGEST])
async def test_manifests(upstream: Upstream, target: str | Digest) -> None:
    head = await upstream.manifest(REPOSITORY, target, head=True)
    whole = await upstream.manifest(REPOSITORY, target)
    assert (head.digest, head.media_type, head.size, head.body) == (
        DIGEST,
        media_types.OCI_MANIFEST,
        len(MANIFEST),
        None,
    )
    assert (whole.digest, whole.media_type, whole.size, whole.body) == (
        DIGEST,
        media_types.OCI_MANIFEST,
        len(MANIFEST),
        MANIFEST,
    )


async def test_pages(upstream: Upstream) -> None:
    assert b'"v1"' in (await upstream.tags(REPOSITORY, {"n": "5"})).body
    page = await upstream.referrers(REPOSITORY, DIGEST, {"artifactType": "a/b"})
    assert page.headers["Content-Type"] == media_types.OCI_INDEX
    assert page.headers["OCI-Filters-Applied"] == "artifactType"


async def test_what_is_not_there(upstream: Upstream) -> None:
    other = Repository("registry.test", "no/such")
    with pytest.raises(NotFoundError):
        await upstream.manifest(REPOSITORY, "v2")
    with pytest.raises(NotFoundError):
        await upstream.manifest(REPOSITORY, ABSENT, head=True)
    with pytest.raises(NotFoundError):
        await upstream.stat(REPOSITORY, ABSENT)
    with pytest.raises(NotFoundError):
        await read(upstream, ABSENT)
    with pytest.raises(NotFoundError):
        await upstream.tags(other, {})


async def test_a_registry_that_is_not_configured(upstream: Upstream) -> None:
    other = Repository("other.test", NAME)
    assert upstream.allows("registry.test")
    assert not upstream.allows("other.test")
    assert "registry.test" in await upstream.ping("registry.test")
    with pytest.raises(DeniedError):
        await upstream.ping("other.test")
    with pytest.raises(DeniedError):
        await upstream.manifest(other, "v1")
    with pytest.raises(DeniedError):
        async with upstream.blob(other, BLOB):
            pass
