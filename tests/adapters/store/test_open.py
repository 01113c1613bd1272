"""Opening a data directory: whose it is, and what can be mended."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from p2pdist.errors import StoreError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.oci.media_types import OCI_LAYER, OCI_MANIFEST
from p2pdist.oci.reference import Reference
from p2pdist.store.disk import DiskStore
from p2pdist.testing.clock import ManualClock
from tests.conformance.store import LAYER, NGINX, add, add_manifest, content, held, tag_entry

OpenStore = Callable[..., Awaitable[DiskStore]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def reopen(tmp_path: Path, clock: ManualClock) -> AsyncIterator[OpenStore]:
    """Closes the store that it opened last, and opens the directory again."""
    opened: list[DiskStore] = []

    async def reopen(quota: int = 10_000_000, data: Path = tmp_path / "data") -> DiskStore:
        for store in opened:
            await store.close()
        opened.append(await DiskStore.open_dir(data, quota, clock))
        return opened[-1]

    yield reopen
    for store in opened:
        await store.close()


def blob_path(data: Path, digest: Digest) -> Path:
    return data / "store" / "blobs" / digest.algorithm / digest.hex


# -- whose directory it is --


async def test_a_directory_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, reopen: OpenStore
) -> None:
    (tmp_path / "data" / "overlay2").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"data.*overlay2.*agent\.data_dir"):
        await reopen()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["overlay2"]


async def test_files_that_were_there_before_are_no_obstacle(tmp_path: Path, reopen: OpenStore) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cluster.key").write_text("secret")
    (tmp_path / "data" / "lost+found").mkdir()
    await reopen()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"product":"p2pdist"}', b'{"product":"x","layout_version":1}']
)
async def test_a_marker_that_is_not_ours_is_refused(tmp_path: Path, reopen: OpenStore, body: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "p2pdist.json").write_bytes(body)
    with pytest.raises(StoreError, match=r"p2pdist\.json is damaged or not p2pdist's"):
        await reopen()


async def test_a_newer_layout_is_refused(tmp_path: Path, reopen: OpenStore) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "p2pdist.json").write_text('{"product":"p2pdist","layout_version":7}')
    with pytest.raises(StoreError, match=r"newer p2pdist .layout 7, this one knows 1."):
        await reopen()


async def test_a_newer_catalog_is_refused(tmp_path: Path, reopen: OpenStore) -> None:
    await (await reopen()).close()
    with sqlite3.connect(tmp_path / "data" / "catalog.sqlite") as connection:
        connection.execute("INSERT INTO migrations VALUES (99, 0)")
    connection.close()
    with pytest.raises(StoreError, match="version 99"):
        await reopen()


async def test_a_file_is_no_directory(tmp_path: Path, reopen: OpenStore) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(StoreError, match="not a directory"):
        await reopen()
    with pytest.raises(StoreError, match="not a directory"):
        await reopen(data=tmp_path / "data" / "below")


async def test_one_agent_per_directory(tmp_path: Path, reopen: OpenStore) -> None:
    await reopen()
    with pytest.raises(StoreError, match=rf"in use by another p2pdist agent .process {os.getpid()}"):
        await DiskStore.open_dir(tmp_path / "data", 1, ManualClock())
    await reopen()  # and a refused one does not keep the lock


async def test_other_users_of_the_host_learn_nothing_of_repositories(
    tmp_path: Path, reopen: OpenStore
) -> None:
    store = await reopen()
    await store.record_tag(tag_entry(content(100)))
    data = tmp_path / "data"
    names = ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm", "store/index.json")
    modes = {name: (data / name).stat().st_mode & 0o777 for name in names}
    assert modes == dict.fromkeys(names, 0o640)
    assert data.stat().st_mode & 0o777 == 0o750


async def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path, reopen: OpenStore) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    await reopen()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o755


UNWRITABLE = """
import asyncio, os, sys
from pathlib import Path
from p2pdist.clock import SystemClock
from p2pdist.errors import StoreError, StoreFullError
from p2pdist.store.disk import DiskStore
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    asyncio.run(DiskStore.open_dir(Path(sys.argv[1]), 1, SystemClock()))
except StoreError as error:
    print(error)
