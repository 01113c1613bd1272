"""Run by test_full_disk.py on a file system of 8 MiB: what the store does when the disk is really full."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from p2pdist.clock import SystemClock
from p2pdist.errors import StoreError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.store.disk import DiskStore
from tests.conformance.store import add, content, held, tag_entry

QUOTA = 1024 * 1024 * 1024
STEP = 256 * 1024
HUGE = 16 * 1024 * 1024
BIG = 6 * 1024 * 1024
BALLAST = 3 * 512 * 1024


async def main(data: Path) -> None:
    store = await DiskStore.open_dir(data, QUOTA, SystemClock())
    kept = content("kept", 1024 * 1024)
    await add(store, kept)
    huge = content("huge", HUGE)
    try:
        await store.ingest(Digest.of(huge), HUGE)
        raise SystemExit("room for 16 MiB was found on a disk of 8")
    except StoreFullError as error:
        print(error)
    big = content("big", BIG)
    ingest = await store.ingest(Digest.of(big), BIG)
    try:
        await store.ingest(Digest.of(huge), 2 * 1024 * 1024)
        raise SystemExit("room that is given out already was given out again")
    except StoreFullError:
        pass
    (data / "ballast").write_bytes(bytes(BALLAST))  # someone else fills the disk
    try:
        for start in range(0, BIG, STEP):
            await ingest.write(start, big[start : start + STEP])
        raise SystemExit("8.5 MiB went onto a disk of 8")
    except StoreFullError as error:
        print(error)
    front = ingest.front
    assert 1024 * 1024 < front < 8 * 1024 * 1024
    assert await ingest.read(0, front) == big[:front]
    for other in range(100):  # also the last free pages go, so that small writes fail as well
        try:
            await add(store, content(other, 4096))
        except StoreFullError:
            break
    try:
        await store.record_tag(tag_entry(Digest.of(kept)))
    except (StoreFullError, StoreError) as error:
        print(error)
    await ingest.close()
    before = await held(store)
    assert Digest.of(kept) in before
    await store.close()
    (data / "ballast").unlink()

    store = await DiskStore.open_dir(data, QUOTA, SystemClock())
    assert await held(store) == before
    assert await store.read(Digest.of(kept), len(kept)) == kept
    again = await store.ingest(Digest.of(big), BIG)
    assert again.resumed > 1024 * 1024
    assert await again.read(0, again.front) == big[: again.front]
    await again.discard()
    await add(store, content("after", 2 * 1024 * 1024))
    await store.close()
    print("nothing lost")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) / "data"))
