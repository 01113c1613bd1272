"""The benchmark: P1 to P4 of the design on this machine, with the alternatives beside them. bin/bench runs it.

    bin/bench --quick            8 hosts, 2-3 minutes
    bin/bench                    everything, about 20 minutes; keeps report, data and plots in docs/benchmarks/DATE/
    bin/bench crowd-16 hits      some cases (bin/bench --list)

All hosts, the registry and the clients share this machine's cores: where ``busy`` reaches their number, the figure
is bounded by CPU, not by links.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import statistics
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import rivals
from tests.lab.hit import Hit, compare
from tests.lab.images import Bundle
from tests.lab.lab import Lab
from tests.lab.measure import Machine, machine
from tests.lab.report import report, write
from tests.lab.result import Result
from tests.lab.run import missing, say
from tests.lab.scenario import Arrival, ImageSpec, Scenario

MIB = 1024 * 1024
FULL = ImageSpec(layers=(64 * MIB,) * 4)
SERVICES = ImageSpec(services=True)
TIMES_ALONE = 3
OUTPUT = Path(__file__).parents[2] / "docs" / "benchmarks"


@dataclass
class Bench:
    """What has been measured so far."""

    results: list[Result] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.results.append(result)
        say(f"== {result.name} ({result.system}): {result.makespan:.2f} s, {result.copies:.3f} copies")
        self.notes += [f"{result.name}, {result.system}: pull failed: {error}" for error in result.errors]


Case = Callable[[Lab, Bench], None]


@dataclass(frozen=True)
class Group:
    """Cases that share a lab: so many hosts at a rate, and the size of image that slow alternatives get."""

    hosts: int
    rate: float
    small: ImageSpec
    cases: dict[str, Case]


def crowd(lab: Lab, bench: Bench) -> None:
    """All hosts cold, all at one instant; then once more, warm."""
    bundle = lab.image(FULL)
    bench.add(_pull(lab, f"crowd-{len(lab.hosts)}", bundle))
    warm = _pull(lab, f"warm-{len(lab.hosts)}", bundle)
    bench.add(dataclasses.replace(warm, ideal=float("nan")))


def services(lab: Lab, bench: Bench) -> None:
    """The three-service set: shared layers are stored and moved once."""
    bench.add(_pull(lab, f"services-{len(lab.hosts)}", lab.image(SERVICES)))


def staggered(lab: Lab, bench: Bench) -> None:
    """A rolling start: one host after another, each while those before it are still pulling."""
    count = len(lab.hosts)
    arrival = Arrival("ramp", over=2.0 * count)
    result = _pull(lab, f"staggered-{count}", lab.image(FULL), arrival)
    bench.add(dataclasses.replace(result, ideal=float("nan")))


def alone(lab: Lab, bench: Bench) -> None:
    """One host, with no peer that could help it: through the agent, and direct, in turns (P4)."""
    ratios: list[tuple[Result, Result]] = []
    for _ in range(TIMES_ALONE):
        bundle = lab.image(FULL)
        plain = lab.pull("alone", "direct", bundle, [lab.client(1, bundle, 0, mirror=None)])
        through = lab.pull("alone", "p2pdist", bundle, [lab.client(1, bundle, 0)])
        ratios.append((through, plain))
    ratios.sort(key=lambda pair: pair[0].makespan / pair[1].makespan)
    middle = ratios[len(ratios) // 2]
    bench.add(middle[1])
    bench.add(middle[0])
    ratio = statistics.median(a.makespan / b.makespan for a, b in ratios)
    bench.notes.append(
        f"P4, one host alone: {ratio:.3f} x the direct pull (median of {TIMES_ALONE}); first byte of a body after "
        f"{middle[0].first_byte_p50:.2f} s, direct {middle[1].first_byte_p50:.2f} s"
    )


def hits(lab: Lab, bench: Bench) -> None:
    """What the store holds, served again and again, beside nginx."""
    bundle = lab.image(FULL)
    lab.pull("hits", "p2pdist", bundle, [lab.client(1, bundle, 0)])
    bench.hits += compare(lab.agents.all[0], bundle)


def direct(lab: Lab, bench: Bench) -> None:
    """Today's normal: everybody asks the registry."""
    bench.add(rivals.direct(lab, f"direct-{len(lab.hosts)}", lab.image(_small(lab))))


