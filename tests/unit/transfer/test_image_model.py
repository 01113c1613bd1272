"""The image model on a store in memory: histories, tags' pasts, what is shared and what could go."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from p2pdist.errors import InvalidInputError, NotFoundError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_NESTED
from p2pdist.oci.media_types import DOCKER_FOREIGN_LAYER_GZIP, OCI_EMPTY, OCI_MANIFEST
from p2pdist.oci.reference import Reference, Repository
from p2pdist.store.port import TagEntry
from p2pdist.testing.clock import ManualClock
from p2pdist.testing.images import AMD64, Image, build_artifact, build_image, build_index, build_service_set
from p2pdist.testing.layers import build_layer
from p2pdist.testing.memory_discovery import MemoryCluster
from p2pdist.testing.memory_store import MemoryStore
from p2pdist.transfer import host_counts
from p2pdist.transfer import image_history as module
from p2pdist.transfer.disk_usage import DiskUsage, ImageUse, disk_usage
from p2pdist.transfer.host_counts import HostCounts
from p2pdist.transfer.image_diff import image_diff
from p2pdist.transfer.image_history import ImageHistory, image_history
from p2pdist.transfer.inventory import Inventory
from p2pdist.transfer.tag_history import tag_history

ARM64 = Platform("linux", "arm64")
SET = build_service_set(scale=0.001)
UNSHARED = "private.example.com"
APP = Repository.of("docker.io", "library/app")


class Shelf:
    """A store that is filled by hand, in a cluster of members that announce by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(1 << 30, self.clock)
        self.cluster = MemoryCluster()
        self.discovery = self.cluster.join("own")
        self.counts = HostCounts(self.discovery, self.clock, lambda registry: registry != UNSHARED)

    async def hold(self, image: Image, *, without: tuple[Digest, ...] = ()) -> None:
        for digest, source in image.blobs.items():
            if digest not in without:
                assert isinstance(source, bytes)
                await self.store.put(digest, source)
        for child in image.children:
            if child.digest not in without:
                await self.hold(child, without=without)
        await self.store.put(image.digest, image.manifest, image.media_type)

    async def tag(self, image: Image, tag: str = "v1", at: float = 1.0) -> Reference:
        entry = TagEntry(APP, tag, image.digest, image.media_type, len(image.manifest), at, at)
        await self.store.record_tag(entry)
        return Reference(APP, tag, None)

    async def put(self, image: Image, tag: str = "v1", *, without: tuple[Digest, ...] = ()) -> Reference:
        await self.hold(image, without=without)
        return await self.tag(image, tag)

    async def history(self, reference: Reference, platform: Platform | None = None) -> ImageHistory:
        return await image_history(self.store, self.counts, reference, platform, AMD64)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def image_of(*names: str, platform: Platform = AMD64) -> Image:
    return build_image("app", "", [build_layer(name, 3000) for name in names], platform=platform)


def config_of(image: Image) -> Digest:
    return Digest.parse(json.loads(image.manifest)["config"]["digest"])


# -- history --


async def test_a_history_is_newest_first_with_sizes_and_empty_steps(shelf: Shelf) -> None:
    found = await shelf.history(await shelf.put(SET[0]))
    assert [line.step.entry.created_by for line in found.lines] == [
        "CMD ['/bin/cat', '/app/name']",
        "COPY svc-a /",
        "COPY libs /",
        "COPY node /",
        "COPY base /",
    ]
    assert [line.step.size for line in found.lines] == [0, *(layer.size for layer in reversed(SET[0].layers))]
    assert [line.held for line in found.lines] == [False, True, True, True, True]
    assert found.config.platform == AMD64
    assert not found.counted
    assert {line.hosts for line in found.lines} == {None}


async def test_hosts_are_counted_for_each_layer(shelf: Shelf) -> None:
    base, app = SET[0].layers[0], SET[0].layers[-1]
    for name in ("anna", "bert"):
        await shelf.cluster.join(name).announce(base.digest)
    await shelf.cluster.join("cleo").announce(base.digest, complete=False)
    reference = await shelf.put(SET[0], without=(app.digest,))
    found = await shelf.history(reference)
    assert found.counted
    hosts = {line.step.layer.digest: line.hosts for line in found.lines if line.step.layer}
    assert hosts[base.digest] == 3  # who is still fetching it counts for nothing
    assert hosts[SET[0].layers[1].digest] == 1
    assert hosts[app.digest] == 0
    assert found.lines[0].hosts is None


