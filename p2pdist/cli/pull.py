"""``p2pdist pull``: have the running agent fetch an image into its store, and show how far it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from p2pdist.cli.errors import CommandError
from p2pdist.cli.manage import reference_argument
from p2pdist.cli.options import admin_client, agent_options
from p2pdist.cli.output import clean, console, human_bytes
from p2pdist.oci.reference import Reference


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


@click.command(
    epilog="""\b
Examples:
  p2pdist pull nginx                                  docker.io/library/nginx:latest
  p2pdist pull ghcr.io/org/app:v3 --platform linux/arm64
  p2pdist pull registry.k8s.io/pause@sha256:... --json | jq ."""
)
@reference_argument
@click.option(
    "--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of an index [default: this host's]."
)
@click.option("--json", "as_json", is_flag=True, help="Print the agent's events, one JSON object per line.")
@agent_options
def pull(
    reference: Reference, platform: str | None, as_json: bool, admin: str | None, config: Path | None
) -> None:
    """Fetch an image into the store through the running agent."""
    body: dict[str, Any] = {"reference": str(reference)}
    if platform:
        if not 2 <= len(platform.split("/")) <= 3 or not all(platform.split("/")):
            raise click.UsageError(
                f"--platform {platform!r} is not OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64"
            )
        body["platform"] = platform
    events = admin_client(admin, config).stream("pull", body)
    if as_json:
        _pass_on(events)
        return
    with showing() as show:
        done = follow(events, show)
    click.echo(summary(reference, done))


def follow(events: Iterable[dict[str, Any]], show: Show) -> dict[str, Any]:
    """Show each event; the last one, ``done``. Raises CommandError on ``error``, or when there is no end."""
    for event in events:
        kind = event.get("event")
        if kind == "error":
            raise CommandError(clean(event.get("message") or "the pull failed"))
        if kind == "done":
            return event
        if kind in {"layer", "blob", "config", "manifest"} and isinstance(event.get("digest"), str):
            name = clean(event["digest"]).partition(":")[2][:12] or "?"
            show.layer(name, _count(event.get("size")), _count(event.get("received")), source_of(event))
    raise CommandError(
        "the agent ended the pull without saying how it went", "see the agent's log, and pull again"
    )


def source_of(event: dict[str, Any]) -> str:
    """Where a layer's bytes come from: as the agent names it, else by what moved; what moved nothing was in the store."""
    if event.get("source"):
        return clean(event["source"])
    moved = event.get("moved")
    if not isinstance(moved, dict):
        return ""
    return " and ".join(clean(name) for name, count in moved.items() if _count(count)) or "store"


def summary(reference: Reference, done: dict[str, Any]) -> str:
    """The last line for people: what was pulled, and where its bytes came from."""
    digest = clean(done.get("digest") or "")
    sources = done.get("moved", done.get("bytes"))
    parts = [f"pulled {reference}"]
    if digest and digest not in parts[0]:
        parts[0] += f"@{digest}"
    if done.get("size") is not None:
        parts.append(human_bytes(done["size"]))
    if isinstance(sources, dict):
        split = [
            f"{human_bytes(count)} from {clean(name)}" for name, count in sources.items() if _count(count)
        ]
        parts += split or ["all from the store"]
    return ", ".join(parts)


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


def _pass_on(events: Iterable[dict[str, Any]]) -> None:
    last: dict[str, Any] = {}
    for last in events:
        sys.stdout.write(json.dumps(last) + "\n")
        sys.stdout.flush()
    if last.get("event") != "done":
        raise CommandError(
            clean(last.get("message") or "the agent ended the pull without saying how it went")
        )


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0
