"""The process that test_kill.py kills: works on a store, says on stdout what it was promised, and may die by SIGKILL
at its n-th system call that changes the disk (just before it when n is odd, just after it when n is even)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2pdist.clock import SystemClock
from p2pdist.oci.digest import Digest
from p2pdist.store.disk import DiskStore
from tests.conformance.store import add_manifest, content, tag_entry

QUOTA = 64 * 1024 * 1024
BLOBS = 6
SIZE = 300_000
STREAM = 48 * 1024 * 1024
CALLS = ("pwrite", "fsync", "replace", "unlink", "ftruncate", "fchmod")


def blob(name: object, size: int = SIZE) -> bytes:
    return content(f"blob {name}", size)


def say(*words: object) -> None:
    print(*words, flush=True)


class Killer:
    """Counts the calls; ``kill_at`` 0 never kills."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.count = 0
        for name in CALLS:
            setattr(os, name, self.wrap(getattr(os, name)))

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            mine = self.count
            if mine == self.kill_at and mine % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if mine == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped


async def work(data: Path) -> None:
    """A bit of everything; ``held X`` is said once X is committed, ``deleting X`` before it is deleted."""
    store = await DiskStore.open_dir(data, QUOTA, SystemClock())
    for name in range(BLOBS):
        body = blob(name)
        ingest = await store.ingest(Digest.of(body), len(body))
        for start in (100_000, 0, 200_000):
            await ingest.write(start, body[start : start + 100_000])
        await ingest.commit("", shared=name % 2 == 0)
        say("held", ingest.digest)
    manifest = await add_manifest(store, b"config", b"layer")
    say("held", manifest)
    await store.record_tag(tag_entry(manifest))
    say("tagged", manifest)
    partial = await store.ingest(Digest.of(blob("partial")), SIZE)
    await partial.write(50_000, blob("partial")[50_000:150_000])
    await partial.close()
    again = await store.ingest(Digest.of(blob("partial")), SIZE)
    await again.write(0, blob("partial")[:60_000])
    say("deleting", Digest.of(blob(0)))
    await store.delete(Digest.of(blob(0)))
    await store.close()


async def stream(data: Path) -> None:
    """Write one large blob from its start, saying how far it is."""
    store = await DiskStore.open_dir(data, QUOTA, SystemClock())
    body = blob("stream", STREAM)
    ingest = await store.ingest(Digest.of(body), STREAM)
    step = 256 * 1024
    for start in range(0, STREAM, step):
        await ingest.write(start, body[start : start + step])
        say("written", start + step)
    await asyncio.Event().wait()


if __name__ == "__main__":
    what, directory, number = sys.argv[1:]
    killer = Killer(int(number))
    asyncio.run(work(Path(directory)) if what == "work" else stream(Path(directory)))
    say("calls", killer.count)
