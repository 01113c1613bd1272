"""Warm-ups: on one host, and on all of them from one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from p2pdist.errors import (
    BusyError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    P2PDistError,
    UnreachableError,
)
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.reference import Reference
from p2pdist.peers.warm_port import HostName, Order
from p2pdist.records import Endpoint, PeerId
from p2pdist.testing.images import build_service_set
from p2pdist.transfer import warm as limits
from p2pdist.transfer.warm import REMEMBERED, WarmJobs
from p2pdist.transfer.warm_everywhere import (
    LOST_AFTER,
    STALLED_AFTER,
    UNBEGUN_AFTER,
    ClusterWarmer,
    HostProgress,
    OwnHost,
)
from p2pdist.wire.warm import Member, WarmState, WarmStatus
from tests.unit.transfer.world import APP, Agent, World, until

AMD64 = Platform("linux", "amd64")
ORDER = Order("docker.io/library/app:v1")
NAME = Reference.parse(ORDER.reference)
SET = build_service_set(scale=0.001)
DONE = WarmStatus(WarmState.DONE, 10, 10, {"peer": 10}, "sha256:ab")
RUNNING = WarmStatus(WarmState.RUNNING, 10, 5)
WAITING = WarmStatus(WarmState.WAITING)


class HastyClock:
    """A sleep takes no time, and moves the clock."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time + 1_700_000_000

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)


def world_with_image() -> World:
    world = World(clock=HastyClock())
    image = SET[0]
    for data in image.blobs.values():
        assert isinstance(data, bytes)
        world.has(data)
    world.upstream.put_manifest(APP, image.manifest, image.media_type, "v1")
    return world


@dataclass
class Host:
    """One host: its transfer layer, and its warm-ups."""

    world: World
    agent: Agent
    tasks: asyncio.TaskGroup
    jobs: WarmJobs


class _Stop(Exception):  # noqa: N818
    pass


@asynccontextmanager
async def host(world: World, *, accepts: bool = True) -> AsyncIterator[Host]:
    try:
        async with world.agent() as agent, asyncio.TaskGroup() as tasks:
            jobs = WarmJobs(agent.puller, world.upstream, world.clock, tasks, AMD64, accepts=accepts)
            yield Host(world, agent, tasks, jobs)
            raise _Stop
    except* _Stop:
        pass


class TestOnOneHost:
    async def test_an_image_that_is_ordered_is_fetched(self) -> None:
        async with host(world_with_image()) as here:
            assert here.jobs.ordered(ORDER).state is WarmState.WAITING
            await until(lambda: here.jobs.status(ORDER).ended)
            status = here.jobs.status(ORDER)
            image = SET[0]
            size = image.size + len(image.manifest)
            assert status == WarmStatus(WarmState.DONE, size, size, status.moved, str(image.digest))
            assert sum(status.moved.values()) == size
            assert {info.digest for info in await here.world.store.blobs()} == {image.digest, *image.blobs}

    async def test_the_same_order_joins_and_starts_anew_when_it_has_ended(self) -> None:
        async with host(world_with_image()) as here:
            here.world.upstream.down = True
            here.jobs.start(ORDER)
            assert here.jobs.start(ORDER).state is WarmState.WAITING
            await until(lambda: here.jobs.status(ORDER).ended)
            assert here.jobs.status(ORDER).state is WarmState.FAILED
            assert here.jobs.status(ORDER).message
            here.world.upstream.down = False
            here.world.clock.time += 60  # type: ignore[attr-defined]
            assert here.jobs.start(ORDER).state is WarmState.WAITING
            await until(lambda: here.jobs.status(ORDER).state is WarmState.DONE)

    async def test_a_host_that_does_not_accept_still_does_as_its_own_people_say(self) -> None:
        async with host(world_with_image(), accepts=False) as here:
            with pytest.raises(DeniedError, match=r"peer\.accept_warm_up"):
                here.jobs.ordered(ORDER)
            here.jobs.start(ORDER)
            await until(lambda: here.jobs.status(ORDER).state is WarmState.DONE)

    @pytest.mark.parametrize(
        ("order", "error"),
        [
            (Order("registry.example.test/app:v1"), DeniedError),
            (Order("UPPER"), InvalidInputError),
            (Order(""), InvalidInputError),
            (Order("app:v1", "linux"), InvalidInputError),
        ],
    )
    async def test_what_is_refused(self, order: Order, error: type[Exception]) -> None:
        async with host(world_with_image()) as here:
            with pytest.raises(error):
                here.jobs.ordered(order)
            with pytest.raises(NotFoundError):
                here.jobs.status(order)

    async def test_how_many_run_and_wait_is_bounded(self) -> None:
        world = world_with_image()
        gate = world.upstream.answer_gate = asyncio.Event()
        async with host(world) as here:
            for number in range(limits.MAX_RUNNING + limits.MAX_WAITING):
                here.jobs.ordered(Order(f"app:{number}"))
            with pytest.raises(BusyError, match="too many"):
                here.jobs.ordered(ORDER)
            await asyncio.sleep(0)
            states = [here.jobs.status(Order(f"app:{number}")).state for number in range(4)]
            assert states == [WarmState.RUNNING, WarmState.RUNNING, WarmState.WAITING, WarmState.WAITING]
            gate.set()

    async def test_how_it_ended_is_forgotten_after_a_while(self) -> None:
        async with host(world_with_image()) as here:
            here.jobs.start(ORDER)
            await until(lambda: here.jobs.status(ORDER).ended)
            await here.world.clock.sleep(REMEMBERED + 1)
            with pytest.raises(DeniedError):
                here.jobs.start(Order("registry.example.test/app:v1"))
            with pytest.raises(NotFoundError):
                here.jobs.status(ORDER)

    async def test_an_image_without_the_platform(self) -> None:
        async with host(world_with_image()) as here:
            here.world.upstream.put_manifest(
                APP,
                b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
                "application/vnd.oci.image.index.v1+json",
                "v1",
            )
            here.jobs.start(Order(ORDER.reference, "linux/arm64"))
            await until(lambda: here.jobs.status(Order(ORDER.reference, "linux/arm64")).ended)
            assert "linux/arm64" in here.jobs.status(Order(ORDER.reference, "linux/arm64")).message


