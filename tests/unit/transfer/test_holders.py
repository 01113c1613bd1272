"""On how many hosts each layer is: what is asked of the cluster, how often, and what is never asked."""

from __future__ import annotations

import asyncio

import pytest

from p2pdist.errors import NotFoundError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference
from p2pdist.records import Provider
from p2pdist.testing.images import AMD64, Image, build_image, build_index
from p2pdist.testing.layers import Layer, build_layer
from p2pdist.transfer import holders, host_counts
from p2pdist.transfer.context import TransferPolicy
from p2pdist.transfer.holders import Holders
from p2pdist.transfer.host_counts import HostCounts
from tests.unit.transfer.test_pull import TAGGED, events, serve
from tests.unit.transfer.world import World

ARM64 = Platform("linux", "arm64")


def layer(name: str) -> Layer:
    return build_layer(name, 3000, seed=1)


BASE, APP_LAYER, OTHER = layer("base"), layer("app"), layer("other")
IMAGE = build_image("app", "v1", [BASE, APP_LAYER])


def holders_of(world: World) -> Holders:
    context = world.context()
    return Holders(context.store, HostCounts(context.discovery, context.clock, context.policy.shares))


async def pulled(world: World, image: Image = IMAGE, platform: Platform = AMD64) -> Digest:
    digest = serve(world, image)
    async with world.agent() as agent:
        await events(agent, TAGGED, platform)
    return digest


class Asked:
    """The discovery, with its questions counted and, if told so, without answers."""

    def __init__(self, world: World) -> None:
        self.digests: list[Digest] = []
        self.at_once = self.most = 0
        self.gate: asyncio.Event | None = None
        self._find = world.discovery.find
        world.discovery.find = self.find  # type: ignore[method-assign]

    async def find(self, digest: Digest) -> tuple[Provider, ...]:
        self.digests.append(digest)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await (self.gate.wait() if self.gate else asyncio.sleep(0))
            return await self._find(digest)
        finally:
            self.at_once -= 1


async def announce(world: World, name: str, digest: Digest, *, complete: bool = True) -> None:
    await world.cluster.join(name).announce(digest, complete=complete)


async def test_hosts_that_hold_all_of_a_layer_are_counted_this_one_included() -> None:
    world = World()
    digest = await pulled(world)
    await announce(world, "bert", BASE.digest)
    await announce(world, "carl", BASE.digest)
    await announce(world, "dora", BASE.digest, complete=False)
    found, layers = await holders_of(world).layers(TAGGED)
    assert found == digest
    assert [(each.digest, each.size, each.held, each.hosts, each.platform) for each in layers] == [
        (BASE.digest, BASE.size, True, 3, ""),
        (APP_LAYER.digest, APP_LAYER.size, True, 1, ""),
    ]


async def test_a_layer_that_was_evicted_here_is_still_on_other_hosts() -> None:
    world = World()
    digest = await pulled(world)
    await announce(world, "bert", BASE.digest)
    assert await world.store.delete(BASE.digest)
    _, layers = await holders_of(world).layers(Reference(TAGGED.repository, None, digest))
    assert [(each.held, each.hosts) for each in layers] == [(False, 1), (True, 1)]


async def test_an_index_has_the_layers_of_the_images_that_are_here() -> None:
    arm = build_image("app", "", [BASE, OTHER], platform=ARM64)
    world = World()
    await pulled(world, build_index("app", "v1", [IMAGE, arm]))
    known = holders_of(world)
    _, layers = await known.layers(TAGGED)
    assert [each.digest for each in layers] == [BASE.digest, APP_LAYER.digest]
    async with world.agent() as agent:
        await events(agent, TAGGED, ARM64)
    _, layers = await known.layers(TAGGED)
    assert [(each.digest, each.platform) for each in layers] == [
        (BASE.digest, "linux/amd64"), (APP_LAYER.digest, "linux/amd64"), (OTHER.digest, "linux/arm64"),
    ]  # fmt: skip


async def test_the_cluster_is_asked_again_only_when_the_answer_is_old() -> None:
    world = World()
    await pulled(world)
    asked, known = Asked(world), holders_of(world)
    await asyncio.gather(*(known.layers(TAGGED) for _ in range(5)))
    assert sorted(asked.digests) == sorted([BASE.digest, APP_LAYER.digest])
    await announce(world, "bert", BASE.digest)
    await world.manual.advance(host_counts.FRESH / 2)
    assert (await known.layers(TAGGED))[1][0].hosts == 1
    await world.manual.advance(host_counts.FRESH)
    assert (await known.layers(TAGGED))[1][0].hosts == 2
    assert len(asked.digests) == 4


async def test_few_questions_at_once_and_no_endless_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [layer(f"layer-{at}") for at in range(20)]
    world = World()
    await pulled(world, build_image("app", "v1", layers))
    asked, known = Asked(world), holders_of(world)
    assert {each.hosts for each in (await known.layers(TAGGED))[1]} == {1}
    assert asked.most == host_counts.AT_ONCE
    await world.manual.advance(host_counts.FRESH)
    asked.gate = asyncio.Event()
    monkeypatch.setattr(host_counts, "PATIENCE", 0.02)
    assert {each.hosts for each in (await known.layers(TAGGED))[1]} == {None}
    assert asked.at_once == 0


async def test_what_is_not_shared_is_not_asked_about() -> None:
    world = World(policy=TransferPolicy(shares=lambda registry: False))
    await pulled(world)
    asked = Asked(world)
    _, layers = await holders_of(world).layers(TAGGED)
    assert [each.hosts for each in layers] == [1, 1]
    assert asked.digests == []


async def test_what_is_remembered_and_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_counts, "REMEMBERED", 1)
    monkeypatch.setattr(holders, "MAX_LAYERS", 2)
    world = World()
    await pulled(world, build_image("app", "v1", [BASE, APP_LAYER, OTHER]))
    known = holders_of(world)
    _, layers = await known.layers(TAGGED)
    assert [each.digest for each in layers] == [BASE.digest, APP_LAYER.digest]
    assert len(known._counts._known) == 1


async def test_an_image_that_is_not_here() -> None:
    with pytest.raises(NotFoundError, match="does not hold"):
        await holders_of(World()).layers(TAGGED)
