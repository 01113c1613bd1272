"""Ranges of files to clients, on both event loops: exact bytes, exact counts, and nobody left hanging."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web

from p2pdist.api.sendfile import send_file
from p2pdist.errors import StoreError
from p2pdist.testing.tls import TestAuthority

SIZE = 12 * 1024 * 1024 + 5
DATA = random.Random(3).randbytes(SIZE)

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
Run = Callable[[Awaitable[None]], None]


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test's coroutine on one of the loops."""

    def on_loop(coroutine: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(coroutine, 60))

    return on_loop


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sendfile") / "blob"
    path.write_bytes(DATA)
    return path


@dataclass
class Sender:
    """One server whose only answer is a part of the file, and what became of it."""

    path: Path
    spans: list[tuple[int, int]] = field(default_factory=lambda: [(0, SIZE)])
    lead: bytes = b""
    stated: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    counted: int = 0
    results: list[int] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    task: asyncio.Task[Any] | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.task = asyncio.current_task()
        descriptor = os.open(self.path, os.O_RDONLY)
        response = web.StreamResponse()
        length = len(self.lead) + sum(length for _, length in self.spans)
        response.content_length = length if self.stated is None else self.stated
        try:
            if self.lead:
                await response.prepare(request)
                await response.write(self.lead)
            for offset, length in self.spans:
                sent = await send_file(
                    request, response, descriptor, offset, length, on_sent=self._count, **self.options
                )
                self.results.append(sent)
        except BaseException as error:
            self.errors.append(error)
        finally:
            os.close(descriptor)
            self.done.set()
        return response

    def _count(self, size: int) -> None:
        self.counted += size

    @asynccontextmanager
    async def serving(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Sender]:
        app = web.Application()
        app.router.add_get("/", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()


class Client:
    """A client that reads when a test says so."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    @classmethod
    async def ask(cls, port: int, *, receive_buffer: int = 0) -> Client:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client = cls(sock)
        await client.loop.sock_connect(sock, ("127.0.0.1", port))
        await client.loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client

    async def read(self, limit: int | None = None) -> bytes:
        """Up to the end, or at least ``limit`` bytes."""
        received = bytearray()
        while limit is None or len(received) < limit:
            data = await self.loop.sock_recv(self.sock, 256 * 1024)
            if not data:
                break
            received += data
        return bytes(received)

    def close(self) -> None:
        self.sock.close()


async def body_of(sender: Sender) -> bytes:
    client = await Client.ask(sender.port)
    try:
        return (await client.read()).partition(b"\r\n\r\n")[2]
    finally:
        client.close()


@pytest.mark.parametrize(
    ("lead", "spans"),
    [
        (b"", [(0, SIZE)]),
        (b"", [(1, SIZE - 1)]),
        (b"", [(SIZE - 1, 1)]),
        (b"", [(0, 0)]),
        (b"lead" * 100_000, [(12_345, 2_000_001)]),
        (b"x", [(5, 100), (0, 3_000_000), (SIZE - 7, 7)]),
    ],
)
def test_the_bytes_asked_for_arrive_in_order(
    run: Run, path: Path, lead: bytes, spans: list[tuple[int, int]]
) -> None:
    async def check() -> None:
        async with Sender(path, spans, lead).serving() as sender:
            expected = lead + b"".join(DATA[start : start + length] for start, length in spans)
            assert await body_of(sender) == expected
        assert sender.results == [length for _, length in spans]
        assert sender.counted == sum(sender.results)
        assert not sender.errors

    run(check())


def test_many_at_once_share_the_threads(run: Run, path: Path) -> None:
    async def check() -> None:
        async with Sender(path).serving() as sender:
            bodies = await asyncio.gather(*(body_of(sender) for _ in range(12)))
            assert all(body == DATA for body in bodies)
        assert sender.counted == 12 * SIZE

    run(check())


def test_readers_that_stand_still_hold_no_thread(run: Run, path: Path) -> None:
    async def check() -> None:
        async with Sender(path).serving() as sender:
            waiting = [await Client.ask(sender.port, receive_buffer=4096) for _ in range(40)]
            for client in waiting:
                await client.read(1)
            assert await body_of(sender) == DATA, "more clients stand still than the pool has threads"
            for client in waiting:
                client.close()

    run(check())


def test_a_client_that_leaves_ends_the_sending(run: Run, path: Path) -> None:
    async def check() -> None:
        async with Sender(path).serving() as sender:
            client = await Client.ask(sender.port, receive_buffer=4096)
            await client.read(1000)
            client.close()
            await sender.done.wait()
        assert not sender.errors
        assert sender.results[0] == sender.counted < SIZE

    run(check())


def test_a_client_that_reads_nothing_is_cut_off(run: Run, path: Path) -> None:
    async def check() -> None:
        options = {"progress_timeout": 0.2}
        async with Sender(path, options=options).serving() as sender:
            client = await Client.ask(sender.port, receive_buffer=4096)
            await sender.done.wait()
            received = await drained(client)
            client.close()
        assert not sender.errors
        assert sender.results[0] == sender.counted < SIZE
        assert len(received) < SIZE

    run(check())


async def drained(client: Client) -> bytes:
    try:
        return await client.read()
    except ConnectionError:
        return b""


def test_a_file_that_is_too_short_cuts_the_body(run: Run, path: Path, tmp_path: Path) -> None:
    async def check() -> None:
        short = tmp_path / "short"
        short.write_bytes(DATA[:1_000_000])
        async with Sender(short).serving() as sender:
            client = await Client.ask(sender.port)
            body = (await drained(client)).partition(b"\r\n\r\n")[2]
            client.close()
        assert DATA[:1_000_000].startswith(body)
        assert isinstance(sender.errors[0], StoreError)
        assert sender.counted == 1_000_000

    run(check())


def test_cancelling_waits_for_the_thread_and_counts_what_it_sent(run: Run, path: Path) -> None:
    async def check() -> None:
        paced = asyncio.Event()

        async def pace(_: int) -> None:
            paced.set()
            await asyncio.Event().wait()

        async with Sender(path, options={"pace": pace}).serving() as sender:
            client = await Client.ask(sender.port)
            await paced.wait()
        await sender.done.wait()
        client.close()
        assert isinstance(sender.errors[0], asyncio.CancelledError)
        assert 0 < sender.counted < SIZE

    run(check())


def test_cancelling_again_waits_for_the_thread_all_the_same(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client leaves, and the agent stops: the thread still has the socket, whose number must not become another's."""
    begun, go_on = threading.Event(), threading.Event()
    real = os.sendfile

    def held(*arguments: Any) -> int:
        begun.set()
        go_on.wait()
        return real(*arguments)

    monkeypatch.setattr(os, "sendfile", held)

    async def check() -> None:
        async with Sender(path, spans=[(0, 1000)]).serving() as sender:
            client = await Client.ask(sender.port)
            await asyncio.to_thread(begun.wait)
            try:
                assert sender.task is not None
                for _ in range(3):
                    sender.task.cancel()
                    for _ in range(10):
                        await asyncio.sleep(0)
                assert not sender.done.is_set()
            finally:
                go_on.set()
            await sender.done.wait()
            client.close()
        assert isinstance(sender.errors[0], asyncio.CancelledError)
        assert sender.counted == 1000

    run(check())


def test_pace_hears_of_every_byte_in_small_steps(run: Run, path: Path) -> None:
    async def check() -> None:
        steps: list[int] = []

        async def pace(size: int) -> None:
            steps.append(size)

        async with Sender(path, options={"pace": pace}).serving() as sender:
            assert await body_of(sender) == DATA
        assert sum(steps) == SIZE
        assert max(steps) <= 256 * 1024

    run(check())


def test_no_descriptor_is_left_behind(run: Run, path: Path) -> None:
    async def check() -> None:
        async with Sender(path).serving() as sender:
            await body_of(sender)
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(5):
                assert await body_of(sender) == DATA
                client = await Client.ask(sender.port, receive_buffer=4096)
                sender.done.clear()
                client.close()
                await sender.done.wait()
            while len(os.listdir("/proc/self/fd")) > before:
                await asyncio.sleep(0.01)

    run(check())


def test_tls_takes_the_reading_way(run: Run, path: Path, tmp_path: Path) -> None:
    files = TestAuthority().issue(tmp_path)

    async def check() -> None:
        async with Sender(path, [(17, SIZE - 20)], b"lead").serving(files.server_context()) as sender:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", sender.port, ssl=files.client_context()
            )
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            body = (await reader.read()).partition(b"\r\n\r\n")[2]
            writer.close()
            assert body == b"lead" + DATA[17 : SIZE - 3]
        assert sender.counted == SIZE - 20

    run(check())


def test_the_loop_is_never_blocked_by_the_disk(run: Run, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is not in memory takes its time: only a thread may wait for it."""
    threads: set[int] = set()
    real = os.sendfile

    def watched(*arguments: Any) -> int:
        threads.add(threading.get_ident())
        return real(*arguments)

    monkeypatch.setattr(os, "sendfile", watched)

    async def check() -> None:
        async with Sender(path).serving() as sender:
            assert await body_of(sender) == DATA
        assert threads
        assert threading.get_ident() not in threads

    run(check())
