"""What the cluster is told: at commit and not before, at start, and no longer after an eviction."""

from __future__ import annotations

import asyncio

from p2pdist.discovery.port import Announcement
from p2pdist.oci.digest import Digest
from p2pdist.store.port import TagEntry
from tests.unit.transfer.world import APP, SIZE, World, blob, pull, until


async def test_a_blob_is_announced_when_it_is_committed_and_not_before() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    world.upstream.gate_at = SIZE - 1
    bert = world.cluster.join("bert")
    async with world.agent(announcing=True) as agent:
        client = asyncio.ensure_future(pull(agent, digest))
        await world.manual.advance(5)
        assert await bert.find(digest) == ()
        world.upstream.gate.set()
        await client
        await world.manual.settle()
        assert await bert.find(digest) == (world.discovery.provider(complete=True),)


async def test_at_start_what_is_held_is_announced_most_recently_used_first() -> None:
    world = World()
    blobs = [blob(10, seed) for seed in range(3)]
    for data in blobs:
        await world.store.put(Digest.of(data), data)
        await world.manual.advance(1)
    await world.store.put(Digest.of(b"private"), b"private", shared=False)
    reader = await world.store.open(Digest.of(blobs[0]))
    assert reader is not None
    reader.close()
    async with world.agent(announcing=True):
        await world.manual.advance(1)
    order = [blobs[0], blobs[2], blobs[1]]
    assert world.discovery.announced == [(Digest.of(data), True) for data in order]


async def test_at_start_tags_that_may_still_serve_are_told_with_their_age() -> None:
    world = World()
    held = Digest.of(b"manifest")
    await world.store.put(held, b"manifest")
    wall = world.clock.wall()
    for tag, digest, age in (
        ("kept", held, 100.0),
        ("ancient", held, 8 * 86400.0),
        ("lost", Digest.of(b"?"), 1.0),
    ):
        await world.store.record_tag(TagEntry(APP, tag, digest, "", 8, wall - age, wall - age))
    bert = world.cluster.join("bert")
    async with world.agent(announcing=True):
        await world.manual.advance(1)
    (record,) = await bert.find_tag(APP, "kept")
    assert record.digest == held
    assert 100 <= record.age < 102
    assert await bert.find_tag(APP, "ancient") == await bert.find_tag(APP, "lost") == ()


async def test_an_evicted_blob_is_withdrawn() -> None:
    world = World(quota=SIZE + 10)
    old, new = blob(seed=1), blob(seed=2)
    first, second = world.has(old), world.has(new)
    bert = world.cluster.join("bert")
    async with world.agent(announcing=True) as agent:
        await pull(agent, first)
        await world.manual.settle()
        assert await bert.find(first) != ()
        await pull(agent, second)
        await world.manual.settle()
        assert await bert.find(first) == ()
        assert await bert.find(second) != ()


async def test_an_eviction_while_its_announcement_is_on_the_way_has_the_last_word() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    gate, announce = asyncio.Event(), world.discovery.announce

    async def slowly(digest: Digest, *, complete: bool = True) -> Announcement:
        await gate.wait()
        return await announce(digest, complete=complete)

    world.discovery.announce = slowly  # type: ignore[method-assign]
    bert = world.cluster.join("bert")
    async with world.agent(announcing=True) as agent:
        await pull(agent, digest)
        await world.manual.settle()
        assert await world.store.delete(digest)
        agent.announcer.evictions()
        await world.manual.settle()
        gate.set()
        await world.manual.settle()
        assert await bert.find(digest) == ()


async def test_one_announcement_that_fails_stops_no_other() -> None:
    world = World()
    announce, failures = world.discovery.announce, [0]

    async def failing(digest: Digest, *, complete: bool = True) -> Announcement:
        if failures[0] < 4:
            failures[0] += 1
            raise RuntimeError("a fault")
        return await announce(digest, complete=complete)

    world.discovery.announce = failing  # type: ignore[method-assign]
    digests = [Digest.of(bytes([n])) for n in range(6)]
    async with world.agent(announcing=True) as agent:
        for n, digest in enumerate(digests):
            await world.store.put(digest, bytes([n]))
            agent.announcer.committed(digest, shared=True)
        await until(lambda: len(world.discovery.announced) >= 2)
