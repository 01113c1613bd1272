"""Faults: each at its time and once, undone at its end, in order; against a network and agents that only take notes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from tests.lab.faults import FaultPlan
from tests.lab.scenario import Fault, Link, Scenario


class Notes:
    """Stands for the network and the agents; ``taken`` is what was done to them."""

    def __init__(self, count: int) -> None:
        self.taken: list[str] = []
        self.up = SimpleNamespace(name="up")
        self.all = [NotedAgent(self, n) for n in range(1, count + 1)]
        self.hosts: Sequence[Any] = [agent.host for agent in self.all]

    def numbered(self, numbers: Iterable[int]) -> list[NotedAgent]:
        return [self.all[number - 1] for number in numbers]

    def shape(self, host: Any, link: Link) -> None:
        self.taken.append(f"{host.name} {link.down:g}/{link.up:g}")

    def lose(self, hosts: Iterable[Any], percent: float) -> str:
        self.taken.append(f"loss {percent:g} {_names(hosts)}")
        return "loss"

    def part(self, some: Iterable[Any], others: Iterable[Any]) -> str:
        self.taken.append(f"part {_names(some)} from {_names(others)}")
        return "part"

    def undo(self, name: str) -> None:
        self.taken.append(f"undo {name}")


class NotedAgent:
    def __init__(self, notes: Notes, number: int) -> None:
        self._notes = notes
        self.host = SimpleNamespace(name=f"h{number}")

    def start(self, settings: Mapping[str, str]) -> None:
        self._notes.taken.append(f"start {self.host.name}")

    def end(self, number: signal.Signals) -> None:
        self._notes.taken.append(f"{number.name} {self.host.name}")

    signal = end


def _names(hosts: Iterable[Any]) -> str:
    return " ".join(host.name for host in hosts)


def plan(*faults: Fault) -> tuple[FaultPlan, Notes]:
    scenario = Scenario("x", "x", 3, rate=100, registry_rate=50, links={2: Link(7, 8)}, faults=faults)
    notes = Notes(3)
    return FaultPlan(scenario, cast("Any", notes), cast("Any", notes), lambda text: None), notes


def test_nothing_happens_before_its_time_and_nothing_twice() -> None:
    faults, notes = plan(Fault(2, "kill", (1,)))

    faults.carry_out(1.9)
    assert notes.taken == []
    faults.carry_out(2.0)
    faults.carry_out(3.0)
    faults.undo_all()
    assert notes.taken == ["SIGKILL h1"]


def test_a_killed_agent_starts_again_when_the_fault_has_an_end() -> None:
    faults, notes = plan(Fault(1, "kill", (1, 2), seconds=2))

    faults.carry_out(1)
    faults.carry_out(3)

    assert sorted(notes.taken[:2]) == ["SIGKILL h1", "SIGKILL h2"]
    assert notes.taken[2:] == ["start h1", "start h2"]


def test_what_came_due_together_is_done_in_order_of_time() -> None:
    faults, notes = plan(Fault(3, "start", (3,)), Fault(1, "freeze", (2,), seconds=1))

    faults.carry_out(10)

    assert notes.taken == ["SIGSTOP h2", "SIGCONT h2", "start h3"]


def test_a_link_gets_its_own_rate_back() -> None:
    faults, notes = plan(
        Fault(0, "slow", (1, 2), seconds=1, rate=5), Fault(0, "upstream-slow", seconds=1, rate=2)
    )

    faults.carry_out(5)

    assert notes.taken == ["h1 5/5", "h2 5/5", "up 2/2", "h1 100/100", "h2 7/8", "up 50/50"]


def test_a_partition_without_others_is_from_everybody_else() -> None:
    faults, notes = plan(Fault(0, "part", (1,)), Fault(0, "part", (1,), (2,)), Fault(0, "upstream-down"))

    faults.carry_out(0)

    assert notes.taken == ["part h1 from h2 h3", "part h1 from h2", "part up from h1 h2 h3"]


def test_the_end_of_the_run_undoes_what_lasts_and_begins_nothing() -> None:
    faults, notes = plan(Fault(0, "loss", (1,), seconds=60, percent=1), Fault(50, "kill", (2,)))

    faults.carry_out(1)
    faults.undo_all()
    faults.carry_out(100)

    assert notes.taken == ["loss 1 h1", "undo loss"]
