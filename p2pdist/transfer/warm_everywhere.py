"""Have every agent of the cluster, or of a zone, fetch an image at the same time, as one swarm.

Rules:
- The image is resolved here first: what does not exist, or is refused here, troubles nobody else.
- The members are those this agent heard from lately, and those that these know, as far as MAX_HOSTS. Who does not answer
  is reported as such; the others go on.
- No wait is without an end: a host that cannot be reached for ``LOST_AFTER`` seconds, shows no progress for
  ``STALLED_AFTER``, or has not begun after ``UNBEGUN_AFTER``, has failed. What it was told to fetch goes on there all the
  same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from p2pdist.clock import Clock
from p2pdist.discovery.port import Discovery
from p2pdist.errors import BusyError, NotFoundError, P2PDistError, SourceError
from p2pdist.oci.reference import Reference
from p2pdist.peers.warm_port import Order, WarmPeers
from p2pdist.records import PeerId
from p2pdist.transfer.manifests import ManifestService
from p2pdist.transfer.warm import WarmJobs
from p2pdist.wire.warm import Member, WarmState, WarmStatus

logger = logging.getLogger(__name__)

MAX_HOSTS = 4096
AT_ONCE = 32
POLL = 0.5
SLOWEST_POLL = 10.0
LOST_AFTER = 15.0
STALLED_AFTER = 300.0
UNBEGUN_AFTER = 1800.0
HEARTBEAT = 10.0


@dataclass(frozen=True, slots=True)
class HostProgress:
    """How a warm-up stands on one host; ``where`` is its address, "" for this one. ``asked`` is False for a host that a
    zone was asked for and that does not tell its own: it takes no part."""

    peer: PeerId
    name: str
    zone: str
    where: str
    status: WarmStatus
    asked: bool = True


@dataclass(frozen=True, slots=True)
class OwnHost:
    """This agent, which takes part."""

    peer: PeerId
    name: str
    zone: str


_Ask = Callable[[], Awaitable[WarmStatus]]


class ClusterWarmer:
    """See the module's rules. ``tasks`` owns what asks the hosts; ``peers`` is None for an agent without a cluster."""

    def __init__(
        self,
        own: OwnHost,
        jobs: WarmJobs,
        manifests: ManifestService,
        discovery: Discovery,
        peers: WarmPeers | None,
        clock: Clock,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.own = own
        self.jobs = jobs
        self.peers = peers
        self.clock = clock
        self._manifests = manifests
        self._discovery = discovery
        self._tasks = tasks

    async def warm(
        self, reference: Reference, platform: str = "", zone: str | None = None
    ) -> AsyncGenerator[HostProgress | None, None]:
        """Each host's progress as it changes, until all have ended; None when there was no news for ``HEARTBEAT`` seconds.

        Raises P2PDistError before any host was asked.
        """
        await self._manifests.get(reference.repository, reference.target)
        members = [Member(each.peer, each.endpoint) for each in self._discovery.contacts()]
        news: asyncio.Queue[HostProgress | None] = asyncio.Queue()
        rounds = _Round(self, Order(str(reference), platform), zone, news)
        work = self._tasks.create_task(rounds.run(members))
        try:
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        progress = await news.get()
                except TimeoutError:
                    yield None
                    continue
                if progress is None:
                    return
                yield progress
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Host:
    """One host that takes part, and how it is asked."""

    peer: PeerId
    name: str
    zone: str
    where: str
    start: _Ask
    status: _Ask


class _Round:
    """One image on its way to all hosts."""

    def __init__(
        self, warmer: ClusterWarmer, order: Order, zone: str | None, news: asyncio.Queue[HostProgress | None]
    ) -> None:
        self._warmer = warmer
        self._clock = warmer.clock
        self._order = order
        self._zone = zone
        self._news = news
        self._known = {warmer.own.peer}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def run(self, members: list[Member]) -> None:
        try:
            async with asyncio.TaskGroup() as hosts:
                own = self._warmer.own
                if self._zone in (None, own.zone):
                    hosts.create_task(self._follow(self._own_host()))
                self._meet(members, hosts)
        except Exception:  # a task of the agent's own group: what it raises would end the agent
            logger.exception("warming %s everywhere failed in an unforeseen way", self._order.reference)
        finally:
            self._news.put_nowait(None)

    def _own_host(self) -> _Host:
        own, jobs, order = self._warmer.own, self._warmer.jobs, self._order

        async def start() -> WarmStatus:
            return jobs.start(order)

        async def status() -> WarmStatus:
            return jobs.status(order)

        return _Host(own.peer, own.name, own.zone, "", start, status)

    def _meet(self, members: list[Member], hosts: asyncio.TaskGroup) -> None:
        """Visit those that were not met yet."""
        peers = self._warmer.peers
        for member in members:
            if peers is not None and member.peer not in self._known and len(self._known) < MAX_HOSTS:
                self._known.add(member.peer)
                hosts.create_task(self._visit(member, peers, hosts))

    async def _visit(self, member: Member, peers: WarmPeers, hosts: asyncio.TaskGroup) -> None:
        try:
            async with self._slots:
                host = await peers.greet(member)
        except P2PDistError as error:
            asked = self._zone is None  # the zone of a host that does not answer is not known
            unknown = HostProgress(member.peer, "", "", str(member.endpoint), _failed(error), asked)
            self._news.put_nowait(unknown)
            return
        try:
            async with self._slots:
                self._meet(await peers.members(member), hosts)
        except P2PDistError as error:
            logger.info("peer %s does not tell whom it knows: %s", member.peer.short, error)
        if self._zone in (None, host.zone):
            await self._follow(
                _Host(
                    member.peer,
                    host.name,
                    host.zone,
                    str(member.endpoint),
                    lambda: peers.start(member, self._order),
                    lambda: peers.status(member, self._order),
                )
            )

    async def _follow(self, host: _Host) -> None:
        """Have a host begin, then tell of its progress until it has ended."""
        try:
            status = await self._begin(host)
            word = change = self._clock.now()
            while not status.ended:
                self._tell(host, status)
                await self._clock.sleep(self._interval())
                try:
                    fresh = await self._ask(host)
                except SourceError as error:
                    if self._clock.now() - word > LOST_AFTER:
                        status = WarmStatus(WarmState.FAILED, message=f"it stopped answering: {error}")
                    continue
                word = self._clock.now()
                change = change if fresh == status else word
                status = _bounded(fresh, word - change)
        except P2PDistError as error:
            status = _failed(error)
        self._tell(host, status)

    async def _begin(self, host: _Host) -> WarmStatus:
        """Its first word; a host that is busy is asked again for a while."""
        begun = self._clock.now()
        while True:
            try:
                async with self._slots:
                    return await host.start()
            except BusyError as error:
                if self._clock.now() - begun > LOST_AFTER:
                    raise
                await self._clock.sleep(min(error.retry_after or POLL, SLOWEST_POLL))

    async def _ask(self, host: _Host) -> WarmStatus:
        async with self._slots:
            try:
                return await host.status()
            except NotFoundError:  # it was started anew meanwhile, and knows of nothing
                return await host.start()

    def _interval(self) -> float:
        return min(SLOWEST_POLL, POLL * max(1.0, len(self._known) / AT_ONCE))

    def _tell(self, host: _Host, status: WarmStatus) -> None:
        self._news.put_nowait(HostProgress(host.peer, host.name, host.zone, host.where, status))


def _bounded(status: WarmStatus, silent: float) -> WarmStatus:
    """The status, or that it has failed by being the same for ``silent`` seconds."""
    limit = UNBEGUN_AFTER if status.state is WarmState.WAITING else STALLED_AFTER
    if status.ended or silent <= limit:
        return status
    what = "it has not begun" if status.state is WarmState.WAITING else "no progress"
    return WarmStatus(WarmState.FAILED, status.size, status.received, message=f"{what} for {limit:.0f} s")


def _failed(error: P2PDistError) -> WarmStatus:
    return WarmStatus(WarmState.FAILED, message=str(error))
