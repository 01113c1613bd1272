"""``p2pdist pin``, ``unpin``, ``pins`` and ``gc``: what the store keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from p2pdist.cli.inspect import entries
from p2pdist.cli.options import admin_client, agent_options, json_option
from p2pdist.cli.output import clean, emit_json, human_bytes
from p2pdist.oci.reference import Reference


def parse_reference(context: click.Context, parameter: click.Parameter, value: str) -> Reference:
    """Click's callback for a REF argument."""
    try:
        return Reference.parse(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{error}; give [REGISTRY/]NAME[:TAG][@DIGEST], such as docker.io/library/nginx:1.27"
        ) from None


def optional_reference(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Reference | None:
    """Click's callback for a REF argument that may be left out."""
    return None if value is None else parse_reference(context, parameter, value)


reference_argument = click.argument("reference", metavar="REF", callback=parse_reference)


@click.command(
    epilog="""\b
Example:
  p2pdist pull ghcr.io/org/app:v3 && p2pdist pin ghcr.io/org/app:v3"""
)
@reference_argument
@agent_options
def pin(reference: Reference, admin: str | None, config: Path | None) -> None:
    """Keep an image: its blobs are never evicted until it is unpinned."""
    admin_client(admin, config).send("POST", "pins", {"reference": str(reference)})
    click.echo(f"pinned {reference}")


@click.command(
    epilog="""\b
Example:
  p2pdist unpin ghcr.io/org/app:v3"""
)
@reference_argument
@agent_options
def unpin(reference: Reference, admin: str | None, config: Path | None) -> None:
    """Let an image's blobs be evicted again when room is needed."""
    admin_client(admin, config).send("DELETE", "pins", {"reference": str(reference)})
    click.echo(f"unpinned {reference}")


@click.command(
    epilog="""\b
Examples:
  p2pdist pins
  p2pdist pins --json | jq -r '.pins[]'"""
)
@json_option
@agent_options
def pins(as_json: bool, admin: str | None, config: Path | None) -> None:
    """List the pinned images."""
    answer = admin_client(admin, config).get("pins")
    if as_json:
        emit_json(answer)
        return
    for name in pinned_names(answer):
        click.echo(clean(name))


def pinned_names(answer: Any) -> list[str]:
    """References in an answer: texts, or objects with a reference."""
    rows = answer.get("pins") if isinstance(answer, dict) else answer
    names = [row for row in rows if isinstance(row, str)] if isinstance(rows, list) else []
    return names + [str(row["reference"]) for row in entries(answer, "pins") if "reference" in row]


@click.command(
    epilog="""\b
Without --to, only what no tag and no pin reaches any more goes, and stale partial downloads.
With --to SIZE, least recently used blobs go until that much is left; pinned ones and those in use stay.
\b
Examples:
  p2pdist gc
  p2pdist gc --to 10GiB"""
)
@click.option("--to", "target", metavar="SIZE", help="Shrink the store to this size, such as 10GiB.")
@json_option
@agent_options
def gc(target: str | None, as_json: bool, admin: str | None, config: Path | None) -> None:
    """Free store space now."""
    body: dict[str, Any] = {}
    if target is not None:
        from p2pdist.config.values import parse_size

        try:
            body["target"] = parse_size(target)
        except ValueError as error:
            raise click.UsageError(f"--to {target!r} {error}; give bytes, or a text such as 10GiB") from None
    answer = admin_client(admin, config).send("POST", "gc", body)
    if as_json:
        emit_json(answer)
        return
    found = answer if isinstance(answer, dict) else {}
    dropped = found.get("dropped", found.get("blobs"))
    count = len(dropped) if isinstance(dropped, list) else dropped if dropped is not None else "-"
    click.echo(f"dropped {count} blobs, freed {human_bytes(found.get('bytes', found.get('freed')))}")