def member(name: str) -> Member:
    return Member(PeerId(name.encode().ljust(20, b".")), Endpoint("192.0.2.1", 5051))


Word = WarmStatus | P2PDistError


@dataclass
class Remote:
    """Another host, which says ``words`` in turn, the last one for ever."""

    name: str
    words: list[Word]
    zone: str = "z1"
    knows: tuple[str, ...] = ()
    orders: list[Order] = field(default_factory=list)

    def next(self) -> WarmStatus:
        word = self.words.pop(0) if len(self.words) > 1 else self.words[0]
        if isinstance(word, P2PDistError):
            raise word
        return word


class FakeWarmPeers:
    """Implements WarmPeers over Remotes; one that is not among them is dead."""

    def __init__(self, *remotes: Remote) -> None:
        self.remotes = {member(each.name).peer: each for each in remotes}

    def _of(self, where: Member) -> Remote:
        if where.peer not in self.remotes:
            raise UnreachableError("nobody is there")
        return self.remotes[where.peer]

    async def greet(self, member: Member) -> HostName:
        remote = self._of(member)
        return HostName(member.peer, remote.name, remote.zone)

    async def members(self, member: Member) -> list[Member]:
        return [Member(PeerId(n.encode().ljust(20, b".")), member.endpoint) for n in self._of(member).knows]

    async def start(self, member: Member, order: Order) -> WarmStatus:
        self._of(member).orders.append(order)
        return self._of(member).next()

    async def status(self, member: Member, order: Order) -> WarmStatus:
        return self._of(member).next()


async def warmed(
    here: Host, peers: FakeWarmPeers, *contacts: str, zone: str | None = None, platform: str = ""
) -> dict[str, HostProgress]:
    """The last word on each host, by name."""
    for name in contacts:
        here.world.cluster.join(name, peer=member(name).peer)
    own = OwnHost(here.world.discovery.peer, "own", "z1")
    warmer = ClusterWarmer(
        own, here.jobs, here.agent.manifests, here.world.discovery, peers, here.world.clock, here.tasks
    )
    last: dict[PeerId, HostProgress] = {}
    async with asyncio.timeout(20):
        async for progress in warmer.warm(NAME, platform, zone):
            assert progress is not None
            last[progress.peer] = progress
    return {each.name or each.where: each for each in last.values()}


def states(found: dict[str, HostProgress]) -> dict[str, str]:
    return {name: progress.status.state.value for name, progress in found.items()}


