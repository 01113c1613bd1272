"""What only the store on disk can do wrong: races between the loop, the threads and the files."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from p2pdist.errors import DigestMismatchError, StoreError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.store import part as part_module
from p2pdist.store.catalog import Catalog
from p2pdist.store.disk import DiskStore
from p2pdist.store.layout import Layout
from p2pdist.store.part import PartFile
from p2pdist.store.reader import open_blob
from p2pdist.testing.clock import ManualClock
from tests.conformance.store import LAYER, add, content, held

BOUND = 30


class Gate:
    """Stands in for a function that runs in a thread, and holds it until it is let through."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.reached = threading.Event()
        self.open = threading.Event()

    def __get__(self, instance: object, owner: type) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.reached.set()
            assert self.open.wait(BOUND)
            return self.function(instance, *args, **kwargs)

        return call

    async def wait(self) -> None:
        async with asyncio.timeout(BOUND):
            while not self.reached.is_set():
                await asyncio.sleep(0.001)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[DiskStore]:
    opened = await DiskStore.open_dir(tmp_path / "data", 3 * LAYER, clock)
    yield opened
    await opened.close()


async def cancelled(task: asyncio.Task[Any], gate: Gate) -> None:
    """Cancel ``task`` while its thread is held at ``gate``: it must not end before the thread does."""
    await gate.wait()
    task.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_write_leaves_its_buffer_only_when_the_thread_has(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content("a")
    ingest = await store.ingest(Digest.of(data), LAYER)
    with monkeypatch.context() as patch:
        gate = Gate(PartFile.write)
        patch.setattr(PartFile, "write", gate)
        buffer = bytearray(data)
        await cancelled(asyncio.create_task(ingest.write(0, buffer)), gate)
    buffer[:] = bytes(LAYER)
    assert ingest.held() == ((0, LAYER),)
    await ingest.commit()
    assert await store.read(ingest.digest, LAYER) == data


async def test_a_cancelled_commit_is_done_all_the_same(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content("a")
    ingest = await store.ingest(Digest.of(data), LAYER)
    await ingest.write(0, data)
    with monkeypatch.context() as patch:
        gate = Gate(Layout.publish)
        patch.setattr(Layout, "publish", gate)
        await cancelled(asyncio.create_task(ingest.commit()), gate)
    await ingest.close()
    assert await store.read(ingest.digest, LAYER) == data
    usage = await store.usage()
    assert (usage.committed, usage.reserved) == (LAYER, 0)


async def test_an_open_that_is_overtaken_by_the_loss_of_the_blob_finds_nothing(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two open a blob whose file is taken away from outside: one just before that, one after it, which is told first."""
    info = await add(store, content("a"))
    reached, go_on = threading.Event(), threading.Event()

    def slow(path: Path, size: int) -> int:
        descriptor = open_blob(path, size)
        reached.set()
        assert go_on.wait(BOUND)
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr("p2pdist.store.disk_reads.open_blob", slow)
        early = asyncio.create_task(store.open(info.digest))
        await asyncio.to_thread(reached.wait, BOUND)
    store._layout.blob(info.digest).unlink()
    assert await store.open(info.digest) is None
    go_on.set()
    assert await early is None
    assert not [link for link in open_files() if info.digest.hex in link]


def open_files() -> list[str]:
    links = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return links


async def test_a_cancelled_ingest_reserves_nothing(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await add(store, content("old"))
    with monkeypatch.context() as patch:
        gate = Gate(Layout.remove)
        patch.setattr(Layout, "remove", gate)
        await cancelled(asyncio.create_task(store.ingest(Digest.of(b"?"), 3 * LAYER)), gate)
    usage = await store.usage()
    assert (usage.committed, usage.reserved) == (0, 0)
    await (await store.ingest(Digest.of(b"?"), 3 * LAYER)).discard()


async def test_a_cancelled_open_holds_nothing(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = (await add(store, content("a"))).digest
    reached, let_go = threading.Event(), threading.Event()
    real = os.fstat

    def slow(descriptor: int) -> os.stat_result:
        reached.set()
        assert let_go.wait(BOUND)
        return real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", slow)
        task = asyncio.create_task(store.open(digest))
        while not reached.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await store.delete(digest)


async def test_a_digest_on_its_way_out_comes_back_whole(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content("a")
    digest = (await add(store, data)).digest
    gate = Gate(Layout.remove)
    with monkeypatch.context() as patch:
        patch.setattr(Layout, "remove", gate)
        deleting = asyncio.create_task(store.delete(digest))
        await gate.wait()
        putting = asyncio.create_task(add(store, data))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not putting.done()
        gate.open.set()
        assert await deleting
        await putting
    assert await store.read(digest, LAYER) == data


async def test_room_is_given_out_only_when_the_files_are_gone(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        await add(store, content(name))
    gate = Gate(Layout.remove)
    with monkeypatch.context() as patch:
        patch.setattr(Layout, "remove", gate)
        task = asyncio.create_task(store.ingest(Digest.of(b"?"), LAYER))
        await gate.wait()
        usage = await store.usage()
        assert usage.committed + usage.reserved == 3 * LAYER
        assert list((tmp_path / "data" / "ingest").iterdir()) == []
        gate.open.set()
        await (await task).discard()


async def test_reads_of_a_reader_outlive_its_close(store: DiskStore) -> None:
    digest = (await add(store, content("a"))).digest
    reader = await store.open(digest)
    assert reader is not None
    assert reader.fileno() is not None
    assert reader.path is not None
    assert reader.path.read_bytes() == content("a")
    reading = asyncio.create_task(reader.read(0, LAYER))
    await asyncio.sleep(0)
    reader.close()
    assert await reading == content("a")
    assert reader.fileno() is None
    with pytest.raises(StoreError, match="closed"):
        await reader.read(0, 1)
    assert await store.delete(digest)


async def test_reading_is_no_write(
    store: DiskStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = (await add(store, content("a"))).digest
    written: list[dict[Digest, float]] = []
    monkeypatch.setattr(Catalog, "used", lambda _, times: written.append(dict(times)))
    for _ in range(100):
        assert await store.read(digest, LAYER)
    assert written == []
    await clock.advance(61)
    assert await store.read(digest, LAYER)
    await store.close()
    assert written == [{digest: clock.wall()}]


async def test_a_failing_catalog_undoes_no_commit(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    def fail(*_: object) -> None:
        raise StoreFullError("no page left")

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "put_blobs", fail)
        patch.setattr(Catalog, "remove_blobs", fail)
        digest = (await add(store, content("a"), shared=False)).digest
        assert await store.read(digest, LAYER) == content("a")
        gone = (await add(store, content("b"))).digest
        assert await store.delete(gone)
    await store.close()
    again = await DiskStore.open_dir(tmp_path / "data", 3 * LAYER, clock)
    assert await held(again) == {digest}
    info = await again.stat(digest)
    assert info is not None
    assert not info.shared
    await again.close()


async def test_a_rename_that_fails_loses_nothing(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content("a")
    ingest = await store.ingest(Digest.of(data), LAYER)
    await ingest.write(0, data)
    real = os.fsync

    def full(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreFullError, match="the disk is full"):
            await ingest.commit()
        assert await store.stat(ingest.digest) is None
    await ingest.commit()
    assert await store.read(ingest.digest, LAYER) == data


async def test_memory_does_not_grow_when_the_front_jumps(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last part of a blob may make all of it contiguous: what is then hashed is read back a little at a time."""
    monkeypatch.setattr(part_module, "_READ_BACK", 1000)
    longest = 0
    real = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal longest
        longest = max(longest, length)
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    data = content("a")
    ingest = await store.ingest(Digest.of(data), LAYER)
    await ingest.write(100, data[100:])
    await ingest.write(0, data[:100])
    await ingest.commit()
    assert longest == 1000


async def test_what_was_left_is_hashed_again_beside_the_writes(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content("a")
    ingest = await store.ingest(Digest.of(data), LAYER)
    await ingest.write(0, data[:90_000])
    await ingest.close()
    gate = Gate(PartFile.hash_more)
    monkeypatch.setattr(PartFile, "hash_more", gate)
    again = await store.ingest(Digest.of(data), LAYER)
    await gate.wait()
    await again.write(90_000, data[90_000:])  # does not wait for the hash
    assert again.front == LAYER
    gate.open.set()
    await again.commit()
    assert await store.read(again.digest, LAYER) == data


async def test_bytes_that_changed_on_disk_are_not_committed(store: DiskStore, tmp_path: Path) -> None:
    data = content("a")
    ingest = await store.ingest(Digest.of(data), LAYER)
    await ingest.write(0, data[:90_000])
    await ingest.close()
    part = next((tmp_path / "data" / "ingest").glob("*.part"))
    with part.open("r+b") as file:
        file.write(b"X")
    again = await store.ingest(Digest.of(data), LAYER)
    await again.write(90_000, data[90_000:])
    with pytest.raises(DigestMismatchError):
        await again.commit()
    await again.discard()


async def test_a_checkpoint_is_not_written_for_each_write(
    store: DiskStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[int] = []
    real = PartFile.save

    def save(part: PartFile) -> int:
        saves.append(part.held.total)
        return real(part)

    monkeypatch.setattr(PartFile, "save", save)
    monkeypatch.setattr(part_module, "CHECKPOINT_BYTES", 40_000)
    data = content("a")
    ingest = await store.ingest(Digest.of(data), LAYER)
    for start in range(0, 100_000, 10_000):
        await ingest.write(start, data[start : start + 10_000])
    assert saves == [10_000, 50_000, 90_000]
    await clock.advance(1)
    await ingest.write(100_000, data[100_000:])
    assert saves[3:] == [LAYER]
    await ingest.discard()


async def test_nothing_is_left_on_disk_of_what_was_discarded_or_committed(
    store: DiskStore, tmp_path: Path
) -> None:
    for end in ("discard", "commit"):
        ingest = await store.ingest(Digest.of(content(end)), LAYER)
        await ingest.write(0, content(end))
        assert len(list((tmp_path / "data" / "ingest").iterdir())) == 2
        await getattr(ingest, end)()
        assert list((tmp_path / "data" / "ingest").iterdir()) == []
