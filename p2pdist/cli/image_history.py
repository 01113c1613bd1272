"""``p2pdist history``: how an image came to be, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from p2pdist.cli import docker_words as words
from p2pdist.cli.inspect import entries
from p2pdist.cli.manage import reference_argument
from p2pdist.cli.options import admin_client, agent_options, json_option, platform_option
from p2pdist.cli.output import clean, emit_json, print_table
from p2pdist.cli.template import parse_template
from p2pdist.oci.reference import Reference

MISSING = "<missing>"
CREATED_BY_WIDTH = 45
# Discovery knows popular blobs by a sample: from here on a count is a lower bound.
SAMPLE = 32
# Field, heading. The first six are those of docker history, and what {{json .}} prints.
HEADINGS = {
    "ID": "IMAGE",
    "CreatedAt": "CREATED AT",
    "CreatedSince": "CREATED",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
    "Layer": "LAYER",
    "Hosts": "HOSTS",
    "Held": "HELD",
}
DOCKERS = tuple(HEADINGS)[:6]


class _GoFlags(click.Command):
    """Takes ``--human=false`` as Docker's command line does, beside ``--no-human``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spelled = {"true": "--human", "false": "--no-human"}
        for at, word in enumerate(args):
            name, _, value = word.partition("=")
            if name in ("--human", "-H") and value in spelled:
                args[at] = spelled[value]
        return super().parse_args(ctx, args)


@click.command(
    cls=_GoFlags,
    short_help="Show how an image came to be: its steps, layers and sizes.",
    epilog="""\b
Sizes are those of the layers' blobs, as stored and transferred: Docker and Podman print what they unpack to, which is
more for compressed layers. LAYER is the blob's digest; HOSTS is how many hosts of the cluster hold it (32+: at least).
\b
Fields of --format: .ID .CreatedAt .CreatedSince .CreatedBy .Size .Comment, as Docker's; and .Layer .Hosts .Held
\b
Examples:
  p2pdist history nginx
  p2pdist history ghcr.io/org/app:v3 --platform linux/arm64 --no-trunc
  p2pdist history nginx --human=false --format '{{.Size}} {{.CreatedBy}}'
  p2pdist history nginx --format 'table {{.CreatedSince}}\\t{{.Size}}'
  p2pdist history nginx --format json""",
)
@reference_argument
@click.option("--format", "form", metavar="TEMPLATE", help="A Go template, 'table TEMPLATE', or json.")
@click.option("--no-trunc", is_flag=True, help="Print digests and commands in full.")
@click.option(
    "-H", "--human/--no-human", default=True, help="Sizes and times for people [default], or plain."
)
@click.option("-q", "--quiet", is_flag=True, help="Print the image's ids only.")
@platform_option
@json_option
@agent_options
def history(
    reference: Reference,
    form: str | None,
    no_trunc: bool,
    human: bool,
    quiet: bool,
    platform: str | None,
    as_json: bool,
    admin: str | None,
    config: Path | None,
) -> None:
    """Show an image's history, newest step first: what made each layer, its size, and who holds it."""
    template = None
    if form is not None and form.strip() not in ("", "table"):
        try:
            template = parse_template(form, tuple(HEADINGS))
        except ValueError as error:
            raise click.UsageError(f"--format: {error}") from None
    query = {"reference": str(reference), **({"platform": platform} if platform else {})}
    answer = admin_client(admin, config).get("history", query)
    if as_json:
        emit_json(answer)
        return
    rows = list(history_rows(answer, human=human, full=no_trunc, now=datetime.now(UTC)))
    if quiet:
        lines = iter([row["ID"] for row in rows])
    elif template is not None:
        lines = template.rows(rows, HEADINGS, DOCKERS)
    else:
        _print(answer, rows, human)
        return
    for line in lines:
        click.echo(line.rstrip(" ") if quiet else line)


def history_rows(answer: Any, *, human: bool, full: bool, now: datetime) -> Iterator[dict[str, str]]:
    """The fields of each line, as texts."""
    image_id = str(answer.get("image_id", "")) if isinstance(answer, dict) else ""
    for number, line in enumerate(entries(answer, "history")):
        created = words.parse_time(str(line.get("created") or ""))
        at = words.local_time(created) if created else "N/A"
        by = clean(str(line.get("created_by") or "").replace("\t", " "))
        size = line.get("size")
        count = size if isinstance(size, int) and not isinstance(size, bool) else 0
        layer = str(line.get("layer") or "")
        shown_id = (image_id if full else words.short_id(image_id)) if number == 0 and image_id else MISSING
        yield {
            "ID": clean(shown_id),
            "CreatedAt": at,
            "CreatedSince": words.since((now - created).total_seconds()) if human and created else at,
            "CreatedBy": by if full else words.ellipsis(by, CREATED_BY_WIDTH),
            "Size": words.size(count) if human else str(count),
            "Comment": clean(str(line.get("comment") or "")),
            "Layer": clean(layer if full else words.short_id(layer)) if layer else _no_layer(line),
            "Hosts": _hosts(line.get("hosts")),
            "Held": _held(line) if layer else "",
        }


def _no_layer(line: dict[str, Any]) -> str:
    return "(empty)" if line.get("empty") else "(no layer)"


def _held(line: dict[str, Any]) -> str:
    return "foreign" if line.get("foreign") else "yes" if line.get("held") else "no"


def _hosts(count: Any) -> str:
    if not isinstance(count, int) or isinstance(count, bool):
        return ""
    return f"{count}+" if count >= SAMPLE else str(count)


def _print(answer: Any, rows: list[dict[str, str]], human: bool) -> None:
    """The table for people: columns that would tell nothing are left out."""
    names = ["Layer", "CreatedSince" if human else "CreatedAt", "CreatedBy", "Size"]
    if isinstance(answer, dict) and answer.get("counted"):
        names.append("Hosts")
    names += [name for name, dull in (("Held", ("yes", "")), ("Comment", ("",))) if _tells(rows, name, dull)]
    headings = [HEADINGS[name] for name in names]
    print_table(headings, [[row[name] for name in names] for row in rows], right=("SIZE", "HOSTS"))
    if not rows:
        click.echo("This image has neither layers nor a history.", err=True)


def _tells(rows: list[dict[str, str]], name: str, dull: tuple[str, ...]) -> bool:
    return any(row[name] not in dull for row in rows)
