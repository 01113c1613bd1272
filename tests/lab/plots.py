"""Plots of a benchmark, as SVG: progress of each host over time, and makespan against the number of hosts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from tests.lab.result import MIB, Result

WITH_PROGRESS = ("crowd", "torrent", "staggered")
# The same file for the same data.
mpl.rcParams["svg.hashsalt"] = "p2pdist"
METADATA = {"Date": None}


def draw(directory: Path, results: Sequence[Result]) -> list[Path]:
    """Draw what there is to draw; returns the files."""
    files = [
        _progress(directory, result)
        for result in results
        if result.name.startswith(WITH_PROGRESS) and result.progress
    ]
    crowds = [result for result in results if math.isfinite(result.ratio) and result.hosts > 1]
    if len({result.hosts for result in crowds}) > 1:
        files.append(_against_hosts(directory, crowds))
    return files


def _progress(directory: Path, result: Result) -> Path:
    figure, axes = plt.subplots(figsize=(7, 4))
    times = [at for at, _ in result.progress]
    for host in range(result.hosts):
        axes.plot(times, [got[host] / MIB for _, got in result.progress], linewidth=0.8)
    if math.isfinite(result.ideal):
        axes.axvline(result.ideal, color="black", linestyle=":", label=f"T* = {result.ideal:.1f} s")
        axes.legend(loc="lower right")
    axes.set(
        xlabel="seconds after the first pull began",
        ylabel="MiB at the client",
        title=f"{result.name} ({result.system}): {result.hosts} hosts at {result.rate:g} Mbit/s",
        xlim=(0, None),
        ylim=(0, None),
    )
    return _save(figure, directory / f"progress-{result.name}.svg")


def _against_hosts(directory: Path, results: Sequence[Result]) -> Path:
    figure, axes = plt.subplots(figsize=(7, 4))
    for system in dict.fromkeys(result.system for result in results):
        points = sorted(
            (result.hosts, result.ratio)
            for result in results
            if result.system == system and not result.name.startswith("services")
        )
        axes.plot(*zip(*points, strict=True), marker="o", label=system)
    axes.axhline(1.0, color="black", linestyle=":", label="T*")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    hosts = sorted({result.hosts for result in results})
    axes.set_xticks(hosts, [f"{n}" for n in hosts])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel="hosts that pull at one instant", ylabel="makespan / T*", title="Flash crowd, all cold")
    axes.legend()
    return _save(figure, directory / "makespan.svg")


def _save(figure: Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, metadata=METADATA)
    plt.close(figure)
    return path
