"""Bodies on their way: ranges, exact counts, and what happens when either side fails in the middle. On both loops."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.api.body import BrokenBodyError, plan_body, plan_items
from p2pdist.errors import StalledError, StoreError, UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.testing.fake_mirror import FakeBlob, FakeDelivery
from p2pdist.transfer.content import BytesSpan, Source
from tests.adapters.api.registry_edge import NGINX, Edge, pull_lines, read_to_end, running_edge, until

DATA = random.Random(7).randbytes(300_000)
BIG = random.Random(8).randbytes(16 * 1024 * 1024)


@pytest.fixture
async def impatient() -> AsyncIterator[Edge]:
    """An edge that cuts clients off that take nothing for half a second."""
    async with running_edge(progress_timeout=0.5) as edge:
        yield edge


@pytest.fixture(params=["memory", "small file", "large file"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[bytes, FakeBlob]:
    """A blob and its bytes, as each kind of span."""
    data = DATA[:5000] if request.param == "small file" else DATA
    if request.param == "memory":
        return data, FakeBlob(data, span=10_000)
    path = tmp_path / "blob"
    path.write_bytes(data)
    return data, FakeBlob(path=path, span=1 << 30)


def blob_path(digest: Digest) -> str:
    return f"/v2/library/nginx/blobs/{digest}"


async def start_get(
    edge: Edge, digest: Digest, *headers: str, **options: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a blob on a connection of one's own."""
    reader, writer = await edge.connect(**options)
    lines = [f"GET {blob_path(digest)} HTTP/1.1", "Host: x", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    return reader, writer


async def head_and_body(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head, _, body = (await read_to_end(reader)).partition(b"\r\n\r\n")
    return head, body


# -- ranges --


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-", 0, None),
        ("bytes=0-0", 0, 1),
        ("bytes=100-4999", 100, 5000),
        ("bytes=-1", -1, None),
        ("bytes=-999999999", 0, None),
        ("bytes=4000-999999999", 4000, None),
    ],
)
async def test_one_range(
    edge: Edge, served: tuple[bytes, FakeBlob], asked: str, start: int, stop: int | None
) -> None:
    data, blob = served
    digest = edge.mirror.add_blob(data, blob)
    answer = await edge.get(blob_path(digest), Range=asked)
    expected = data[start:stop]
    first = start % len(data)
    assert (answer.status, answer.body) == (206, expected)
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{len(data)}"
    assert answer.headers["Content-Length"] == str(len(expected))
    await until(lambda: edge.counts.total == len(expected))
    assert edge.mirror.deliveries[0].given == len(expected)


async def test_several_ranges_are_a_multipart_whose_framing_is_not_counted(
    edge: Edge, served: tuple[bytes, FakeBlob]
) -> None:
    data, blob = served
    blob.media_type = "application/vnd.test"
    digest = edge.mirror.add_blob(data, blob)
    answer = await edge.get(blob_path(digest), Range="bytes=4000-4009, 0-0, -5")
    assert answer.status == 206
    assert answer.headers["Content-Length"] == str(len(answer.body))
    message = message_from_bytes(
        b"Content-Type: " + answer.headers["Content-Type"].encode() + b"\r\n\r\n" + answer.body
    )
    parts = message.get_payload()
    assert isinstance(parts, list)
    found = []
    for part in parts:
        assert isinstance(part, Message)
        assert part["Content-Type"] == "application/vnd.test"
        found.append((part["Content-Range"], part.get_payload(decode=True)))
    assert [each[0].partition("/")[0] for each in found[:2]] == ["bytes 4000-4009", "bytes 0-0"]
    size = len(data)
    assert [each[0] for each in found][2] == f"bytes {size - 5}-{size - 1}/{size}"
    await until(lambda: edge.counts.total == 16)


@pytest.mark.parametrize("asked", ["bytes=300000-", "bytes=999999-9999999"])
async def test_a_range_beyond_the_end(edge: Edge, asked: str) -> None:
    digest = edge.mirror.add_blob(DATA)
    answer = await edge.get(blob_path(digest), Range=asked)
    assert (answer.status, answer.code) == (416, "RANGE_INVALID")
    assert answer.headers["Content-Range"] == "bytes */300000"
    assert edge.counts.total == 0
    assert edge.mirror.deliveries[0].closed


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=", "bytes=5-1", "bytes=x-y", "bytes=" + "0-0," * 100])
async def test_a_range_that_means_nothing_is_ignored(edge: Edge, asked: str) -> None:
    digest = edge.mirror.add_blob(DATA)
    answer = await edge.get(blob_path(digest), Range=asked)
    assert (answer.status, answer.body) == (200, DATA)


