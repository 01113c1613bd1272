"""More agents than a message can name: all of them meet, and the blob comes to each."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from functools import partial

import pytest

from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId
from p2pdist.swarm.settings import PlannerSettings
from p2pdist.testing.memory_discovery import MemoryDiscovery
from p2pdist.transfer import swarm_fill
from p2pdist.wire.swarm_messages import MAX_MEMBERS, Join, Leave, SwarmMessage, decode, encode
from tests.unit.transfer.town import Member, Town
from tests.unit.transfer.world import MIB, blob, pull, until

NAMES = tuple(f"agent-{number}" for number in range(MAX_MEMBERS + 10))
TOLD = 8
DATA = blob(4 * MIB)


@pytest.fixture(autouse=True)
def _few_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discovery names a few of those who are there, as a datagram has room for a few."""
    dice = random.Random(7)
    find, announce = MemoryDiscovery.find, MemoryDiscovery.announce

    async def found(self: MemoryDiscovery, digest: Digest) -> object:
        providers = list(await find(self, digest))
        return dice.sample(providers, min(TOLD, len(providers)))

    async def announced(self: MemoryDiscovery, digest: Digest, *, complete: bool) -> object:
        announcement = await announce(self, digest, complete=complete)
        providers = list(announcement.providers)
        few = tuple(dice.sample(providers, min(TOLD, len(providers))))
        return dataclasses.replace(announcement, providers=few)

    monkeypatch.setattr(MemoryDiscovery, "find", found)
    monkeypatch.setattr(MemoryDiscovery, "announce", announced)


def arcs(agents: list[Member], digest: Digest) -> list[int]:
    return [agent.hub._sessions[digest]._planner.arc for agent in agents]  # type: ignore[attr-defined]


def mates(agent: Member, digest: Digest) -> set[PeerId]:
    """Whom the agent has in its arc."""
    table = agent.hub._sessions[digest]._planner._members.table  # type: ignore[attr-defined]
    return {peer for peer, member in table.items() if not member.outside}


async def test_all_agents_meet_though_each_is_told_of_few() -> None:
    town = Town()
    digest = town.has(DATA)
    town.upstream.gate_at = 0
    async with town.members(*NAMES) as agents:
        pulls = [asyncio.ensure_future(pull(agent, digest)) for agent in agents]
        everybody = {agent.id for agent in agents}
        await until(lambda: all(digest in agent.hub._sessions for agent in agents))
        await until(lambda: all(mates(agent, digest) == everybody - {agent.id} for agent in agents))
        assert set(arcs(agents, digest)) == {0}
        town.upstream.gate.set()
        assert all(client.data == DATA for client in await asyncio.gather(*pulls))


async def test_agents_of_several_arcs_all_get_the_blob(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_fill, "PlannerSettings", partial(PlannerSettings, arc=12))
    town = Town()
    digest = town.has(DATA)
    town.upstream.gate_at = len(DATA) // 4
    async with town.members(*NAMES) as agents:
        pulls = [asyncio.ensure_future(pull(agent, digest)) for agent in agents]
        await until(lambda: all(digest in agent.hub._sessions for agent in agents))
        await until(lambda: all(arcs(agents, digest)))
        town.upstream.gate.set()
        assert all(client.data == DATA for client in await asyncio.gather(*pulls))


async def test_who_has_no_room_says_whom_it_knows_and_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swarm_fill, "MOST_NEIGHBOURS", 2)
    town = Town()
    digest = town.has(DATA)
    town.upstream.gate_at = 0
    async with town.members("anna", "bert", "carl", "dora") as (anna, *others):
        pulls = [asyncio.ensure_future(pull(agent, digest)) for agent in (anna, *others[:2])]
        await until(lambda: all(digest in agent.hub._sessions for agent in (anna, *others[:2])))
        await until(lambda: len(mates(anna, digest)) == 2)
        dora = others[2]
        sent: list[tuple[PeerId, SwarmMessage]] = []

        def received(sender: PeerId, frame: bytes) -> None:
            sent.append((sender, decode(frame)))

        monkeypatch.setattr(dora.hub, "received", received)
        size = len(DATA)
        join = Join(digest, size, dora.discovery.provider(), frozenset(), answer=True)
        anna.hub.received(dora.id, encode(join))
        await until(lambda: len(sent) >= 2)
        from_anna = [message for sender, message in sent if sender == anna.id]
        assert isinstance(from_anna[0], Join)
        assert {member.peer for member in from_anna[0].members} == {each.id for each in others[:2]}
        assert isinstance(from_anna[1], Leave)
        town.upstream.gate.set()
        assert all(client.data == DATA for client in await asyncio.gather(*pulls))
