"""``p2pdist pull``: have the running agent fetch an image into its store, and show how far it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from p2pdist.cli.errors import CommandError
from p2pdist.cli.everywhere import pull_everywhere
from p2pdist.cli.manage import reference_argument
from p2pdist.cli.options import admin_client, agent_options, platform_option, token_header
from p2pdist.cli.output import clean, human_bytes
from p2pdist.cli.progress import Show, pass_on, showing
from p2pdist.oci.reference import Reference


@click.command(
    epilog="""\b
Examples:
  p2pdist pull nginx                                  docker.io/library/nginx:latest
  p2pdist pull ghcr.io/org/app:v3 --platform linux/arm64
  p2pdist pull registry.k8s.io/pause:3.9 --json | jq .
  p2pdist pull --everywhere ghcr.io/org/app:v3        every agent of the cluster, as one swarm
  p2pdist pull --zone rack-7 ghcr.io/org/app:v3       every agent of that zone
\b
--everywhere and --zone need root, or the agent's user; exit code 1 when a host has failed."""
)
@reference_argument
@platform_option
@click.option(
    "--everywhere", is_flag=True, help="Have every agent of the cluster fetch it, at the same time."
)
@click.option("--zone", metavar="ZONE", help="Have every agent of this zone fetch it.")
@click.option("--json", "as_json", is_flag=True, help="Print the agent's events, one JSON object per line.")
@agent_options
def pull(
    reference: Reference,
    platform: str | None,
    everywhere: bool,
    zone: str | None,
    as_json: bool,
    admin: str | None,
    config: Path | None,
) -> None:
    """Fetch an image into the store through the running agent."""
    body: dict[str, Any] = {"reference": str(reference)}
    if platform:
        body["platform"] = platform
    client = admin_client(admin, config)
    if everywhere or zone is not None:
        body |= {} if zone is None else {"zone": zone}
        pull_everywhere(reference, client.stream("warm", body, token_header(config)), as_json)
        return
    events = client.stream("pull", body)
    if as_json:
        pass_on(events)
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


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0
