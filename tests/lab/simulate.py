"""Prints what the swarm's planner does for 1 to 10,000 hosts, on modelled links and a virtual clock.

``python -m tests.lab.simulate [equal|crowd|uneven|all] [--most N] [--json]``. The same planner as the daemon's; the
model is that of p2pdist/testing/swarm_simulator.py. Every row is deterministic by its seed. Columns: the makespan against
T* (see ``best_makespan``; not for unlike hosts), the median and the slowest host against S / link rate, each from its
own arrival, upstream copies, requests for pieces against the least possible, messages per host, and the CPU seconds of
the simulation.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from p2pdist.testing.swarm_scenario import HostLink, Outcome, Scenario, best_makespan
from p2pdist.testing.swarm_simulator import simulate

MIB = 1024 * 1024
MBIT = 125_000.0


@dataclass(frozen=True, slots=True)
class Row:
    """A named scenario, and what its row is measured against: the links' usual rate in bytes per second."""

    name: str
    scenario: Scenario
    rate: float
    note: str = ""


def _equal(hosts: int, mbit: float, **more: float | str) -> tuple[HostLink, ...]:
    return (HostLink(mbit * MBIT, mbit * MBIT, **more),) * hosts  # type: ignore[arg-type]


def p2_rows() -> Iterator[Row]:
    """The promise P2: 256 MiB in 4 blobs at once, and one blob of 64 MiB."""
    for hosts, mbit in ((1, 200), (2, 200), (4, 200), (8, 200), (16, 100), (32, 50)):
        for blobs in ((64 * MIB,) * 4, (64 * MIB,)):
            scenario = Scenario(blobs, _equal(hosts, mbit), mbit * MBIT, chunks_per_piece=16)
            yield Row(f"{hosts} x {mbit} Mbit/s, {len(blobs)} x 64 MiB", scenario, mbit * MBIT)


def crowd_rows(most: int) -> Iterator[Row]:
    """Ever larger crowds; large ones in coarser chunks and pieces, to keep the simulation itself short."""
    plan = (
        (10, 128, 8),
        (32, 128, 8),
        (64, 128, 8),
        (100, 128, 8),
        (300, 128, 4),
        (1000, 128, 4),
        (3000, 64, 2),
        (10_000, 32, 2),
    )
    for hosts, pieces, chunks in plan:
        if hosts <= most:
            piece = 64 * MIB // pieces
            scenario = Scenario(
                (64 * MIB,),
                _equal(hosts, 100),
                100 * MBIT,
                piece=piece,
                chunks_per_piece=chunks,
            )
            yield Row(f"{hosts} hosts", scenario, 100 * MBIT, f"{pieces} pieces of {chunks} chunks")


def uneven_rows(hosts: int = 16, mbit: float = 100) -> Iterator[Row]:
    """Unequal links, arrivals, deaths, seeds and zones: 256 MiB in 4 blobs."""
    rate = mbit * MBIT
    usual, dice = HostLink(rate, rate), random.Random(7)
    equal = (usual,) * hosts
    base = Scenario((64 * MIB,) * 4, equal, rate, chunks_per_piece=16)
    minute = base.size / rate / 60
    leavers = round(0.3 * minute * 2 * hosts)

    def row(name: str, links: Iterable[HostLink], **more: float) -> Row:
        return Row(name, replace(base, hosts=tuple(links), **more), rate)  # type: ignore[arg-type]

    yield row("equal", equal)
    yield row("one uplink at 1/10", (HostLink(rate / 10, rate), *equal[1:]))
    yield row("one downlink at 1/10", (HostLink(rate, rate / 10), *equal[1:]))
    yield row("a quarter of the uplinks at 1/2", (*((HostLink(rate / 2, rate),) * 4), *equal[4:]))
    yield row("a quarter of the links x 4", (*((HostLink(rate * 4, rate * 4),) * 4), *equal[4:]))
    yield row("a seed comes after 3 s", (HostLink(rate, rate, arrives=3.0, holds=True), *equal[1:]))
    yield row("arrivals over 10 s", (HostLink(rate, rate, arrives=10.0 * n / hosts) for n in range(hosts)))
    yield row("one arrival every 5 s", (HostLink(rate, rate, arrives=5.0 * n) for n in range(hosts)))
    comers = (HostLink(rate, rate, arrives=dice.uniform(0, 20)) for _ in range(leavers))
    gone = (HostLink(rate, rate, leaves=dice.uniform(1, 20)) for _ in range(leavers))
    yield row("churn of 30 % a minute", (*equal[leavers:], *gone, *comers))
    dying = HostLink(rate, rate, leaves=5.0)
    yield row("half of the hosts die after 5 s", (*equal[: hosts // 2], *((dying,) * (hosts // 2))))
    zoned = (HostLink(rate, rate, zone="ab"[n % 2]) for n in range(hosts))
    yield row("two zones, 5 ms apart", zoned, far_latency=0.005)
    yield row("messages take 20 ms", equal, latency=0.02, far_latency=0.02)


def measure(row: Row) -> dict[str, object]:
    """Simulate one row."""
    began = time.process_time()
    outcome = simulate(row.scenario)
    return {
        "name": row.name,
        "note": row.note,
        **_figures(row, outcome),
        "cpu_s": time.process_time() - began,
    }


def _figures(row: Row, outcome: Outcome) -> dict[str, object]:
    scenario = row.scenario
    direct = scenario.size / row.rate
    pullers = [n for n, link in enumerate(scenario.hosts) if not link.holds]
    times = [took for n in pullers if (took := outcome.finished[n]) is not None]
    staying = [n for n in pullers if scenario.hosts[n].leaves is None]
    pieces = sum(scenario.geometry(blob).count for blob in range(len(scenario.blobs)))
    return {
        "makespan": outcome.makespan / best_makespan(scenario) if len(set(scenario.hosts)) == 1 else None,
        "median": statistics.median(times) / direct,
        "slowest": max(times) / direct,
        "copies": outcome.upstream_copies,
        "requests": outcome.requests / (pieces * len(pullers)),
        "messages_per_host": outcome.messages / len(scenario.hosts),
        "unfinished": sum(outcome.finished[n] is None for n in staying),
    }


def main() -> None:
    """See the module's description."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.simulate")
    parser.add_argument("part", nargs="?", choices=("equal", "crowd", "uneven", "all"), default="all")
    parser.add_argument("--most", type=int, default=10_000, help="the largest crowd")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    arguments = parser.parse_args()
    parts = {"equal": p2_rows(), "crowd": crowd_rows(arguments.most), "uneven": uneven_rows()}
    if not arguments.json:
        print(
            f"{'':36s}{'/T*':>7s}{'median':>8s}{'slowest':>8s}{'copies':>8s}{'req.':>6s}{'msg/host':>9s}{'CPU s':>7s}"
        )
    for part, rows in parts.items():
        for row in rows if arguments.part in (part, "all") else ():
            figures = measure(row)
            print(json.dumps(figures) if arguments.json else _line(figures), flush=True)


def _line(f: dict[str, object]) -> str:
    left = f"  {f['unfinished']} unfinished" if f["unfinished"] else ""
    makespan = "-" if f["makespan"] is None else f"{f['makespan']:.3f}"
    return (
        f"{f['name']:36s}{makespan:>7s}{f['median']:8.3f}{f['slowest']:8.3f}{f['copies']:8.4f}"
        f"{f['requests']:6.3f}{f['messages_per_host']:9.0f}{f['cpu_s']:7.1f}  {f['note']}{left}"
    )


if __name__ == "__main__":
    main()
