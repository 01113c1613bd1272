"""What commands print: tables for people, JSON for scripts, never more colour or width than the output can take."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Wide enough that a table in a pipe is never cut or wrapped.
PIPE_WIDTH = 250


def console(*, stderr: bool = False) -> Console:
    """A console on standard output (or error) as it is now."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False, markup=False)


def emit_json(value: Any) -> None:
    """One JSON document, stable key order."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True) + "\n")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> None:
    """Columns under headings, those named in ``right`` aligned right. A cell may be a ``Text`` with its own style."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row))
    if sys.stdout.isatty():
        console().print(table)
        return
    target = console()
    with target.capture() as captured:
        target.print(table)
    for line in captured.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def clean(value: object) -> str:
    """A value as one printable line, whatever an agent or a registry put in it."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:1000])


def human_bytes(count: object) -> str:
    """``12.3 MB``: decimal units, as image sizes are commonly given."""
    if not isinstance(count, int | float) or isinstance(count, bool):
        return "-"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def human_seconds(seconds: object) -> str:
    """``2d 3h``, ``4m 5s``, ``1.2s``, ``8ms``: the two leading units."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, whole = divmod(whole, size)
        if amount or parts:
            parts.append(f"{amount}{unit}")
    return " ".join(parts[:2])


def part_of(part: float, whole: float) -> str:
    """``percent`` of what is not complete: never 100.0 %, however little lacks."""
    return "99.9 %" if whole and part / whole >= 0.9995 else percent(part, whole)


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