async def test_if_range_and_range_on_head_and_manifests(edge: Edge) -> None:
    digest = edge.mirror.add_blob(DATA)
    path = blob_path(digest)
    assert (await edge.get(path, Range="bytes=0-4", If_Range=f'"{digest}"')).status == 206
    assert (await edge.get(path, Range="bytes=0-4", If_Range='"other"')).body == DATA
    assert (await edge.get(path, Range="bytes=0-4", If_Range="Wed, 21 Oct 2015 07:28:00 GMT")).status == 200
    head = await edge.head(path, Range="bytes=0-4")
    assert (head.status, head.headers["Content-Length"]) == (200, "300000")
    edge.mirror.add_manifest(NGINX, "v1", b'{"schemaVersion":2}')
    manifest = await edge.get("/v2/library/nginx/manifests/v1", Range="bytes=0-")
    assert (manifest.status, manifest.body) == (206, b'{"schemaVersion":2}')
    assert manifest.headers["Content-Range"] == "bytes 0-18/19"


@given(
    size=st.integers(0, 50),
    ranges=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=5),
    span=st.integers(1, 20),
)
async def test_a_plan_is_exactly_as_long_as_its_headers_say(
    size: int, ranges: list[tuple[int, int]], span: int
) -> None:
    data = bytes(range(size))
    header = "bytes=" + ",".join(f"{first}-{last}" for first, last in ranges)
    try:
        plan = plan_body({"Range": header}, size, '"x"', "a/b")
    except ValueError:
        assert size
        assert all(first >= size for first, _ in ranges)
        return
    delivery = FakeDelivery(Digest.of(data), FakeBlob(data, span=span))
    length = 0
    async for item in plan_items(plan, delivery):
        length += item.length if not isinstance(item, bytes) else len(item)
    assert length == plan.length


@pytest.mark.parametrize(
    "blob", [FakeBlob(b"x" * 100, fail_at=50), FakeBlob(b"x" * 100, surplus=b"y")], ids=["short", "long"]
)
async def test_a_source_that_gives_another_length_than_promised_is_a_fault(blob: FakeBlob) -> None:
    plan = plan_body({}, 100, '"x"', "a/b")
    items = plan_items(plan, FakeDelivery(Digest.of(b""), blob))
    assert isinstance(await anext(items), BytesSpan)
    with pytest.raises(BrokenBodyError):
        await anext(items)


# -- streaming, and failures in the middle --


async def test_the_client_has_the_first_bytes_while_the_rest_is_still_to_come(edge: Edge) -> None:
    blob = FakeBlob(DATA, gate=asyncio.Event(), gate_at=100_000, parts=((0, Source.UPSTREAM),))
    digest = edge.mirror.add_blob(DATA, blob)
    async with edge.session.get(edge.url(blob_path(digest))) as response:
        start = await response.content.readexactly(100_000)
        await until(lambda: edge.counts.total == 100_000)
        assert edge.counts.open == 1
        assert blob.gate is not None
        blob.gate.set()
        assert start + await response.read() == DATA
    assert edge.counts.delivered == {("docker.io", "upstream"): len(DATA)}
    await until(lambda: edge.counts.open == 0)


@pytest.mark.parametrize(
    ("error", "status"), [(UnreachableError("cut"), 502), (StalledError("x"), 504), (None, 500)]
)
async def test_a_failure_before_the_first_byte_is_an_answer(
    edge: Edge, error: Exception | None, status: int
) -> None:
    digest = edge.mirror.add_blob(DATA, FakeBlob(DATA, error=error, fail_at=0))
    for _ in range(2):
        answer = await edge.get(blob_path(digest))
        assert answer.status == status
    assert edge.counts.total == 0
    assert all(each.closed for each in edge.mirror.deliveries)


@pytest.mark.parametrize("asked", ["", "Range: bytes=0-299998", "Range: bytes=0-9,50-299998"])
@pytest.mark.parametrize("error", [UnreachableError("cut"), None, RuntimeError("fault")])
async def test_a_failure_afterwards_breaks_the_body_off(
    edge: Edge, error: Exception | None, asked: str, caplog: pytest.LogCaptureFixture
) -> None:
    digest = edge.mirror.add_blob(DATA, FakeBlob(DATA, error=error, fail_at=200_000))
    headers = [asked] if asked else []
    reader, writer = await start_get(edge, digest, *headers)
    head, body = await head_and_body(reader)
    stated = int(head.lower().partition(b"content-length: ")[2].split()[0])
    assert stated > 200_000
    assert len(body) < stated
    writer.close()
    await until(lambda: edge.mirror.deliveries[0].closed and edge.listener.connections == 0)
    assert edge.counts.total <= 200_000
    assert edge.counts.pulled == []
    (line,) = pull_lines(caplog.records)
    assert line["outcome"]


async def test_more_than_was_promised_is_never_sent(edge: Edge) -> None:
    digest = edge.mirror.add_blob(DATA, FakeBlob(DATA, surplus=b"more"))
    reader, writer = await start_get(edge, digest)
    _, body = await head_and_body(reader)
    assert DATA.startswith(body)
    writer.close()


