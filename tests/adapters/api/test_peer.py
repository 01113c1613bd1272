"""The peer listener as strangers and members see it on the wire."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pdist.api.peer_listener import ConnectionLimits
from p2pdist.clock import SystemClock
from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId
from p2pdist.wire.http_auth import CHALLENGE_HEADER, MAC_HEADER, Credentials, SteadyWall, Target
from p2pdist.wire.http_verifier import Refusal
from tests.support_peers import OTHER_KEY, PeerBench, ServedPeer, auth_of, fetch, peer_id

DATA = bytes(range(256)) * 1000
CLOCK = SystemClock()
TIME = SteadyWall(CLOCK.wall(), CLOCK.now())


@pytest.fixture
def bench(tmp_path: Path) -> PeerBench:
    return PeerBench(tmp_path)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """A connection on which a test writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)

    async def ask(self, method: str, path: str, **headers: str) -> Answer:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
        return await self.answer(body=method != "HEAD")

    async def answer(self, *, body: bool = True) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        length = int(headers.get("Content-Length", 0)) if body else 0
        return Answer(int(head[0].split()[1]), headers, await self.reader.readexactly(length))

    async def closed(self) -> bool:
        """Whether the other side ends the connection (within the bound of the test)."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def wire_to(peer: ServedPeer) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(peer.host, peer.listener.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def credentials_for(
    method: str, path: str, byte_range: str = "", *, to: PeerId | None = None, nonce: bytes | None = None
) -> Credentials:
    now = TIME.ms(CLOCK.now()) + 2000  # later than the listener's start, as a verifier just started demands
    target = Target(method, path, byte_range)
    return auth_of("leech").sign(target, to or peer_id("seed"), now, nonce or os.urandom(16))


def authorized(method: str, path: str, byte_range: str = "") -> dict[str, str]:
    header = credentials_for(method, path, byte_range).header()
    return {"Authorization": header, **({"Range": byte_range} if byte_range else {})}


def path_of(digest: Digest) -> str:
    return f"/p2p/v1/blobs/{digest}"


async def test_strangers_get_one_constant_answer_for_everything(bench: PeerBench) -> None:
    async with bench.peer() as seed:
        held = path_of(seed.shelf.put(DATA))
        absent = path_of(Digest.of(b"absent"))
        answers = set()
        for method, path in (
            ("GET", held),
            ("GET", absent),
            ("GET", "/"),
            ("GET", "/p2p/v1/hello"),
            ("POST", held),
            ("DELETE", "/x"),
        ):
            async with wire_to(seed) as wire:
                answer = await wire.ask(method, path)
                del answer.headers["Date"]
                answers.add((answer.status, str(sorted(answer.headers.items())), answer.body))
                assert await wire.closed()
        assert len(answers) == 1
        status, headers, body = answers.pop()
        assert (status, body) == (401, b"unauthorized\n")
        assert "P2PDist" not in headers
        assert "('Server', 'p2pdist')" in headers
        assert set(seed.hooks.refusals) == {Refusal.MALFORMED}
        assert seed.shelf.open_readers == 0


async def test_a_replayed_request_is_refused(bench: PeerBench) -> None:
    async with bench.peer() as seed, wire_to(seed) as wire, wire_to(seed) as elsewhere:
        path = path_of(seed.shelf.put(DATA))
        headers = authorized("GET", path)
        assert (await wire.ask("GET", path, **headers)).body == DATA
        for again in (wire, elsewhere):
            answer = await again.ask("GET", path, **headers)
            assert (answer.status, answer.body) == (401, b"unauthorized\n")
            assert CHALLENGE_HEADER in answer.headers
            assert MAC_HEADER not in answer.headers
        assert seed.hooks.refusals == [Refusal.REPLAY, Refusal.REPLAY]
        assert await seed.bytes_sent() == len(DATA)


async def test_a_request_for_one_peer_does_not_open_another(bench: PeerBench) -> None:
    """Whoever takes over a dead peer's address cannot pass on what it is asked."""
    async with bench.peer() as seed, wire_to(seed) as wire:
        path = path_of(seed.shelf.put(DATA))
        meant_for_other = credentials_for("GET", path, to=peer_id("other")).header()
        assert (await wire.ask("GET", path, Authorization=meant_for_other)).status == 401


