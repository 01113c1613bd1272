"""Work off the event loop, in a few threads of the store's own.

Rules:
- Whoever awaits a hop gets control back only when the thread has let go, also when it is cancelled: so a lock that is
  held around a hop guards what the thread does, and a buffer that was handed in may be reused.
- ``whole`` does the same for a sequence of steps: a cancelled caller waits, the sequence is never cut in the middle.
- ``close`` returns when nothing of this runs any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from p2pdist.errors import StoreError
from p2pdist.oci.digest import Digest

P = ParamSpec("P")
T = TypeVar("T")


class Hops:
    """A thread pool with the module's rules."""

    def __init__(self, workers: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._sequences: set[asyncio.Task[Any]] = set()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of ``function`` called in a thread; raises StoreError after ``close``."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                loop.call_soon_threadsafe(done.set_exception, error)
            else:
                loop.call_soon_threadsafe(done.set_result, result)

        try:
            self._executor.submit(work)
        except RuntimeError as error:
            raise StoreError("the store is closed") from error
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            await _end_of(done)
            raise

    def later(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call ``function``, which must not raise, in a thread, and wait for it only in ``close``."""
        self._executor.submit(function, *args, **kwargs)

    async def whole(
        self, sequence: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]] | None = None
    ) -> T:
        """The result of ``sequence``; if the caller is cancelled meanwhile, ``undo`` disposes of the result."""
        task = asyncio.get_running_loop().create_task(sequence)
        self._sequences.add(task)
        task.add_done_callback(self._sequences.discard)
        try:
            return await outlast(task)
        except asyncio.CancelledError:
            if undo is not None and not task.cancelled() and task.exception() is None:
                await undo(task.result())
            raise

    async def close(self) -> None:
        """Wait for all that runs, and end the threads."""
        while self._sequences:
            await asyncio.wait(list(self._sequences))
        self._executor.shutdown()


async def _end_of(future: asyncio.Future[Any]) -> None:
    """Return once ``future`` is done, however often this is cancelled meanwhile; its result is of no interest."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # looked at, so that asyncio does not report it as lost


async def outlast(future: asyncio.Future[T]) -> T:
    """Await ``future`` without ever cancelling it; raise CancelledError only once it is done."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not report it as lost
        raise cancelled
    return future.result()


class Turns:
    """Which digests somebody is busy with; others wait for theirs."""

    def __init__(self) -> None:
        self._busy: dict[Digest, asyncio.Event] = {}

    async def wait(self, digest: Digest) -> None:
        """Return when nobody is busy with ``digest``; it stays so until the caller awaits something."""
        while (event := self._busy.get(digest)) is not None:
            await event.wait()

    @contextmanager
    def busy(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Be busy with ``digests``, with which nobody else is."""
        mine, done = set(digests), asyncio.Event()
        self._busy.update(dict.fromkeys(mine, done))
        try:
            yield
        finally:
            for digest in mine:
                del self._busy[digest]
            done.set()
