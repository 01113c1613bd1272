"""Whatever bytes a source sends, cut however: a piece holds a prefix of what was sent for it, in order; the memory around
it, and that of a caller who left, is untouched; every body byte is counted; and the worst that comes of it is a
P2PDistError for those who wait."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import P2PDistError
from p2pdist.oci.digest import Digest
from p2pdist.peers.flow import FlowConnection
from p2pdist.wire.flow_frames import DATA, HEAD, REFUSED
from p2pdist.wire.sealed_frames import FrameSeal

MARGIN = 16
WANTS = 3
SIZE = 50
ANSWER = b"HTTP/1.1 101 X\r\nUpgrade: p2pdist-flow\r\n\r\n"


class StandInTransport:
    """Takes what is written; ends when it is told to."""

    def __init__(self) -> None:
        self.ended = False

    def get_extra_info(self, name: str) -> object:
        return object() if name == "sslcontext" else None  # no socket to set options on

    def write(self, data: bytes) -> None:
        """The other side does not care."""

    def abort(self) -> None:
        self.ended = True


@dataclass
class World:
    """A flow with some wants; ``model`` has what should be in each one's memory."""

    transport: StandInTransport = field(default_factory=StandInTransport)
    received: int = 0

    def __post_init__(self) -> None:
        self.flow = FlowConnection(self.count, 10.0, 10.0)
        self.memory = [bytearray(b"." * (SIZE + 2 * MARGIN)) for _ in range(WANTS)]

    def count(self, size: int) -> None:
        self.received += size

    def open(self) -> list[asyncio.Future[None]]:
        self.flow.connection_made(cast(asyncio.Transport, self.transport))
        answer = self.flow.greet(b"")
        self.feed(ANSWER)
        assert answer.result().status == 101
        self.flow.begin(FrameSeal(b"k" * 32))
        digest = Digest.of(b"x")
        views = [memoryview(memory)[MARGIN:-MARGIN] for memory in self.memory]
        return [self.flow.want(digest, 0, 1000, view, None)[1] for view in views]

    def feed(self, data: bytes) -> None:
        """As a transport does: into the buffer that is offered, never after the end."""
        while data and not self.transport.ended:
            buffer = self.flow.get_buffer(-1)
            assert len(buffer)
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            data = data[count:]
            self.flow.buffer_updated(count)

    def stored(self, index: int) -> bytes:
        memory = self.memory[index]
        assert memory[:MARGIN] == memory[-MARGIN:] == b"." * MARGIN
        return bytes(memory[MARGIN:-MARGIN])


frames = st.one_of(
    st.tuples(st.just("data"), st.integers(1, WANTS + 1), st.integers(0, SIZE + 10)),
    st.tuples(st.just("data"), st.integers(1, WANTS), st.integers(1, 20)),
    st.tuples(st.just("refuse"), st.integers(1, WANTS + 1), st.sampled_from([404, 503, 0])),
    st.tuples(st.just("cancel"), st.integers(1, WANTS), st.just(0)),
)


def expected(script: list[tuple[str, int, int]]) -> tuple[list[bytes], int, bool]:
    """(bytes of each want, body bytes counted, whether the flow lives) by the rules, frame after frame."""
    got, open_, forgone, count = [b""] * WANTS, set(range(WANTS)), 0, 0
    for number, (kind, handle, size) in enumerate(script):
        index = handle - 1
        if kind == "cancel" and index in open_:
            open_.discard(index)
            forgone += SIZE - len(got[index])
        elif kind == "refuse":
            open_.discard(index)
        elif kind == "data" and index in open_:
            if not size or len(got[index]) + size > SIZE:
                return got, count, False
            got[index] += bytes([65 + number % 26]) * size
            count += size
            if len(got[index]) == SIZE:
                open_.discard(index)
        elif kind == "data":
            forgone -= size
            if not size or forgone < 0:
                return got, count, False
            count += size
    return got, count, True


async def quiet(futures: list[asyncio.Future[None]]) -> list[BaseException | None]:
    """How each ended, for those that have."""
    return [future.exception() for future in futures if future.done()]


@given(st.lists(frames, max_size=12), st.integers(1, 40))
def test_frames_do_what_the_rules_say_however_they_are_cut(
    script: list[tuple[str, int, int]], step: int
) -> None:
    async def run() -> None:
        world = World()
        futures = world.open()
        for number, (kind, handle, size) in enumerate(script):
            if world.transport.ended:
                break
            if kind == "cancel":
                world.flow.cancel(handle)
                continue
            body = bytes([65 + number % 26]) * size if kind == "data" else b""
            whole = HEAD.pack(DATA if kind == "data" else REFUSED, handle, size) + body
            for at in range(0, len(whole), step):
                world.feed(whole[at : at + step])
        got, count, lives = expected(script)
        assert world.flow.alive is lives
        assert [world.stored(index).rstrip(b".") for index in range(WANTS)] == got
        assert world.received == count
        world.flow.close()
        assert all(end is None or isinstance(end, P2PDistError) for end in await quiet(futures))

    asyncio.run(run())


@given(st.lists(st.binary(max_size=200), max_size=8), st.integers(0, 3), st.binary(max_size=60))
def test_garbage_harms_nobody(parts: list[bytes], cancelled: int, tail: bytes) -> None:
    async def run() -> None:
        world = World()
        futures = world.open()
        world.feed(HEAD.pack(DATA, 1, 30) + b"a" * 20)
        world.flow.cancel(cancelled)
        before = world.stored(cancelled - 1) if cancelled else b""
        for part in [*parts, tail]:
            world.feed(part)
        if cancelled:
            assert world.stored(cancelled - 1) == before
        for index in range(WANTS):
            assert len(world.stored(index)) == SIZE
        assert world.received <= 20 + sum(map(len, parts)) + len(tail)
        world.flow.close()
        assert all(end is None or isinstance(end, P2PDistError) for end in await quiet(futures))

    asyncio.run(run())


@given(st.binary(max_size=300), st.booleans(), st.integers(1, 50))
def test_garbage_instead_of_an_answer(data: bytes, begins: bool, step: int) -> None:
    async def run() -> None:
        world = World()
        world.flow.connection_made(cast(asyncio.Transport, world.transport))
        answer = world.flow.greet(b"")
        whole = (b"HTTP/1.1 " if begins else b"") + data
        for at in range(0, len(whole), step):
            world.feed(whole[at : at + step])
        world.flow.close()
        assert answer.done()
        assert answer.exception() is None or isinstance(answer.exception(), P2PDistError)
        assert world.received == 0

    asyncio.run(run())
