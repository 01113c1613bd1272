"""Agents that fetch one blob together: one upstream copy, whoever dies, lies or comes late."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from p2pdist.clock import SystemClock
from p2pdist.errors import P2PDistError, UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId
from p2pdist.swarm.geometry import MIN_PIECE
from p2pdist.swarm.members import Member as KnownMember
from p2pdist.swarm.planner import Planner
from p2pdist.swarm.rendezvous import seed_of
from p2pdist.transfer import swarm_fill
from p2pdist.transfer.attestation import HEARSAY
from p2pdist.wire.swarm_messages import Join, Update, encode
from tests.unit.transfer.town import Member, Town
from tests.unit.transfer.world import APP, KIB, MIB, Client, blob, pull, until

NAMES = ("anna", "bert", "carl", "dora", "egon")
SIZE = 8 * MIB
DATA = blob(SIZE)
PIECE = MIN_PIECE


async def all_pull(agents: list[Member], digest: Digest) -> list[Client]:
    return list(await asyncio.gather(*(pull(agent, digest) for agent in agents)))


def members_of(agent: Member, digest: Digest) -> dict[PeerId, KnownMember]:
    """Whom the agent knows in the blob's swarm."""
    session = agent.hub._sessions.get(digest)
    return session._planner._members.table if session is not None else {}  # type: ignore[attr-defined]


async def test_cold_agents_at_once_take_one_copy_from_upstream() -> None:
    town = Town()
    digest = town.has(DATA)
    async with town.members(*NAMES) as agents:
        clients = await all_pull(agents, digest)
    assert all(client.data == DATA for client in clients)
    assert town.upstream.sent <= SIZE * 1.6  # an upstream as fast as this one makes claims collide
    moved = [client.moved for client in clients]
    assert sum(each.get("upstream", 0) for each in moved) <= town.upstream.sent
    assert sum(each.get("peer", 0) for each in moved) >= SIZE * (len(NAMES) - 1.6)


async def test_a_lone_agent_streams_directly() -> None:
    town = Town()
    digest = town.has(DATA)
    async with town.members("anna") as (anna,):
        client = await pull(anna, digest)
    assert client.data == DATA
    assert client.moved == {"upstream": SIZE}
    assert town.upstream.sent == SIZE
    assert len(town.upstream.asked("blob")) <= 8


async def test_who_comes_late_costs_upstream_nothing() -> None:
    town = Town()
    digest = town.has(DATA)
    async with town.members("anna", "bert") as (anna, bert):
        await pull(anna, digest)
        client = await pull(bert, digest)
    assert client.data == DATA
    assert client.moved == {"peer": SIZE}
    assert town.upstream.sent == SIZE


async def test_who_joins_while_another_streams_takes_the_rest_from_there() -> None:
    town = Town()
    digest = town.has(DATA)
    town.upstream.gate_at = SIZE // 2
    async with town.members("anna", "bert") as (anna, bert):
        first = asyncio.ensure_future(pull(anna, digest))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(pull(bert, digest))
        await asyncio.sleep(0.2)
        town.upstream.gate.set()
        assert (await first).data == (await second).data == DATA
    assert town.upstream.sent <= SIZE * 1.15


async def test_one_that_dies_midway_costs_no_one_the_blob() -> None:
    town = Town()
    digest = town.has(DATA)
    async with town.members(*NAMES) as agents:
        dying, *others = agents
        doomed = asyncio.ensure_future(pull(dying, digest))
        clients = asyncio.ensure_future(all_pull(others, digest))
        while not dying.blobs.fetches() or dying.blobs.fetches()[0].received < SIZE // 4:
            await asyncio.sleep(0)
        await dying.kill()
        assert all(client.data == DATA for client in await clients)
        with pytest.raises(P2PDistError):
            await doomed
    assert town.upstream.sent <= SIZE * 2


