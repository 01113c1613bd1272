"""How each pull ended, as it is counted: by whose doing, not by status alone."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from p2pdist.errors import BusyError, UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.testing.fake_mirror import FakeBlob
from tests.adapters.api.registry_edge import NGINX, Edge, running_edge, until

MANIFEST = b'{"schemaVersion":2}'
DATA = bytes(range(256)) * 2000
ABSENT = Digest.of(b"absent")


async def test_what_was_given_and_what_there_is_not(edge: Edge) -> None:
    edge.mirror.add_manifest(NGINX, "v1", MANIFEST)
    blob = edge.mirror.add_blob(DATA, FakeBlob(DATA))
    await edge.get("/v2/library/nginx/manifests/v1")
    await edge.get(f"/v2/library/nginx/blobs/{blob}")
    assert (await edge.get(f"/v2/library/nginx/blobs/{blob}", If_None_Match=f'"{blob}"')).status == 304
    assert (await edge.get(f"/v2/library/nginx/blobs/{ABSENT}")).status == 404
    assert (await edge.get(f"/v2/library/nginx/blobs/{blob}", Range="bytes=999999-")).status == 416
    await edge.head("/v2/library/nginx/manifests/v1")  # moves no content
    assert edge.counts.outcomes == {
        ("manifest", "served"): 1, ("blob", "served"): 2, ("blob", "refused"): 2
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (UnreachableError("upstream is down"), 502, "failed"),
        (RuntimeError("a fault"), 500, "failed"),
        (BusyError("later", 1.0), 429, "refused"),
    ],
)
async def test_what_could_not_be_had(edge: Edge, error: Exception, status: int, outcome: str) -> None:
    blob = edge.mirror.add_blob(DATA, FakeBlob(DATA, error=error, fail_at=0))
    assert (await edge.get(f"/v2/library/nginx/blobs/{blob}")).status == status
    assert edge.counts.outcomes == {("blob", outcome): 1}


async def test_a_body_that_breaks_off_has_failed_though_its_status_was_200(edge: Edge) -> None:
    blob = edge.mirror.add_blob(DATA, FakeBlob(DATA, error=UnreachableError("cut"), fail_at=200_000))
    with pytest.raises(aiohttp.ClientError):
        await edge.get(f"/v2/library/nginx/blobs/{blob}")
    assert edge.counts.outcomes == {("blob", "failed"): 1}


async def test_a_client_that_leaves_has_left(edge: Edge) -> None:
    gate = asyncio.Event()
    blob = edge.mirror.add_blob(DATA, FakeBlob(DATA, gate=gate, gate_at=100_000))
    reader, writer = await edge.connect()
    writer.write(f"GET /v2/library/nginx/blobs/{blob} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readexactly(1000)
    writer.transport.abort()
    await until(lambda: edge.counts.open == 0)
    assert edge.counts.outcomes == {("blob", "left"): 1}


async def test_a_client_that_takes_nothing_has_left_as_well() -> None:
    big = bytes(64 * 2**20)
    async with running_edge(progress_timeout=0.1) as edge:
        blob = edge.mirror.add_blob(big, FakeBlob(big))
        _, writer = await edge.connect(limit=1024)
        writer.write(f"GET /v2/library/nginx/blobs/{blob} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: edge.counts.outcomes != {})
        assert edge.counts.outcomes == {("blob", "left"): 1}
