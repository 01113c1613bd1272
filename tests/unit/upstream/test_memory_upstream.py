"""The upstream that lives in memory does what its knobs say, and nothing else."""

from __future__ import annotations

import pytest

from p2pdist.errors import (
    BusyError,
    DeniedError,
    DigestMismatchError,
    InvalidInputError,
    NotFoundError,
    StalledError,
    UnreachableError,
)
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.testing.memory_upstream import MemoryUpstream

REPOSITORY = Repository("docker.io", "library/app")
DATA = bytes(range(256)) * 1000
MANIFEST = b'{"schemaVersion":2,"mediaType":"%s","layers":[]}' % media_types.OCI_MANIFEST.encode()


async def read(upstream: MemoryUpstream, digest: Digest, offset: int = 0, length: int | None = None) -> bytes:
    async with upstream.blob(REPOSITORY, digest, offset, length) as stream:
        return b"".join([chunk async for chunk in stream.chunks()])


async def test_serves_and_counts_what_it_holds() -> None:
    upstream = MemoryUpstream()
    digest = upstream.put_blob(REPOSITORY, DATA)
    assert await read(upstream, digest, 10, 1000) == DATA[10:1010]
    assert await read(upstream, digest) == DATA
    assert upstream.sent == upstream.sent_by_digest[digest] == len(DATA) + 1000
    assert (await upstream.stat(REPOSITORY, digest)).size == len(DATA)
    assert [(r.offset, r.length) for r in upstream.asked("blob", digest)] == [(10, 1000), (0, None)]
    with pytest.raises(InvalidInputError):
        await read(upstream, digest, len(DATA) + 1)


async def test_a_cut_lets_the_bytes_before_it_through_and_happens_as_often_as_asked() -> None:
    upstream = MemoryUpstream()
    digest = upstream.put_blob(REPOSITORY, DATA)
    upstream.cut_at, upstream.cut_times = 70_000, 1
    async with upstream.blob(REPOSITORY, digest) as stream:
        chunks = stream.chunks()
        assert await anext(chunks) + await anext(chunks) == DATA[:70_000]
        with pytest.raises(UnreachableError):
            await anext(chunks)
    assert await read(upstream, digest) == DATA
    upstream.stall_at, upstream.stall_times = 0, 1
    with pytest.raises(StalledError):
        await read(upstream, digest)
    assert upstream.open_streams == 0


async def test_a_wrong_byte_is_one_byte() -> None:
    upstream = MemoryUpstream()
    digest = upstream.put_blob(REPOSITORY, DATA)
    upstream.wrong_at, upstream.wrong_times = 100_000, 1
    wrong = await read(upstream, digest)
    assert [i for i in range(len(DATA)) if wrong[i] != DATA[i]] == [100_000]
    assert await read(upstream, digest) == DATA


async def test_manifests_by_tag_and_digest() -> None:
    upstream = MemoryUpstream()
    digest = upstream.put_manifest(REPOSITORY, MANIFEST, media_types.OCI_MANIFEST, "v1")
    head = await upstream.manifest(REPOSITORY, "v1", head=True)
    assert (head.digest, head.size, head.body) == (digest, len(MANIFEST), None)
    assert (await upstream.manifest(REPOSITORY, digest)).body == MANIFEST
    assert upstream.sent == len(MANIFEST)
    with pytest.raises(NotFoundError):
        await upstream.manifest(REPOSITORY, "v2")
    with pytest.raises(NotFoundError):
        await upstream.manifest(REPOSITORY, "v1", accept=[media_types.DOCKER_MANIFEST])
    other = Digest.of(b"other")
    upstream._held[REPOSITORY].manifests[other] = (MANIFEST, media_types.OCI_MANIFEST)
    with pytest.raises(DigestMismatchError):
        await upstream.manifest(REPOSITORY, other)


async def test_pages() -> None:
    upstream = MemoryUpstream()
    subject = upstream.put_manifest(REPOSITORY, MANIFEST, media_types.OCI_MANIFEST, "v1")
    upstream.set_tag(REPOSITORY, "v2", subject)
    page = await upstream.tags(REPOSITORY, {"n": "1"})
    assert b'"v1"' in page.body
    assert "last=v1" in page.headers["Link"]
    signature = b'{"schemaVersion":2,"layers":[],"subject":{"mediaType":"%s","digest":"%s","size":%d}}' % (
        media_types.OCI_MANIFEST.encode(),
        str(subject).encode(),
        len(MANIFEST),
    )
    referrer = upstream.put_manifest(REPOSITORY, signature, media_types.OCI_MANIFEST)
    assert str(referrer).encode() in (await upstream.referrers(REPOSITORY, subject, {})).body


@pytest.mark.parametrize(
    ("knob", "error"), [("down", UnreachableError), ("denied", DeniedError), ("busy", BusyError)]
)
async def test_knobs_for_everything(knob: str, error: type[Exception]) -> None:
    upstream = MemoryUpstream()
    digest = upstream.put_blob(REPOSITORY, DATA)
    setattr(upstream, knob, True)
    with pytest.raises(error):
        await upstream.stat(REPOSITORY, digest)
    with pytest.raises(error):
        await read(upstream, digest)
    with pytest.raises(error):
        await upstream.ping("docker.io")
    assert len(upstream.requests) == 3


async def test_an_unknown_registry_is_denied_and_the_gate_holds_a_body() -> None:
    upstream = MemoryUpstream()
    with pytest.raises(DeniedError):
        await upstream.ping("evil.example")
    assert not upstream.allows("evil.example")
    digest = upstream.put_blob(REPOSITORY, DATA)
    upstream.gate_at = 5
    async with upstream.blob(REPOSITORY, digest) as stream:
        chunks = stream.chunks()
        assert await anext(chunks) == DATA[:5]
        upstream.gate.set()
        assert b"".join([chunk async for chunk in chunks]) == DATA[5:]
