"""The mirror's edge on a loopback socket in front of a FakeMirror, as the tests of it use it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from p2pdist.api.registry import RegistrySettings, build_registry_app
from p2pdist.api.server import Listener, ListenerSettings
from p2pdist.oci.reference import Repository
from p2pdist.testing.fake_mirror import FakeMirror

NGINX = Repository("docker.io", "library/nginx")
BOUND = 20.0


@dataclass
class Counts:
    """Implements RegistryHooks."""

    delivered: Counter[tuple[str, str]] = field(default_factory=Counter)
    pulled: list[tuple[str, str]] = field(default_factory=list)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    open: int = 0

    def on_begun(self) -> None:
        self.open += 1

    def on_ended(self) -> None:
        self.open -= 1

    def on_delivered(self, registry: str, source: str, size: int) -> None:
        assert size > 0
        self.delivered[registry, source] += size

    def on_pulled(self, kind: str, source: str, seconds: float) -> None:
        assert seconds >= 0
        self.pulled.append((kind, source))

    def on_outcome(self, kind: str, outcome: str) -> None:
        self.outcomes[kind, outcome] += 1

    @property
    def total(self) -> int:
        return self.delivered.total()


@dataclass
class Edge:
    """A running edge, and a client to it."""

    mirror: FakeMirror
    counts: Counts
    listener: Listener
    session: aiohttp.ClientSession
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.listener.port}{path}"

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self.session.request(method, self.url(path), **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask("GET", path, headers=named)

    async def head(self, path: str, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask("HEAD", path, headers=named)

    async def connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of one's own; closed at the latest when the edge is."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port, **options)
        self.writers.append(writer)
        return reader, writer


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Any
    body: bytes

    @property
    def code(self) -> str:
        """The OCI error code in the body."""
        import json

        return str(json.loads(self.body)["errors"][0]["code"])


@asynccontextmanager
async def running_edge(
    *, progress_timeout: float = 60.0, settings: ListenerSettings | None = None
) -> AsyncIterator[Edge]:
    """An edge on a free port, closed at the end."""
    mirror, counts = FakeMirror(), Counts()
    app = build_registry_app(mirror, counts, RegistrySettings(progress_timeout=progress_timeout))
    listener = Listener(app, settings or ListenerSettings("mirror.listen"))
    await listener.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        edge = Edge(mirror, counts, listener, session)
        try:
            yield edge
        finally:
            for writer in edge.writers:
                writer.transport.abort()
            await listener.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, for as long as a broken program may be waited for."""
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.005)


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side closes, however it closes."""
    received = bytearray()
    async with asyncio.timeout(BOUND):
        while True:
            try:
                chunk = await reader.read(65536)
            except ConnectionError:
                return bytes(received)
            if not chunk:
                return bytes(received)
            received += chunk


def pull_lines(records: list[logging.LogRecord]) -> list[dict[str, Any]]:
    """The fields of the log lines about pulls."""
    return [record.__dict__["fields"] for record in records if "fields" in record.__dict__]
