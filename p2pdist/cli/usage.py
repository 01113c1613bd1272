"""``p2pdist df`` and ``diff``: what images share, and what that saves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from p2pdist.cli.docker_words import short_id, size
from p2pdist.cli.inspect import entries
from p2pdist.cli.manage import parse_reference
from p2pdist.cli.options import admin_client, agent_options, json_option, platform_option
from p2pdist.cli.output import clean, console, emit_json, human_bytes, percent, print_table
from p2pdist.oci.reference import Reference

UNNAMED = "<none>"


@click.command(
    short_help="Show what the store's bytes are for, and what layers save.",
    epilog="""\b
SIZE is SHARED (in other images here as well) and UNIQUE (goes when the image goes). As in docker system df -v, layers are
counted, without manifest and config; they are counted as they are stored, compressed or not. The sums below the table,
and --json, have every byte.
\b
Examples:
  p2pdist df
  p2pdist df -v
  p2pdist df --json | jq .saved""",
)
@click.option("-v", "--verbose", is_flag=True, help="Show each image.")
@json_option
@agent_options
def df(verbose: bool, as_json: bool, admin: str | None, config: Path | None) -> None:
    """Show what the store's bytes are for, what layers save, and what could be freed."""
    answer = admin_client(admin, config).get("df")
    if as_json:
        emit_json(answer)
        return
    if verbose:
        rows = [row for image in entries(answer, "images") for row in _rows(image)]
        columns = ("IMAGE", "DIGEST", "SIZE", "SHARED", "UNIQUE", "")
        print_table(columns, sorted(rows), right=columns[2:5])
        click.echo()
    for label, value in summary(answer if isinstance(answer, dict) else {}):
        console().print(Text.assemble((f"{label:<16}", "bold"), clean(value)))


def summary(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and value of each line for people."""
    separate, saved = answer.get("separate"), answer.get("saved")
    store = answer.get("store")
    held = store if isinstance(store, dict) else {}
    images = entries(answer, "images")
    yield "images", f"{len(images)}, {human_bytes(answer.get('layered'))} with their layers shared"
    yield "without layers", f"{human_bytes(separate)}, if each image were stored as one piece"
    yield "saved", f"{human_bytes(saved)} ({percent(_number(saved), _number(separate))})"
    yield "other content", f"{human_bytes(answer.get('other'))}, part of no image here"
    yield "downloading", f"{human_bytes(held.get('reserved'))} reserved, partial blobs included"
    used = percent(_number(held.get("committed")), _number(held.get("quota")))
    yield "store", f"{human_bytes(held.get('committed'))} of {human_bytes(held.get('quota'))} ({used})"
    gone = human_bytes(answer.get("reclaimable"))
    yield (
        "reclaimable",
        f"{gone} by p2pdist gc; {human_bytes(answer.get('unpinned'))} may go when room is needed",
    )


def _rows(image: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One row for each name that an image has now, or had."""
    now, past = _texts(image.get("references")), _texts(image.get("past_references"))
    notes = [] if image.get("complete", True) else ["incomplete"]
    layers = image.get("layers")
    counts = layers if isinstance(layers, dict) else {}
    numbers = tuple(size(int(_number(counts.get(name)))) for name in ("size", "shared", "unique"))
    names = [(name, notes) for name in now]
    if not now:
        names = [(name, [*notes, "superseded"]) for name in past] or [(UNNAMED, notes)]
    for name, said in names:
        yield (name, short_id(str(image.get("digest", ""))), *numbers, ", ".join(said))


@click.command(
    short_help="Show what two images share, and what an update moves.",
    epilog="""\b
Both images have to be held here, or at least their manifests ('p2pdist pull' fetches them). Layers are named by digest.
\b
Examples:
  p2pdist diff ghcr.io/org/app:v3 ghcr.io/org/app:v4
  p2pdist diff nginx:1.26 nginx:1.27 --json | jq .moved_bytes""",
)
@click.argument("old", metavar="REF_A", callback=parse_reference)
@click.argument("new", metavar="REF_B", callback=parse_reference)
@platform_option
@json_option
@agent_options
def diff(
    old: Reference,
    new: Reference,
    platform: str | None,
    as_json: bool,
    admin: str | None,
    config: Path | None,
) -> None:
    """Show the layers that two images share, and the bytes that an update from REF_A to REF_B moves."""
    query = {"from": str(old), "to": str(new), **({"platform": platform} if platform else {})}
    answer = admin_client(admin, config).get("diff", query)
    if as_json:
        emit_json(answer)
        return
    print_table(
        ("LAYER", "SIZE", "IN"),
        [
            (short_id(str(layer.get("digest", ""))), human_bytes(layer.get("size")), where)
            for name, where in (("shared", "both"), ("added", "REF_B only"), ("dropped", "REF_A only"))
            for layer in entries(answer, name)
        ],
        right=("SIZE",),
    )
    click.echo()
    for line in verdict(answer if isinstance(answer, dict) else {}):
        click.echo(line)


def verdict(answer: dict[str, Any]) -> Iterator[str]:
    """What the table comes to, for people."""
    shared, added = entries(answer, "shared"), entries(answer, "added")
    new = answer.get("to")
    whole = new.get("size") if isinstance(new, dict) else None
    moved = answer.get("moved_bytes")
    yield f"shared: {_layers(len(shared))}, {human_bytes(answer.get('shared_bytes'))}"
    yield (
        f"an update moves {human_bytes(moved)} ({percent(_number(moved), _number(whole))} of the new image): "
        f"{_layers(len(added))}, and what is new of manifest and config"
    )
    yield f"of it {human_bytes(answer.get('missing_bytes'))} are not in this store yet"


def _layers(count: int) -> str:
    return f"{count} layer" if count == 1 else f"{count} layers"


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
