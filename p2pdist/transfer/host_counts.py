"""How many other hosts hold a blob whole: for people to look at.

Always true here: the cluster is asked about a digest at most once in ``FRESH`` seconds, about at most ``AT_ONCE`` digests
at a time, and an answer takes at most ``PATIENCE`` seconds: what is not known by then is told as not known. Content of a
registry that is not shared is never asked about.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

from p2pdist.clock import Clock
from p2pdist.discovery.port import Discovery
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository

FRESH = 10.0
PATIENCE = 3.0
AT_ONCE = 8
REMEMBERED = 4096


class HostCounts:
    """See the module's rules. ``shares`` tells whether a registry's content may be asked about."""

    def __init__(self, discovery: Discovery, clock: Clock, shares: Callable[[str], bool]) -> None:
        self._discovery = discovery
        self._clock = clock
        self._shares = shares
        self._known: OrderedDict[Digest, tuple[float, int]] = OrderedDict()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._asking = asyncio.Lock()

    def shared(self, repository: Repository) -> bool:
        """Whether other hosts may hold what is in it."""
        return self._shares(repository.registry)

    def alone(self) -> bool:
        """Whether there is no other host to ask."""
        return not self._discovery.contacts()

    async def others(self, repository: Repository, digests: Sequence[Digest]) -> dict[Digest, int]:
        """How many other hosts hold each of these of ``repository``; what is not known in time is left out.

        Popular blobs are known by a sample, so a large count is a lower bound.
        """
        if not self.shared(repository):
            return dict.fromkeys(digests, 0)
        async with self._asking:
            now = self._clock.now()
            known = self._fresh(digests, now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
                    for digest in digests:
                        if digest not in known:
                            tasks.create_task(self._ask(digest))
            return known | self._fresh(digests, now)

    async def _ask(self, digest: Digest) -> None:
        async with self._room:
            found = await self._discovery.find(digest)
        self._known[digest] = (self._clock.now(), sum(each.complete for each in found))
        self._known.move_to_end(digest)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _fresh(self, digests: Sequence[Digest], now: float) -> dict[Digest, int]:
        return {
            digest: self._known[digest][1]
            for digest in digests
            if digest in self._known and now - self._known[digest][0] < FRESH
        }