async def test_a_member_that_corrupts_what_it_passes_on_harms_no_client_and_is_banned() -> None:
    town = Town()
    digest = town.has(DATA)
    async with town.members(*NAMES) as agents:
        liar, *others = agents
        liar.lies = True
        clients = await all_pull([liar, *others], digest)
    assert all(client.data == DATA for client in clients)
    honest = {member.id for member in others}
    bans = [peer for member in agents for peer in member.seen.bans]
    assert bans
    assert not honest & set(bans)


async def test_word_of_laggards_that_poses_as_this_host_is_not_its_own() -> None:
    """What a host found out itself it believes whoever it is about, and passes on."""
    town = Town()
    digest = town.has(DATA)
    town.upstream.gate_at = SIZE // 2
    async with town.members("anna", "bert", "carl") as agents:
        clients = asyncio.ensure_future(all_pull(agents, digest))
        ring = sorted((agent.hub.own.peer for agent in agents), key=seed_of)
        anna = agents[0]
        before = ring[ring.index(anna.id) - 1]  # of whom this host's own word counts
        await until(lambda: len(members_of(anna, digest)) == 2)
        assert anna.hub.received(anna.id, encode(Update(digest, lagging=(before, anna.id)))) is None
        assert members_of(anna, digest)[before].lags_until == 0.0
        town.upstream.gate.set()
        assert all(client.data == DATA for client in await clients)


async def test_a_complete_liar_is_found_out_by_those_who_come_later() -> None:
    town = Town()
    digest = town.has(DATA)
    async with town.members("liar", "anna", "bert") as (liar, anna, bert):
        await pull(liar, digest)
        liar.lies = True
        clients = await all_pull([anna, bert], digest)
    assert all(client.data == DATA for client in clients)
    assert set(anna.seen.bans) | set(bert.seen.bans) == {liar.id}


@pytest.mark.parametrize("size", [100, 40 * KIB, PIECE])
async def test_a_small_blob_is_asked_of_upstream_once(size: int) -> None:
    town, data = Town(), blob(size)
    digest = town.has(data)
    for name in NAMES:
        await town.cluster.join(name).withdraw(digest)
    async with town.members(*NAMES) as agents:
        for agent in agents:
            await agent.store.link(APP, [digest], sizes={digest: size})
        clients = await all_pull(agents, digest)
    assert all(client.data == data for client in clients)
    assert len(town.upstream.asked("blob")) <= 2  # one; two at a race


async def test_upstream_down_and_some_hold_it() -> None:
    town = Town()
    digest = town.has(DATA)
    async with town.members("anna", "bert", "carl") as (anna, bert, carl):
        await pull(anna, digest)
        town.upstream.down = True
        clients = await all_pull([bert, carl], digest)
    assert all(client.data == DATA for client in clients)


