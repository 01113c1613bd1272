"""What every store must do (store/port.py). Subclass ``StoreConformance`` and give it a ``make`` fixture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from p2pdist.errors import DigestMismatchError, InvalidInputError, StoreError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from p2pdist.oci.reference import Reference, Repository
from p2pdist.store.port import BlobInfo, Store, TagEntry
from p2pdist.testing.clock import ManualClock

MakeStore = Callable[[int], Awaitable[Store]]

NGINX = Repository.of("docker.io", "library/nginx")
REDIS = Repository.of("docker.io", "library/redis")
LAYER = 100 * 1024


def content(name: object, size: int = LAYER) -> bytes:
    """``size`` bytes that differ for each name."""
    seed = str(name).encode() + b"."
    return (seed * (size // len(seed) + 1))[:size]


async def add(store: Store, data: bytes, media_type: str = "", *, shared: bool = True) -> BlobInfo:
    return await store.put(Digest.of(data), data, media_type, shared=shared)


async def add_manifest(store: Store, *blobs: bytes) -> Digest:
    """A manifest of ``blobs`` (the first is its config); it and they are put in the store."""

    def descriptor(data: bytes, media_type: str) -> dict[str, object]:
        return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}

    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(blobs[0], OCI_CONFIG),
        "layers": [descriptor(data, OCI_LAYER) for data in blobs[1:]],
    }
    for data in blobs:
        await add(store, data)
    return (await add(store, json.dumps(document).encode(), OCI_MANIFEST)).digest


async def add_index(store: Store, *manifests: Digest) -> Digest:
    children = [{"mediaType": OCI_MANIFEST, "digest": str(item), "size": 2} for item in manifests]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    return (await add(store, json.dumps(document).encode(), OCI_INDEX)).digest


def tag_entry(
    digest: Digest, *, repository: Repository = NGINX, tag: str = "latest", at: float = 1000.0
) -> TagEntry:
    return TagEntry(repository, tag, digest, OCI_MANIFEST, 2, at, at)


async def held(store: Store) -> set[Digest]:
    return {info.digest for info in await store.blobs()}


class StoreConformance:
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    # -- content is invisible until it is whole and right --

    async def test_what_was_put_is_read_back(self, make: MakeStore, clock: ManualClock) -> None:
        store, data = await make(1_000_000), content("a")
        info = await add(store, data, OCI_LAYER)
        assert (info.digest, info.size, info.media_type) == (Digest.of(data), LAYER, OCI_LAYER)
        assert (info.committed_at, info.pinned, info.shared) == (clock.wall(), False, True)
        assert await store.stat(info.digest) == info
        assert await store.read(info.digest, LAYER) == data
        reader = await store.open(info.digest)
        assert reader is not None
        assert reader.info.size == LAYER
        assert await reader.read(LAYER - 10, 100) == data[-10:]
        assert await reader.read(LAYER, 100) == b""
        reader.close()

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_both_algorithms_and_the_empty_blob(self, make: MakeStore, algorithm: str) -> None:
        store = await make(1_000_000)
        for data in (b"", b"x"):
            digest = Digest.of(data, algorithm)
            await store.put(digest, data)
            assert await store.read(digest, 10) == data

    async def test_nothing_is_seen_before_the_commit(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        digest = Digest.of(data)
        ingest = await store.ingest(digest, LAYER)
        await ingest.write(0, data)
        assert await store.stat(digest) is None
        assert await store.open(digest) is None
        assert await store.read(digest, LAYER) is None
        assert await store.blobs() == []
        info = await ingest.commit(OCI_LAYER)
        assert await store.stat(digest) == info
        await ingest.close()
        assert await store.read(digest, LAYER) == data

    async def test_wrong_bytes_are_never_committed(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        digest = Digest.of(data)
        ingest = await store.ingest(digest, LAYER)
        await ingest.write(0, content("b"))
        with pytest.raises(DigestMismatchError, match=digest.hex):
            await ingest.commit()
        assert await store.stat(digest) is None
        await ingest.reset()
        assert (ingest.front, ingest.held()) == (0, ())
        await ingest.write(0, data)
        await ingest.commit()
        assert await store.read(digest, LAYER) == data

    async def test_a_blob_with_a_hole_is_not_committed(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        ingest = await store.ingest(Digest.of(data), LAYER)
        await ingest.write(0, data[:100])
        await ingest.write(101, data[101:])
        with pytest.raises(DigestMismatchError, match="not complete"):
            await ingest.commit()
        await ingest.write(100, data[100:101])
        await ingest.commit()

    async def test_a_put_with_the_wrong_digest_leaves_nothing(self, make: MakeStore) -> None:
        store = await make(1_000_000)
        with pytest.raises(DigestMismatchError):
            await store.put(Digest.of(b"right"), b"wrong")
        usage = await store.usage()
        assert (usage.committed, usage.reserved, usage.blobs) == (0, 0, 0)

    # -- sparse writing --

    async def test_parts_may_come_in_any_order(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        ingest = await store.ingest(Digest.of(data), LAYER)
        await ingest.write(50_000, data[50_000:60_000])
        assert (ingest.front, ingest.held()) == (0, ((50_000, 60_000),))
        await ingest.write(0, memoryview(data)[:50_000])
        assert (ingest.front, ingest.held()) == (60_000, ((0, 60_000),))
        await ingest.write(70_000, bytearray(data[70_000:]))
        assert ingest.held() == ((0, 60_000), (70_000, LAYER))
        assert await ingest.read(59_990, 100) == data[59_990:60_000]
        assert await ingest.read(65_000, 100) == b""
        await ingest.write(60_000, data[60_000:70_000])
        await ingest.commit()
        assert await store.read(ingest.digest, LAYER) == data

    async def test_many_writers_at_once(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        ingest = await store.ingest(Digest.of(data), LAYER)
        step = 7_000
        offsets = [*range(0, LAYER, 2 * step), *range(step, LAYER, 2 * step), 0, step]
        async with asyncio.TaskGroup() as group:
            for offset in offsets:
                group.create_task(ingest.write(offset, data[offset : offset + step]))
        await ingest.commit()
        assert await store.read(ingest.digest, LAYER) == data

    async def test_writing_again_with_other_bytes_replaces_them(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        ingest = await store.ingest(Digest.of(data), LAYER)
        await ingest.write(0, content("b", 40_000))
        await ingest.write(40_000, data[40_000:])
        await ingest.write(0, data[:40_000])
        assert await ingest.read(0, 40_000) == data[:40_000]
        await ingest.commit()
        assert await store.read(ingest.digest, LAYER) == data

    @pytest.mark.parametrize(("offset", "length"), [(LAYER, 1), (LAYER - 1, 2), (-1, 1)])
    async def test_a_write_beyond_the_blob_is_refused(
        self, make: MakeStore, offset: int, length: int
    ) -> None:
        store = await make(1_000_000)
        ingest = await store.ingest(Digest.of(content("a")), LAYER)
        with pytest.raises(InvalidInputError, match="beyond"):
            await ingest.write(offset, bytes(length))
        assert ingest.held() == ()
        await ingest.discard()

    async def test_one_writer_per_digest(self, make: MakeStore) -> None:
        store, digest = await make(1_000_000), Digest.of(content("a"))
        ingest = await store.ingest(digest, LAYER)
        with pytest.raises(ValueError, match="written already"):
            await store.ingest(digest, LAYER)
        with pytest.raises(ValueError, match="written already"):
            await store.put(digest, content("a"))
        await ingest.discard()
        await (await store.ingest(digest, LAYER)).discard()

    async def test_two_puts_of_one_blob_at_once_are_one(self, make: MakeStore) -> None:
        store, data = await make(150_000), content("a")
        infos = await asyncio.gather(*(add(store, data) for _ in range(5)))
        assert len(set(infos)) == 1
        assert (await store.usage()).committed == LAYER

    async def test_a_blob_that_is_committed_again_may_go_once_its_readers_have(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        info = await add(store, data)
        early = await store.open(info.digest)
        ingest = await store.ingest(info.digest, LAYER)
        await ingest.write(0, data)
        await ingest.commit()
        late = await store.open(info.digest)
        assert early is not None
        assert late is not None
        for reader in (early, late):
            assert not await store.delete(info.digest)
            reader.close()
        assert await store.delete(info.digest)

    async def test_an_ended_ingest_refuses_writes_and_reads_nothing(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        ingest = await store.ingest(Digest.of(data), LAYER)
        await ingest.write(0, data[:10])
        await ingest.discard()
        await ingest.close()
        assert await ingest.read(0, 10) == b""
        with pytest.raises(StoreError, match="no longer being written"):
            await ingest.write(0, data[:10])
        with pytest.raises(StoreError, match="no longer being written"):
            await ingest.commit()

    @pytest.mark.parametrize("way", ["commit", "close", "discard"])
    async def test_an_ended_ingest_has_no_file_to_send_from(self, make: MakeStore, way: str) -> None:
        """Whoever asks meanwhile finds nothing, as with ``read``; it is no fault of theirs."""
        store, data = await make(1_000_000), content("a")
        ingest = await store.ingest(Digest.of(data), LAYER)
        await ingest.write(0, data)
        await getattr(ingest, way)()
        assert ingest.duplicate() is None

    # -- resuming --

    async def test_a_closed_ingest_resumes(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        ingest = await store.ingest(Digest.of(data), LAYER)
        await ingest.write(0, data[:30_000])
        await ingest.write(50_000, data[50_000:60_000])
        await ingest.close()
        again = await store.ingest(Digest.of(data), LAYER)
        assert again.held() == ((0, 30_000), (50_000, 60_000))
        assert (again.front, again.resumed) == (30_000, 40_000)
        await again.write(30_000, data[30_000:])
        await again.commit()
        assert await store.read(again.digest, LAYER) == data

    async def test_a_discarded_one_does_not(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        ingest = await store.ingest(Digest.of(data), LAYER)
        await ingest.write(0, data[:30_000])
        await ingest.discard()
        again = await store.ingest(Digest.of(data), LAYER)
        assert (again.resumed, again.held()) == (0, ())
        await again.discard()

    async def test_a_partial_of_another_size_is_begun_anew(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        ingest = await store.ingest(Digest.of(data), LAYER + 1)
        await ingest.write(0, data[:30_000])
        await ingest.close()
        again = await store.ingest(Digest.of(data), LAYER)
        assert (again.resumed, again.size) == (0, LAYER)
        await again.write(0, data)
        await again.commit()

    async def test_a_put_does_not_trust_a_partial(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        ingest = await store.ingest(Digest.of(data), LAYER)
        await ingest.write(0, content("b"))
        await ingest.close()
        await add(store, data)
        assert await store.read(Digest.of(data), LAYER) == data

    # -- the quota, and who goes --

    async def test_an_ingest_reserves_and_gives_back(self, make: MakeStore) -> None:
        store, data = await make(2 * LAYER), content("a")
        ingest = await store.ingest(Digest.of(data), LAYER)
        assert (await store.usage()).reserved == LAYER
        await ingest.write(0, data[:100])
        assert (await store.usage()).reserved == LAYER
        await ingest.close()
        assert (await store.usage()).reserved == 100
        ingest = await store.ingest(Digest.of(data), LAYER)
        assert (await store.usage()).reserved == LAYER
        await ingest.reset()
        assert (await store.usage()).reserved == LAYER
        await ingest.discard()
        assert (await store.usage()).reserved == 0

    async def test_the_quota_is_exact_to_the_byte(self, make: MakeStore) -> None:
        store = await make(2 * LAYER)
        with pytest.raises(StoreFullError):
            await store.ingest(Digest.of(b"?"), 2 * LAYER + 1)
        await add(store, content("a"))
        await add(store, content("b"))
        usage = await store.usage()
        assert (usage.committed, usage.quota, usage.blobs) == (2 * LAYER, 2 * LAYER, 2)

    async def test_what_can_never_fit_evicts_nothing(self, make: MakeStore) -> None:
        store = await make(2 * LAYER)
        await add(store, content("a"))
        with pytest.raises(StoreFullError, match="max_size"):
            await store.ingest(Digest.of(b"?"), 3 * LAYER)
        assert len(await store.blobs()) == 1

    async def test_the_least_recently_used_goes_first(self, make: MakeStore, clock: ManualClock) -> None:
        store = await make(3 * LAYER)
        a, b, c = [(await add(store, content(name))).digest for name in "abc"]
        await clock.advance(5)
        assert await store.read(a, LAYER) is not None
        info = await store.stat(a)
        assert info is not None
        assert info.used_at == clock.wall()
        assert [item.digest for item in await store.blobs()] == [a, c, b]
        d = (await add(store, content("d"))).digest
        assert await held(store) == {a, c, d}
        assert store.evicted() == [b]
        assert store.evicted() == []

    async def test_a_wall_clock_that_jumps_back_changes_no_order(
        self, make: MakeStore, clock: ManualClock
    ) -> None:
        store = await make(2 * LAYER)
        a = (await add(store, content("a"))).digest
        clock.set_wall(5.0)
        b = (await add(store, content("b"))).digest
        c = (await add(store, content("c"))).digest
        assert await held(store) == {b, c}
        assert store.evicted() == [a]

    async def test_manifests_outlive_layers(self, make: MakeStore) -> None:
        store = await make(2 * LAYER)
        manifest = (await add(store, b"{}")).digest
        await add(store, content("a"))
        b = (await add(store, content("b", LAYER))).digest
        assert await held(store) == {manifest, b}

    async def test_what_is_open_pinned_or_being_written_stays(self, make: MakeStore) -> None:
        store = await make(3 * LAYER)
        a, b = [(await add(store, content(name))).digest for name in "ab"]
        reader = await store.open(a)
        assert reader is not None
        await store.pin(Reference.parse("nginx"), [b])
        ingest = await store.ingest(Digest.of(content("c")), LAYER)
        with pytest.raises(StoreFullError):
            await store.ingest(Digest.of(content("d")), LAYER)
        assert not await store.delete(a)
        assert not await store.delete(b)
        assert await store.collect(0) == []
        reader.close()
        reader.close()
        await ingest.discard()
        assert [info.digest for info in await store.collect(0)] == [a]
        assert (await store.usage()).pinned == 1
        assert await store.unpin(Reference.parse("nginx"))
        assert [info.digest for info in await store.collect(0)] == [b]

    async def test_partials_go_before_blobs(self, make: MakeStore) -> None:
        store = await make(2 * LAYER)
        a = (await add(store, content("a"))).digest
        ingest = await store.ingest(Digest.of(content("b")), LAYER)
        await ingest.write(0, content("b", 10_000))
        await ingest.close()
        await add(store, content("c"))
        assert a in await held(store)
        assert store.evicted() == []
        again = await store.ingest(Digest.of(content("b")), LAYER)
        assert again.resumed == 0
        await again.discard()

    async def test_delete_and_come_back(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        digest = (await add(store, data)).digest
        assert await store.delete(digest)
        assert not await store.delete(digest)
        assert await store.open(digest) is None
        await add(store, data)
        assert store.evicted() == []  # what is held again must not be withdrawn
        assert await store.read(digest, LAYER) == data

    async def test_collect_down_to_a_target(self, make: MakeStore) -> None:
        store = await make(10 * LAYER)
        for name in "abcd":
            await add(store, content(name))
        gone = await store.collect(2 * LAYER + 5)
        assert [info.digest for info in gone] == [Digest.of(content(name)) for name in "ab"]
        assert (await store.usage()).committed == 2 * LAYER
        assert await store.collect(2 * LAYER) == []

    async def test_collect_keeps_what_tags_and_pins_reach(self, make: MakeStore) -> None:
        store = await make(10_000_000)
        tagged = await add_manifest(store, b"config 1", b"layer 1", b"layer shared")
        child = await add_manifest(store, b"config 2", b"layer 2")
        index = await add_index(store, child, Digest.of(b"a platform that is not held"))
        old = await add_manifest(store, b"config 3", b"layer 3", b"layer shared")
        loose = (await add(store, b"loose")).digest
        await store.record_tag(tag_entry(old))
        await store.record_tag(tag_entry(tagged, at=2000.0))
        await store.pin(Reference.parse(f"redis@{index}"), [index])
        gone = {info.digest for info in await store.collect()}
        assert gone == {old, loose, Digest.of(b"config 3"), Digest.of(b"layer 3")}
        assert set(store.evicted()) == gone
        assert len(await store.blobs()) == 8

    async def test_collect_drops_partials_that_are_a_day_old(
        self, make: MakeStore, clock: ManualClock
    ) -> None:
        store = await make(1_000_000)
        for name in "ab":
            ingest = await store.ingest(Digest.of(content(name)), LAYER)
            await ingest.write(0, content(name, 10))
            await ingest.close()
            await clock.advance(50_000)
        await store.collect()
        assert (await store.usage()).reserved == 10

    async def test_a_whole_read_is_bounded(self, make: MakeStore) -> None:
        store = await make(1_000_000)
        digest = (await add(store, content("a"))).digest
        with pytest.raises(InvalidInputError, match=str(LAYER)):
            await store.read(digest, LAYER - 1)

    # -- what is known --

    async def test_shared_once_is_shared_for_good(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        assert not (await add(store, data, shared=False)).shared
        assert not (await add(store, data, shared=False)).shared
        assert (await add(store, data, OCI_LAYER, shared=True)).shared
        info = await add(store, data, "text/plain", shared=False)
        assert (info.shared, info.media_type) == (True, OCI_LAYER)

    async def test_tags_remember_where_they_pointed(self, make: MakeStore) -> None:
        store = await make(1_000_000)
        one, two = Digest.of(b"1"), Digest.of(b"2")
        assert await store.tag(NGINX, "latest") is None
        await store.record_tag(tag_entry(one, at=1.0))
        await store.record_tag(tag_entry(one, at=5.0))
        assert await store.tag(NGINX, "latest") == replace(tag_entry(one, at=5.0), first_seen=1.0)
        await store.record_tag(tag_entry(two, at=6.0))
        await store.record_tag(tag_entry(one, at=9.0))
        await store.record_tag(tag_entry(two, repository=REDIS, tag="7", at=7.0))
        assert [(e.tag, e.digest) for e in await store.tags()] == [("latest", one), ("7", two)]
        assert [e.repository for e in await store.tags(REDIS)] == [REDIS]
        history = await store.tags(NGINX, history=True)
        assert [(e.digest, e.first_seen, e.resolved_at) for e in history] == [
            (one, 9.0, 9.0),
            (two, 6.0, 6.0),
            (one, 1.0, 5.0),
        ]
        assert len(await store.tags(history=True)) == 4

    async def test_the_history_of_a_tag_is_bounded(self, make: MakeStore) -> None:
        store = await make(1_000_000)
        for number in range(105):
            await store.record_tag(tag_entry(Digest.of(str(number).encode()), at=float(number)))
        history = await store.tags(NGINX, history=True)
        assert [entry.resolved_at for entry in history] == [float(n) for n in range(104, 4, -1)]

    async def test_the_history_of_one_tag_is_told_newest_first(self, make: MakeStore) -> None:
        store = await make(1_000_000)
        one, two = Digest.of(b"1"), Digest.of(b"2")
        await store.record_tag(tag_entry(one, at=1.0))
        await store.record_tag(tag_entry(two, at=2.0))
        await store.record_tag(tag_entry(two, at=3.0))
        await store.record_tag(tag_entry(one, tag="other", at=4.0))
        assert await store.tag_history(NGINX, "latest") == [
            replace(tag_entry(two, at=3.0), first_seen=2.0),
            tag_entry(one, at=1.0),
        ]
        assert await store.tag_history(NGINX, "other") == [tag_entry(one, tag="other", at=4.0)]
        assert await store.tag_history(REDIS, "latest") == []

    async def test_all_histories_together_are_bounded_and_no_tag_loses_its_newest(
        self, make: MakeStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("p2pdist.store.tags.MAX_RESOLUTIONS", 5)
        store = await make(1_000_000)
        digests = [Digest.of(str(number).encode()) for number in range(8)]
        for number in range(4):
            await store.record_tag(tag_entry(digests[number], tag="a", at=float(number)))
        for number in range(4, 7):
            await store.record_tag(tag_entry(digests[number], tag="b", at=float(number)))
        assert [e.digest for e in await store.tag_history(NGINX, "a")] == [digests[3], digests[2]]
        assert len(await store.tag_history(NGINX, "b")) == 3
        for tag in "cdefg":
            await store.record_tag(tag_entry(digests[7], tag=tag, at=9.0))
        assert {e.tag for e in await store.tags()} == set("abcdefg")
        assert len(await store.tags(history=True)) == 7

    async def test_sizes_are_learned_from_manifests(self, make: MakeStore) -> None:
        store, held_digest = await make(1_000_000), Digest.of(b"held")
        told, untold = Digest.of(b"told"), Digest.of(b"untold")
        await store.link(NGINX, [told, untold], sizes={told: 5})
        assert await store.known_size(told) == 5
        assert await store.known_size(untold) is None
        await store.link(REDIS, [told], sizes={told: 6})
        await store.link(NGINX, [told], sizes={})
        assert await store.known_size(told) in (5, 6)
        await store.link(NGINX, [held_digest], sizes={held_digest: 99})
        await add(store, b"held")
        assert await store.known_size(held_digest) == 4

    async def test_the_repositories_of_a_blob_are_those_it_was_linked_to(self, make: MakeStore) -> None:
        store, told = await make(1_000_000), Digest.of(b"told")
        assert await store.repositories(told) == []
        await store.link(NGINX, [told], sizes={})
        await store.link(REDIS, [], sizes={told: 5})
        await store.link(NGINX, [told], sizes={told: 5})
        assert set(await store.repositories(told)) == {NGINX, REDIS}

    async def test_pins(self, make: MakeStore) -> None:
        store, data = await make(1_000_000), content("a")
        digest = Digest.of(data)
        first, second = Reference.parse("nginx:1"), Reference.parse("example.test:5000/x@" + str(digest))
        await store.pin(first, [digest])
        assert (await add(store, data)).pinned
        await store.pin(second, [digest])
        assert set(await store.pins()) == {first, second}
        assert await store.unpin(first)
        assert not await store.unpin(first)
        info = await store.stat(digest)
        assert info is not None
        assert info.pinned
        assert await store.unpin(second)
        assert await store.delete(digest)

    async def test_closing_keeps_what_is_being_written(self, make: MakeStore) -> None:
        store = await make(1_000_000)
        ingest = await store.ingest(Digest.of(content("a")), LAYER)
        await ingest.write(0, content("a", 10))
        await store.close()
        await store.close()
        with pytest.raises(StoreError):
            await ingest.write(0, b"x")
        with pytest.raises(StoreError, match="closed"):
            await store.put(Digest.of(b"x"), b"x")
