"""What a test run makes on the machine, written down before it is made, so that a killed run can be cleaned up after.

Always true here: a record names its owner by process id and start time, so a reused id is never mistaken for it;
nothing is removed but what a record of a dead owner lists, and of processes only those that still carry the start
time that was recorded, or that live in a network namespace which that run made.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

RECORDS = Path("/run/p2pdist-e2e")
NAMESPACES = Path("/run/netns")
PREFIX = "p2pe"


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), field 22); None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def wait_until(condition: object, seconds: float, what: str) -> None:
    """Poll until ``condition()`` is true; AssertionError that says ``what`` did not happen in ``seconds``."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.02)


class Run:
    """One test run's belongings: a directory, namespaces, processes. ``close`` removes them; ``sweep`` does it later."""

    def __init__(self) -> None:
        pid = os.getpid()
        started = start_time(pid)
        assert started is not None
        self.name = f"{PREFIX}{pid}"
        RECORDS.mkdir(mode=0o700, exist_ok=True)
        self._record = RECORDS / f"{pid}-{started}"
        # Short, since sockets live in it and their paths end at 108 bytes; on disk, since overlayfs goes on top.
        self.directory = Path("/var/tmp") / self.name
        self._note("directory", str(self.directory))
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o755)

    def namespace(self, short: str) -> str:
        """The full name of a network namespace of this run, noted as ours."""
        name = f"{self.name}-{short}"
        self._note("namespace", name)
        return name

    def process(self, pid: int) -> None:
        """Note a process as ours."""
        started = start_time(pid)
        if started is not None:
            self._note("process", f"{pid} {started}")

    def close(self) -> None:
        """Remove everything of this run that is still there."""
        _remove(self._record)

    def _note(self, kind: str, value: str) -> None:
        with self._record.open("a") as record:
            record.write(json.dumps([kind, value]) + "\n")


def sweep() -> list[str]:
    """Remove what dead runs left; returns the names of their records."""
    swept = []
    for record in sorted(RECORDS.glob("*-*")) if RECORDS.is_dir() else []:
        pid, _, started = record.name.partition("-")
        if start_time(int(pid)) != int(started):
            _remove(record)
            swept.append(record.name)
    return swept


def _remove(record: Path) -> None:
    items = list(_items(record))
    namespaces = [name for kind, name in items if kind == "namespace" and name.startswith(PREFIX)]
    # Shims and containers outlive their daemons and were not started by us; the namespace tells that they are ours.
    for _ in range(100):
        pids = {p for kind, value in items if kind == "process" for p in _same_process(value)}
        pids |= {p for name in namespaces for p in _inside(name)}
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for name in namespaces:
        if (NAMESPACES / name).exists():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
    for kind, value in items:
        if kind == "directory" and Path(value).name.startswith(PREFIX):
            shutil.rmtree(value, ignore_errors=True)
    record.unlink(missing_ok=True)


def _items(record: Path) -> Iterator[tuple[str, str]]:
    for line in record.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # the line that a killed run was writing
            kind, value = json.loads(line)
            yield kind, value


def _same_process(value: str) -> list[int]:
    pid, _, started = value.partition(" ")
    return [int(pid)] if start_time(int(pid)) == int(started) else []


def _inside(namespace: str) -> list[int]:
    if not (NAMESPACES / namespace).exists():
        return []
    found = subprocess.run(["ip", "netns", "pids", namespace], check=False, capture_output=True, text=True)
    return [pid for pid in map(int, found.stdout.split()) if start_time(pid) is not None]
