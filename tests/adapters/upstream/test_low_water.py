"""Large bodies are read in large parts, and yet nothing that has come is held back for what does not come."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from aiohttp import web

from p2pdist.oci.digest import Digest
from p2pdist.upstream import low_water
from p2pdist.upstream.low_water import FIRST, MARK, LowWater
from tests.adapters.upstream.world import Authority, World, scripted

KIB = 1024


@pytest.fixture(autouse=True)
def own_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in is its own second handle."""
    real = low_water.own_socket
    monkeypatch.setattr(
        low_water, "own_socket", lambda each: each if isinstance(each, Socket) else real(each)
    )


class Socket:
    def __init__(self) -> None:
        self.marks: list[int] = []
        self.closed = False

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_RCVLOWAT)
        if self.closed:
            raise OSError("closed")
        self.marks.append(value)

    def close(self) -> None:
        """Only this handle; the marks stay."""


class Body:
    """As much of a response as is looked at."""

    def __init__(self, length: int | None) -> None:
        self.socket = Socket()
        self.content = SimpleNamespace(total_bytes=0, on_eof=lambda callback: None)
        transport = SimpleNamespace(get_extra_info=lambda name: self.socket)
        response = SimpleNamespace(
            connection=SimpleNamespace(transport=transport), content=self.content, content_length=length
        )
        self.low_water = LowWater(cast(aiohttp.ClientResponse, response))

    def wait_at(self, total: int) -> list[int]:
        self.content.total_bytes = total
        self.low_water.wait()
        return self.socket.marks


async def test_the_mark_follows_the_rest_of_the_body() -> None:
    body = Body(FIRST + 300 * KIB)
    assert body.wait_at(0) == []
    assert body.wait_at(FIRST - 1) == []
    assert body.wait_at(FIRST) == [MARK]
    assert body.wait_at(FIRST + 100 * KIB) == [MARK]
    assert body.wait_at(FIRST + 200 * KIB) == [MARK, 100 * KIB]
    body.low_water.close()
    assert body.socket.marks[-1] == 1
    assert body.wait_at(FIRST + 250 * KIB)[-1] == 1


async def test_a_body_of_unknown_length() -> None:
    body = Body(None)
    assert body.wait_at(FIRST) == [MARK]
    body.low_water.close()
    assert body.socket.marks == [MARK, 1]


async def test_what_has_come_is_reported_when_no_more_comes() -> None:
    body = Body(1 << 30)
    body.wait_at(FIRST)
    async with asyncio.timeout(20):
        while body.socket.marks != [MARK, 1]:
            await asyncio.sleep(0.001)
    assert body.wait_at(FIRST + 10) == [MARK, 1, MARK]
    body.low_water.close()


async def test_a_connection_that_was_closed_is_left_alone() -> None:
    body = Body(1 << 30)
    body.socket.closed = True
    assert body.wait_at(FIRST) == []
    body.low_water.close()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("length_is_told", [True, False])
async def test_few_bytes_after_many_are_handed_over_though_no_more_come(
    tls: bool, length_is_told: bool, tmp_path: Path
) -> None:
    data = b"x" * (FIRST + 100 * KIB)
    came: asyncio.Queue[int] = asyncio.Queue()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        size = len(data) + 50
        if request.method == "HEAD" or length_is_told:
            response.content_length = size
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        await response.write(data)
        sent = len(data)
        for _ in range(5):
            while await came.get() < sent:
                pass
            await response.write(b"y" * 10)
            sent += 10
        await response.write_eof()
        return response

    authority = Authority(tmp_path)
    context = authority.server_context("127.0.0.1") if tls else None
    async with scripted(handler, context) as url:
        registry = {"ca_file": authority.ca_file} if tls else {}
        async with World(url, registry=registry) as world:
            count = 0
            async with (
                asyncio.timeout(30),
                world.client.blob(world.repository, Digest.of(data)) as stream,
            ):
                async for chunk in stream.chunks():
                    count += len(chunk)
                    came.put_nowait(count)
            assert count == len(data) + 50


async def test_the_next_answer_on_the_connection_is_read_as_it_comes() -> None:
    """Byte by byte, each only sent when the one before was read."""
    connections = set()

    async def handler(request: web.Request) -> web.StreamResponse:
        connections.add(request.transport)
        return web.Response(body=b"x" * (FIRST + 100 * KIB) if request.path.endswith("a") else b"yz")

    async with scripted(handler) as url, aiohttp.ClientSession() as session:
        async with session.get(f"{url}/a") as response:
            transport = response.connection.transport if response.connection else None
            assert transport is not None
            plug = transport.get_extra_info("socket")
            mark = LowWater(response)
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, MARK)
            mark._socket, mark._mark = low_water.own_socket(plug), MARK
            await response.content.read()
            assert plug.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        async with session.get(f"{url}/b") as response:
            assert await response.read() == b"yz"
        assert len(connections) == 1
