"""Directories that someone removes, and a disk that fills up, while the store is open."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from p2pdist.clock import SystemClock
from p2pdist.errors import StoreError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.store.disk import DiskStore
from tests.conformance.store import add, content, held

QUOTA = 10_000_000


@pytest.mark.parametrize("gone", ["ingest", "store/blobs", "store/blobs/sha256"])
async def test_a_directory_that_was_removed_is_made_anew(tmp_path: Path, gone: str) -> None:
    store = await DiskStore.open_dir(tmp_path / "data", QUOTA, SystemClock())
    before, after = content("before", 1000), content("after", 1000)
    await add(store, before)
    shutil.rmtree(tmp_path / "data" / gone)
    await add(store, after)
    assert await store.read(Digest.of(after), 1000) == after
    await store.close()
    store = await DiskStore.open_dir(tmp_path / "data", QUOTA, SystemClock())
    expected = {Digest.of(after)} | ({Digest.of(before)} if gone == "ingest" else set())
    assert set(await held(store)) == expected
    await store.close()


async def test_a_store_that_was_removed_whole_is_not_made_anew_but_told(tmp_path: Path) -> None:
    store = await DiskStore.open_dir(tmp_path / "data", QUOTA, SystemClock())
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(StoreError, match="was removed while it was in use; restart"):
        await add(store, content("late", 1000))
    await store.close()
    again = await DiskStore.open_dir(tmp_path / "data", QUOTA, SystemClock())  # nothing that is in the way
    await again.close()


async def test_what_the_disk_has_no_room_for_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await DiskStore.open_dir(tmp_path / "data", QUOTA, SystemClock())
    kept = content("kept", 1000)
    await add(store, kept)
    real = os.statvfs

    def little(path: Path) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, *real(path)[2:4], 100, *real(path)[5:]))

    monkeypatch.setattr(os, "statvfs", little)
    with pytest.raises(StoreFullError, match="409600 bytes free where 1000000 are"):
        await store.ingest(Digest.of(b"large"), 1_000_000)
    first = await store.ingest(Digest.of(b"first"), 200_000)
    with pytest.raises(StoreFullError):  # the first has yet to be written
        await store.ingest(Digest.of(b"second"), 200_000)
    await first.discard()
    assert (await store.usage()).reserved == 0
    assert set(await held(store)) == {Digest.of(kept)}  # and nothing went for it
    await store.close()
