"""Manifests on one host: tags fresh, expired, moved and refused (outages: test_tag_outages.py); manifests by digest."""

from __future__ import annotations

import asyncio
import json

import pytest

from p2pdist.errors import DeniedError, NotFoundError, P2PDistError, UnreachableError
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST
from p2pdist.records import TagRecord
from p2pdist.transfer.content import Source
from p2pdist.transfer.context import TransferPolicy
from p2pdist.transfer.manifests import tag_wish
from tests.unit.transfer.world import APP, World, pull

TYPE = media_types.OCI_MANIFEST
DAY = 86400.0


def manifest(name: str = "one", layer: bytes = b"layer") -> bytes:
    """An image manifest; another name makes another digest."""
    described = {"mediaType": media_types.OCI_LAYER, "digest": str(Digest.of(layer)), "size": len(layer)}
    document = {
        "schemaVersion": 2,
        "mediaType": TYPE,
        "config": {"mediaType": media_types.OCI_CONFIG, "digest": str(Digest.of(b"{}")), "size": 2},
        "layers": [described],
        "annotations": {"name": name},
    }
    return json.dumps(document).encode()


def kinds(world: World) -> list[str]:
    return [request.kind for request in world.upstream.requests]


def tagged(world: World, name: str = "one") -> Digest:
    return world.upstream.put_manifest(APP, manifest(name), TYPE, "latest")


# -- by digest --


async def test_a_manifest_is_fetched_once_and_held() -> None:
    world = World()
    digest = tagged(world)
    async with world.agent() as agent:
        answers = await asyncio.gather(*(agent.mirror.manifest(APP, digest) for _ in range(5)))
        again = await agent.mirror.manifest(APP, digest)
    assert {answer.body for answer in answers} == {manifest()}
    assert answers[0].media_type == TYPE
    assert answers[0].source is Source.UPSTREAM
    assert again.source is Source.STORE
    assert kinds(world) == ["manifest"]
    assert world.seen.done == [(digest, "manifest", {"upstream": len(manifest())})]


async def test_a_manifest_tells_the_sizes_of_its_blobs() -> None:
    world = World()
    digest = tagged(world)
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, digest)
        assert (await agent.mirror.blob_stat(APP, Digest.of(b"layer"))).size == 5
    assert kinds(world) == ["manifest"]


async def test_a_peer_that_holds_a_manifest_is_asked_first() -> None:
    world = World()
    digest = tagged(world)
    anna = await world.peer("anna", manifest())
    anna.media_types[digest] = "application/x-lie"
    async with world.agent() as agent:
        served = await agent.mirror.manifest(APP, digest)
    assert served.source is Source.PEER
    assert served.media_type == TYPE  # the body says so
    assert world.upstream.requests == []


async def test_a_wrong_manifest_from_a_peer_is_not_served_and_the_peer_is_banned() -> None:
    world = World()
    digest = tagged(world)
    liar = await world.peer("liar", manifest(), wrong_at=3)
    async with world.agent() as agent:
        served = await agent.mirror.manifest(APP, digest)
    assert served.body == manifest()
    assert served.source is Source.UPSTREAM
    assert world.seen.bans == [liar.id]
    assert world.seen.mismatches == [("peer", liar.id)]


@pytest.mark.parametrize("knobs", [{"dead": True}, {"cut_at": 5}, {"stall_at": 5}, {"busy": True}])
async def test_a_peer_that_fails_costs_no_manifest(knobs: dict[str, object]) -> None:
    world = World()
    digest = tagged(world)
    await world.peer("bad", manifest(), **knobs)
    async with world.agent() as agent:
        assert (await agent.mirror.manifest(APP, digest)).source is Source.UPSTREAM


async def test_what_a_peer_offers_beyond_four_mib_is_no_manifest() -> None:
    world = World()
    digest = tagged(world)
    huge = await world.peer("huge", manifest(), wrong_size=MAX_MANIFEST + 1)
    async with world.agent() as agent:
        assert (await agent.mirror.manifest(APP, digest)).source is Source.UPSTREAM
    assert huge.sent == 0


async def test_a_manifest_of_an_unknown_type_passes_and_is_kept() -> None:
    world, body = World(), b'{"something": "else"}'
    digest = world.upstream.put_manifest(APP, body, "application/vnd.example+json", "odd")
    async with world.agent() as agent:
        served = await agent.mirror.manifest(APP, "odd", accept=("*/*",))
        again = await agent.mirror.manifest(APP, digest)
    assert (served.body, served.media_type) == (body, "application/vnd.example+json")
    assert (again.body, again.media_type) == (body, "application/vnd.example+json")
    assert kinds(world) == ["manifest"]


