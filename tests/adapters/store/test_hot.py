"""Small blobs that are read again: without a thread, and never from a file that is not the store's any more."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pdist.clock import SystemClock
from p2pdist.oci.digest import Digest
from p2pdist.store.disk import DiskStore
from p2pdist.store.hot import MAX_SIZE, HotFiles, read_cached

SMALL, LARGE = b"small" * 100, bytes(MAX_SIZE + 1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskStore]:
    store = await DiskStore.open_dir(tmp_path / "data", 10 * 2**20, SystemClock())
    yield store
    await store.close()


@pytest.fixture
def hot() -> Iterator[HotFiles]:
    files = HotFiles(most=2)
    yield files
    files.close()


def kept(hot: HotFiles, file: Path, data: bytes) -> Digest:
    file.write_bytes(data)
    with file.open("rb") as opened:
        hot.keep(Digest.of(data), opened.fileno())
    return Digest.of(data)


def place(store: DiskStore, digest: Digest) -> Path:
    return store._layout.blob(digest)


def deleted_files() -> list[str]:
    """What this process holds open of files that have no name any more, below the store."""
    links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name)]
    return [link for link in links if link.endswith("(deleted)") and "/blobs/" in link]


def _is_open(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


def without_threads(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a thread was asked")

    monkeypatch.setattr(store._hops, "run", refuse)
    monkeypatch.setattr(store._hops, "whole", refuse)


@pytest.mark.parametrize("first", ["open", "read"])
async def test_the_second_time_no_thread_is_asked(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    digest = (await store.put(Digest.of(SMALL), SMALL)).digest
    if first == "read":
        assert await store.read(digest, 10_000) == SMALL
    else:
        (await _opened(store, digest)).close()
    with monkeypatch.context() as patch:
        without_threads(store, patch)
        reader = await _opened(store, digest)
        if read_cached(reader.fileno(), 0, len(SMALL)):  # this file system can tell what is in memory
            assert await store.read(digest, 10_000) == SMALL
    assert os.pread(reader.fileno(), 1000, 0) == SMALL
    assert await store.delete(digest) is False  # it is open
    reader.close()
    assert await store.delete(digest) is True
    assert deleted_files() == []


async def _opened(store: DiskStore, digest: Digest) -> Any:
    reader = await store.open(digest)
    assert reader is not None
    return reader


async def test_a_large_blob_is_not_kept_open(store: DiskStore) -> None:
    digest = (await store.put(Digest.of(LARGE), LARGE)).digest
    (await _opened(store, digest)).close()
    assert await store.read(digest, 10**6) == LARGE
    assert not store._reads._hot._files


async def test_what_is_evicted_gives_its_room_back(tmp_path: Path) -> None:
    store = await DiskStore.open_dir(tmp_path / "data", 200_000, SystemClock())
    bodies = [bytes([number]) * 50_000 for number in range(9)]
    for body in bodies:
        await store.put(Digest.of(body), body)
        assert await store.read(Digest.of(body), 100_000) == body
    assert deleted_files() == []
    assert await store.read(Digest.of(bodies[0]), 100_000) is None
    assert await store.read(Digest.of(bodies[-1]), 100_000) == bodies[-1]
    await store.close()
    assert not store._reads._hot._files


@pytest.mark.parametrize("harm", ["removed", "cut", "replaced by a shorter one"])
async def test_a_file_that_somebody_harmed_is_noticed(store: DiskStore, harm: str) -> None:
    digest = (await store.put(Digest.of(SMALL), SMALL)).digest
    assert await store.read(digest, 10_000) == SMALL
    file = place(store, digest)
    if harm == "removed":
        file.unlink()
    elif harm == "cut":
        os.truncate(file, 7)
    else:
        other = file.with_name("other")
        other.write_bytes(b"other")
        os.replace(other, file)
    assert await store.open(digest) is None
    assert await store.stat(digest) is None
    assert deleted_files() == []


async def test_one_that_is_fetched_again_after_it_was_harmed(store: DiskStore) -> None:
    digest = (await store.put(Digest.of(SMALL), SMALL)).digest
    assert await store.read(digest, 10_000) == SMALL
    place(store, digest).unlink()
    assert await store.read(digest, 10_000) is None
    await store.put(digest, SMALL)
    assert await store.read(digest, 10_000) == SMALL


def test_the_least_recently_used_go(hot: HotFiles, tmp_path: Path) -> None:
    one, two = (kept(hot, tmp_path / name, name.encode()) for name in ("one", "two"))
    assert hot.read(one, 3) == b"one"
    three = kept(hot, tmp_path / "three", b"three")
    assert [hot.read(each, size) for each, size in ((one, 3), (two, 3), (three, 5))] == [
        b"one",
        None,
        b"three",
    ]


def test_another_size_or_no_name_is_left_to_the_usual_way(hot: HotFiles, tmp_path: Path) -> None:
    digest = kept(hot, tmp_path / "one", b"one")
    assert hot.open(digest, 4) is None
    digest = kept(hot, tmp_path / "one", b"one")
    (tmp_path / "one").unlink()
    assert hot.open(digest, 3) is None
    assert not hot._files


def test_an_empty_blob(hot: HotFiles, tmp_path: Path) -> None:
    digest = kept(hot, tmp_path / "empty", b"")
    assert hot.read(digest, 0) == b""