async def test_when_upstream_goes_away_the_members_put_together_what_they_have() -> None:
    town = Town()
    digest = town.has(DATA)
    async with town.members("anna", "bert") as (anna, bert):
        for agent, (start, stop) in ((anna, (0, SIZE // 2)), (bert, (SIZE // 2, SIZE))):
            ingest = await agent.store.ingest(digest, SIZE)
            await ingest.write(start, DATA[start:stop])
            await ingest.close()
            await agent.store.link(APP, [digest], sizes={digest: SIZE})
        town.upstream.down = True
        clients = await all_pull([anna, bert], digest)
    assert all(client.data == DATA for client in clients)
    assert town.upstream.sent == 0


async def test_when_nobody_can_deliver_all_end_with_the_reason_and_withdraw() -> None:
    town = Town()
    digest = town.has(DATA)
    town.upstream.down = True
    async with town.members("anna", "bert") as agents:
        for agent in agents:
            await agent.store.link(APP, [digest], sizes={digest: SIZE})
        async with asyncio.timeout(30):
            ends = await asyncio.gather(*(pull(agent, digest) for agent in agents), return_exceptions=True)
        assert all(isinstance(end, UnreachableError) for end in ends)
        await asyncio.sleep(0)
        assert await town.cluster.join("visitor").find(digest) == ()


async def test_a_refusal_by_upstream_ends_at_once() -> None:
    town = Town()
    town.has(b"something else")
    digest = Digest.of(DATA)
    async with town.members("anna") as (anna,):
        await anna.store.link(APP, [digest], sizes={digest: SIZE})
        async with asyncio.timeout(3):
            with pytest.raises(P2PDistError):
                await pull(anna, digest)


async def test_a_neighbour_that_never_answers_holds_nobody_up() -> None:
    town = Town()
    digest = town.has(DATA)
    async with town.members("mute", "anna") as (mute, anna):
        mute.mute = True
        await mute.discovery.announce(digest, complete=False)
        async with asyncio.timeout(10):
            client = await pull(anna, digest)
    assert client.data == DATA


async def test_a_full_disk_in_mid_swarm_is_a_clean_error_and_the_others_go_on() -> None:
    town = Town()
    digest = town.has(DATA)
    async with town.members("anna", "bert") as (anna, bert):
        anna.store.disk_full = True
        clients = await all_pull([anna, bert], digest)
    assert all(client.data == DATA for client in clients)  # anna's by passing through
    assert await bert.store.stat(digest) is not None
    assert await anna.store.stat(digest) is None


# -- upstream without ranges --


async def test_a_lone_agent_streams_from_an_upstream_without_ranges_in_one_go() -> None:
    town = Town()
    digest = town.has(DATA)
    town.upstream.ranges = False
    async with town.members("anna") as (anna,):
        client = await pull(anna, digest)
    assert client.data == DATA
    assert town.upstream.sent == SIZE


async def test_without_ranges_one_member_streams_and_the_others_take_it_from_there() -> None:
    town = Town()
    digest = town.has(DATA)
    town.upstream.ranges = False
    async with town.members(*NAMES) as agents:
        clients = await all_pull(agents, digest)
    assert all(client.data == DATA for client in clients)
    assert town.upstream.sent <= 2 * SIZE  # who came first may have begun alone


async def test_when_the_one_that_streams_dies_another_source_is_found() -> None:
    town = Town()
    digest = town.has(DATA)
    town.upstream.ranges = False
    town.upstream.gate_at = SIZE // 2
    async with town.members("anna", "bert") as agents:
        jobs = {agent.name: asyncio.ensure_future(pull(agent, digest)) for agent in agents}
        await asyncio.sleep(0.5)
        leader = min(agents, key=lambda agent: agent.id)
        other = next(agent for agent in agents if agent is not leader)
        await leader.kill()
        town.upstream.gate.set()
        async with asyncio.timeout(30):
            assert (await jobs[other.name]).data == DATA
        await asyncio.gather(*jobs.values(), return_exceptions=True)


class HeldUp(SystemClock):
    """A clock on which the grace of a claim lasts as long as the test wants."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        await (self.over.wait() if seconds == swarm_fill.GRACE else super().sleep(seconds))


async def test_a_claim_that_meets_another_at_once_asks_nothing_of_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = HeldUp()
    town = Town(clock=clock)
    digest = town.has(DATA)
    monkeypatch.setattr(Planner, "has_rivals", lambda _planner, _now: True)

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    async with town.members("anna", "bert") as (anna, bert):
        monkeypatch.setattr(anna.context.peers, "piece", never)
        client = asyncio.ensure_future(pull(anna, digest))
        await until(lambda: digest in anna.hub._sessions and anna.hub._sessions[digest]._runs)  # type: ignore[attr-defined]
        (run,) = anna.hub._sessions[digest]._runs  # type: ignore[attr-defined]
        assert run.left == [0]
        own = dataclasses.replace(bert.hub.own, complete=False)
        anna.hub.received(bert.id, encode(Join(digest, SIZE, own, frozenset())))
        anna.hub.received(bert.id, encode(Update(digest, ((0, HEARSAY),))))
        await until(lambda: run.dropped == {0} or not run.left)
        clock.over.set()
        async with asyncio.timeout(30):
            while not town.upstream.asked("blob"):
                await asyncio.sleep(0.01)
        assert 0 not in [request.offset for request in town.upstream.asked("blob")]
        client.cancel()
        await asyncio.gather(client, return_exceptions=True)