async def test_counting_is_bounded_in_number_and_in_time(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.cluster.join("anna")
    top, never = SET[0].layers[-1].digest, SET[0].layers[0].digest
    find = shelf.discovery.find

    async def slow(digest: Digest) -> object:
        return await (asyncio.Event().wait() if digest == never else find(digest))

    monkeypatch.setattr(shelf.discovery, "find", slow)
    monkeypatch.setattr(host_counts, "PATIENCE", 0.05)
    reference = await shelf.put(SET[0])
    assert [line.hosts for line in (await shelf.history(reference)).lines] == [None, 1, 1, 1, None]
    monkeypatch.setattr(module, "MAX_ASKED", 1)
    hosts = {
        line.step.layer.digest: line.hosts
        for line in (await shelf.history(reference)).lines
        if line.step.layer
    }
    assert [digest for digest, count in hosts.items() if count is not None] == [top]


async def test_hosts_are_not_asked_about_what_is_not_shared(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.cluster.join("anna")
    asked: list[Digest] = []
    monkeypatch.setattr(shelf.discovery, "find", asked.append)
    await shelf.hold(SET[0])
    found = await shelf.history(Reference(Repository.of(UNSHARED, "app"), None, SET[0].digest))
    assert not found.counted
    assert {line.hosts for line in found.lines} == {None}
    assert asked == []


async def test_an_index_gives_the_history_of_one_platform(shelf: Shelf) -> None:
    here, there = image_of("one"), image_of("two", platform=ARM64)
    reference = await shelf.put(build_index("app", "v1", [here, there]))
    assert (await shelf.history(reference)).image.own.digest == here.digest
    found = await shelf.history(reference, ARM64)
    assert (found.image.own.digest, found.config.platform) == (there.digest, ARM64)
    assert found.image.top.manifest.kind == "index"


@pytest.mark.parametrize(
    ("platform", "words"),
    [
        (
            None,
            r"not held here for linux/amd64 \(held: linux/arm64\); 'p2pdist pull .*:v1 --platform linux/amd64'",
        ),
        (
            Platform("linux", "s390x"),
            "nothing for linux/s390x; it has: linux/amd64, linux/arm64; name one with",
        ),
    ],
)
async def test_an_index_of_other_platforms_says_what_there_is(
    shelf: Shelf, platform: Platform | None, words: str
) -> None:
    here, there = image_of("one"), image_of("two", platform=ARM64)
    reference = await shelf.put(build_index("app", "v1", [here, there]), without=(here.digest,))
    with pytest.raises(NotFoundError, match=words):
        await shelf.history(reference, platform)


async def test_a_single_image_of_another_platform_is_not_taken_for_it(shelf: Shelf) -> None:
    reference = await shelf.put(image_of("one", platform=ARM64))
    assert (await shelf.history(reference)).config.platform == ARM64  # nothing else was asked for
    with pytest.raises(NotFoundError, match="nothing for linux/amd64; it is for linux/arm64 only"):
        await shelf.history(reference, AMD64)


async def test_what_is_not_held_or_not_whole_says_how_to_get_it(shelf: Shelf) -> None:
    unknown = Reference.parse("nginx:1")
    with pytest.raises(NotFoundError, match=r"does not hold docker\.io/library/nginx:1; 'p2pdist pull"):
        await shelf.history(unknown)
    with pytest.raises(NotFoundError, match="does not hold"):
        await shelf.history(Reference(APP, None, Digest.of(b"?")))
    reference = await shelf.put(SET[0], without=(config_of(SET[0]),))
    with pytest.raises(
        NotFoundError, match=r"incomplete here: its config sha256:.* is not held; 'p2pdist pull"
    ):
        await shelf.history(reference)


async def test_an_artifact_has_no_history(shelf: Shelf) -> None:
    signature = build_artifact("app", SET[0], "application/vnd.example.signature", b"signed")
    with pytest.raises(InvalidInputError, match=r"an artifact \(application/vnd.example.signature\)"):
        await shelf.history(await shelf.put(signature, "sig"))
    bare = json.loads(signature.manifest)
    del bare["artifactType"]
    body = json.dumps(bare).encode()
    await shelf.store.put(Digest.of(body), body, OCI_MANIFEST)
    with pytest.raises(InvalidInputError, match=OCI_EMPTY.replace(".", r"\.").replace("+", r"\+")):
        await shelf.history(Reference(APP, None, Digest.of(body)))
    other = b'{"mediaType": "application/vnd.example.thing"}'
    await shelf.store.put(Digest.of(other), other, "application/vnd.example.thing")
    with pytest.raises(InvalidInputError, match=r"its manifest is application/vnd\.example\.thing"):
        await shelf.history(Reference(APP, None, Digest.of(other)))


async def test_a_malformed_config_is_named(shelf: Shelf) -> None:
    body = b'{"history": 5}'
    manifest = json.loads(SET[0].manifest)
    manifest["config"] |= {"digest": str(Digest.of(body)), "size": len(body)}
    data = json.dumps(manifest).encode()
    await shelf.store.put(Digest.of(body), body)
    await shelf.store.put(Digest.of(data), data, OCI_MANIFEST)
    with pytest.raises(
        InvalidInputError, match=r"library/app@.*: its config sha256:.* is malformed: history"
    ):
        await shelf.history(Reference(APP, None, Digest.of(data)))
    contents = await Inventory(shelf.store).contents(Digest.of(data))
    assert contents is not None
    assert contents.platforms == ()


async def test_the_platform_of_an_image_without_an_index_is_in_its_config(shelf: Shelf) -> None:
    there = image_of("two", platform=ARM64)
    await shelf.hold(there, without=(config_of(there),))
    contents = await Inventory(shelf.store).contents(there.digest)
    assert contents is not None
    assert contents.platforms == ()
    await shelf.hold(there)
    contents = await Inventory(shelf.store).contents(there.digest)
    assert contents is not None
    assert contents.platforms == ("linux/arm64",)
    signature = build_artifact("app", there, "application/vnd.example.signature", b"signed")
    await shelf.hold(signature)
    contents = await Inventory(shelf.store).contents(signature.digest)
    assert contents is not None
    assert contents.platforms == ()


async def test_a_foreign_layer_is_told_and_is_no_gap(shelf: Shelf) -> None:
    image = image_of("own")
    manifest = json.loads(image.manifest)
    foreign = {
        "mediaType": DOCKER_FOREIGN_LAYER_GZIP,
        "digest": str(Digest.of(b"elsewhere")),
        "size": 9,
        "urls": ["https://example.com/layer"],
    }
    manifest["layers"].insert(0, foreign)
    windows = dataclasses.replace(image, manifest=json.dumps(manifest).encode())
    reference = await shelf.put(windows)
    found = await shelf.history(reference)
    assert [line.foreign for line in found.lines if line.step.layer] == [False, True]
    (entry,) = await Inventory(shelf.store).images()
    assert entry.contents.complete


async def test_an_index_in_an_index_is_looked_into(shelf: Shelf) -> None:
    here, there = image_of("one"), image_of("two", platform=ARM64)
    inner = build_index("app", "", [here, there])
    outer = build_index("app", "v1", [inner])
    reference = await shelf.put(outer, without=(there.digest, here.layers[0].digest))
    found = await shelf.history(reference)
    assert [each.digest for each in found.image.chain] == [outer.digest, inner.digest, here.digest]
    inventory = Inventory(shelf.store)
    (entry,) = await inventory.images()
    assert not entry.contents.complete
    assert entry.contents.platforms == ("linux/amd64",)
    await shelf.hold(here)
    (entry,) = await inventory.images()
    assert entry.contents.complete
    assert entry.contents.held.keys() == {outer.digest, inner.digest, here.digest, *here.blobs}
    assert len((await disk_usage(shelf.store)).images) == 1


async def test_an_index_in_an_index_without_any_image_is_not_whole(shelf: Shelf) -> None:
    here = image_of("one")
    outer = build_index("app", "v1", [build_index("app", "", [here])])
    await shelf.put(outer, without=(here.digest,))
    (entry,) = await Inventory(shelf.store).images()
    assert not entry.contents.complete


async def test_indexes_are_not_followed_without_end(shelf: Shelf) -> None:
    nested = image_of("one")
    for _ in range(MAX_NESTED + 1):
        nested = build_index("app", "v1", [nested])
    with pytest.raises(InvalidInputError, match="not followed"):
        await shelf.history(await shelf.put(nested))
    (entry,) = await Inventory(shelf.store).images()
    assert not entry.contents.complete


async def test_a_layer_is_no_image(shelf: Shelf) -> None:
    await shelf.hold(SET[0])
    with pytest.raises(NotFoundError, match="does not hold"):
        await shelf.history(Reference(APP, None, SET[0].layers[0].digest))


# -- what tags pointed at --


async def test_a_tags_past_tells_what_is_still_held(shelf: Shelf) -> None:
    old, half, gone, new = (image_of(name) for name in ("old", "half", "gone", "new"))
    await shelf.hold(old)
    await shelf.hold(half, without=(half.layers[0].digest,))
    await shelf.hold(new)
    for at, image in enumerate((old, half, gone, new, old), 1):
        reference = await shelf.tag(image, at=float(at))
    past = await tag_history(shelf.store, reference)
    assert [(each.entry.digest, each.entry.resolved_at, each.held, each.current) for each in past] == [
        (old.digest, 5.0, True, True),
        (new.digest, 4.0, True, False),
        (gone.digest, 3.0, False, False),
        (half.digest, 2.0, False, False),
        (old.digest, 1.0, True, False),
    ]
    assert [each.contents is None for each in past] == [False, False, True, False, False]
    await shelf.tag(new, "v2", at=9.0)
    await shelf.tag(gone, "v2", at=0.5)  # a clock that was set back
    everything = await tag_history(shelf.store, None)
    assert [(each.entry.tag, each.current) for each in everything[:2]] == [("v2", False), ("v1", True)]
    assert [each.current for each in await tag_history(shelf.store, Reference(APP, "v2", None))] == [
        True,
        False,
    ]


async def test_an_index_without_any_of_its_images_is_not_held(shelf: Shelf) -> None:
    here, there = image_of("one"), image_of("two", platform=ARM64)
    index = build_index("app", "v1", [here, there])
    reference = await shelf.put(index, without=(here.digest, there.digest))
    assert [each.held for each in await tag_history(shelf.store, reference)] == [False]
    await shelf.hold(there)
    assert [each.held for each in await tag_history(shelf.store, reference)] == [True]


async def test_a_tag_without_a_past_and_what_is_no_tag(shelf: Shelf) -> None:
    with pytest.raises(NotFoundError, match="was never resolved by this agent; 'p2pdist pull"):
        await tag_history(shelf.store, Reference(APP, "v9", None))
    with pytest.raises(InvalidInputError, match="names a digest, which never moves"):
        await tag_history(shelf.store, Reference(APP, None, Digest.of(b"1")))
    assert await tag_history(shelf.store, None) == []


# -- differences --


async def test_an_update_moves_what_is_new_and_no_more(shelf: Shelf) -> None:
    old, new = await shelf.put(SET[0], "a"), await shelf.put(SET[1], "b")
    found = await image_diff(shelf.store, old, new, None, AMD64)
    assert [layer.digest for layer in found.shared] == [layer.digest for layer in SET[0].layers[:3]]
    assert [layer.digest for layer in found.added] == [SET[1].layers[3].digest]
    assert [layer.digest for layer in found.dropped] == [SET[0].layers[3].digest]
    assert found.moved.keys() == {SET[1].digest, config_of(SET[1]), SET[1].layers[3].digest}
    config = SET[1].blobs[config_of(SET[1])]
    assert isinstance(config, bytes)
    assert sum(found.moved.values()) == SET[1].layers[3].size + len(SET[1].manifest) + len(config)
    assert found.missing == {}
    same = await image_diff(shelf.store, old, old, None, AMD64)
    assert (same.added, same.dropped, same.moved) == ((), (), {})


async def test_manifests_are_enough_to_compare(shelf: Shelf) -> None:
    index = build_index("app", "b", [SET[1], image_of("two", platform=ARM64)])
    absent = tuple(SET[1].blobs)
    old = await shelf.put(SET[0], "a", without=tuple(SET[0].blobs))
    new = await shelf.put(index, "b", without=absent)
    found = await image_diff(shelf.store, old, new, None, AMD64)
    assert len(found.shared) == 3
    assert {index.digest, SET[1].digest} <= found.moved.keys()
    assert found.missing.keys() == {config_of(SET[1]), SET[1].layers[3].digest}
    with pytest.raises(NotFoundError, match="not hold"):
        await image_diff(shelf.store, old, Reference.parse("nginx"), None, AMD64)


async def test_an_image_of_another_platform_than_was_asked_for_is_not_compared(shelf: Shelf) -> None:
    old, new = await shelf.put(SET[0], "a"), await shelf.put(image_of("two", platform=ARM64), "b")
    assert (await image_diff(shelf.store, old, new, None, AMD64)).shared == ()
    for first, second in ((old, new), (new, old)):
        with pytest.raises(NotFoundError, match="it is for linux/arm64 only"):
            await image_diff(shelf.store, first, second, AMD64, AMD64)
    chart = await shelf.put(build_artifact("app", SET[0], "application/x.chart", b"chart"), "chart")
    assert (await image_diff(shelf.store, old, chart, AMD64, AMD64)).added


# -- what the bytes are for --


def use_of(usage: DiskUsage, image: Image) -> ImageUse:
    (found,) = [each for each in usage.images if each.digest == image.digest]
    return found


async def test_shared_and_unique_bytes_and_what_layers_save(shelf: Shelf) -> None:
    for image, tag in zip(SET, "abc", strict=True):
        await shelf.put(image, tag)
    await shelf.tag(SET[0], "also-a")
    usage = await disk_usage(shelf.store)
    common = sum(layer.size for layer in SET[0].layers[:3])
    for image in SET:
        found = use_of(usage, image)
        assert (found.layers.shared, found.layers.unique) == (common, image.layers[3].size)
        assert found.share.total == image.size + len(image.manifest)
        assert found.share.shared == common
    assert {entry.tag for entry in use_of(usage, SET[0]).tags} == {"a", "also-a"}
    assert usage.layered == (await shelf.store.usage()).committed
    assert usage.saved == 2 * common
    assert (usage.other, usage.reclaimable, usage.unpinned) == (0, 0, usage.layered)


async def test_what_is_reclaimable_is_what_collecting_frees(shelf: Shelf) -> None:
    old, new, untagged, pinned = (image_of("base", name) for name in ("old", "new", "untagged", "pinned"))
    for image in (old, new, untagged, pinned):
        await shelf.hold(image)
    await shelf.tag(old)
    await shelf.tag(new, at=2.0)
    await shelf.store.put(Digest.of(b"stray"), b"stray")
    await shelf.store.pin(Reference(APP, None, pinned.digest), [pinned.digest])
    usage = await disk_usage(shelf.store)
    assert usage.other == len(b"stray")
    assert [entry.tag for entry in use_of(usage, old).past_tags] == ["v1"]
    assert use_of(usage, old).tags == use_of(usage, untagged).tags == ()
    freed = await shelf.store.collect()
    assert usage.reclaimable == sum(info.size for info in freed) > 0
    after = await disk_usage(shelf.store)
    assert {each.digest for each in after.images} == {new.digest, pinned.digest}
    assert (after.reclaimable, after.other) == (0, 0)
    assert after.unpinned == (await shelf.store.usage()).committed - len(pinned.manifest)


async def test_an_indexs_images_count_within_it_and_only_as_far_as_held(shelf: Shelf) -> None:
    here, there = image_of("one"), image_of("two", platform=ARM64)
    index = build_index("app", "v1", [here, there])
    await shelf.put(index, without=(there.digest, here.layers[0].digest))
    usage = await disk_usage(shelf.store)
    found = use_of(usage, index)
    assert not found.contents.complete
    assert found.contents.platforms == ("linux/amd64",)
    assert found.share.total == usage.layered == (await shelf.store.usage()).committed
    assert len(usage.images) == 1
    await shelf.hold(here)
    await shelf.tag(here, "by-itself")
    usage = await disk_usage(shelf.store)
    assert {each.digest for each in usage.images} == {index.digest, here.digest}
    assert use_of(usage, here).share.unique == 0


async def test_an_empty_store_uses_nothing(shelf: Shelf) -> None:
    usage = await disk_usage(shelf.store)
    assert (usage.images, usage.separate, usage.saved, usage.reclaimable, usage.unpinned) == ((), 0, 0, 0, 0)
