"""A piece on its way from peers: written in steps while it arrives, gone on with when a peer is left."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from p2pdist.errors import StoreError
from p2pdist.records import PeerId, Provider
from p2pdist.swarm.geometry import Geometry
from p2pdist.transfer.swarm_pieces import MAX_STEP, RELAY_STEP, SLOW_STEP, STEP, Hurry, Inflow, Inflows, Run
from p2pdist.wire.swarm_messages import PieceHasher
from tests.unit.transfer.world import KIB, MIB, blob, until

PIECE = MIB + 100 * KIB + 7
DATA = blob(PIECE)
ANNA, BERT = (Provider(PeerId(hashlib.sha256(name).digest()[:20]), ()) for name in (b"anna", b"bert"))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are as many as their size makes them, however fast this runs."""
    monkeypatch.setattr("p2pdist.transfer.swarm_pieces.STEP_PAUSE", 0.0)
    monkeypatch.setattr("p2pdist.transfer.swarm_pieces.SLOW_PAUSE", 900.0)


class Taken:
    """The steps that were written; ``gate`` holds the next one up, ``error`` makes it fail."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, bytes, Provider]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: StoreError | None = None

    async def take(self, at: int, part: memoryview, provider: Provider) -> None:
        self.steps.append((at, bytes(part), provider))
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    @property
    def written(self) -> bytes:
        """All steps together, which must join without gap or overlap."""
        whole = b""
        for at, part, _ in self.steps:
            assert at == len(whole)
            whole += part
        return whole


def arrive(inflow: Inflow, start: int, stop: int) -> None:
    inflow.rest[start - inflow.filled : stop - inflow.filled] = DATA[start:stop]


async def test_a_piece_is_written_in_steps_and_its_digest_is_of_all() -> None:
    taken = Taken()
    async with asyncio.TaskGroup() as tasks:
        inflow = Inflow(bytearray(PIECE), PIECE, taken.take, tasks)
        rest = inflow.rest
        assert len(rest) == PIECE
        moved = inflow.advance(ANNA)
        rest[:] = DATA
        moved(RELAY_STEP - 1)
        await asyncio.sleep(0)
        assert taken.steps == []
        moved(RELAY_STEP)
        await until(lambda: len(taken.steps) == 1)
        moved(3 * RELAY_STEP)
        await until(lambda: len(taken.steps) == 2)
        await inflow.finish()
    assert [len(part) for _, part, _ in taken.steps] == [
        RELAY_STEP,
        2 * RELAY_STEP,
        PIECE - 3 * RELAY_STEP,
    ]
    assert taken.written == DATA
    hasher = PieceHasher()
    hasher.update(DATA)
    assert inflow.digest() == hasher.digest()


async def test_one_step_at_a_time_and_what_comes_meanwhile_goes_with_the_next() -> None:
    taken = Taken()
    async with asyncio.TaskGroup() as tasks:
        inflow = Inflow(bytearray(PIECE), PIECE, taken.take, tasks)
        moved = inflow.advance(ANNA)
        inflow.rest[:] = DATA
        taken.gate.clear()
        for count in (RELAY_STEP, 2 * RELAY_STEP, 3 * RELAY_STEP):
            moved(count)
            await asyncio.sleep(0)
        assert len(taken.steps) == 1
        finishing = asyncio.ensure_future(inflow.finish())
        await asyncio.sleep(0)
        assert len(taken.steps) == 1
        taken.gate.set()
        await finishing
    assert [len(part) for _, part, _ in taken.steps] == [RELAY_STEP, PIECE - RELAY_STEP]
    assert taken.written == DATA


async def test_the_next_peer_goes_on_where_the_last_was_left() -> None:
    taken = Taken()
    async with asyncio.TaskGroup() as tasks:
        inflow = Inflow(bytearray(PIECE), PIECE, taken.take, tasks)
        moved = inflow.advance(ANNA)
        arrive(inflow, 0, RELAY_STEP + 50)
        moved(RELAY_STEP)
        await until(lambda: len(taken.steps) == 1)
        moved(RELAY_STEP + 50)
        assert inflow.filled == RELAY_STEP + 50
        assert len(inflow.rest) == PIECE - inflow.filled
        inflow.rest[:] = DATA[inflow.filled :]
        moved = inflow.advance(BERT)
        moved(10)
        assert inflow.filled == RELAY_STEP + 60
        await inflow.finish()
    assert taken.written == DATA
    assert [provider for _, _, provider in taken.steps] == [ANNA, BERT]


async def test_what_a_step_raises_is_raised_at_the_end_and_nothing_more_is_written() -> None:
    taken = Taken()
    taken.error = StoreError("the disk")
    async with asyncio.TaskGroup() as tasks:
        inflow = Inflow(bytearray(PIECE), PIECE, taken.take, tasks)
        moved = inflow.advance(ANNA)
        inflow.rest[:] = DATA
        moved(RELAY_STEP)
        await until(lambda: len(taken.steps) == 1)
        await asyncio.sleep(0)
        moved(2 * RELAY_STEP)
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="the disk"):
            await inflow.finish()
    assert len(taken.steps) == 1


async def test_a_small_piece_is_one_step() -> None:
    taken = Taken()
    async with asyncio.TaskGroup() as tasks:
        inflow = Inflow(bytearray(PIECE), 1000, taken.take, tasks)  # a buffer of another, larger piece
        inflow.advance(ANNA)
        inflow.rest[:] = DATA[:1000]
        await inflow.finish()
    assert taken.steps == [(0, DATA[:1000], ANNA)]


async def test_pieces_that_were_left_are_gone_on_with_until_they_are_forgotten() -> None:
    taken = Taken()
    async with asyncio.TaskGroup() as tasks:
        inflows = Inflows(PIECE, most=2)
        first = inflows.take(1, PIECE, taken.take, tasks)
        inflows.keep(1, first)
        assert inflows.take(1, PIECE, taken.take, tasks) is not first  # nothing had come
        first.advance(ANNA)(10)
        inflows.keep(1, first)
        assert inflows.take(1, PIECE, taken.take, tasks) is first
        inflows.keep(1, first)
        inflows.forget(1)
        again = inflows.take(1, PIECE, taken.take, tasks)
        assert again is not first
        assert again.filled == 0


async def test_no_more_pieces_than_the_bound_are_kept_and_buffers_are_used_again() -> None:
    taken = Taken()
    async with asyncio.TaskGroup() as tasks:
        inflows = Inflows(PIECE, most=2)
        left = [inflows.take(piece, PIECE, taken.take, tasks) for piece in range(3)]
        for piece, inflow in enumerate(left):
            inflow.advance(ANNA)(10)
            inflows.keep(piece, inflow)
        taken_up = [inflows.take(piece, PIECE, taken.take, tasks) for piece in range(3)]
        assert [one is other for one, other in zip(left, taken_up, strict=True)] == [True, True, False]
        inflows.done(left[0])
        assert inflows.take(7, 500, taken.take, tasks).buffer is left[0].buffer


def test_a_run_from_upstream_is_due_at_a_step_and_takes_more_when_more_comes_at_once() -> None:
    run = Run(Geometry.of(64 << 20), (0, 1))
    size = Geometry.of(64 << 20).piece
    few = memoryview(bytes(STEP - 1))
    run.gather(few)
    assert not run.is_due()
    run.gather(memoryview(b"x"))
    assert run.is_due()
    assert bytes(run.step()) == bytes(few) + b"x"
    assert not run.is_due()
    assert run.room() == min(size, MAX_STEP)
    run.gather(memoryview(bytes(run.room())))
    assert run.room() == 0
    assert run.is_due()
    assert len(run.step()) == min(size, MAX_STEP)


@pytest.mark.parametrize(
    ("pause", "steps"), [(0.0, [SLOW_STEP, SLOW_STEP, PIECE - 2 * SLOW_STEP]), (900.0, [PIECE])]
)
async def test_what_comes_slowly_is_written_in_small_steps(
    monkeypatch: pytest.MonkeyPatch, pause: float, steps: list[int]
) -> None:
    """Over slow links a step is the delay of each hop."""
    monkeypatch.setattr("p2pdist.transfer.swarm_pieces.SLOW_PAUSE", pause)
    taken = Taken()
    async with asyncio.TaskGroup() as tasks:
        inflow = Inflow(bytearray(PIECE), PIECE, taken.take, tasks)
        inflow.rest[:] = DATA
        moved = inflow.advance(ANNA)
        for count in (SLOW_STEP - 1, SLOW_STEP, SLOW_STEP + 1, 2 * SLOW_STEP):
            moved(count)
            for _ in range(5):
                await asyncio.sleep(0)
        await inflow.finish()
    assert [len(part) for _, part, _ in taken.steps] == steps
    assert taken.written == DATA


async def test_a_host_that_is_short_of_cpu_takes_large_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdist.transfer.swarm_pieces.SLOW_PAUSE", 0.0)
    taken, hurry = Taken(), Hurry()
    async with asyncio.TaskGroup() as tasks:
        inflow = Inflow(bytearray(PIECE), PIECE, taken.take, tasks, hurry)
        inflow.rest[:] = DATA
        moved = inflow.advance(ANNA)
        hurry.was_late(1.0)
        for count in (SLOW_STEP, 2 * SLOW_STEP, RELAY_STEP):
            moved(count)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        for _ in range(20):
            hurry.was_late(0.0)
        moved(RELAY_STEP + SLOW_STEP)
        await until(lambda: len(taken.steps) == 2)
        await inflow.finish()
    assert [len(part) for _, part, _ in taken.steps] == [
        RELAY_STEP,
        SLOW_STEP,
        PIECE - RELAY_STEP - SLOW_STEP,
    ]


def test_who_was_late_once_is_in_a_hurry_for_some_seconds() -> None:
    hurry = Hurry()
    hurry.was_late(Hurry.LATE)
    assert not hurry.hurried
    hurry.was_late(0.3)
    ticks = 0
    while hurry.hurried:
        hurry.was_late(0.0)
        ticks += 1
    assert 8 <= ticks <= 16  # of a quarter of a second
