"""What the demo shows: how far each host is, then the table and the promises."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from p2pdist.cli.demo.figures import SOURCES, Figures, Promise
from p2pdist.cli.output import console, human_bytes, percent, print_table


def step(text: str) -> None:
    """One line on what happens now; on standard error, so that ``--json`` stays clean."""
    click.echo(text, err=True)


@contextmanager
def progress(names: list[str], size: int) -> Iterator[list[Callable[[int], None]]]:
    """A bar per host on a terminal, nothing elsewhere; gives each host's ``advance``."""
    if not sys.stderr.isatty():
        yield [lambda count: None for _ in names]
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(stderr=True)) as bars:
        tasks = [bars.add_task(name, total=size) for name in names]
        yield [partial(bars.advance, task) for task in tasks]


def show(figures: Figures, promises: tuple[Promise, ...]) -> None:
    """The table, the savings, and what held."""
    columns = ("HOST", "TO RUNTIME", *(f"FROM {source.upper()}" for source in SOURCES), "SENT TO PEERS")
    rows = [
        (
            agent.name,
            human_bytes(agent.client_bytes),
            *(human_bytes(agent.client[source]) for source in SOURCES),
            human_bytes(agent.sent_peer),
        )
        for agent in figures.agents
    ]
    sums = (
        "all",
        human_bytes(figures.client_bytes),
        *(human_bytes(sum(agent.client[source] for agent in figures.agents)) for source in SOURCES),
        human_bytes(sum(agent.sent_peer for agent in figures.agents)),
    )
    click.echo()
    print_table(columns, [*rows, [Text(cell, "bold") for cell in sums]], right=columns[1:])
    click.echo()
    for line in summary(figures):
        click.echo(line)
    click.echo()
    for promise in promises:
        mark = Text("held  ", "green") if promise.held else Text("BROKEN", "bold red")
        console().print(Text.assemble(mark, "  ", promise.text, (f"  ({promise.detail})", "dim")))


def summary(figures: Figures) -> list[str]:
    """The run in a few lines."""
    hosts = len(figures.agents)
    return [
        f"{human_bytes(figures.image_bytes)} of images, {human_bytes(figures.unique_bytes)} when layers are shared",
        f"pulled on {hosts} hosts at once in {figures.seconds:.1f} s",
        f"upstream sent    {human_bytes(figures.upstream_bytes)}: {figures.upstream_copies:.2f} copies",
        f"without p2pdist  {human_bytes(figures.without)}: {hosts} copies",
        f"saved            {human_bytes(figures.saved)} ({percent(figures.saved, figures.without)}) of the upstream link",
    ]


def as_json(figures: Figures, promises: tuple[Promise, ...]) -> dict[str, Any]:
    """The same for scripts; bytes and seconds."""
    return asdict(figures) | {
        "upstream_copies": figures.upstream_copies,
        "saved_bytes": figures.saved,
        "promises": [asdict(promise) for promise in promises],
        "held": all(promise.held for promise in promises),
    }
