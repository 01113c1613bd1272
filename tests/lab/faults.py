"""Carries a scenario's faults out, each at its time, and undoes those that end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tests.e2e.netlab import Host
from tests.lab.agents import Agents, LabAgent
from tests.lab.network import Network
from tests.lab.scenario import Fault, Link, Scenario

Action = Callable[[], None]


@dataclass(frozen=True)
class Step:
    """One thing to do at a time, seconds after the run's start."""

    at: float
    what: str
    act: Action


class FaultPlan:
    """The faults of one run. ``carry_out`` is called often, and does what has come due."""

    def __init__(
        self, scenario: Scenario, network: Network, agents: Agents, say: Callable[[str], None]
    ) -> None:
        self._scenario, self._network, self._agents, self._say = scenario, network, agents, say
        self._steps = [Step(f.at, describe(f), partial(self._begin, f)) for f in scenario.faults]
        self._endings: list[threading.Thread] = []

    def carry_out(self, now: float) -> None:
        """Everything whose time has come, in order."""
        while due := sorted((s for s in self._steps if s.at <= now), key=lambda step: step.at)[:1]:
            self._steps.remove(due[0])
            self._say(f"{now:6.1f} s  {due[0].what}")
            due[0].act()

    def undo_all(self) -> None:
        """End what still lasts (not the dead: they stay dead)."""
        for step in [s for s in self._steps if s.what.startswith("end of")]:
            step.act()
        self._steps.clear()
        self._await_endings()

    def _begin(self, fault: Fault) -> None:
        undo = self._do(fault)
        if fault.seconds and undo is not None:
            self._steps.append(Step(fault.at + fault.seconds, f"end of {describe(fault)}", undo))

    def _do(self, fault: Fault) -> Action | None:
        network, agents = self._network, self._agents.numbered(fault.hosts)
        hosts = [agent.host for agent in agents]
        everyone = [agent.host for agent in self._agents.all]
        if fault.kind in ("kill", "stop"):
            number = signal.SIGKILL if fault.kind == "kill" else signal.SIGTERM
            for agent in agents:
                ending = threading.Thread(
                    target=agent.end, args=(number,)
                )  # SIGTERM takes its time, others' do not
                ending.start()
                self._endings.append(ending)
            return partial(self._start, agents)
        if fault.kind == "start":
            self._start(agents)
            return None
        if fault.kind == "freeze":
            _signal(agents, signal.SIGSTOP)
            return partial(_signal, agents, signal.SIGCONT)
        if fault.kind in ("slow", "upstream-slow"):
            return self._slow([network.up] if fault.kind == "upstream-slow" else hosts, fault.rate)
        if fault.kind == "loss":
            return partial(network.undo, network.lose(hosts, fault.percent))
        if fault.kind == "upstream-down":
            return partial(network.undo, network.part([network.up], everyone))
        others = [agent.host for agent in self._agents.numbered(fault.others)]
        rest = others or [host for host in everyone if host not in hosts]
        return partial(network.undo, network.part(hosts, rest))

    def _await_endings(self) -> None:
        for ending in self._endings:
            ending.join()
        self._endings.clear()

    def _start(self, agents: Sequence[LabAgent]) -> None:
        self._await_endings()
        for agent in agents:
            agent.start(self._scenario.settings)

    def _slow(self, hosts: Sequence[Host], rate: float) -> Action:
        for host in hosts:
            self._network.shape(host, Link(rate, rate))

        def restore() -> None:
            for host in hosts:
                self._network.shape(host, self._usual(host))

        return restore

    def _usual(self, host: Host) -> Link:
        if host is self._network.up:
            return Link(self._scenario.registry_rate, self._scenario.registry_rate)
        return self._scenario.link(self._network.hosts.index(host) + 1)


def _signal(agents: Sequence[LabAgent], number: signal.Signals) -> None:
    for agent in agents:
        agent.signal(number)


def describe(fault: Fault) -> str:
    """For the progress line."""
    hosts = f" hosts {', '.join(map(str, fault.hosts))}" if fault.hosts else ""
    others = f" from {', '.join(map(str, fault.others))}" if fault.others else ""
    number = f" to {fault.rate:g} Mbit/s" if fault.rate else f" {fault.percent:g} %" if fault.percent else ""
    return f"{fault.kind}{hosts}{others}{number}"