async def test_a_held_layer_is_no_manifest() -> None:
    world, layer = World(), b"\x1f\x8b no json"
    digest = world.has(layer)
    async with world.agent() as agent:
        await pull(agent, digest)
        with pytest.raises(NotFoundError):
            await agent.mirror.manifest(APP, digest)


async def test_a_manifest_without_room_is_served_and_not_kept_nor_announced() -> None:
    world = World(quota=10)
    digest = tagged(world)
    async with world.agent(announcing=True) as agent:
        served = await agent.mirror.manifest(APP, digest)
        await world.manual.advance(1)
    assert served.body == manifest()
    bert = world.cluster.join("bert")
    assert await bert.find(digest) == ()


async def test_one_repositorys_refusal_is_not_anothers() -> None:
    world, other = World(), APP.of("docker.io", "library/other")
    digest = world.upstream.put_manifest(other, manifest(), TYPE)
    tagged(world, "something else")
    async with world.agent() as agent:
        refused, served = await asyncio.gather(
            agent.mirror.manifest(APP, digest), agent.mirror.manifest(other, digest), return_exceptions=True
        )
    assert isinstance(refused, NotFoundError)
    assert not isinstance(served, BaseException)


async def test_a_fetch_that_fails_takes_its_announcement_back() -> None:
    world = World()
    digest = tagged(world)
    world.upstream.down = True
    async with world.agent() as agent:
        with pytest.raises(UnreachableError):
            await agent.mirror.manifest(APP, digest)
    assert await world.cluster.join("bert").find(digest) == ()


# -- by tag --


async def test_a_tag_is_resolved_once_within_its_ttl() -> None:
    world = World()
    digest = tagged(world)
    async with world.agent() as agent:
        answers = await asyncio.gather(*(agent.mirror.manifest(APP, "latest") for _ in range(5)))
        await world.manual.advance(60)
        assert (await agent.mirror.manifest(APP, "latest")).source is Source.STORE
    assert {answer.digest for answer in answers} == {digest}
    assert kinds(world) == ["manifest"]


async def test_an_expired_tag_is_refreshed_by_a_head() -> None:
    world = World()
    tagged(world)
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")
        await world.manual.advance(61)
        again = await agent.mirror.manifest(APP, "latest")
        await world.manual.advance(59)
        await agent.mirror.manifest(APP, "latest")
    assert (again.source, again.stale) == (Source.STORE, False)
    assert kinds(world) == ["manifest", "manifest-head"]


async def test_a_tag_that_moved_is_followed_and_its_past_is_kept() -> None:
    world = World()
    old = tagged(world)
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")
        await world.manual.advance(61)
        new = tagged(world, "two")
        assert (await agent.mirror.manifest(APP, "latest")).digest == new
        world.upstream.down = True
        assert (await agent.mirror.manifest(APP, old)).digest == old  # rollback
    assert [entry.digest for entry in await world.store.tags(APP, history=True)] == [new, old]


@pytest.mark.parametrize("wall", [-3600.0, 365 * DAY])
async def test_a_wall_clock_that_jumps_costs_at_most_a_question(wall: float) -> None:
    world = World()
    digest = tagged(world)
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")
        world.manual.set_wall(world.clock.wall() + wall)
        assert (await agent.mirror.manifest(APP, "latest")).digest == digest
    assert kinds(world) == ["manifest", "manifest-head"]


async def test_a_tag_that_upstream_no_longer_has_is_gone() -> None:
    world = World()
    tagged(world)
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")
        await world.manual.advance(61)
        world.upstream._held[APP].tags.clear()
        with pytest.raises(NotFoundError):
            await agent.mirror.manifest(APP, "latest")


async def test_a_refusal_is_final_though_the_manifest_is_held() -> None:
    world = World()
    tagged(world)
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")
        await world.manual.advance(61)
        world.upstream.denied = True
        with pytest.raises(DeniedError):
            await agent.mirror.manifest(APP, "latest")


# -- what other members know --


async def test_what_another_member_was_told_within_the_ttl_costs_no_request() -> None:
    world = World()
    digest = tagged(world)
    anna = await world.peer("anna", manifest())
    record = TagRecord(anna.id, digest, TYPE, len(manifest()), 10.0)
    await world.cluster.members[anna.id].announce_tag(APP, "latest", record)
    async with world.agent() as agent:
        served = await agent.mirror.manifest(APP, "latest")
        assert served.source is Source.PEER
        await world.manual.advance(49)
        await agent.mirror.manifest(APP, "latest")
        assert world.upstream.requests == []
        await world.manual.advance(2)  # the age counts from when upstream said so
        await agent.mirror.manifest(APP, "latest")
    assert kinds(world) == ["manifest-head"]