def cache(lab: Lab, bench: Bench) -> None:
    """A central pull-through cache."""
    bench.add(rivals.cache(lab, f"cache-{len(lab.hosts)}", lab.image(_small(lab))))


def torrent(lab: Lab, bench: Bench) -> None:
    """libtorrent on the same files."""
    name = f"torrent-{len(lab.hosts)}"
    if reason := rivals.torrent_missing():
        bench.notes.append(f"{name} was not run: {reason}")
        return
    bench.add(rivals.torrent(lab, name, lab.image(FULL)))


def _pull(lab: Lab, name: str, bundle: Bundle, arrival: Arrival | None = None) -> Result:
    count = len(lab.hosts)
    times = (arrival or Arrival()).times(count)
    return lab.pull(name, "p2pdist", bundle, [lab.client(n + 1, bundle, times[n]) for n in range(count)])


def _small(lab: Lab) -> ImageSpec:
    return next(group.small for group in GROUPS if group.hosts == len(lab.hosts))


def _layers(mebibytes: int) -> ImageSpec:
    return ImageSpec(layers=(mebibytes * MIB,) * 4)


RIVALS: dict[str, Case] = {"torrent": torrent, "cache": cache, "direct": direct}
GROUPS = (
    Group(1, 200, _layers(64), {"alone": alone, "hits": hits}),
    Group(8, 200, _layers(16), {"crowd": crowd, "services": services, "staggered": staggered, **RIVALS}),
    Group(16, 100, _layers(4), {"crowd": crowd, "services": services, **RIVALS}),
    Group(32, 50, _layers(2), {"crowd": crowd, "services": services, **RIVALS}),
)
QUICK = ("alone", "hits", "crowd-8", "torrent-8", "direct-8")
AGENTLESS = (direct, cache, torrent)


def names() -> list[str]:
    """All cases, in the order in which they run."""
    return [_name(group, case) for group in GROUPS for case in group.cases]


def _name(group: Group, case: str) -> str:
    return case if group.hosts == 1 else f"{case}-{group.hosts}"


def measure(wanted: Sequence[str]) -> Bench:
    """Run cases, each group in a lab of its own; a case that breaks is noted, and the next one runs."""
    bench = Bench()
    for group in GROUPS:
        cases = {name: case for name, case in group.cases.items() if _name(group, name) in wanted}
        if cases:
            say(f"== {group.hosts} hosts at {group.rate:g} Mbit/s: {', '.join(cases)}")
            _measure_group(group, cases, bench)
    return bench


def _measure_group(group: Group, cases: dict[str, Case], bench: Bench) -> None:
    scenario = Scenario("bench", "bench", group.hosts, group.rate, registry_rate=group.rate, seconds=300)
    with Lab(scenario, say, spare=1) as lab:
        lab.shape()
        started = False
        for name, case in cases.items():
            if (case in AGENTLESS) == started:
                started = not started
                if started:
                    lab.start_agents()
                else:
                    lab.agents.stop()
            try:
                case(lab, bench)
            except (AssertionError, OSError, RuntimeError) as error:
                say(traceback.format_exc())
                bench.notes.append(f"{_name(group, name)} broke: {str(error).splitlines()[0]}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("case", nargs="*", metavar="CASE", help="run these only (see --list)")
    parser.add_argument("--quick", action="store_true", help="8 hosts only, 2-3 minutes")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--out", type=Path, help="keep report, data and plots there")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(names()))
        return 0
    if unknown := [case for case in arguments.case if case not in names()]:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(names())}")
    if reason := missing():
        say(reason)
        return 2
    wanted = arguments.case or (QUICK if arguments.quick else names())
    now = datetime.datetime.now(datetime.UTC)
    load, limits = os.getloadavg()[0], machine()
    bench = measure(wanted)
    text = report(bench.results, bench.hits, bench.notes, limits, now, load)
    print(text)
    whole = not arguments.case and not arguments.quick
    out = arguments.out or (OUTPUT / f"{now:%Y-%m-%d}" if whole else None)
    if out is not None:
        write(out, text, _data(bench, limits, now), bench.results, say)
    return 0 if bench.results or bench.hits else 1


def _data(bench: Bench, limits: Machine, now: datetime.datetime) -> str:
    record = {
        "date": now.isoformat(timespec="seconds"),
        "machine": limits.record(),
        "results": [result.record() for result in bench.results],
        "hits": [hit.record() for hit in bench.hits],
        "notes": bench.notes,
    }
    return json.dumps(record, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
