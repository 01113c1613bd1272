"""The same work asked for many times at once on this host is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from p2pdist.errors import UnreachableError

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs ``work`` once per key at a time; every caller gets its result or its error.

    The work goes on when the caller that started it leaves. It is owned by ``tasks``; its errors reach only callers.
    """

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._flights: dict[Hashable, asyncio.Future[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().create_future()
            self._flights[key] = flight
            task = self._tasks.create_task(self._fly(key, work, flight))
            task.add_done_callback(lambda _: self._land(key, flight))
        return await asyncio.shield(flight)

    async def _fly(self, key: Hashable, work: Callable[[], Awaitable[T]], flight: asyncio.Future[T]) -> None:
        try:
            result = await work()
        except Exception as error:  # the callers' to handle
            flight.set_exception(error)
            flight.exception()  # asyncio need not complain when every caller has left
        else:
            flight.set_result(result)
        finally:
            del self._flights[key]

    def _land(self, key: Hashable, flight: asyncio.Future[T]) -> None:
        """Also when the task was cancelled before it ever ran."""
        if not flight.done():
            self._flights.pop(key, None)
            flight.set_exception(UnreachableError("the agent is stopping"))
            flight.exception()
