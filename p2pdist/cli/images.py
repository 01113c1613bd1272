"""``p2pdist images``: what the store holds, and with ``--history`` what tags pointed at."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from p2pdist.cli.inspect import entries
from p2pdist.cli.manage import optional_reference
from p2pdist.cli.options import admin_client, agent_options, json_option
from p2pdist.cli.output import clean, emit_json, human_bytes, human_seconds, part_of, print_table
from p2pdist.oci.reference import Reference


def _checked(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The argument as it is, once it is known to be a reference."""
    optional_reference(context, parameter, value)
    return value


@click.command(
    short_help="List the images that this host's store holds.",
    epilog="""\b
REF without a tag is all tags of that repository (with --history, the tag "latest").
PULLED is when the manifest came into this store, RESOLVED when the tag was last found to point at it.
\b
With --history: everything the tags were found to point at, newest first. What is HELD in full can be pulled by its
digest even while upstream is down, which is how to go back to it:
  p2pdist images --history nginx:1.27
  podman pull docker.io/library/nginx@sha256:...
An old digest stays until room is needed, or 'p2pdist gc' is run; 'p2pdist pin REF@sha256:...' keeps it.
\b
Examples:
  p2pdist images
  p2pdist images --json | jq -r '.images[] | select(.complete | not) | .reference'
  p2pdist images --history ghcr.io/org/app:v3""",
)
@click.argument("name", metavar="[REF]", required=False, callback=_checked)
@click.option("--history", "past", is_flag=True, help="Show what tags pointed at, and when.")
@click.option("--no-trunc", is_flag=True, help="Print digests in full.")
@json_option
@agent_options
def images(
    name: str | None,
    past: bool,
    no_trunc: bool,
    as_json: bool,
    admin: str | None,
    config: Path | None,
) -> None:
    """List the images this host's store holds, or only REF; with --history what tags pointed at."""
    client = admin_client(admin, config)
    reference = None if name is None else Reference.parse(name)
    if past:
        answer = client.get("history/tags", {"reference": str(reference)} if reference else None)
    else:
        answer = only(client.get("images"), reference, any_tag=_has_no_tag(name or ""))
    if as_json:
        emit_json(answer)
        return
    rows = entries(answer, "history" if past else "images")
    if past:
        _print_history(rows, full=no_trunc)
    else:
        _print_images(rows, full=no_trunc)
    if not rows:
        what = f"{name} is not held" if name else "No images yet"
        click.echo(f"{what}: pull one through the mirror, or with p2pdist pull.", err=True)


def _has_no_tag(name: str) -> bool:
    return not {":", "@"} & set(name.rpartition("/")[2])


def only(answer: Any, reference: Reference | None, *, any_tag: bool = False) -> Any:
    """The answer with the images that ``reference`` names, by tag (or ``any_tag``) or by digest; all without one."""
    if reference is None:
        return answer

    def meant(row: dict[str, Any]) -> bool:
        name, _, _ = str(row.get("reference", "")).rpartition(":")
        if reference.digest is not None:
            return name == str(reference.repository) and row.get("digest") == str(reference.digest)
        return row.get("reference") == str(reference) or (any_tag and name == str(reference.repository))

    return {"images": [row for row in entries(answer, "images") if meant(row)]}


def _print_images(rows: list[dict[str, Any]], *, full: bool) -> None:
    print_table(
        ("IMAGE", "DIGEST", "SIZE", "HELD", "PLATFORMS", "PULLED", "RESOLVED", "PIN"),
        [_image_row(row, full) for row in rows],
        right=("SIZE", "HELD"),
    )


def _image_row(row: dict[str, Any], full: bool) -> tuple[str, ...]:
    complete = "all" if row.get("complete") is True else part_of(_number(row, "held"), _number(row, "size"))
    platforms = row.get("platforms")
    age = human_seconds(row.get("age"))
    return (
        str(row.get("reference", "-")),
        _digest(row, full),
        human_bytes(row.get("size")),
        complete,
        ", ".join(map(str, platforms)) if isinstance(platforms, list) else "-",
        _ago(row.get("pulled_at")),
        f"{age} ago" if age != "-" else str(row.get("resolved_at", "-")),
        "pinned" if row.get("pinned") else "",
    )


def _print_history(rows: list[dict[str, Any]], *, full: bool) -> None:
    print_table(
        ("IMAGE", "DIGEST", "FIRST SEEN", "RESOLVED", "SIZE", "HELD", ""),
        [
            (
                clean(row.get("reference", "-")),
                _digest(row, full),
                _ago(row.get("first_seen")),
                _ago(row.get("resolved_at")),
                human_bytes(row.get("size")),
                _kept(row),
                "now" if row.get("current") else "",
            )
            for row in rows
        ],
        right=("SIZE", "HELD"),
    )


def _kept(row: dict[str, Any]) -> str:
    if row.get("held") is True:
        return "all"
    size = _number(row, "size")
    return part_of(_number(row, "held_bytes"), size) if size else "gone"


def _digest(row: dict[str, Any], full: bool) -> str:
    digest = str(row.get("digest", "-"))
    return digest if full else digest.partition(":")[2][:12] or "-"


def _ago(moment: Any) -> str:
    if not isinstance(moment, int | float) or isinstance(moment, bool):
        return "-"
    return f"{human_seconds(max(0.0, time.time() - moment))} ago"


def _number(row: dict[str, Any], name: str) -> float:
    value = row.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