async def test_a_widened_range_is_refused(bench: PeerBench) -> None:
    async with bench.peer() as seed, wire_to(seed) as wire:
        path = path_of(seed.shelf.put(DATA))
        header = credentials_for("GET", path, "bytes=0-9").header()
        assert (await wire.ask("GET", path, Authorization=header, Range="bytes=0-")).status == 401
        assert (await wire.ask("GET", path, Authorization=header)).status == 401


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=255990-", 206, 255_990, 256_000),
        ("bytes=-10", 206, 255_990, 256_000),
        ("bytes=10-9999999", 206, 10, 256_000),
        ("bytes=0-1,5-6", 200, 0, 256_000),
        ("lines=1-2", 200, 0, 256_000),
        ("bytes=9-1", 200, 0, 256_000),
    ],
)
async def test_ranges(bench: PeerBench, asked: str, status: int, start: int, stop: int) -> None:
    async with bench.peer() as seed, wire_to(seed) as wire:
        path = path_of(seed.shelf.put(DATA))
        answer = await wire.ask("GET", path, **authorized("GET", path, asked))
        assert (answer.status, answer.body) == (status, DATA[start:stop])
        if status == 206:
            assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/256000"
        else:
            assert "Content-Range" not in answer.headers
        assert await seed.bytes_sent() == stop - start


async def test_a_range_outside_is_416(bench: PeerBench) -> None:
    async with bench.peer() as seed, wire_to(seed) as wire:
        path = path_of(seed.shelf.put(DATA))
        answer = await wire.ask("GET", path, **authorized("GET", path, "bytes=256000-"))
        assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */256000")


async def test_every_answer_to_a_member_is_sealed(bench: PeerBench) -> None:
    async with bench.peer() as seed, wire_to(seed) as wire:
        held = path_of(seed.shelf.put(DATA))
        for method, path, status in (
            ("GET", held, 200),
            ("HEAD", held, 200),
            ("GET", path_of(Digest.of(b"absent")), 404),
            ("HEAD", path_of(Digest.of(b"absent")), 404),
            ("GET", "/p2p/v1/blobs/sha256:xyz", 400),
            ("GET", "/elsewhere", 404),
            ("POST", held, 405),
            ("GET", "/p2p/v1/hello", 200),
        ):
            credentials = credentials_for(method, path)
            answer = await wire.ask(method, path, Authorization=credentials.header())
            assert answer.status == status, path
            seal = answer.headers[MAC_HEADER]
            auth_of("leech").check_seal(seal, credentials, peer_id("seed"), status, answer.headers)


async def test_head_has_the_length_and_no_body(bench: PeerBench) -> None:
    async with bench.peer() as seed, wire_to(seed) as wire:
        path = path_of(seed.shelf.put(DATA, "a/b"))
        for _ in range(2):
            answer = await wire.ask("HEAD", path, **authorized("HEAD", path))
            assert (answer.status, answer.headers["Content-Length"]) == (200, "256000")
            assert answer.headers["P2PDist-Media-Type"] == "a/b"
        assert await seed.bytes_sent() == 0


