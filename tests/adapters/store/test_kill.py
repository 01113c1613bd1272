"""kill -9 at any moment, with a real process that is really killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2pdist.clock import SystemClock
from p2pdist.oci.digest import Digest
from p2pdist.store.disk import DiskStore
from p2pdist.store.part import CHECKPOINT_BYTES
from tests.adapters.store import crash_child
from tests.adapters.store.crash_child import BLOBS, QUOTA, SIZE, STREAM, blob
from tests.conformance.store import NGINX

KILLS = 10


@contextmanager
def child(what: str, data: Path, kill_at: int = 0) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", crash_child.__name__, what, str(data), str(kill_at)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_of(data: Path, kill_at: int) -> list[list[str]]:
    with child("work", data, kill_at) as process:
        assert process.stdout is not None
        lines = [line.split() for line in process.stdout]
        assert process.wait(60) == (-signal.SIGKILL if kill_at else 0)
    return lines


async def check(data: Path, lines: list[list[str]]) -> None:
    """What was promised is there; what is there is right; and one can go on from it."""
    store = await DiskStore.open_dir(data, QUOTA, SystemClock())
    deleting = {Digest.parse(words[1]) for words in lines if words[0] == "deleting"}
    promised = {Digest.parse(words[1]) for words in lines if words[0] == "held"} - deleting
    held = {info.digest for info in await store.blobs()}
    assert promised <= held
    usage = await store.usage()
    assert usage.committed + usage.reserved <= QUOTA
    for digest in held:
        body = await store.read(digest, SIZE)
        assert body is not None
        assert Digest.of(body) == digest
    for name in range(BLOBS):
        info = await store.stat(Digest.of(blob(name)))
        assert info is None or info.shared == (name % 2 == 0)
    for words in lines:
        if words[0] == "tagged":
            entry = await store.tag(NGINX, "latest")
            assert entry is not None
            assert str(entry.digest) == words[1]
    listed = json.loads((data / "store" / "index.json").read_bytes())["manifests"]
    assert {item["digest"] for item in listed} <= {str(digest) for digest in held}
    await resume(store, "partial")
    await store.close()
    assert sorted(path.name for path in (data / "ingest").iterdir()) == []


async def resume(store: DiskStore, name: str) -> None:
    """Whatever is held of a partial is right, and the rest completes it."""
    body = blob(name)
    ingest = await store.ingest(Digest.of(body), SIZE)
    for start, stop in ingest.held():
        assert await ingest.read(start, stop - start) == body[start:stop]
    for start in range(0, SIZE, 50_000):
        if not await ingest.read(start, 1):
            await ingest.write(start, body[start : start + 50_000])
    await ingest.commit()
    for other in [*range(BLOBS), "rest"]:
        await store.put(Digest.of(blob(other)), blob(other))
    # Ingests of the killed process that were neither promised nor taken up again.
    await store.collect(0)
    for other in range(BLOBS):
        await (await store.ingest(Digest.of(blob(other)), SIZE)).discard()


async def test_killed_between_any_two_changes_of_the_disk(tmp_path: Path) -> None:
    whole = lines_of(tmp_path / "whole", 0)
    await check(tmp_path / "whole", whole)
    calls = int(whole[-1][1])
    assert calls > 5 * KILLS
    for number in range(KILLS):
        kill_at = 1 + number * (calls - 1) // (KILLS - 1)
        data = tmp_path / str(number)
        await check(data, lines_of(data, kill_at))


async def test_killed_while_streaming_resumes(tmp_path: Path) -> None:
    with child("stream", tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            written = int(line.split()[1])
            if written > STREAM // 2:
                break
        process.kill()
        process.wait(60)
    store = await DiskStore.open_dir(tmp_path, QUOTA, SystemClock())
    body = blob("stream", STREAM)
    ingest = await store.ingest(Digest.of(body), STREAM)
    # The child went on while its line was read, so only a lower bound is certain.
    assert ingest.front >= written - CHECKPOINT_BYTES
    assert ingest.resumed == ingest.front
    await ingest.write(ingest.front, body[ingest.front :])
    await ingest.commit()
    assert await store.read(ingest.digest, STREAM) == body
    await store.close()
