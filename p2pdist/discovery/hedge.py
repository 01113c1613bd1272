"""Tells when one of several answers is not worth waiting for any longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2pdist.discovery.protocol import LATE, DhtProtocol
from p2pdist.discovery.routing import Neighbour


class Hedge:
    """Calls ``slow`` once, when ``target`` has not answered for its hedge; ``cancel`` when it did.

    When the hedge has grown meanwhile, or this process was held up (answers may be waiting to be read), it waits on.
    """

    __slots__ = ("_asked_at", "_loop", "_protocol", "_slow", "_target", "_timer", "_wait")

    def __init__(self, protocol: DhtProtocol, target: Neighbour, slow: Callable[[Neighbour], None]) -> None:
        self._protocol = protocol
        self._target = target
        self._slow = slow
        self._loop = asyncio.get_running_loop()
        self._asked_at = self._loop.time()
        self._wait = protocol.hedge(target)
        self._timer = self._loop.call_later(self._wait, self._fire)

    def cancel(self) -> None:
        self._timer.cancel()

    def _fire(self) -> None:
        waited = self._loop.time() - self._asked_at
        more = self._protocol.hedge(self._target) - waited
        if waited - self._wait > LATE:
            more = max(more, self._protocol.tuning.hedge_floor)
        if more > 0:
            self._wait = waited + more
            self._timer = self._loop.call_later(more, self._fire)
        else:
            self._slow(self._target)
