"""Whole images: what a pull tells on its way, and what the store then holds."""

from __future__ import annotations

import pytest

from p2pdist.errors import InvalidInputError, NotFoundError, P2PDistError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_NESTED
from p2pdist.oci.reference import Reference
from p2pdist.testing.images import AMD64, Image, build_artifact, build_index, build_service_set
from p2pdist.transfer.inventory import Inventory
from p2pdist.transfer.pull import BlobProgress, ImageDone, ImageFound, PullEvent
from tests.unit.transfer.world import APP, Agent, World

SET = build_service_set(scale=0.001)
TAGGED = Reference(APP, "v1", None)


def serve(world: World, image: Image, tag: str = "v1") -> Digest:
    for digest, source in image.blobs.items():
        body = source if isinstance(source, bytes) else source.read_bytes()
        world.upstream.put_blob(APP, body, digest)
    for child in image.children:
        serve(world, child, "")
    return world.upstream.put_manifest(APP, image.manifest, image.media_type, tag)


async def events(agent: Agent, reference: Reference = TAGGED, platform: Platform = AMD64) -> list[PullEvent]:
    return [event async for event in agent.puller.pull(reference, platform)]


async def test_a_pull_tells_what_it_found_how_it_goes_and_what_it_moved() -> None:
    world = World()
    digest = serve(world, SET[0])
    async with world.agent() as agent:
        found, *progress, done = await events(agent)
        again = await events(agent)
    assert isinstance(found, ImageFound)
    assert found.digest == digest
    assert isinstance(done, ImageDone)
    assert done.moved == {"peer": 0, "upstream": world.upstream.sent}
    assert done.size == world.upstream.sent
    last = {event.digest: event for event in progress if isinstance(event, BlobProgress)}
    assert {blob.digest for blob in found.blobs} == last.keys()
    assert all(event.done and event.received == event.size for event in last.values())
    assert isinstance(again[-1], ImageDone)
    assert again[-1].moved == {"peer": 0, "upstream": 0}
    assert await Inventory(world.store).held_of(TAGGED)


async def test_layers_that_two_images_share_move_once() -> None:
    world = World()
    async with world.agent() as agent:
        for image in SET[:2]:
            serve(world, image, image.name.split("/")[-1])
        await events(agent, Reference(APP, SET[0].name.split("/")[-1], None))
        before = world.upstream.sent
        await events(agent, Reference(APP, SET[1].name.split("/")[-1], None))
    shared = {layer.digest for layer in SET[0].layers} & {layer.digest for layer in SET[1].layers}
    assert shared
    moved = world.upstream.sent - before
    fresh = [body for digest, body in SET[1].blobs.items() if digest not in SET[0].blobs]
    assert moved == sum(len(body) for body in fresh if isinstance(body, bytes)) + len(SET[1].manifest)


async def test_a_layer_that_cannot_be_had_fails_the_pull_with_its_reason() -> None:
    world = World()
    serve(world, SET[0])
    world.upstream._held[APP].blobs.pop(SET[0].layers[0].digest)
    async with world.agent() as agent:
        with pytest.raises(NotFoundError, match=str(SET[0].layers[0].digest)):
            await events(agent)


async def test_an_unknown_tag_or_platform_is_a_clear_answer() -> None:
    world = World()
    serve(world, SET[0])
    async with world.agent() as agent:
        with pytest.raises(P2PDistError, match="v9"):
            await events(agent, Reference(APP, "v9", None))


async def test_the_inventory_shows_what_is_held_whole_and_what_in_part() -> None:
    world = World()
    digest = serve(world, SET[0])
    async with world.agent() as agent:
        await agent.mirror.manifest(APP, "v1")
        inventory = Inventory(world.store)
        (entry,) = await inventory.images()
        assert entry.tag.digest == digest
        assert not entry.contents.complete
        assert entry.contents.held.keys() == {digest}
        await events(agent)
        (entry,) = await inventory.images()
        assert entry.contents.complete
    with pytest.raises(NotFoundError, match="p2pdist pull"):
        await inventory.held_of(Reference(APP, "v2", None))
    assert await inventory.contents(SET[0].layers[0].digest) is None


async def test_a_reference_by_digest_is_found_without_a_tag() -> None:
    world = World()
    digest = serve(world, SET[0])
    async with world.agent() as agent:
        await events(agent, Reference(APP, None, digest))
    contents = await Inventory(world.store).held_of(Reference(APP, None, digest))
    assert contents.complete


async def test_an_index_in_an_index_is_followed() -> None:
    world = World()
    serve(world, build_index("app", "v1", [build_index("app", "", [SET[0]])]))
    async with world.agent() as agent:
        done = (await events(agent))[-1]
    assert isinstance(done, ImageDone)
    assert len(done.digests) == 3 + len(SET[0].blobs)
    assert done.moved["upstream"] == done.size == world.upstream.sent


async def test_indexes_in_indexes_are_not_followed_without_end() -> None:
    world = World()
    nested = SET[0]
    for _ in range(MAX_NESTED + 1):
        nested = build_index("app", "v1", [nested])
    serve(world, nested)
    async with world.agent() as agent:
        with pytest.raises(InvalidInputError, match="not followed"):
            await events(agent)


async def test_a_platform_that_was_asked_for_is_that_of_a_single_image_too() -> None:
    world = World()
    serve(world, SET[0])
    async with world.agent() as agent:
        strictly = agent.puller.pull(TAGGED, Platform("linux", "arm64"), strict=True)
        with pytest.raises(NotFoundError, match="nothing for linux/arm64; it is for linux/amd64 only"):
            [event async for event in strictly]
        assert world.upstream.sent < 2000  # no layer
        done = [event async for event in agent.puller.pull(TAGGED, AMD64, strict=True)][-1]
        assert isinstance(done, ImageDone)
        await events(agent, platform=Platform("linux", "arm64"))  # as this host's: whatever there is


async def test_what_a_strict_pull_moved_is_counted_whole() -> None:
    world = World()
    serve(world, SET[0])
    async with world.agent() as agent:
        done = [event async for event in agent.puller.pull(TAGGED, AMD64, strict=True)][-1]
    assert isinstance(done, ImageDone)
    assert done.moved["upstream"] == done.size == world.upstream.sent


async def test_an_artifact_has_no_platform_to_be_strict_about() -> None:
    world = World()
    serve(world, build_artifact("app", SET[0], "application/x.chart", b"chart"))
    async with world.agent() as agent:
        assert [event async for event in agent.puller.pull(TAGGED, AMD64, strict=True)]
