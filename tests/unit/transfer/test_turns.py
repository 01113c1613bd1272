"""Many hosts that want one manifest, or one tag, in the same moment: one of them asks upstream."""

from __future__ import annotations

import asyncio
import json

import pytest

from p2pdist.clock import SystemClock
from p2pdist.errors import NotFoundError
from p2pdist.oci import media_types
from p2pdist.testing.clock import ManualClock
from p2pdist.transfer.content import Source
from p2pdist.transfer.lease import LONGEST_WAIT, looks, turn
from p2pdist.transfer.manifests import tag_wish
from tests.unit.transfer.test_manifests import TYPE, manifest
from tests.unit.transfer.town import Town
from tests.unit.transfer.world import APP

NAMES = [f"host-{number}" for number in range(8)]


def test_the_further_behind_the_later_the_turn_but_never_very_late() -> None:
    waits = [turn(ahead) for ahead in range(50)]
    assert waits[0] == 0.0
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT


async def test_who_is_first_looks_for_nobody() -> None:
    assert [look async for look in looks(SystemClock(), 0)] == []


async def test_looks_are_dense_at_first_and_end_at_the_turn() -> None:
    clock = ManualClock()
    begin, times = clock.now(), list[float]()

    async def look() -> None:
        async for _ in looks(clock, 1):
            times.append(clock.now() - begin)

    looking = asyncio.ensure_future(look())
    await clock.advance(10)
    await looking
    assert times[:2] == [0.0, pytest.approx(0.05)]
    assert times[-1] < turn(1) <= times[-1] + 0.31
    assert len(times) <= 12


async def test_one_tag_pulled_by_all_at_once_is_one_request() -> None:
    town = Town()
    town.upstream.put_manifest(APP, manifest(), TYPE, "latest")
    async with town.members(*NAMES) as hosts:
        served = await asyncio.gather(*(host.mirror.manifest(APP, "latest") for host in hosts))
    assert {each.body for each in served} == {manifest()}
    assert sum(each.source is Source.UPSTREAM for each in served) <= 2
    assert len(town.upstream.requests) <= 2


async def test_an_expired_tag_is_one_head_of_one_of_them() -> None:
    clock = ManualClock()
    town = Town(clock=clock)
    digest = town.upstream.put_manifest(APP, manifest(), TYPE, "latest")

    async with town.members(*NAMES) as hosts:
        for _ in range(2):
            pulls = asyncio.gather(*(host.mirror.manifest(APP, "latest") for host in hosts))
            await clock.advance(5)
            assert {each.digest for each in await pulls} == {digest}
            await clock.advance(61)
    kinds = [request.kind for request in town.upstream.requests]
    assert kinds.count("manifest") <= 2
    assert kinds.count("manifest-head") <= 2


async def test_one_manifest_by_digest_is_one_request() -> None:
    town = Town()
    digest = town.upstream.put_manifest(APP, manifest(), TYPE)
    town.upstream.answer_gate = asyncio.Event()
    async with town.members(*NAMES) as hosts:
        jobs = [asyncio.ensure_future(host.mirror.manifest(APP, digest)) for host in hosts]
        await asyncio.sleep(0.2)
        town.upstream.answer_gate.set()
        served = await asyncio.gather(*jobs)
    assert {each.body for each in served} == {manifest()}
    assert len(town.upstream.requests) == 1


async def test_when_the_first_dies_another_asks_in_its_place() -> None:
    town = Town()
    digest = town.upstream.put_manifest(APP, manifest(), TYPE, "latest")
    town.upstream.answer_gate = asyncio.Event()
    async with town.members("first", "second", "third") as (first, *others):
        doomed = asyncio.ensure_future(first.mirror.manifest(APP, "latest"))
        await asyncio.sleep(0.05)
        jobs = [asyncio.ensure_future(host.mirror.manifest(APP, "latest")) for host in others]
        await asyncio.sleep(0.05)
        await first.kill()
        town.upstream.answer_gate.set()
        async with asyncio.timeout(10):
            served = await asyncio.gather(*jobs)
        await asyncio.gather(doomed, return_exceptions=True)
    assert {each.digest for each in served} == {digest}
    assert len(town.upstream.requests) <= 3  # the dead one's, and one or two


async def test_what_upstream_refuses_the_first_is_soon_refused_to_all() -> None:
    town = Town()
    clock = ManualClock()
    town = Town(clock=clock)
    town.upstream.put_manifest(APP, manifest(), TYPE, "latest")
    async with town.members("first", "second", "third") as hosts:
        asked = asyncio.gather(
            *(host.mirror.manifest(APP, "other") for host in hosts), return_exceptions=True
        )
        await clock.advance(1.0)  # nobody waits out its turn: those ahead have taken their wishes back
        ends = await asked
        assert all(isinstance(end, NotFoundError) for end in ends)
        visitor = town.cluster.join("visitor")
        assert await visitor.find(tag_wish(APP, "other")) == ()


async def test_an_image_of_an_index_costs_upstream_one_request_a_manifest() -> None:
    town = Town()
    child = manifest()
    inner = town.upstream.put_manifest(APP, child, TYPE)
    described = {"mediaType": TYPE, "digest": str(inner), "size": len(child)}
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [described]}
    index = json.dumps(document).encode()
    town.upstream.put_manifest(APP, index, media_types.OCI_INDEX, "latest")
    async with town.members(*NAMES) as hosts:
        await asyncio.gather(*(host.mirror.manifest(APP, "latest") for host in hosts))
        await asyncio.gather(*(host.mirror.manifest(APP, inner) for host in hosts))
    assert len(town.upstream.requests) <= 4