async def test_a_media_type_that_would_break_the_header_is_left_out(bench: PeerBench) -> None:
    async with bench.peer() as seed, wire_to(seed) as wire:
        path = path_of(seed.shelf.put(DATA, "a/b\r\nX: y"))
        answer = await wire.ask("HEAD", path, **authorized("HEAD", path))
        assert answer.status == 200
        assert "P2PDist-Media-Type" not in answer.headers


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\0" * 1000,
        b"\r\n" * 100_000,
    ],
    ids=["TLS", "many headers", "long header", "long path", "zeros", "empty lines"],
)
async def test_noise_is_answered_briefly_and_not_logged(
    bench: PeerBench, noise: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    limits = ConnectionLimits(stranger_timeout=0.5)
    async with bench.peer(limits=limits) as seed, wire_to(seed) as wire:
        wire.send(noise)
        try:
            answer = await wire.reader.read()
        except ConnectionError:
            answer = b""
        assert len(answer) < 300
        assert b"Python" not in answer
        assert b"aiohttp" not in answer
    assert not caplog.records


async def test_a_stranger_that_dribbles_is_cut_off_and_a_member_is_not(bench: PeerBench) -> None:
    limits = ConnectionLimits(stranger_timeout=0.2)
    async with bench.peer(limits=limits) as seed, wire_to(seed) as silent, wire_to(seed) as dribbling:
        async with bench.client() as peers:
            digest = seed.shelf.put(DATA)
            assert await fetch(peers, seed.provider, digest) == DATA

            async def dribble() -> None:
                while not dribbling.writer.is_closing():
                    dribbling.send(b"G")
                    await asyncio.sleep(0.01)

            async with asyncio.TaskGroup() as group:
                task = group.create_task(dribble())
                assert await silent.closed()
                assert await dribbling.closed()
                task.cancel()
            while seed.listener.connections > 1:
                await asyncio.sleep(0.01)
            assert await fetch(peers, seed.provider, digest) == DATA
            assert seed.listener.connections == 1, "the member's connection outlived the strangers'"


async def test_strangers_are_bounded_in_number_and_members_come_in_again(bench: PeerBench) -> None:
    limits = ConnectionLimits(max_strangers=8, max_strangers_per_address=4, stranger_timeout=30)
    async with bench.peer(limits=limits) as seed:
        wires = [Wire(*await asyncio.open_connection("127.0.0.1", seed.listener.port)) for _ in range(10)]
        for refused in wires[4:]:
            assert await refused.closed()
        assert seed.listener.strangers == 4
        for wire in wires:
            wire.writer.close()
        while seed.listener.connections:
            await asyncio.sleep(0.01)
        async with bench.client() as peers:
            assert await fetch(peers, seed.provider, seed.shelf.put(DATA)) == DATA


async def test_members_do_not_count_as_strangers(bench: PeerBench) -> None:
    limits = ConnectionLimits(max_strangers=1, max_connections=3)
    async with bench.peer(limits=limits) as seed:
        path = path_of(seed.shelf.put(DATA))
        wires = []
        for _ in range(3):
            wire = Wire(*await asyncio.open_connection("127.0.0.1", seed.listener.port))
            assert (await wire.ask("GET", path, **authorized("GET", path))).status == 200
            wires.append(wire)
        assert (seed.listener.connections, seed.listener.strangers) == (3, 0)
        async with wire_to(seed) as one_too_many:
            assert await one_too_many.closed()
        for wire in wires:
            wire.writer.close()


async def test_wrong_keys_stay_strangers(bench: PeerBench) -> None:
    limits = ConnectionLimits(stranger_timeout=0.2)
    async with bench.peer(limits=limits) as seed, wire_to(seed) as wire:
        path = path_of(seed.shelf.put(DATA))
        target = Target("GET", path)
        outsider = auth_of("leech", OTHER_KEY)
        for number in range(3):
            forged = outsider.sign(target, peer_id("seed"), TIME.ms(CLOCK.now()), bytes([number]) * 16)
            assert (await wire.ask("GET", path, Authorization=forged.header())).status == 401
        assert seed.listener.strangers == 1
        assert await wire.closed()


async def test_a_port_in_use_is_an_os_error(bench: PeerBench) -> None:
    async with bench.peer() as seed:
        with pytest.raises(OSError, match="in use"):
            async with bench.peer("second", port=seed.listener.port):
                pass


async def test_closing_cuts_what_is_on_its_way(bench: PeerBench) -> None:
    async with bench.peer() as seed:
        digest = seed.shelf.put(DATA * 100)
        reader, writer = await asyncio.open_connection(seed.host, seed.listener.port, limit=1000)
        wire = Wire(reader, writer)
        path = path_of(digest)
        lines = f"Authorization: {authorized('GET', path)['Authorization']}\r\n"
        wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
        await reader.readexactly(10)
    writer.close()
    assert seed.shelf.open_readers == 0