async def test_an_old_record_of_another_member_serves_only_in_an_outage() -> None:
    world = World()
    digest = tagged(world)
    anna = await world.peer("anna", manifest())
    record = TagRecord(anna.id, digest, TYPE, len(manifest()), 3600.0)
    await world.cluster.members[anna.id].announce_tag(APP, "latest", record)
    world.upstream.down = True
    async with world.agent() as agent:
        served = await agent.mirror.manifest(APP, "latest")
    assert (served.digest, served.stale) == (digest, True)


@pytest.mark.parametrize("down", [False, True])
async def test_a_record_whose_manifest_nobody_has_does_no_harm(down: bool) -> None:
    world = World()
    digest = tagged(world)
    liar, anna = await world.peer("liar"), await world.peer("anna", manifest())
    lie = TagRecord(liar.id, Digest.of(b"no such manifest"), TYPE, 5, 0.0)
    await world.cluster.members[liar.id].announce_tag(APP, "latest", lie)
    told = TagRecord(anna.id, digest, TYPE, 5, 120.0)
    await world.cluster.members[anna.id].announce_tag(APP, "latest", told)
    world.upstream.down = down
    async with world.agent() as agent:
        served = await agent.mirror.manifest(APP, "latest")
    assert (served.digest, served.stale) == (digest, down)


async def test_a_resolution_is_told_once_its_manifest_can_be_had() -> None:
    world = World()
    digest = tagged(world)
    bert = world.cluster.join("bert")
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")
        await world.manual.settle()
        assert [record.digest for record in await bert.find_tag(APP, "latest")] == [digest]
        assert await bert.find(digest) == (world.discovery.provider(),)
        assert await bert.find(tag_wish(APP, "latest")) == ()  # nobody need wait for this host


async def test_what_is_not_shared_is_neither_asked_of_members_nor_told() -> None:
    world = World(policy=TransferPolicy(shares=lambda registry: False))
    digest = tagged(world)
    anna = await world.peer("anna", manifest())
    record = TagRecord(anna.id, digest, TYPE, len(manifest()), 0.0)
    await world.cluster.members[anna.id].announce_tag(APP, "latest", record)
    async with world.agent(announcing=True) as agent:
        served = await agent.mirror.manifest(APP, "latest")
        await world.manual.advance(1)
    assert served.source is Source.UPSTREAM
    assert world.peers.requests == []
    assert world.discovery.announced == []
    assert [record.peer for record in await world.cluster.join("bert").find_tag(APP, "latest")] == [anna.id]


# -- accept --


async def test_a_client_that_takes_another_type_gets_it_from_upstream_or_a_clear_answer() -> None:
    world = World()
    tagged(world)
    async with world.agent() as agent:
        served = await agent.mirror.manifest(APP, "latest", accept=(TYPE, media_types.OCI_INDEX))
        assert served.media_type == TYPE
        with pytest.raises(NotFoundError):
            await agent.mirror.manifest(APP, "latest", accept=(media_types.DOCKER_MANIFEST,))
        assert (await agent.mirror.manifest(APP, "latest")).media_type == TYPE


async def test_who_asks_in_vain_gets_the_reason() -> None:
    world = World()
    tagged(world)
    world.upstream.down = True
    async with world.agent() as agent:
        with pytest.raises(P2PDistError, match=r"docker\.io does not answer"):
            await agent.mirror.manifest(APP, "latest")


async def test_a_dead_host_ahead_is_waited_for_once() -> None:
    world = World()
    tagged(world)
    dead = world.cluster.join("dead")
    await dead.announce(tag_wish(APP, "latest"), complete=False)
    async with world.agent() as agent:
        first = asyncio.ensure_future(agent.mirror.manifest(APP, "latest"))
        await world.manual.advance(1.9)
        assert not first.done()
        await world.manual.advance(0.2)
        assert (await first).source is Source.UPSTREAM
        await world.manual.advance(61)  # and the wait is forgotten, as is the host if its record expired
        second = asyncio.ensure_future(agent.mirror.manifest(APP, "latest"))
        await world.manual.advance(4.1)
        assert not (await second).stale


async def test_a_cut_off_or_lone_agent_waits_for_nobody() -> None:
    world = World()
    tagged(world)
    world.discovery.cut_off = True
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "latest")  # the clock stands still
    assert world.manual.sleepers == 0
