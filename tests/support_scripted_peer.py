"""A peer that answers what a test tells it to: with the cluster key (a hostile member) or without it (a stranger)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from p2pdist.records import Endpoint, Provider
from p2pdist.wire.http_auth import Credentials, HttpAuth
from tests.support_peers import auth_of, peer_id


@dataclass
class Exchange:
    """One request that has arrived, and the ways to answer it."""

    head: str
    writer: asyncio.StreamWriter
    auth: HttpAuth
    reader: asyncio.StreamReader

    @property
    def credentials(self) -> Credentials:
        line = next(line for line in self.head.split("\r\n") if line.startswith("Authorization: "))
        return Credentials.parse(line.removeprefix("Authorization: "))

    def answer(self, status: int, headers: dict[str, str], *, sealed: bool = True) -> None:
        """Send the head of an answer, sealed as an honest peer would."""
        headers = {"P2PDist-Peer": self.auth.own.hex, **headers}
        if sealed:
            headers["P2PDist-Mac"] = self.auth.seal(self.credentials, status, headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.writer.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode())

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        await asyncio.sleep(0)  # drain returns at once while there is room: the others want a turn too


Script = Callable[[Exchange], Awaitable[None]]


class ScriptedPeer:
    """Counts requests; ``provider`` is how it is found."""

    def __init__(self, port: int) -> None:
        self.provider = Provider(peer_id("scripted"), (Endpoint("127.0.0.1", port),))
        self.requests: list[str] = []


@asynccontextmanager
async def scripted_peer(script: Script, auth: HttpAuth | None = None) -> AsyncIterator[ScriptedPeer]:
    """Serve ``script`` for each request on each connection; the connection is cut when it returns."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            peer.requests.append(head)
            await script(Exchange(head, writer, auth or auth_of("scripted"), reader))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    peer = ScriptedPeer(server.sockets[0].getsockname()[1])
    try:
        yield peer
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
