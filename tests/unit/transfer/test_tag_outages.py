"""Tags while upstream does not answer, and tags that are trusted for no time at all."""

from __future__ import annotations

import asyncio

import pytest

from p2pdist.errors import DeniedError, NotFoundError, UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.records import TagRecord
from p2pdist.transfer.context import TransferPolicy
from p2pdist.transfer.manifests import tag_wish
from tests.unit.transfer.test_manifests import DAY, TYPE, kinds, manifest, tagged
from tests.unit.transfer.world import APP, World, until


async def test_in_an_outage_the_last_resolution_is_served_as_stale() -> None:
    world = World()
    digest = tagged(world)
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")
        await world.manual.advance(3 * DAY)
        world.upstream.down = True
        served = await agent.mirror.manifest(APP, "latest")
        assert (served.digest, served.stale) == (digest, True)
        world.upstream.down = False
        await world.manual.advance(11)
        assert not (await agent.mirror.manifest(APP, "latest")).stale


async def test_an_outage_is_waited_for_once_not_by_each_request() -> None:
    world = World()
    tagged(world)
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")
        await world.manual.advance(61)
        world.upstream.down = True
        for _ in range(10):
            assert (await agent.mirror.manifest(APP, "latest")).stale
        assert kinds(world) == ["manifest", "manifest-head"]
        await world.manual.advance(11)
        assert (await agent.mirror.manifest(APP, "latest")).stale
    assert kinds(world) == ["manifest", "manifest-head", "manifest-head"]


async def test_while_one_request_tries_a_dead_registry_again_the_others_do_not_wait() -> None:
    world = World()
    digest = tagged(world)
    world.upstream.set_tag(APP, "stable", digest)
    async with world.agent() as agent:
        for tag in ("latest", "stable"):
            await agent.mirror.manifest(APP, tag)
        await world.manual.advance(61)
        world.upstream.down = True
        assert (await agent.mirror.manifest(APP, "latest")).stale
        await world.manual.advance(11)
        world.upstream.answer_gate = asyncio.Event()
        trial = asyncio.ensure_future(agent.mirror.manifest(APP, "latest"))
        await until(lambda: len(world.upstream.requests) == 4)
        assert (await agent.mirror.manifest(APP, "stable")).stale
        assert not trial.done()
        world.upstream.down = False
        world.upstream.answer_gate.set()
        assert not (await trial).stale
        assert not (await agent.mirror.manifest(APP, "stable")).stale


@pytest.mark.parametrize("knob", ["denied", "forgets"])
async def test_a_refusal_shows_that_a_registry_is_back(knob: str) -> None:
    world = World()
    digest = tagged(world)
    world.upstream.set_tag(APP, "stable", digest)
    async with world.agent() as agent:
        for tag in ("latest", "stable"):
            await agent.mirror.manifest(APP, tag)
        await world.manual.advance(61)
        world.upstream.down = True
        assert (await agent.mirror.manifest(APP, "latest")).stale
        await world.manual.advance(11)
        world.upstream.down = False
        world.upstream.denied = knob == "denied"
        if knob == "forgets":
            del world.upstream._held[APP].tags["latest"]
        with pytest.raises((DeniedError, NotFoundError)):
            await agent.mirror.manifest(APP, "latest")
        world.upstream.denied = False
        assert not (await agent.mirror.manifest(APP, "stable")).stale


async def test_a_resolution_that_is_too_old_is_not_served() -> None:
    world = World()
    tagged(world)
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")
        await world.manual.advance(7 * DAY + 1)
        world.upstream.down = True
        with pytest.raises(UnreachableError):
            await agent.mirror.manifest(APP, "latest")


async def test_in_an_outage_what_another_host_was_told_is_remembered_with_its_age() -> None:
    world = World()
    anna = await world.peer("anna", manifest())
    record = TagRecord(anna.id, Digest.of(manifest()), TYPE, len(manifest()), 0.0)
    await world.cluster.members[anna.id].announce_tag(APP, "latest", record)
    await world.manual.advance(300)
    world.upstream.down = True
    async with world.agent() as agent:
        served = await agent.mirror.manifest(APP, "latest")
        assert served.stale
        entry = await world.store.tag(APP, "latest")
        assert entry is not None
        assert entry.digest == served.digest
        assert world.manual.wall() - entry.resolved_at == pytest.approx(300, abs=5)
        await world.manual.advance(60)
        assert (await agent.mirror.manifest(APP, "latest")).stale  # it is no fresher for that
        assert len(await world.store.tag_history(APP, "latest")) == 1


async def test_in_an_outage_an_older_resolution_of_another_host_takes_no_ones_place() -> None:
    world = World()
    anna = await world.peer("anna", manifest())
    record = TagRecord(anna.id, Digest.of(manifest()), TYPE, len(manifest()), 0.0)
    await world.cluster.members[anna.id].announce_tag(APP, "latest", record)
    await world.manual.advance(300)
    new = tagged(world, "two")
    async with world.agent() as agent:
        assert (await agent.mirror.manifest(APP, "latest")).digest == new
        await world.manual.advance(61)
        world.upstream.down = True
        await world.store.delete(new)
        served = await agent.mirror.manifest(APP, "latest")
        assert served.digest == Digest.of(manifest())
        entry = await world.store.tag(APP, "latest")
        assert entry is not None
        assert entry.digest == new


# -- tags that are trusted for no time --


async def test_a_ttl_of_zero_asks_upstream_each_time_in_the_same_moment_too() -> None:
    world = World(policy=TransferPolicy(tag_ttl=0))
    tagged(world)
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")
        new = tagged(world, "two")
        assert (await agent.mirror.manifest(APP, "latest")).digest == new  # the clock stands still
    assert kinds(world) == ["manifest", "manifest-head", "manifest"]


async def test_with_a_ttl_of_zero_what_others_were_told_just_now_serves_only_in_an_outage() -> None:
    world = World(policy=TransferPolicy(tag_ttl=0))
    new = tagged(world, "two")
    anna = await world.peer("anna", manifest())
    member = world.cluster.members[anna.id]
    old = TagRecord(anna.id, Digest.of(manifest()), TYPE, len(manifest()), 0.0)
    await member.announce_tag(APP, "latest", old)
    await member.announce(tag_wish(APP, "latest"), complete=False)
    async with world.agent() as agent:
        assert (await agent.mirror.manifest(APP, "latest")).digest == new  # nor is there a wait for anna
        await world.manual.settle()
        assert new in [record.digest for record in await member.find_tag(APP, "latest")]
        world.upstream.down = True
        served = await agent.mirror.manifest(APP, "latest")
    assert served.stale


async def test_with_a_ttl_of_zero_an_outage_is_waited_for_once() -> None:
    world = World(policy=TransferPolicy(tag_ttl=0))
    tagged(world)
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")
        world.upstream.down = True
        for _ in range(10):
            assert (await agent.mirror.manifest(APP, "latest")).stale
        assert kinds(world) == ["manifest", "manifest-head"]
