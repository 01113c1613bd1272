"""One command per scenario: python -m tests.lab.run SCENARIO [--json FILE] (a name in tests/lab/scenarios, or a path).

Needs root and docker-registry. Says how it goes on standard error; prints a table, or with --json - the whole record.
Exit code 1 when a pull failed or an expectation of the scenario was not met, 2 when the scenario is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from tests.lab.faults import FaultPlan
from tests.lab.lab import Lab
from tests.lab.result import COLUMNS, Result, row, table, unmet
from tests.lab.scenario import Scenario, ScenarioError, load

SCENARIOS = Path(__file__).parent / "scenarios"
PROGRAMS = ("docker-registry", "ip", "tc", "nft", "nsenter", "unshare", "setpriv")


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def missing() -> str:
    """Why the lab cannot run here, and what to do; "" when it can."""
    if os.geteuid() != 0:
        return "the lab needs root, for network namespaces: run it with sudo"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"the lab lacks {', '.join(lacking)}: run bin/.e2e-packages.sh" if lacking else ""


def find(name: str) -> Path:
    """The file of a scenario; ScenarioError lists those there are."""
    for path in (Path(name), SCENARIOS / f"{name}.toml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in SCENARIOS.glob("*.toml")))
    raise ScenarioError(f"no scenario {name!r}: there are {known}")


def run_scenario(scenario: Scenario, logs: Path | None = None) -> Result:
    """Make the lab, run the scenario in it, take it down."""
    say(f"{scenario.title}: {scenario.hosts} hosts at {scenario.rate:g} Mbit/s")
    with Lab(scenario, say) as lab:
        try:
            return _run_in(lab)
        finally:
            if logs is not None:
                lab.keep_logs(logs / scenario.name)


def _run_in(lab: Lab) -> Result:
    scenario = lab.scenario
    bundle = lab.image(scenario.image)
    lab.shape()
    say(f"links shaped, {lab.goodput * 8e-6:.1f} Mbit/s of TCP; starting agents")
    lab.start_agents()
    if scenario.warm:
        lab.pull("warm-up", "p2pdist", bundle, [lab.client(n, bundle, 0) for n in scenario.warm])
    pulling = [n for n in range(1, scenario.hosts + 1) if n not in scenario.warm]
    times = scenario.arrival.times(len(pulling))
    clients = [lab.client(n, bundle, at) for n, at in zip(pulling, times, strict=True)]
    faults = FaultPlan(scenario, lab.network, lab.agents, say)
    return lab.pull(scenario.name, "p2pdist", bundle, clients, faults)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.run", description=__doc__)
    parser.add_argument("scenario", nargs="+", help="a name in tests/lab/scenarios, or a file")
    parser.add_argument("--json", metavar="FILE", help="write the whole record there; - is standard output")
    parser.add_argument("--logs", metavar="DIRECTORY", type=Path, help="keep the programs' logs there")
    arguments = parser.parse_args()
    try:
        scenarios = [load(find(name)) for name in arguments.scenario]
    except ScenarioError as error:
        say(str(error))
        return 2
    if reason := missing():
        say(reason)
        return 2
    results, faults = [], []
    for scenario in scenarios:
        result = run_scenario(scenario, arguments.logs)
        results.append(result)
        faults += [f"{scenario.name}: {fault}" for fault in (*unmet(result, scenario.expect), *result.errors)]
    if arguments.json:
        record = json.dumps([result.record() for result in results], indent=1)
        if arguments.json == "-":
            print(record)
        else:
            Path(arguments.json).write_text(record + "\n")
    if arguments.json != "-":
        print(table(COLUMNS, map(row, results)))
    for fault in faults:
        say(f"NOT MET: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
