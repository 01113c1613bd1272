"""The figures of docs/operations.md on capacity, from the newest benchmark: ``python -m tests.unit.docs.capacity``."""

from __future__ import annotations

import math
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import NamedTuple

from p2pdist.swarm.geometry import Geometry
from tests.unit.docs.pages import put_between

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENT = DOCS / "operations.md"
BEGIN = "<!-- The figures below are generated: python -m tests.unit.docs.capacity -->"
END = "<!-- End of the generated figures. -->"
CASES = {
    "alone": "",
    "crowd-8": "",
    "crowd-16": "",
    "crowd-32": "",
    "staggered-8": ", one after another",
    "services-8": ", three images that share layers",
}
GOODPUT = 0.955  # of a link's rate is TCP payload
HOSTS, MEGABITS, IMAGE = 50, 1000, 1_000_000_000


class Case(NamedTuple):
    """One line of a benchmark's report."""

    name: str
    hosts: int
    megabits: int
    multiple: float | None
    copies: Decimal
    cpu: float
    peak: int
    failed: int


class Hits(NamedTuple):
    """What one agent delivers from its own store."""

    cpu: float
    requests: int


def newest() -> Path:
    """The report of the last full run."""
    return max(DOCS.glob("benchmarks/????-??-??/README.md"))


def cases(report: str) -> list[Case]:
    """What p2pdist did in the cases that count here; raises ValueError when the report lacks one."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in report.splitlines()
        if line.startswith("|")
    ]
    head = next(row for row in rows if row[0] == "case")
    found = {
        row[0]: dict(zip(head, row, strict=True))
        for row in rows
        if len(row) == len(head) and row[1] == "p2pdist"
    }
    lacking = [name for name in CASES if name not in found]
    if lacking:
        raise ValueError(f"the report lacks {', '.join(lacking)}")
    return [_case(name, found[name]) for name in CASES]


def _case(name: str, row: dict[str, str]) -> Case:
    return Case(
        name,
        int(row["N"]),
        int(row["Mbit/s"]),
        None if row["/ T*"] == "-" else float(row["/ T*"]),
        Decimal(row["copies"]),
        float(row["CPU-s/GB"]),
        int(row["peak MiB"]),
        int(row["failed"]),
    )


def hits(report: str) -> Hits:
    """What p2pdist did in the report's table of cached hits; raises ValueError when it has none."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines()]
    own = {row[1]: row for row in rows if len(row) > 6 and row[0] == "p2pdist"}
    if own.keys() != {"layer", "config"}:
        raise ValueError("the report lacks cached hits")
    return Hits(float(own["layer"][6]), int(own["config"][5]))


def figures(report: Path) -> str:
    """The table, and the worked example."""
    measured, stored = cases(report.read_text()), hits(report.read_text())
    day = report.parent.name
    heads = (
        "hosts, link",
        "pull time / T\\*",
        "copies from the registry",
        "CPU-s per GB received",
        "peak memory",
        "failed pulls",
    )
    lines = [
        (
            f"Measured in [a benchmark]({report.relative_to(DOCS)}) of {day}; all hosts are empty, and pull 256 MiB at "
            "once, where nothing else is said:"
        ),
        "",
        row(*heads),
        row(*["---"] * len(heads)),
        *(row(f"{c.hosts} at {c.megabits} Mbit/s{CASES[c.name]}", *shown(c)) for c in measured),
        "",
        (
            f"What a host's own store has already costs {stored.cpu:.1f} CPU-s per GB to deliver; of small "
            f"blobs, such as configs, an agent delivers some {stored.requests // 100 * 100:,} a second."
        ),
        "",
        *example(measured),
    ]
    return "\n".join(lines)


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def shown(case: Case) -> list[str]:
    return [
        f"{case.multiple:.2f}" if case.multiple else "-",
        str(case.copies.quantize(Decimal("0.01"), ROUND_HALF_UP)),
        f"{case.cpu:.1f}",
        f"{case.peak} MiB",
        str(case.failed),
    ]


def example(measured: list[Case]) -> list[str]:
    """50 hosts at 1 Gbit/s, by the smallest and the largest crowd."""
    rate = MEGABITS / 8 * 1e6 * GOODPUT
    pieces, once, size = Geometry.of(IMAGE).count, IMAGE / rate, IMAGE / 1e9
    least = once * (1 + math.floor(math.log2(HOSTS)) / pieces)
    crowds = [case for case in measured if case.name.startswith("crowd-")]
    low, high = crowds[0], crowds[-1]
    assert low.multiple
    assert high.multiple
    links, cpu = [least * low.multiple, least * high.multiple], [size * each.cpu for each in (low, high)]
    took = [max(pair) for pair in zip(links, cpu, strict=True)]
    both = f"of {low.hosts} and {high.hosts} hosts"
    return [
        f"**Worked example:** {HOSTS} hosts with links of 1 Gbit/s start one image of {size:.0f} GB in the same second.",
        "",
        row("figure", "how", "is"),
        row("---", "---", "---"),
        row("S/u", f"{size:.0f} GB / ({MEGABITS} Mbit/s x {GOODPUT} / 8)", f"{once:.1f} s"),
        row("T\\*", f"S/u x (1 + floor(log2 {HOSTS}) / {pieces})", f"{least:.1f} s"),
        row("by the links", f"T\\* x {low.multiple:.2f} to {high.multiple:.2f}, {both}", spread(links, 0, "s")),
        row("by the CPU", f"S x {low.cpu:.1f} to {high.cpu:.1f} CPU-s/GB, {both}, on one core", spread(cpu, 0, "s")),
        row("expect", "the larger of the two", spread(took, 0, "s")),
        row("without p2pdist", f"{HOSTS} copies over the registry's link", f"{HOSTS * once:.0f} s"),
        row("the registry sends", f"S x copies, {both}; not {HOSTS * size:.0f} GB",
            spread([size * float(each.copies) for each in (low, high)], 1, "GB")),
        row("a host sends to others", f"on average S x (1 - copies/{HOSTS})",
            f"{size * (1 - float(low.copies) / HOSTS):.2f} GB"),
        row("one agent can take", "8 / (CPU-s/GB) on one core", spread([8 / high.cpu, 8 / low.cpu], 1, "Gbit/s")),
    ]  # fmt: skip


def spread(values: list[float], digits: int, unit: str) -> str:
    first, last = (f"{value:.{digits}f}" for value in values)
    return f"{first} {unit}" if first == last else f"{first} to {last} {unit}"


def replaced(text: str, report: Path) -> str:
    """``text`` with fresh figures between its markers; raises ValueError when they are missing."""
    return put_between(text, BEGIN, END, figures(report))


if __name__ == "__main__":
    DOCUMENT.write_text(replaced(DOCUMENT.read_text(), newest()))
    sys.exit(0)
