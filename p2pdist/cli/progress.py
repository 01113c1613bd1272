"""How progress is shown: bars on a terminal, lines elsewhere, nothing for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from p2pdist.cli.errors import CommandError
from p2pdist.cli.output import clean, console, human_bytes


class Show(Protocol):
    """One way to show layers arriving."""

    def layer(self, name: str, size: int, received: int, source: str) -> None: ...


class Bars:
    """A bar per layer, on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def layer(self, name: str, size: int, received: int, source: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=size, source="")
        self._progress.update(self._tasks[name], completed=received, total=size or None, source=source)


class Lines:
    """A line per finished layer, for logs and pipes."""

    def __init__(self) -> None:
        self._done: set[str] = set()

    def layer(self, name: str, size: int, received: int, source: str) -> None:
        if received >= size and name not in self._done:
            self._done.add(name)
            click.echo(f"{name}  {human_bytes(size)}" + (f"  from {source}" if source else ""))


class Nothing:
    """For output that is for scripts."""

    def layer(self, name: str, size: int, received: int, source: str) -> None:
        return


@contextmanager
def showing(*, quiet: bool = False) -> Iterator[Show]:
    """Bars on a terminal, lines elsewhere, nothing when ``quiet``."""
    if quiet:
        yield Nothing()
        return
    if not sys.stdout.isatty():
        yield Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[source]}", markup=False),
    )
    with Progress(*columns, console=console()) as progress:
        yield Bars(progress)


def pass_on(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Print the events as they are; the last one, which must be ``done``."""
    last: dict[str, Any] = {}
    for last in events:
        sys.stdout.write(json.dumps(last) + "\n")
        sys.stdout.flush()
    if last.get("event") != "done":
        raise CommandError(
            clean(last.get("message") or "the agent ended the pull without saying how it went")
        )
    return last
