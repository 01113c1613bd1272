"""containerd's content store as a source: checked once, served where it lies, never touched, withdrawn when gone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from p2pdist.errors import InvalidInputError, StoreError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.store import containerd, containerd_marks
from p2pdist.store.containerd import RATE, ContainerdContent
from p2pdist.store.containerd_marks import Stamp, read_marks
from p2pdist.store.seeding import SeedingStore
from p2pdist.testing.memory_store import MemoryStore

OPEN = Repository.of("docker.io", "library/open")
CLOSED = Repository.of("private.example.test", "team/closed")


class PlainClock:
    """Sleeps take no time, but count; wall time is far from any file's."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept = 0.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.slept += seconds
        await asyncio.sleep(0)


@dataclass
class Beside:
    """A content store on disk, an agent's own in memory, and both as one."""

    root: Path
    clock: PlainClock
    own: MemoryStore
    content: ContainerdContent
    store: SeedingStore
    told: list[tuple[Digest, bool]] = field(default_factory=list)

    def write(self, data: bytes, algorithm: str = "sha256") -> Digest:
        """As containerd does: a file that gets its name when it is whole."""
        digest = Digest.of(data, algorithm)
        self.write_as(digest, data)
        return digest

    def write_as(self, digest: Digest, data: bytes) -> None:
        path = self.path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        ingest = self.root / "ingest"
        ingest.mkdir(exist_ok=True)
        (ingest / "data").write_bytes(data)
        (ingest / "data").chmod(0o444)
        (ingest / "data").rename(path)

    def path(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.algorithm / digest.hex

    async def settle(self) -> None:
        """Look, and check all that waits for it."""
        await self.content.look()
        while await self.content.check_next():
            pass

    async def held(self) -> set[Digest]:
        return {info.digest for info in await self.store.blobs()}


@asynccontextmanager
async def beside(directory: Path, *, guarded: bool = False) -> AsyncIterator[Beside]:
    clock = PlainClock()
    root, own = directory / "content", MemoryStore(10_000_000, clock)
    content = ContainerdContent(root, directory / "marks", clock)
    store = await SeedingStore.open_beside(own, content, lambda name: name == OPEN.registry, guarded=guarded)
    both = Beside(root, clock, own, content, store)
    content._on_held = lambda digest, shared: both.told.append((digest, shared))
    try:
        yield both
    finally:
        await store.close()


async def test_what_lies_there_is_held_once_it_was_checked(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        layer, small = both.write(b"layer" * 1000), both.write(b"{}", "sha512")
        await both.content.look()
        assert await both.store.stat(layer) is None
        assert await both.store.open(layer) is None
        await both.settle()
        assert both.told == [(small, True), (layer, True)]  # the smallest first
        info = await both.store.stat(layer)
        assert info is not None
        assert (info.size, info.shared, info.pinned) == (5000, True, False)
        assert await both.store.read(small, 10) == b"{}"
        with pytest.raises(InvalidInputError, match="5000"):
            await both.store.read(layer, 4999)
        reader = await both.store.open(layer)
        assert reader is not None
        assert reader.path == both.path(layer)
        assert await reader.read(4990, 100) == b"layerlayer"
        reader.close()
        assert await both.held() == {layer, small}
        assert both.content.usage() == (2, 5002, 0)


async def test_nothing_of_it_counts_or_is_ever_removed(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        layer = both.write(b"layer" * 1000)
        await both.settle()
        before = both.path(layer).stat()
        assert (await both.store.usage()).committed == 0
        assert await both.store.collect(0) == []
        assert not await both.store.delete(layer)
        assert await both.store.known_size(layer) == 5000
        after = both.path(layer).stat()
        assert (after.st_mode, after.st_mtime_ns, after.st_size) == (
            before.st_mode,
            before.st_mtime_ns,
            before.st_size,
        )


async def test_what_goes_is_withdrawn_and_what_comes_is_found(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        first = both.write(b"first")
        await both.settle()
        both.path(first).unlink()
        second = both.write(b"second")
        await both.settle()
        assert await both.held() == {second}
        assert both.store.evicted() == [first]
        assert both.store.evicted() == []
        both.write(b"first")
        await both.settle()
        assert await both.held() == {first, second}
        assert both.store.evicted() == []


async def test_a_blob_that_is_open_stays_readable_after_it_is_gone(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        first = both.write(b"first")
        await both.settle()
        reader = await both.store.open(first)
        assert reader is not None
        both.path(first).unlink()
        assert await reader.read(0, 10) == b"first"
        reader.close()
        assert await both.store.open(first) is None  # seen at once, before the next look
        assert await both.store.stat(first) is None
        assert both.store.evicted() == [first]


async def test_wrong_bytes_are_never_held(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        digest = Digest.of(b"right")
        both.write_as(digest, b"wrong")
        await both.settle()
        assert await both.held() == set()
        assert not await both.content.check_next()  # nor looked at again and again
        both.write_as(digest, b"right")
        await both.settle()
        assert await both.held() == {digest}


async def test_a_file_that_was_changed_in_place_is_checked_again(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        digest = both.write(b"right")
        await both.settle()
        both.path(digest).chmod(0o644)
        both.path(digest).write_bytes(b"wrong")
        os.utime(both.path(digest), ns=(1, 1))
        assert await both.store.open(digest) is None
        both.clock.time += containerd.FULL_SCAN  # writing in place does not show in the directory
        await both.settle()
        assert await both.held() == set()


async def test_a_file_that_cannot_be_read_now_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with beside(tmp_path) as both:
        digest = both.write(b"right")
        with monkeypatch.context() as broken:

            def fail(*_: object) -> None:
                raise OSError(5, "Input/output error")

            broken.setattr(containerd, "_hash", fail)
            await both.settle()
        assert await both.held() == set()
        both.clock.time += containerd.FULL_SCAN
        await both.settle()
        assert await both.held() == {digest}


async def test_names_that_are_no_digests_and_links_are_left_alone(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        held = both.write(b"held")
        directory = both.path(held).parent
        secret = tmp_path / "secret"
        secret.write_bytes(b"secret")
        (directory / Digest.of(b"secret").hex).symlink_to(secret)
        (directory / Digest.of(b"dir").hex).mkdir()
        (directory / "README").write_text("hello")
        (directory / ("AB" * 32)).write_bytes(b"")
        await both.settle()
        assert await both.held() == {held}


async def test_a_restart_checks_nothing_again_that_is_unchanged(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        same, other = both.write(b"same"), both.write(b"other")
        await both.settle()
    assert read_marks(tmp_path / "marks").keys() == {same, other}
    async with beside(tmp_path) as both:
        both.path(other).unlink()
        both.write_as(other, b"wrong")
        await both.content.look()
        assert both.told == [(same, True)]
        await both.settle()
        assert await both.held() == {same}


async def test_marks_that_do_not_parse_are_worth_nothing(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        same = both.write(b"same")
        await both.settle()
    marks = tmp_path / "marks"
    assert marks.stat().st_mode & 0o777 == 0o600
    marks.write_bytes(b"\xff\x00 junk\n" + f"{same} 1 2 x\n{same} 1 2\nsha256:zz 1 2 3\n".encode())
    async with beside(tmp_path) as both:
        await both.content.look()
        assert both.told == []
        await both.settle()
        assert both.told == [(same, True)]


async def test_checking_keeps_to_its_rate(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        both.write(bytes(20 * 1024 * 1024))
        before = both.clock.slept
        await both.settle()
        assert both.clock.slept - before == pytest.approx(20 * 1024 * 1024 / RATE, rel=0.01)


async def test_a_directory_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        await both.settle()
        assert await both.held() == set()
        held = both.write(b"held")
        await both.settle()
        assert await both.held() == {held}


async def test_what_was_checked_outlives_a_mount_that_went_and_came_back(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        held = both.write(b"held" * 1000)
        await both.settle()
        await both.content._write_marks()
        (both.root / "blobs").rename(both.root / "unmounted")
        both.clock.time += containerd.FULL_SCAN
        await both.settle()
        assert (await both.held(), both.store.evicted()) == (set(), [held])
        await both.content._write_marks()
        (both.root / "unmounted").rename(both.root / "blobs")
        both.clock.time += containerd.FULL_SCAN
        await both.content.look()
        assert await both.held() == {held}


async def test_a_directory_that_cannot_be_read_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with beside(tmp_path) as both:
        (both.root / "blobs").mkdir(parents=True)
        (both.root / "blobs" / "sha256").write_text("a file")
        with pytest.raises(StoreError, match="containerd_content"):
            await both.content.look()
        looks, look = 0, both.content.look

        async def counted() -> None:
            nonlocal looks
            looks += 1
            both.clock.time += containerd.FULL_SCAN
            await look()

        both.content.look = counted  # type: ignore[method-assign]
        task = asyncio.create_task(both.content.run(lambda digest, shared: None, lambda: None))
        async with asyncio.timeout(20):
            while looks < 5:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert caplog.text.count("cannot be read") == 1


async def test_a_directory_that_may_be_read_again_is_looked_at_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with beside(tmp_path) as both:
        held = both.write(b"held")

        def refused() -> dict[Digest, Stamp]:
            raise StoreError("Permission denied")

        with monkeypatch.context() as while_refused:
            while_refused.setattr(both.content, "_scan", refused)
            for _ in range(2):
                with pytest.raises(StoreError):
                    await both.content.look()
        await both.settle()  # a change of mode is none that the directory's time shows
        assert await both.held() == {held}


async def test_the_number_of_blobs_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(containerd, "MAX_BLOBS", 3)
    async with beside(tmp_path) as both:
        for number in range(5):
            both.write(str(number).encode())
        await both.settle()
        assert len(await both.held()) == 3
        assert "the rest is left out" in caplog.text
    assert containerd_marks.MAX_BLOBS == 100_000


async def test_running_tells_of_what_comes_and_goes(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        told: list[Digest] = []
        gone: list[Digest] = []
        task = asyncio.create_task(
            both.store.run(
                lambda digest, shared: told.append(digest), lambda: gone.extend(both.store.evicted())
            )
        )
        async with asyncio.timeout(20):
            first = both.write(b"first")
            while told != [first]:
                await asyncio.sleep(0)
            both.path(first).unlink()
            while gone != [first]:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestWithRegistriesThatAreNotShared:
    async def test_only_what_is_known_to_be_of_a_shared_one_is_shared(self, tmp_path: Path) -> None:
        async with beside(tmp_path, guarded=True) as both:
            open_, closed, unknown = both.write(b"open"), both.write(b"closed"), both.write(b"unknown")
            await both.store.link(OPEN, [open_], sizes={})
            await both.store.link(CLOSED, [closed], sizes={})
            await both.settle()
            assert dict(both.told) == {open_: True, closed: False, unknown: False}
            assert await both.store.read(unknown, 100) == b"unknown"  # for this host's runtimes
            info = await both.store.stat(closed)
            assert info is not None
            assert not info.shared

    async def test_what_turns_out_to_be_of_a_shared_one_is_shared_then(self, tmp_path: Path) -> None:
        async with beside(tmp_path, guarded=True) as both:
            layer = both.write(b"layer")
            await both.settle()
            assert both.told == [(layer, False)]
            await both.store.link(CLOSED, [layer], sizes={})
            assert both.told == [(layer, False)]
            await both.store.link(OPEN, [], sizes={layer: 5})
            assert both.told == [(layer, False), (layer, True)]

    async def test_a_blob_that_the_own_store_keeps_to_itself_stays_so(self, tmp_path: Path) -> None:
        async with beside(tmp_path, guarded=True) as both:
            layer = both.write(b"layer")
            await both.store.put(layer, b"layer", shared=False)
            await both.store.link(CLOSED, [layer], sizes={})
            await both.settle()
            for _ in range(2):
                info = await both.store.stat(layer)
                assert info is not None
                assert not info.shared
                await both.own.delete(layer)


async def test_a_blob_that_both_hold_outlives_its_eviction(tmp_path: Path) -> None:
    async with beside(tmp_path) as both:
        layer = both.write(b"layer")
        await both.settle()
        await both.store.put(layer, b"layer", "application/x")
        info = await both.store.stat(layer)
        assert info is not None
        assert info.media_type == "application/x"
        assert [info.digest for info in await both.store.blobs()] == [layer]
        assert [info.digest for info in await both.store.collect(0)] == [layer]
        assert await both.store.read(layer, 100) == b"layer"
