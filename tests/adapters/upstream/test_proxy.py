"""HTTP proxies from the environment, over real sockets: forwarding for http, CONNECT for https."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pdist.errors import UnreachableError
from tests.adapters.upstream.world import DATA, MANIFEST, Authority, World, fake_registry

CREDENTIALS = "Basic " + base64.b64encode(b"user:p:w").decode()


class TinyProxy:
    """Takes every host for ``target``; notes each request line and the credentials that came with it."""

    def __init__(self, target: int, password: bool) -> None:
        self._target = target
        self._password = password
        self.lines: list[str] = []
        self.leaked = False
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            line, *headers = head.decode().rstrip().split("\r\n")
            self.lines.append(line)
            named = dict(header.split(": ", 1) for header in headers)
            if self._password and named.get("Proxy-Authorization") != CREDENTIALS:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            await self._forward(line, headers, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _forward(
        self, line: str, headers: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        behind_reader, behind = await asyncio.open_connection("127.0.0.1", self._target)
        method, target, version = line.split()
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            kept = [header for header in headers if not header.startswith(("Proxy-", "Connection"))]
            path = "/" + target.partition("://")[2].partition("/")[2]
            lines = [f"{method} {path} {version}", "Connection: close", *kept]
            behind.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipe(reader, behind))
            group.create_task(_pipe(behind_reader, writer))


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


@asynccontextmanager
async def tiny_proxy(target: int, *, password: bool = False) -> AsyncIterator[TinyProxy]:
    proxy = TinyProxy(target, password)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy


async def test_http_is_forwarded_with_the_proxy_s_password() -> None:
    async with fake_registry() as (registry, digest), tiny_proxy(registry.port, password=True) as proxy:
        environ = {"HTTP_PROXY": f"http://user:p%3Aw@127.0.0.1:{proxy.port}"}
        async with World("http://registry.test", environ=environ) as world:
            assert await world.blob(digest) == DATA
            assert (await world.client.manifest(world.repository, "v1")).body == MANIFEST
        assert proxy.lines[0].startswith(f"GET http://registry.test/v2/team/app/blobs/{digest} ")
        assert len(proxy.lines) == 2


async def test_https_goes_through_a_tunnel_and_is_verified_end_to_end(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.server_context("registry.test")
    async with (
        fake_registry(ssl_context=server) as (registry, digest),
        tiny_proxy(registry.port, password=True) as proxy,
    ):
        environ = {"https_proxy": f"http://user:p%3Aw@127.0.0.1:{proxy.port}"}
        trust = {"ca_file": authority.ca_file}
        async with World("https://registry.test", environ=environ, registry=trust) as world:
            assert await world.blob(digest) == DATA
        assert set(proxy.lines) == {"CONNECT registry.test:443 HTTP/1.1"}
        async with World("https://other.test", environ=environ, registry=trust) as world:
            with pytest.raises(UnreachableError, match="not trusted"):
                await world.blob(digest)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_a_password(scheme: str) -> None:
    async with fake_registry() as (registry, digest), tiny_proxy(registry.port, password=True) as proxy:
        environ = {f"{scheme}_proxy": f"http://user:s3cret@127.0.0.1:{proxy.port}"}
        async with World(f"{scheme}://registry.test", environ=environ) as world:
            with pytest.raises(UnreachableError, match="407") as caught:
                await world.blob(digest)
        assert "s3cret" not in str(caught.value)


async def test_a_proxy_that_is_not_there() -> None:
    async with fake_registry() as (registry, digest), tiny_proxy(registry.port) as proxy:
        pass
    environ = {"HTTP_PROXY": f"http://user:s3cret@127.0.0.1:{proxy.port}"}
    async with World("http://registry.test", environ=environ) as world:
        with pytest.raises(UnreachableError, match="the HTTP proxy cannot be reached") as caught:
            await world.blob(digest)
    assert "s3cret" not in str(caught.value)


async def test_loopback_and_no_proxy_go_straight() -> None:
    async with fake_registry() as (registry, digest):
        nowhere = {"HTTP_PROXY": "http://127.0.0.1:1"}
        async with World(registry.url, environ=nowhere) as world:
            assert await world.blob(digest) == DATA
        async with World("http://registry.test", environ={**nowhere, "NO_PROXY": ".test"}) as world:
            with pytest.raises(UnreachableError, match=r"registry\.test cannot be resolved"):
                await world.blob(digest)
