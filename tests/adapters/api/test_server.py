"""Listeners: who may connect, for how long, and how it ends. On both loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from p2pdist.api.registry import build_registry_app
from p2pdist.api.server import Listener, ListenerSettings
from p2pdist.errors import ConfigError
from p2pdist.oci.digest import Digest
from p2pdist.testing.fake_mirror import FakeBlob
from tests.adapters.api.registry_edge import BOUND, Edge, read_to_end, running_edge, until

PING = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
DATA = bytes(400_000)


@asynccontextmanager
async def edge_with(**limits: float) -> AsyncIterator[Edge]:
    settings = ListenerSettings("mirror.listen", **limits)  # type: ignore[arg-type]
    async with running_edge(settings=settings) as edge:
        yield edge


async def answer_line(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(BOUND):
        return await reader.readline()


# -- what arrives --


async def test_a_tls_hello_is_hung_up_on_at_once(edge: Edge) -> None:
    reader, writer = await edge.connect()
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200))
    assert await read_to_end(reader) == b""
    writer.close()
    context = ssl.create_default_context()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await edge.connect(ssl=context, server_hostname="localhost")
    assert (await edge.get("/v2/")).status == 200


@pytest.mark.parametrize(
    "noise",
    [
        b"\r\n\r\n\x00\x00",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nA: " + b"x" * 9000 + b"\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n" + b"A: b\r\n" * 100 + b"\r\n",
        b"GET /v2/ HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
    ids=lambda noise: repr(noise[:24]),
)
async def test_what_is_not_http_is_refused_and_closed_without_a_line_in_the_log(
    edge: Edge, noise: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await edge.connect()
    writer.write(noise)
    answer = await read_to_end(reader)
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    assert b"\r\nServer: p2pdist\r\n" in answer
    writer.close()
    assert caplog.messages == []
    assert (await edge.get("/v2/")).status == 200


@pytest.mark.parametrize("start", [b"", b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: b"])
async def test_headers_that_do_not_come_to_an_end_are_not_waited_for(start: bytes) -> None:
    async with edge_with(header_timeout=0.2) as edge:
        reader, writer = await edge.connect()
        writer.write(start)
        assert await read_to_end(reader) == b""
        assert edge.listener.connections == 0
        writer.close()


async def test_an_idle_connection_is_closed(edge: Edge) -> None:
    async with edge_with(idle_timeout=0.2) as impatient:
        reader, writer = await impatient.connect()
        writer.write(PING + b"GET /v2/ HTTP/1.1\r\nA:")
        assert (await read_to_end(reader)).count(b"HTTP/1.1 200 OK") == 1
        writer.close()


async def test_a_request_that_takes_longer_than_the_header_timeout_is_not_cut() -> None:
    async with edge_with(header_timeout=0.1, idle_timeout=0.1) as edge:
        blob = FakeBlob(DATA, gate=asyncio.Event(), gate_at=1000)
        digest = edge.mirror.add_blob(DATA, blob)
        async with edge.session.get(edge.url(f"/v2/a/blobs/{digest}")) as response:
            await response.content.readexactly(1000)
            await asyncio.sleep(0.5)
            assert blob.gate is not None
            blob.gate.set()
            assert len(await response.read()) == len(DATA) - 1000


async def test_one_connection_too_many_is_refused_and_the_others_go_on() -> None:
    async with edge_with(max_connections=2) as edge:
        first, second = await edge.connect(), await edge.connect()
        for reader, writer in (first, second):
            writer.write(PING)
            assert await answer_line(reader) == b"HTTP/1.1 200 OK\r\n"
        reader, writer = await edge.connect()
        writer.write(PING)
        assert await read_to_end(reader) == b""
        writer.close()
        first[1].write(PING)
        assert edge.listener.connections == 2
        first[1].close()
        await until(lambda: edge.listener.connections == 1)
        assert (await edge.get("/v2/")).status == 200
        second[1].close()


async def test_keep_alive_and_close_as_the_client_says(edge: Edge) -> None:
    reader, writer = await edge.connect()
    writer.write(PING + PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    received = await read_to_end(reader)
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.count(b"Connection: close") == 1
    writer.close()
    for version, extra, kept in ((b"1.0", b"", False), (b"1.0", b"Connection: keep-alive\r\n", True)):
        reader, writer = await edge.connect()
        writer.write(b"GET /v2/ HTTP/" + version + b"\r\n" + extra + b"\r\n")
        await answer_line(reader)
        head = await reader.readuntil(b"\r\n\r\n{}")
        assert (b"keep-alive" in head) is kept
        writer.close()


async def test_a_body_nobody_asked_for_does_not_hold_the_connection() -> None:
    async with edge_with(linger=0.1) as edge:
        reader, writer = await edge.connect()
        writer.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nxyz")
        received = await read_to_end(reader)
        assert received.startswith(b"HTTP/1.1 200 OK")
        assert edge.listener.connections == 0
        writer.close()


async def test_the_server_does_not_tell_what_it_is_made_of(edge: Edge) -> None:
    assert (await edge.get("/v2/")).headers["Server"] == "p2pdist"


# -- binding --


async def test_a_port_in_use_names_the_key_and_the_way_out(edge: Edge) -> None:
    other = Listener(app_of(edge), ListenerSettings("mirror.listen"))
    with pytest.raises(
        ConfigError, match=r"mirror\.listen = 127\.0\.0\.1:\d+: another program listens there"
    ):
        await other.start("127.0.0.1", edge.listener.port)
    await other.close()


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("192.0.2.1", 0, "this host has no such address"),
        ("no such host.invalid", 0, "does not resolve"),
        ("127.0.0.1", 70000, "not within 0 to 65535"),
    ],
)
async def test_an_address_that_cannot_be_bound(edge: Edge, host: str, port: int, message: str) -> None:
    listener = Listener(app_of(edge), ListenerSettings("admin.listen"))
    with pytest.raises(ConfigError, match=r"admin\.listen") as caught:
        await listener.start(host, port)
    assert message in str(caught.value)
    assert not listener.listening


def app_of(edge: Edge) -> web.Application:
    return build_registry_app(edge.mirror, edge.counts)


async def test_ipv6_where_there_is_any(edge: Edge) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this host has no IPv6 loopback")
    listener = Listener(app_of(edge), ListenerSettings("mirror.listen"))
    await listener.start("::1", 0)
    async with edge.session.get(f"http://[::1]:{listener.port}/v2/") as response:
        assert response.status == 200
    await listener.close()


# -- the end --


async def test_closing_refuses_new_ones_lets_the_old_ones_end_and_drops_idle_ones(edge: Edge) -> None:
    blob = FakeBlob(DATA, gate=asyncio.Event(), gate_at=1000)
    digest = edge.mirror.add_blob(DATA, blob)
    idle_reader, idle_writer = await edge.connect()
    idle_writer.write(PING)
    await answer_line(idle_reader)
    async with edge.session.get(edge.url(f"/v2/a/blobs/{digest}")) as response:
        await response.content.readexactly(1000)
        closing = asyncio.ensure_future(edge.listener.close(drain=BOUND))
        assert b"{}" in await read_to_end(idle_reader)
        idle_writer.close()
        assert not edge.listener.listening
        with pytest.raises(OSError):
            await edge.connect()
        assert blob.gate is not None
        blob.gate.set()
        assert len(await response.read()) == len(DATA) - 1000
    await closing
    assert edge.listener.connections == 0
    assert edge.counts.total == len(DATA)


async def test_an_answer_begun_while_closing_says_that_it_is_the_last(edge: Edge) -> None:
    blob = FakeBlob(DATA, gate=asyncio.Event())
    digest = edge.mirror.add_blob(DATA, blob)
    asking = asyncio.ensure_future(edge.get(f"/v2/a/blobs/{digest}"))
    await until(lambda: len(edge.mirror.deliveries) == 1)
    closing = asyncio.ensure_future(edge.listener.close(drain=BOUND))
    await until(lambda: not edge.listener.listening)
    assert blob.gate is not None
    blob.gate.set()
    answer = await asking
    assert answer.headers["Connection"] == "close"
    assert answer.body == DATA
    await closing


async def test_what_does_not_end_in_time_is_cut(edge: Edge) -> None:
    digest = edge.mirror.add_blob(DATA, FakeBlob(DATA, gate=asyncio.Event(), gate_at=1000))
    reader, writer = await edge.connect()
    writer.write(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(BOUND):
        await edge.listener.close(drain=0.1)
    assert len(await read_to_end(reader)) < len(DATA)
    assert edge.mirror.deliveries[0].closed
    writer.close()


async def test_a_client_that_reads_nothing_does_not_hold_the_end_up(edge: Edge) -> None:
    big = Digest("sha256", "0" * 64)
    edge.mirror.blobs[big] = FakeBlob(bytes(64 * 1024 * 1024))
    with socket.create_connection(("127.0.0.1", edge.listener.port)) as client:
        client.sendall(f"GET /v2/a/blobs/{big} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: edge.counts.total > 0)
        async with asyncio.timeout(BOUND):
            await edge.listener.close(drain=0.1)
    assert edge.mirror.deliveries[0].closed


async def test_closing_twice_or_before_the_start_is_harmless(edge: Edge) -> None:
    await edge.listener.close()
    await edge.listener.close()
    await Listener(app_of(edge), ListenerSettings("x")).close()