async def test_a_file_cut_short_from_outside_breaks_the_body_off(edge: Edge, tmp_path: Path) -> None:
    class Shrinking(FakeBlob):
        @property
        def size(self) -> int:
            return len(DATA)

    path = tmp_path / "blob"
    for kept in (200_000, 0):
        path.write_bytes(DATA[:kept])
        digest = edge.mirror.add_blob(DATA, Shrinking(path=path, span=1 << 30))
        reader, writer = await start_get(edge, digest)
        _, body = await head_and_body(reader)
        assert body == DATA[:kept]
        writer.close()
    await until(lambda: edge.counts.total == 200_000)


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_a_client_that_leaves_early_costs_nothing_more(
    edge: Edge, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "p2pdist.mirror")
    path = tmp_path / "blob"
    path.write_bytes(BIG)
    blob = FakeBlob(BIG) if kind == "memory" else FakeBlob(path=path, span=1 << 30)
    digest = edge.mirror.add_blob(BIG, blob)
    reader, writer = await start_get(edge, digest, limit=4096)
    await reader.readexactly(2000)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await until(lambda: edge.listener.connections == 0 and edge.mirror.deliveries[0].closed)
    assert edge.counts.total < len(BIG)
    assert edge.counts.pulled == []
    await until(lambda: bool(pull_lines(caplog.records)))
    assert [record.levelname for record in caplog.records] == ["INFO"]


async def test_a_client_that_leaves_before_the_first_byte_is_noticed(edge: Edge) -> None:
    digest = edge.mirror.add_blob(DATA, FakeBlob(DATA, gate=asyncio.Event()))
    _, writer = await start_get(edge, digest)
    await until(lambda: len(edge.mirror.deliveries) == 1)
    writer.close()
    await until(lambda: edge.mirror.deliveries[0].closed)
    await until(lambda: edge.counts.open == 0)
    assert edge.listener.connections == 0


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_a_client_that_takes_nothing_is_cut_off(
    impatient: Edge, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(BIG)
    blob = FakeBlob(BIG) if kind == "memory" else FakeBlob(path=path, span=1 << 30)
    digest = impatient.mirror.add_blob(BIG, blob)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", impatient.listener.port))
    client.sendall(f"GET {blob_path(digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await until(lambda: impatient.listener.connections == 1)
    await until(lambda: impatient.listener.connections == 0)
    await until(lambda: impatient.mirror.deliveries[0].closed)
    client.close()
    assert 0 < impatient.counts.total < len(BIG)
    (line,) = pull_lines(caplog.records)
    assert line["bytes"] == impatient.counts.total


async def test_a_slow_source_is_not_the_clients_fault(impatient: Edge) -> None:
    """The watch has seen many more turns than it needs to cut a client off; this one has taken all there is."""
    blob = FakeBlob(DATA, gate=asyncio.Event(), gate_at=1000)
    digest = impatient.mirror.add_blob(DATA, blob)
    async with impatient.session.get(impatient.url(blob_path(digest))) as response:
        await response.content.readexactly(1000)
        await asyncio.sleep(1.0)
        assert blob.gate is not None
        blob.gate.set()
        assert await response.read() == DATA[1000:]


async def test_finished_bodies_are_counted_to_the_byte(edge: Edge, tmp_path: Path) -> None:
    """A reader with a small window, so that much of the body waits in the transport when the last byte is written."""
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    digest = edge.mirror.add_blob(DATA, FakeBlob(DATA, span=50_000))
    filed = Digest("sha256", "a" * 64)
    edge.mirror.blobs[filed] = FakeBlob(path=path, span=70_000, parts=((123, Source.PEER), (0, Source.STORE)))
    for wanted in (digest, filed) * 3:
        reader, writer = await start_get(edge, wanted, "Connection: close", limit=2048)
        _, body = await head_and_body(reader)
        assert body == DATA
        writer.close()
    await until(lambda: len(edge.counts.pulled) == 6)
    assert edge.counts.delivered == {
        ("docker.io", "store"): 6 * len(DATA) - 3 * 123,
        ("docker.io", "peer"): 3 * 123,
    }


async def test_ten_at_once_on_one_connection_come_in_order(edge: Edge) -> None:
    blobs = [bytes([number]) * 1000 for number in range(10)]
    digests = [edge.mirror.add_blob(data) for data in blobs]
    reader, writer = await edge.connect()
    for digest in digests[:-1]:
        writer.write(f"GET {blob_path(digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    writer.write(f"GET {blob_path(digests[-1])} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    received = await read_to_end(reader)
    bodies = [part.partition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == blobs
    writer.close()


async def test_http_1_0_clients_get_a_length_and_a_close(edge: Edge) -> None:
    digest = edge.mirror.add_blob(DATA)
    reader, writer = await edge.connect()
    writer.write(f"GET {blob_path(digest)} HTTP/1.0\r\n\r\n".encode())
    head, body = await head_and_body(reader)
    assert body == DATA
    assert b"Content-Length: 300000" in head
    assert b"chunked" not in head
    writer.close()


async def test_a_store_fault_is_an_answer_and_the_connection_goes_on(edge: Edge) -> None:
    digest = edge.mirror.add_blob(DATA, FakeBlob(DATA, error=StoreError("damaged"), fail_at=0))
    good = edge.mirror.add_blob(b"good")
    assert (await edge.get(blob_path(digest))).status == 500
    assert (await edge.get(blob_path(good))).body == b"good"
    assert edge.listener.connections == 1
