"""The benchmark's report: tables in Markdown, the targets beside the figures, and the files that are kept."""

from __future__ import annotations

import datetime
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.lab.hit import Hit
from tests.lab.measure import Machine
from tests.lab.result import COLUMNS, MIB, Result, row, table

TARGETS: tuple[tuple[str, str, float, Callable[[Result], float]], ...] = (
    ("P1", "upstream copies", 1.02, lambda r: r.copies),
    ("P2", "makespan / T*", 1.10, lambda r: r.ratio),
    ("P3", "CPU-s/GB", 3.0, lambda r: r.cpu_per_gb),
    ("P3", "peak RSS, MiB", 200.0, lambda r: r.peak_rss / MIB),
)
EXPLANATION = """\
T* = (S/u)(1 + floor(log2 N)/M): S bytes of the image, u the TCP goodput measured over the registry's shaped link in
this run, M pieces. copies: blob bytes in the registry's access log / S; wire: bytes that left its interface / S.
CPU-s/GB: user and system time of all agents / GB that agents received (of the alternatives: of what runs on the pulling
hosts and the cache). busy: cores in use by everything (agents, registry, clients: all hosts share one machine), so a run
whose busy equals the cores is bounded by CPU; foreign: the part of it that is no part of the run.
Where the alternatives take long their image is smaller; the ratio to T* is of that image.
"""


def report(
    results: Sequence[Result], hits: Sequence[Hit], notes: Sequence[str], limits: Machine, now: datetime.datetime,
    load: float,
) -> str:  # fmt: skip
    """All of it as Markdown."""
    parts = [
        f"# Benchmark of {now:%Y-%m-%d %H:%M} UTC",
        f"Machine: {limits.line()}. Load average before the start: {load:.1f}.",
        table(COLUMNS, map(row, results)),
        EXPLANATION.strip(),
    ]
    crowds = [r for r in results if r.system == "p2pdist" and r.name.startswith("crowd")]
    if crowds:
        parts += [
            "## Against the targets",
            table(("", "what", "target", *(r.name for r in crowds)), _targets(crowds)),
        ]
    if hits:
        header = ("server", "file", "size", "connections", "MB/s", "requests/s", "CPU-s/GB", "trouble")
        parts += ["## Cached hits over loopback", table(header, map(_hit_row, hits))]
    if notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _targets(crowds: Sequence[Result]) -> list[list[str]]:
    return [
        [
            promise,
            what,
            f"<= {bound:g}",
            *(f"{value(r):.3g}{'' if value(r) <= bound else ' (missed)'}" for r in crowds),
        ]
        for promise, what, bound, value in TARGETS
    ]


def _hit_row(hit: Hit) -> list[str]:
    return [
        hit.server, hit.what, str(hit.size), str(hit.connections), f"{hit.bytes_per_second / 1e6:.1f}",
        f"{hit.requests_per_second:.0f}", f"{hit.cpu_per_gb:.2f}", hit.trouble,
    ]  # fmt: skip


def write(
    directory: Path, text: str, data: str, results: Sequence[Result], say: Callable[[str], None]
) -> None:  # fmt: skip
    """Keep report, data and plots."""
    directory.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("matplotlib") is None:
        say('no plots: matplotlib is not installed (pip install "p2pdist[bench]")')
    else:
        from tests.lab import plots

        files = plots.draw(directory, results)
        text += "\n## Plots\n\n" + "\n".join(f"![{file.stem}]({file.name})" for file in files) + "\n"
    (directory / "README.md").write_text(text)
    (directory / "data.json").write_text(data)
    say(f"kept in {directory}")