class TestEverywhere:
    async def test_every_host_is_told_the_same_at_the_same_time(self) -> None:
        async with host(world_with_image()) as here:
            remotes = [Remote("a", [WAITING, RUNNING, RUNNING, DONE]), Remote("b", [DONE])]
            found = await warmed(here, FakeWarmPeers(*remotes), "a", "b", platform="linux/amd64")
            assert states(found) == {"own": "done", "a": "done", "b": "done"}
            assert found["a"].status == DONE
            assert found["own"].where == ""
            order = Order(ORDER.reference, "linux/amd64")
            assert [remote.orders for remote in remotes] == [[order], [order]]

    async def test_members_that_only_others_know_are_met(self) -> None:
        async with host(world_with_image()) as here:
            remotes = FakeWarmPeers(
                Remote("a", [DONE], knows=("b", "a")),
                Remote("b", [DONE], knows=("c", "a", "gone")),
                Remote("c", [DONE]),
            )
            found = await warmed(here, remotes, "a")
            assert states(found) == {
                "own": "done",
                "a": "done",
                "b": "done",
                "c": "done",
                "192.0.2.1:5051": "failed",
            }

    async def test_dead_refusing_and_failing_hosts_are_told_and_the_others_go_on(self) -> None:
        async with host(world_with_image()) as here:
            remotes = FakeWarmPeers(
                Remote("refuses", [DeniedError("not with me")]),
                Remote("fails", [RUNNING, WarmStatus(WarmState.FAILED, message="no room")]),
                Remote("good", [RUNNING, DONE]),
            )
            found = await warmed(here, remotes, "dead", "refuses", "fails", "good")
            assert states(found) == {
                "own": "done",
                "192.0.2.1:5051": "failed",
                "refuses": "failed",
                "fails": "failed",
                "good": "done",
            }
            assert found["192.0.2.1:5051"].status.message == "nobody is there"
            assert found["refuses"].status.message == "not with me"
            assert found["fails"].status.message == "no room"

    @pytest.mark.parametrize(
        ("words", "says", "after"),
        [
            ([RUNNING, UnreachableError("gone")], "stopped answering: gone", LOST_AFTER),
            ([RUNNING], "no progress", STALLED_AFTER),
            ([WAITING], "has not begun", UNBEGUN_AFTER),
            ([BusyError("full", 1.0)], "full", LOST_AFTER),
        ],
    )
    async def test_no_wait_is_without_an_end(self, words: list[Word], says: str, after: float) -> None:
        async with host(world_with_image()) as here:
            before = here.world.clock.now()
            found = await warmed(here, FakeWarmPeers(Remote("a", words)), "a")
            assert states(found) == {"own": "done", "a": "failed"}
            assert says in found["a"].status.message
            assert after < here.world.clock.now() - before < after * 1.5 + 20

    async def test_a_word_missed_and_a_busy_host_are_no_failure(self) -> None:
        async with host(world_with_image()) as here:
            words = [BusyError("full", 1.0), RUNNING, UnreachableError("lost"), RUNNING, DONE]
            found = await warmed(here, FakeWarmPeers(Remote("a", words)), "a")
            assert states(found) == {"own": "done", "a": "done"}

    async def test_a_host_that_was_started_anew_is_told_again(self) -> None:
        async with host(world_with_image()) as here:
            remote = Remote("a", [RUNNING, NotFoundError("of what?"), WAITING, DONE])
            found = await warmed(here, FakeWarmPeers(remote), "a")
            assert states(found) == {"own": "done", "a": "done"}
            assert len(remote.orders) == 2

    @pytest.mark.parametrize(("zone", "taking_part"), [("z1", {"own", "a"}), ("z2", {"b"}), ("z3", set())])
    async def test_only_a_zone(self, zone: str, taking_part: set[str]) -> None:
        async with host(world_with_image()) as here:
            remotes = FakeWarmPeers(Remote("a", [DONE]), Remote("b", [DONE], zone="z2"))
            found = await warmed(here, remotes, "a", "b", "dead", zone=zone)
            dead = found.pop("192.0.2.1:5051")
            assert (dead.asked, dead.status.message) == (False, "nobody is there")
            assert found.keys() == taking_part
            assert all(each.asked for each in found.values())

    async def test_an_image_that_cannot_be_resolved_troubles_nobody(self) -> None:
        world = World(clock=HastyClock())
        async with host(world) as here:
            remote = Remote("a", [DONE])
            with pytest.raises(NotFoundError):
                await warmed(here, FakeWarmPeers(remote), "a")
            assert remote.orders == []

    async def test_a_silence_is_told_as_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("p2pdist.transfer.warm_everywhere.HEARTBEAT", 0.01)
        async with host(world_with_image()) as here:
            silent = asyncio.Event()

            class Slow(FakeWarmPeers):
                async def greet(self, member: Member) -> HostName:
                    await silent.wait()
                    return await super().greet(member)

            here.world.cluster.join("a", peer=member("a").peer)
            own = OwnHost(here.world.discovery.peer, "own", "z1")
            peers = Slow(Remote("a", [DONE], zone="z2"))
            warmer = ClusterWarmer(
                own,
                here.jobs,
                here.agent.manifests,
                here.world.discovery,
                peers,
                here.world.clock,
                here.tasks,
            )
            told = []
            async with asyncio.timeout(20):
                async for progress in warmer.warm(NAME, zone="z2"):
                    told.append(progress)
                    silent.set()
            assert told[0] is None
            assert told[-1] is not None
            assert told[-1].status == DONE

    async def test_who_leaves_early_leaves_no_task_behind(self) -> None:
        async with host(world_with_image()) as here:
            here.world.cluster.join("a", peer=member("a").peer)
            own = OwnHost(here.world.discovery.peer, "own", "z1")
            peers = FakeWarmPeers(Remote("a", [RUNNING]))
            warmer = ClusterWarmer(
                own,
                here.jobs,
                here.agent.manifests,
                here.world.discovery,
                peers,
                here.world.clock,
                here.tasks,
            )
            hosts = warmer.warm(NAME)
            await anext(hosts)
            before = asyncio.all_tasks()
            await hosts.aclose()
            assert len(asyncio.all_tasks()) < len(before)
