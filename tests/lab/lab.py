"""One lab: the network, the registry, the agents, made for one scenario and taken down after it, also when killed.

The order of a measured run: links shaped, goodput measured, agents up and settled, costs read, clients start at one
instant, faults at their times, clients end, costs read again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.e2e.guard import Run, sweep
from tests.lab.agents import MIRROR, Agents, Cost
from tests.lab.faults import FaultPlan
from tests.lab.images import Bundle, build, push
from tests.lab.measure import QUIET_CORES, cpu_inside, cpu_seconds, link_goodput, wait_quiet
from tests.lab.network import Network
from tests.lab.pulls import Client, PullProcess, Pulls
from tests.lab.registry import PORT, Registry, Sent
from tests.lab.result import GB, Result, ideal_seconds, percentile
from tests.lab.scenario import ImageSpec, Link, Scenario

COUNTERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "received_peer": ("p2pdist_received_bytes_total", {"source": "peer"}),
    "received_upstream": ("p2pdist_received_bytes_total", {"source": "upstream"}),
    "client_store": ("p2pdist_client_bytes_total", {"source": "store"}),
    "client_peer": ("p2pdist_client_bytes_total", {"source": "peer"}),
    "client_upstream": ("p2pdist_client_bytes_total", {"source": "upstream"}),
    "upstream_requests": ("p2pdist_upstream_requests_total", {}),
    "verify_failures": ("p2pdist_verify_failures_total", {}),
}
AGENTS = "p2pdist"  # the system whose costs are the agents'
PATIENCE = 20.0  # seconds that a run waits for a quiet machine
Say = Callable[[str], None]
Watch = Callable[[float, Pulls], None]


@dataclass
class Reading:
    """Everything that is read before and after a run."""

    mark: int
    wire: int
    busy: float
    hosts_cpu: float
    up_cpu: float
    at: float
    costs: list[Cost] = field(default_factory=list)
    counters: list[dict[str, float]] = field(default_factory=list)


class Lab:
    """Use as a context. ``spare`` hosts are for the alternatives (a cache); they have links like the others."""

    def __init__(self, scenario: Scenario, say: Say, *, spare: int = 0) -> None:
        for name in sweep():
            say(f"removed what the killed run {name} left")
        self.scenario = scenario
        self.say = say
        self.run = Run()
        try:
            self.network = Network(self.run, scenario.hosts + spare)
            self.hosts = self.network.hosts[: scenario.hosts]
            self.spare = self.network.hosts[scenario.hosts :]
            self.registry = Registry(self.network.up, self.run.directory / "upstream")
            zones = [scenario.zone(n) for n in range(1, scenario.hosts + 1)]
            self.agents = Agents(self.hosts, zones, self.registry.address, self.run.directory)
            self.registry.start()
        except BaseException:
            self.run.close()
            raise
        self.goodput = 0.0
        self._seed = 0

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def image(self, spec: ImageSpec) -> Bundle:
        """An image that nobody has, pushed to the registry before links are shaped."""
        self._seed += 1
        directory = self.run.directory / f"image{self._seed}"
        bundle = build(spec, directory, self._seed)
        push(bundle, self.network.up, PORT)
        return bundle

    def shape(self) -> None:
        """Shape all links as the scenario has them, and measure what TCP makes of the registry's."""
        scenario = self.scenario
        for number, host in enumerate(self.hosts, 1):
            self.network.shape(host, scenario.link(number))
        for host in self.spare:
            self.network.shape(host, Link(scenario.rate, scenario.rate))
        self.network.shape(self.network.up, Link(scenario.registry_rate, scenario.registry_rate))
        self.goodput = link_goodput(self.network.up, self.hosts[0])

    def start_agents(self) -> None:
        """All agents with empty stores, but those that are absent at first."""
        if few := self.agents.start(self.scenario.absent, self.scenario.settings):
            self.say(f"not all have met: {few}")

    def client(
        self, number: int, bundle: Bundle, at: float, *, mirror: Mapping[str, object] | None = MIRROR
    ) -> Client:
        """A client on a host: at its mirror first, then at the registry."""
        upstream = {"address": self.registry.host.address, "port": PORT, "query": ""}
        endpoints = [upstream] if mirror is None else [mirror, upstream]
        return Client(self.hosts[number - 1], endpoints, bundle.references(), at)

    def pull(
        self, name: str, system: str, bundle: Bundle, clients: Sequence[Client], faults: FaultPlan | None = None
    ) -> Result:  # fmt: skip
        """Measure clients that pull; ``system`` names who serves them."""

        def work(watch: Watch) -> Pulls:
            process = PullProcess(self.run, clients)

            def look(pulls: Pulls) -> None:
                now = time.monotonic() - process.start
                watch(now, pulls)
                if faults is not None:
                    faults.carry_out(now)

            return process.wait(self.scenario.seconds, look)

        try:
            return self.measure(name, system, bundle, [client.host.name for client in clients], work)
        finally:
            if faults is not None:
                faults.undo_all()

    def measure(
        self, name: str, system: str, bundle: Bundle, pullers: Sequence[str], work: Callable[[Watch], Pulls]
    ) -> Result:  # fmt: skip
        """Measure any work by which these hosts get the image; it calls the watch that it is given now and then."""
        if (busy := wait_quiet(PATIENCE)) >= QUIET_CORES:
            self.say(f"the machine is not quiet: {busy:.1f} cores are busy with something else")
        load = os.getloadavg()[0]
        before = self._read()
        progress, links = Progress(self.say, len(pullers), bundle.size), LinkRecord(self.network)

        def watch(now: float, pulls: Pulls) -> None:
            progress.show(now, pulls)
            links.take(now)

        pulls = work(watch)
        after = self._read()
        sent = self.registry.sent(before.mark)
        return self._result(name, system, bundle, pullers, pulls, (before, after), sent, load, links)

    def keep_logs(self, directory: Path) -> None:
        """Copy what the agents and the registry said to a directory that stays."""
        directory.mkdir(parents=True, exist_ok=True)
        for log in self.run.directory.glob("*/*.log"):
            shutil.copy(log, directory / f"{log.parent.name}-{log.name}")

    def close(self) -> None:
        """Take everything down."""
        try:
            self.agents.stop()
            self.registry.stop()
            self.network.close()
        finally:
            self.run.close()

    def _read(self) -> Reading:
        return Reading(
            self.registry.mark(),
            self.network.traffic()["up"].sent,
            cpu_seconds(),
            cpu_inside([f"/run/netns/{host.namespace}" for host in (*self.hosts, *self.spare)]),
            cpu_inside([f"/run/netns/{self.network.up.namespace}"]),
            time.monotonic(),
            [agent.cost() for agent in self.agents.all],
            [agent.totals(COUNTERS) for agent in self.agents.all],
        )

    def _result(
        self, name: str, system: str, bundle: Bundle, pullers: Sequence[str], pulls: Pulls,
        readings: tuple[Reading, Reading], sent: Sent, load: float, links: LinkRecord,
    ) -> Result:  # fmt: skip
        before, after = readings
        good = [pull for pull in pulls.pulls if not pull.error]
        ended = {pull.host for pull in pulls.pulls}
        errors = [f"{pull.host}: {pull.error}" for pull in pulls.pulls if pull.error]
        errors += [f"{host}: not done in time" for host in pullers if host not in ended]
        seconds = sorted(pull.seconds for pull in good)
        firsts = [p.first_byte - p.started for p in good if p.first_byte is not None]
        start = min((pull.started for pull in good), default=0.0)
        counters = {
            key: sum(b[key] for b in after.counters) - sum(a[key] for a in before.counters)
            for key in COUNTERS
        }
        agents = sum(c.cpu for c in after.costs) - sum(c.cpu for c in before.costs)
        moved = round(counters["received_peer"] + counters["received_upstream"])
        by_agents = system == AGENTS
        cpu = agents if by_agents else after.hosts_cpu - before.hosts_cpu
        received = moved if by_agents else sum(pull.bytes for pull in pulls.pulls)
        seconds_passed = after.at - before.at
        own = cpu + after.up_cpu - before.up_cpu + pulls.client_cpu
        busy = (after.busy - before.busy) / seconds_passed
        return Result(
            name=name, system=system, hosts=len(pullers), rate=self.scenario.rate, size=bundle.size,
            pieces=bundle.pieces, goodput=self.goodput,
            ideal=ideal_seconds(bundle.size, self.goodput, len(pullers), bundle.pieces),
            makespan=max((p.ended for p in good), default=float("nan")) - start,
            p50=percentile(seconds, 0.5), p99=percentile(seconds, 0.99), first_byte_p50=percentile(firsts, 0.5),
            copies=sent.blob_bytes / bundle.size, wire_copies=(after.wire - before.wire) / bundle.size,
            blob_requests=sent.blob_requests, manifest_requests=sent.manifest_requests,
            received=received, cpu=cpu,
            cpu_per_gb=cpu / received * GB if received else 0.0,
            peak_rss=max(c.peak_rss for c in after.costs) if by_agents else 0, client_cpu=pulls.client_cpu,
            busy=busy, foreign=max(0.0, busy - own / seconds_passed), load_before=load,
            failed=len(errors), errors=errors, fallback_bytes=sum(p.fallback_bytes for p in pulls.pulls),
            retries=sum(p.retries for p in pulls.pulls),
            troubles=[f"{p.host}: {trouble}" for p in pulls.pulls for trouble in p.troubles],
            host_seconds={p.host: p.seconds for p in pulls.pulls}, progress=pulls.progress,
            links=links.samples, counters=counters,
        )  # fmt: skip


