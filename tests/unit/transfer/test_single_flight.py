"""The same work asked for at once is done once, and outlives who asked first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pdist.errors import NotFoundError
from p2pdist.transfer.single_flight import SingleFlight


class Work:
    def __init__(self) -> None:
        self.runs = 0
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.runs += 1
        await self.gate.wait()
        if self.error:
            raise self.error
        return self.runs


@asynccontextmanager
async def flights() -> AsyncIterator[SingleFlight[int]]:
    async with asyncio.TaskGroup() as tasks:
        yield SingleFlight(tasks)


async def test_ten_callers_one_run() -> None:
    work = Work()
    async with flights() as flight:
        callers = [asyncio.ensure_future(flight.run("key", work)) for _ in range(10)]
        await asyncio.sleep(0)
        work.gate.set()
        assert await asyncio.gather(*callers) == [1] * 10
        assert await flight.run("key", work) == 2


async def test_the_work_goes_on_when_its_first_caller_leaves() -> None:
    work = Work()
    async with flights() as flight:
        first = asyncio.ensure_future(flight.run("key", work))
        second = asyncio.ensure_future(flight.run("key", work))
        await asyncio.sleep(0)
        first.cancel()
        work.gate.set()
        assert await second == 1


async def test_every_caller_gets_the_error_and_the_group_lives_on() -> None:
    work = Work()
    work.error = NotFoundError("nobody has it")
    async with flights() as flight:
        callers = [asyncio.ensure_future(flight.run("key", work)) for _ in range(3)]
        await asyncio.sleep(0)
        work.gate.set()
        results = await asyncio.gather(*callers, return_exceptions=True)
        assert all(isinstance(result, NotFoundError) for result in results)
        work.error = None
        assert await flight.run("key", work) == 2


async def test_an_error_that_nobody_waits_for_is_nobodys_problem() -> None:
    work = Work()
    work.error = NotFoundError("nobody has it")
    async with flights() as flight:
        caller = asyncio.ensure_future(flight.run("key", work))
        await asyncio.sleep(0)
        caller.cancel()
        work.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
