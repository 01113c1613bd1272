"""Runs the clients' process (tests/lab/client.py) and gathers what it says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.agents import REPOSITORY
from tests.e2e.guard import Run
from tests.e2e.netlab import Host

LEAD = 1.0  # seconds for the clients' process to come up before the common instant


@dataclass(frozen=True, slots=True)
class Pull:
    """How one host's pull went. Times in seconds after the run's start; ``error`` is "" when every digest held; ``troubles``
    are the failures that a retry mended."""

    host: str
    started: float
    ended: float
    bytes: int
    first_byte: float | None
    fallback_bytes: int
    retries: int
    error: str
    troubles: Sequence[str] = ()

    @property
    def seconds(self) -> float:
        return self.ended - self.started


@dataclass
class Pulls:
    """All pulls of a run; ``progress`` has (time, bytes of each host so far)."""

    pulls: list[Pull] = field(default_factory=list)
    progress: list[tuple[float, list[int]]] = field(default_factory=list)
    client_cpu: float = 0.0


@dataclass(frozen=True)
class Client:
    """One host that pulls: from where, in order of preference, and when."""

    host: Host
    endpoints: Sequence[Mapping[str, object]]
    images: Sequence[Mapping[str, str]]
    at: float = 0.0


class PullProcess:
    """The clients' process while it runs; ``start`` is the instant (CLOCK_MONOTONIC) that all times count from."""

    def __init__(self, run: Run, clients: Sequence[Client]) -> None:
        self.start = time.monotonic() + LEAD + 0.02 * len(clients)
        self._count = len(clients)
        self.result = Pulls()
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.lab.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        run.process(self._process.pid)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"start": self.start, "hosts": [_entry(c) for c in clients]}))
        self._process.stdin.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, seconds: float, watch: Callable[[Pulls], None]) -> Pulls:
        """Until all have ended, calling ``watch`` now and then; ends those that take longer than ``seconds``."""
        deadline = self.start + seconds
        while self._reader.is_alive() and time.monotonic() < deadline:
            self._reader.join(0.1)
            watch(self.result)
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self.result

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        kind = event.pop("event")
        if kind == "progress":
            self.result.progress.append((event["at"], event["bytes"]))
        elif kind == "done":
            self.result.pulls.append(Pull(**event))
        else:
            self.result.client_cpu = event["cpu"]


def _entry(client: Client) -> dict[str, object]:
    return {
        "host": client.host.name,
        "namespace": f"/run/netns/{client.host.namespace}",
        "endpoints": list(client.endpoints),
        "images": list(client.images),
        "at": client.at,
    }