"""


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for directory in (data, *tmp_path.parents, tmp_path):
        if directory.stat().st_uid == os.getuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o555)
    data.chmod(0o555)
    answer = subprocess.run(
        [sys.executable, "-c", UNWRITABLE, str(data)], capture_output=True, text=True, check=True
    )
    assert answer.stdout.startswith(f"{data} is not writable by this user")
    assert "agent.data_dir" in answer.stdout


# -- what is mended --


async def test_all_that_is_known_outlives_a_restart(reopen: OpenStore) -> None:
    store = await reopen()
    manifest = await add_manifest(store, b"config", b"layer")
    private = (await add(store, content("private"), OCI_LAYER, shared=False)).digest
    await store.record_tag(tag_entry(Digest.of(b"before"), at=1.0))
    await store.record_tag(tag_entry(manifest, at=2.0))
    await store.pin(Reference.parse("nginx"), [manifest])
    await store.pin(Reference.parse("nothing-yet"), [])
    assert await store.read(Digest.of(b"config"), 100) is not None
    before = await store.blobs()
    store = await reopen()
    assert sorted(await store.blobs(), key=str) == sorted(before, key=str)
    assert [entry.digest for entry in await store.tags(NGINX)] == [manifest]
    history = await store.tag_history(NGINX, "latest")
    assert [(e.digest, e.resolved_at) for e in history] == [(manifest, 2.0), (Digest.of(b"before"), 1.0)]
    assert set(await store.pins()) == {Reference.parse("nginx"), Reference.parse("nothing-yet")}
    info = await store.stat(private)
    assert info is not None
    assert (info.shared, info.media_type) == (False, OCI_LAYER)


@pytest.mark.parametrize("how", ["deleted", "damaged", "truncated"])
async def test_losing_the_catalog_loses_no_blob_and_no_tag(
    tmp_path: Path, reopen: OpenStore, how: str
) -> None:
    store = await reopen()
    manifest = await add_manifest(store, b"config", b"layer")
    private = (await add(store, content("private"), OCI_LAYER, shared=False)).digest
    entry = tag_entry(manifest, at=1234.5)
    await store.record_tag(entry)
    everything = await held(store)
    await store.close()
    catalog = tmp_path / "data" / "catalog.sqlite"
    if how == "deleted":
        catalog.unlink()
    else:
        catalog.write_bytes(b"not a database, " * 1000 if how == "damaged" else catalog.read_bytes()[:5000])
    store = await reopen()
    assert await held(store) == everything
    tag = await store.tag(NGINX, "latest")
    assert tag is not None
    assert (tag.digest, tag.resolved_at) == (manifest, 1234.5)
    info = await store.stat(manifest)
    assert info is not None
    assert (info.media_type, info.shared) == (OCI_MANIFEST, True)
    info = await store.stat(private)
    assert info is not None
    assert not info.shared  # what was kept from other hosts must stay so
    assert await store.read(private, LAYER) == content("private")


async def test_files_and_rows_are_brought_in_line(tmp_path: Path, reopen: OpenStore) -> None:
    store = await reopen()
    gone, short, kept = [(await add(store, content(name))).digest for name in ("gone", "short", "kept")]
    await store.close()
    data = tmp_path / "data"
    blob_path(data, gone).unlink()
    blob_path(data, short).write_bytes(b"short")
    strange = blob_path(data, kept).with_name("README")
    strange.write_text("mine")
    stray = data / "ingest" / "whatever"
    stray.write_text("")
    store = await reopen()
    assert await held(store) == {kept}
    assert (await store.usage()).committed == LAYER
    assert not blob_path(data, short).exists()
    assert strange.exists()
    assert not stray.exists()
    await add(store, content("gone"))
    assert await held(store) == {kept, gone}


async def test_a_blob_put_there_by_hand_is_checked_before_it_is_given_out(
    tmp_path: Path, reopen: OpenStore
) -> None:
    await (await reopen()).close()
    right, wrong = Digest.of(b"right"), Digest.of(b"expected")
    blob_path(tmp_path / "data", right).write_bytes(b"right")
    blob_path(tmp_path / "data", wrong).write_bytes(b"anything")
    store = await reopen()
    assert await store.read(right, 100) == b"right"
    assert await store.read(wrong, 100) is None
    assert await store.open(wrong) is None
    assert await held(store) == {right}
    assert store.evicted() == [wrong]
    store = await reopen()
    assert await held(store) == {right}


@pytest.mark.parametrize("harm", ["removed", "cut"])
async def test_a_file_harmed_while_the_store_is_open_is_noticed(
    tmp_path: Path, reopen: OpenStore, harm: str
) -> None:
    store = await reopen()
    digest = (await add(store, content("a"))).digest
    path = blob_path(tmp_path / "data", digest)
    path.unlink() if harm == "removed" else os.truncate(path, 10)
    assert await store.open(digest) is None
    assert await store.stat(digest) is None
    assert (await store.usage()).committed == 0
    await add(store, content("a"))
    assert await store.read(digest, LAYER) == content("a")


async def test_a_lower_quota_is_kept_from_the_start(
    tmp_path: Path, reopen: OpenStore, clock: ManualClock
) -> None:
    store = await reopen()
    digests: list[Digest] = []
    for name in "abcd":
        await clock.advance(1)
        digests.append((await add(store, content(name))).digest)
    store = await reopen(quota=2 * LAYER + 10)
    assert await held(store) == set(digests[2:])
    assert len(list((tmp_path / "data" / "store" / "blobs" / "sha256").iterdir())) == 2
    assert store.evicted() == digests[:2]


async def test_pinned_content_over_a_lower_quota_stays_and_nothing_is_admitted(reopen: OpenStore) -> None:
    store = await reopen()
    await store.pin(Reference.parse("nginx"), [(await add(store, content("a"))).digest])
    store = await reopen(quota=100)
    assert len(await store.blobs()) == 1
    with pytest.raises(StoreFullError, match="no room"):
        await add(store, b"x")
    await store.unpin(Reference.parse("nginx"))
    await add(store, b"x")


async def test_a_part_is_worth_what_its_ranges_say(tmp_path: Path, reopen: OpenStore) -> None:
    store, data = await reopen(), content("a")
    digest, other = Digest.of(data), Digest.of(b"other")
    for item in (digest, other):
        ingest = await store.ingest(item, LAYER)
        await ingest.write(0, data[:50_000])
        await ingest.close()
    await store.close()
    folder = tmp_path / "data" / "ingest"
    os.truncate(folder / f"sha256-{digest.hex}.part", 30_000)
    (folder / f"sha256-{other.hex}.held").write_bytes(b"noise")
    store = await reopen()
    assert (await store.usage()).reserved == 30_000
    assert not (folder / f"sha256-{other.hex}.part").exists()
    ingest = await store.ingest(digest, LAYER)
    assert ingest.held() == ((0, 30_000),)
    await ingest.write(30_000, data[30_000:])
    await ingest.commit()
    assert await store.read(digest, LAYER) == data


async def test_partials_of_earlier_processes_count_and_go_first_oldest_first(
    tmp_path: Path, reopen: OpenStore
) -> None:
    store = await reopen()
    for number, name in enumerate("ba"):
        ingest = await store.ingest(Digest.of(content(name)), LAYER)
        await ingest.write(0, content(name, 50_000))
        await ingest.close()
        part = tmp_path / "data" / "ingest" / f"sha256-{ingest.digest.hex}.part"
        os.utime(part, (number, number))
    kept = (await add(store, content("kept"))).digest
    store = await reopen(quota=2 * LAYER)
    usage = await store.usage()
    assert (usage.committed, usage.reserved) == (LAYER, 100_000)
    await add(store, content("new", LAYER - 50_000))
    assert kept in await held(store)
    assert [path.name for path in (tmp_path / "data" / "ingest").glob("*.part")] == [
        f"sha256-{Digest.of(content('a')).hex}.part"
    ]


async def test_the_layout_is_a_valid_one_from_the_start(tmp_path: Path, reopen: OpenStore) -> None:
    await reopen()
    store = tmp_path / "data" / "store"
    assert json.loads((store / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((store / "index.json").read_bytes())
    assert (index["schemaVersion"], index["manifests"]) == (2, [])
    assert sorted(path.name for path in store.iterdir()) == ["blobs", "index.json", "oci-layout"]
