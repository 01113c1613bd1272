"""The agents of a run: one process per host on the default ports of its namespace, and what each costs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.agents import ADMIN_PORT, MIRROR_PORT, NO_METRICS, PEER_PORT, REPOSITORY, Metrics
from tests.e2e.guard import wait_until
from tests.e2e.netlab import Host
from tests.e2e.programs import Program

REGISTRY_NAME = "registry.lab:5000"
BOOTSTRAP = 3  # the agents that the others know of; all else is found
KNOWN = 8  # contacts after which an agent counts as settled
SETTLE_SECONDS = 10.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process used: CPU seconds since it started (kernel included), and its peak resident memory in bytes."""

    cpu: float
    peak_rss: int


def cost(pid: int) -> Cost:
    """Of a process and its threads; nothing of a dead one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return Cost(0.0, 0)
    peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return Cost((int(fields[11]) + int(fields[12])) / TICKS, peak * 1024)


class LabAgent:
    """One agent. Costs and metrics go on over restarts, as far as they were read before the process ended."""

    def __init__(
        self, host: Host, zone: str, upstream: str, key_file: Path, bootstrap: Sequence[str]
    ) -> None:
        self.host = host
        self.directory = host.directory / "agent"
        self.data = self.directory / "data"
        self.directory.mkdir()
        self._config = self.directory / "config.toml"
        known = ", ".join(f'"{address}:{PEER_PORT}"' for address in bootstrap)
        self._text = (
            f'[agent]\ndata_dir = "{self.data}"\nname = "{host.name}"\nzone = "{zone}"\ndrain_timeout = "2s"\n'
            f'[peer]\nadvertise = "{host.address}:{PEER_PORT}"\ncluster_key_file = "{key_file}"\n'
            f"bootstrap = [{known}]\n"
            f'[registries."{REGISTRY_NAME}"]\nurl = "http://{upstream}"\n'
        )
        self._program: Program | None = None
        self._before = Cost(0.0, 0)
        self._retired: list[Metrics] = []

    @property
    def running(self) -> bool:
        return self._program is not None and self._program.running

    @property
    def pid(self) -> int:
        assert self._program is not None
        return self._program.pid

    def start(self, settings: Mapping[str, str]) -> None:
        """Start without waiting."""
        self._config.write_text(self._text)
        extra = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        argv = [sys.executable, "-m", "p2pdist", "agent", "--config", str(self._config), *extra]
        environment = {"HOME": str(self.directory), "PYTHONPATH": REPOSITORY}
        self._program = Program(self.host, "agent", argv, environment)
        self._program.start()

    def wait(self) -> None:
        """Until it says that it is ready."""
        assert self._program is not None
        self._program.wait(self._ready, 120)

    def end(self, number: signal.Signals) -> None:
        """SIGTERM or SIGKILL, and reap it."""
        if not self.running:
            return
        self._retired.append(self.metrics())
        used = self.cost()
        self._before = Cost(used.cpu, used.peak_rss)
        assert self._program is not None
        if number == signal.SIGKILL:
            self._program.kill()
        else:
            self._program.stop(30)
        self._program = None

    def signal(self, number: signal.Signals) -> None:
        """Send SIGSTOP or SIGCONT."""
        if self.running:
            os.kill(self.pid, number)

    def wipe(self) -> None:
        """Remove what it stored; it must not run."""
        assert not self.running
        shutil.rmtree(self.data, ignore_errors=True)
        self._retired.clear()
        self._before = Cost(0.0, 0)

    def cost(self) -> Cost:
        """Over all its lives since it was wiped."""
        now = cost(self.pid) if self.running else Cost(0.0, 0)
        return Cost(self._before.cpu + now.cpu, max(self._before.peak_rss, now.peak_rss))

    def metrics(self) -> Metrics:
        """Now; nothing where it does not answer within a few seconds."""
        if not self.running:
            return NO_METRICS
        try:
            return Metrics(self.host.request("GET", ADMIN_PORT, "/metrics", seconds=5).body.decode())
        except OSError:
            return NO_METRICS

    def totals(self, metrics: Mapping[str, tuple[str, Mapping[str, str]]]) -> dict[str, float]:
        """Counters by name: (metric, labels) summed over its lives."""
        readings = [*self._retired, self.metrics()]
        return {
            name: sum(reading.value(metric, **labels) for reading in readings)
            for name, (metric, labels) in metrics.items()
        }

    def known(self) -> int:
        """How many other agents it knows of."""
        return int(self.metrics().value("p2pdist_peers"))

    def tail(self) -> str:
        return self._program.tail() if self._program else f"({self.host.name} does not run)"

    def _ready(self) -> bool:
        try:
            return self.host.request("GET", ADMIN_PORT, "/readyz", seconds=5).status == 200
        except OSError:
            return False


class Agents:
    """All agents of a run, numbered from 1."""

    def __init__(self, hosts: Sequence[Host], zones: Sequence[str], upstream: str, directory: Path) -> None:
        key_file = directory / "cluster.key"
        key = [sys.executable, "-m", "p2pdist", "cluster", "key"]
        made = subprocess.run(key, check=True, capture_output=True, cwd=REPOSITORY)
        key_file.touch(mode=0o600)
        key_file.write_bytes(made.stdout)
        first = [host.address for host in hosts[:BOOTSTRAP]]
        self.all = [
            LabAgent(host, zone, upstream, key_file, [a for a in first if a != host.address])
            for host, zone in zip(hosts, zones, strict=True)
        ]

    def numbered(self, numbers: Iterable[int]) -> list[LabAgent]:
        return [self.all[number - 1] for number in numbers]

    def start(self, absent: Iterable[int], settings: Mapping[str, str]) -> str:
        """Start all but the absent ones with empty stores; returns who does not know enough others after a while.

        Each must know one, or pulling would tell nothing of a cluster.
        """
        missing = set(absent)
        present = [agent for n, agent in enumerate(self.all, 1) if n not in missing]
        for agent in present:
            agent.wipe()
            agent.start(settings)
        for agent in present:
            agent.wait()
        wait_until(
            lambda: all(a.known() >= min(1, len(present) - 1) for a in present), 60, "agents that meet"
        )
        enough, deadline = min(KNOWN, len(present) - 1), time.monotonic() + SETTLE_SECONDS
        while (few := [a for a in present if a.known() < enough]) and time.monotonic() < deadline:
            time.sleep(0.2)
        return ", ".join(f"{a.host.name} knows {a.known()} of {len(present) - 1} others" for a in few)

    def stop(self) -> None:
        """End all that run, at once."""
        for agent in self.all:
            agent.signal(signal.SIGCONT)
            agent.end(signal.SIGKILL)


MIRROR = {"address": "127.0.0.1", "port": MIRROR_PORT, "query": f"?ns={REGISTRY_NAME}"}
