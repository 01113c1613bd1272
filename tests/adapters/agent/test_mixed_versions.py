"""Agents of this version beside a member of a later one, whose words they do not know: their own pulls lose nothing."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from p2pdist.agent.app import Running, run_parts
from p2pdist.clock import SystemClock
from p2pdist.config.load import load_config
from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.records import ContentKey, Endpoint, PeerId, Provider
from p2pdist.testing.registry import FakeRegistry
from p2pdist.wire import codec, dht_messages, swarm_messages
from p2pdist.wire.datagram import Sealer
from p2pdist.wire.dht_messages import Method
from p2pdist.wire.flow_frames import HEAD
from p2pdist.wire.flow_frames import PATH as FLOW
from p2pdist.wire.http_auth import SteadyWall, Target
from p2pdist.wire.sealed_frames import FrameSeal
from tests.support_flow import UPGRADE
from tests.support_peers import KEY, auth_of, peer_id
from tests.support_scripted_peer import Exchange, Script, scripted_peer

CONFIG = """
[agent]
data_dir = "{directory}/data"
name = "{name}"
drain_timeout = "100ms"
[mirror]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[peer]
listen = "127.0.0.1:{port}"
bootstrap = [{bootstrap}]
cluster_key_file = "{key}"
[registries."registry.example.test"]
url = "{url}"
"""
BLOBS = [random.Random(seed).randbytes(3_000_000) for seed in (1, 2)]
LATER = "later"
SWARM = "/p2p/v1/swarm"


class Later:
    """A member of a later version. It holds the cluster's key, names itself as a holder of the first blob, greets with
    fields that this version does not know, asks with methods that it does not know, and answers as the ``script`` has it.
    """

    def __init__(self, port: int) -> None:
        self.peer = peer_id(LATER)
        self.endpoint = Endpoint("127.0.0.1", port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.clock = SystemClock()
        self._sealer = Sealer(KEY.derive("dht"), os.urandom(16), wall=self.clock.wall(), now=self.clock.now())
        self.answered: list[int] = []
        self.announced: dict[object, set[PeerId]] = {}

    def say(self, to: Endpoint, number: int, method: int, body: tuple[object, ...]) -> None:
        """One datagram, with a field at its end that this version does not know."""
        fields = (
            number,
            self.peer.raw,
            b"",
            codec.encode_endpoint(self.endpoint),
            method,
            body,
            "a later field",
        )
        self.send(to, self._sealer.seal(codec.pack(fields), self.clock.now()))

    def send(self, to: Endpoint, data: bytes) -> None:
        self.socket.sendto(data, (to.host, to.port))

    def greet(self, to: Endpoint, digest: Digest) -> None:
        """What an agent of that version would send first; much of it makes no sense to this one."""
        self.say(to, 1, Method.PING, ("a later field",))
        self.say(to, 2, Method.ANNOUNCE, (ContentKey.of_blob(digest).raw, 600_000, True, "", "a later field"))
        self.say(to, 3, 42, ("a later method",))
        self.say(to, 4, Method.FIND, (ContentKey.of_blob(digest).raw, 2, "a later field"))
        self.send(to, b"p\x02" + os.urandom(200))

    async def answer(self) -> None:
        """Answer every request of the others with more than they asked for."""
        while True:
            data, source = await asyncio.get_running_loop().sock_recvfrom(self.socket, 2000)
            opened = self._sealer.open(data, self.clock.now())
            try:
                message = dht_messages.decode_message(getattr(opened, "payload", b""), 2000)
            except InvalidInputError:
                continue
            if message.method is None:
                continue
            self.answered.append(message.method)
            bodies = {
                Method.FIND: ((b"a contact in a later form",), (b"a record in a later form",), "more"),
                Method.ANNOUNCE: (
                    True,
                    self._earlier(message) if message.method is Method.ANNOUNCE else 0,
                    False,
                    (b"a record in a later form",),
                    "more",
                ),
            }
            self.say(Endpoint(*source), message.id, 0, bodies.get(message.method, ("more",)))

    def _earlier(self, message: dht_messages.Message) -> int:
        """How many others announced that key before: it keeps records as all do, and tells of them in a form of its own."""
        announced = self.announced.setdefault(message.body[0], set())
        announced.add(message.sender)
        return len(announced) - 1

    async def flood(self, to: Endpoint, peer: PeerId, digest: Digest) -> tuple[int, int]:
        """On the swarm's link and on a flow: kinds of messages that this version does not know, and longer ones that it
        does. Returns how the flow was opened, and how the link ended, as statuses."""
        own = Provider(self.peer, (self.endpoint,))
        join = swarm_messages._fields(swarm_messages.Join(digest, len(BLOBS[0]), own, frozenset(range(4))))
        frames = [
            codec.pack((9, str(digest), "a later kind")),
            codec.pack((10, 11)),
            codec.pack((*join, "a later field")),
        ]
        async with self._connect("POST", SWARM, to, peer, chunked=True) as (link, writer, seal):
            for frame in frames:
                body = len(frame).to_bytes(4, "big") + seal.next(frame) + frame
                writer.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
            await writer.drain()
            async with self._connect("GET", FLOW, to, peer) as (reader, asks, flow_seal):
                opened = int((await reader.readuntil(b"\r\n\r\n")).split()[1])
                payload = bytes([7]) + b"a later request"
                asks.write(len(payload).to_bytes(2, "big") + flow_seal.next(payload) + payload)
                assert await reader.read() == b""  # it ends this flow, and nothing else
            writer.write(b"0\r\n\r\n")
            return opened, int((await link.readuntil(b"\r\n\r\n")).split()[1])

    @asynccontextmanager
    async def _connect(
        self, method: str, path: str, to: Endpoint, peer: PeerId, *, chunked: bool = False
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, FrameSeal]]:
        reader, writer = await asyncio.open_connection(to.host, to.port)
        auth, time = auth_of(LATER), SteadyWall(self.clock.wall(), self.clock.now())
        made = auth.sign(Target(method, path), peer, time.ms(self.clock.now()) + 2000, os.urandom(16))
        more = "Transfer-Encoding: chunked\r\n" if chunked else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {made.header()}\r\n{more}\r\n"
        writer.write(head.encode())
        try:
            yield reader, writer, auth.frames(made)
        finally:
            writer.transport.abort()


def hello(exchange: Exchange) -> bool:
    """Every version says who it is."""
    if "/p2p/v1/hello" not in exchange.head:
        return False
    exchange.answer(
        200, {"Content-Length": "0", "P2PDist-Name": LATER, "P2PDist-Version": "99.0", "P2PDist-Later": "x"}
    )
    return True


async def other_frames(exchange: Exchange) -> None:
    """It opens flows, and then sends frames of a kind that this version does not know."""
    if hello(exchange):
        return
    if FLOW in exchange.head:
        exchange.answer(101, UPGRADE)
        await exchange.reader.read(100)
        await exchange.send(HEAD.pack(9, 1, 1000))
        await exchange.reader.read()
    elif SWARM in exchange.head:
        await exchange.reader.read()
    else:
        exchange.answer(505, {"Content-Length": "0"})


async def other_paths(exchange: Exchange) -> None:
    """It has its routes elsewhere."""
    if not hello(exchange):
        exchange.answer(404, {"Content-Length": "0"})


async def other_scheme(exchange: Exchange) -> None:
    """It wants other proofs, and gives none that this version understands."""
    exchange.writer.write(b"HTTP/1.1 401 X\r\nWWW-Authenticate: P2PDist v2\r\nContent-Length: 0\r\n\r\n")


@asynccontextmanager
async def agent(
    directory: Path, name: str, registry: FakeRegistry, bootstrap: list[str]
) -> AsyncIterator[Running]:
    home = directory / name
    home.mkdir()
    key = home / "cluster.key"
    key.touch(mode=0o600)
    key.write_text(KEY.text())
    known = ", ".join(f'"{each}"' for each in bootstrap)
    file = home / "config.toml"
    file.write_text(
        CONFIG.format(directory=home, name=name, port=0, bootstrap=known, key=key, url=registry.url)
    )
    async with run_parts(load_config(file, {}, {})) as running:
        yield running


def endpoint(running: Running) -> Endpoint:
    host, _, port = running.listeners["peer"].rpartition(":")
    return Endpoint(host, int(port))


async def get(session: aiohttp.ClientSession, running: Running, digest: Digest) -> bytes:
    url = f"http://{running.listeners['mirror']}/v2/registry.example.test/app/blobs/{digest}"
    async with session.get(url) as answer:
        assert answer.status == 200
        return await answer.read()


async def peers(session: aiohttp.ClientSession, running: Running) -> dict[str, str]:
    """The standing of each peer, by its id."""
    async with session.get(f"http://{running.listeners['admin']}/api/v1/peers") as answer:
        return {row["peer"]: row["state"] for row in (await answer.json())["peers"]}


async def own_id(session: aiohttp.ClientSession, running: Running) -> PeerId:
    async with session.get(f"http://{running.listeners['admin']}/api/v1/status") as answer:
        return PeerId(bytes.fromhex((await answer.json())["peer"]))


@pytest.mark.parametrize("script", [other_frames, other_paths, other_scheme])
async def test_a_later_version_breaks_no_pull_of_the_others(tmp_path: Path, script: Script) -> None:
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(FakeRegistry())
        first, second = (registry.put_blob("app", data) for data in BLOBS)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        one = await stack.enter_async_context(agent(tmp_path, "one", registry, []))
        two = await stack.enter_async_context(agent(tmp_path, "two", registry, [one.listeners["peer"]]))
        scripted = await stack.enter_async_context(scripted_peer(script, auth_of(LATER)))
        later = Later(scripted.provider.endpoints[0].port)
        stack.callback(later.socket.close)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        answering = tasks.create_task(later.answer())
        stack.callback(answering.cancel)
        for running in (one, two):
            later.greet(endpoint(running), first)
            async with asyncio.timeout(20):
                while later.peer.hex not in await peers(session, running):
                    await asyncio.sleep(0.01)
            assert await later.flood(endpoint(running), await own_id(session, running), first) == (101, 200)

        got = await asyncio.gather(get(session, one, first), get(session, two, first))
        assert got == [BLOBS[0], BLOBS[0]]
        assert {Method.FIND, Method.ANNOUNCE} & set(later.answered)
        sent = registry.counters.blob_bytes
        assert len(BLOBS[0]) <= sent[str(first)] < 1.5 * len(BLOBS[0])  # divided, as if there were no third

        assert await get(session, one, second) == BLOBS[1]
        assert await get(session, two, second) == BLOBS[1]
        assert sent[str(second)] == len(BLOBS[1])  # two had it from one
        for running in (one, two):
            assert (await peers(session, running))[later.peer.hex] != "banned"  # it lied about nothing