class Progress:
    """Says now and then how far the pulls are."""

    EVERY = 2.0

    def __init__(self, say: Say, hosts: int, size: int) -> None:
        self._say, self._hosts, self._size = say, hosts, size
        self._next = self.EVERY

    def show(self, now: float, pulls: Pulls) -> None:
        if now < self._next or not pulls.progress:
            return
        self._next = now + self.EVERY
        got = pulls.progress[-1][1]
        slowest = min(got) / self._size
        share = sum(got) / self._size / self._hosts
        self._say(
            f"{now:6.1f} s  {share:4.0%} of all, slowest host {slowest:4.0%}, {len(pulls.pulls)}/{self._hosts} done"
        )


class LinkRecord:
    """What crossed each link, sampled while a run lasts."""

    EVERY = 0.5

    def __init__(self, network: Network) -> None:
        self._network = network
        self._next = 0.0
        self._base = network.traffic()
        self.samples: list[tuple[float, dict[str, tuple[int, int]]]] = []

    def take(self, now: float) -> None:
        """A sample, if it is time for one: (received, sent) bytes of each host since the run began."""
        if now < self._next:
            return
        self._next = now + self.EVERY
        seen = self._network.traffic()
        self.samples.append(
            (
                now,
                {
                    n: (t.received - self._base[n].received, t.sent - self._base[n].sent)
                    for n, t in seen.items()
                },
            )
        )
