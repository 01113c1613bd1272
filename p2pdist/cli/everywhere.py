"""``p2pdist pull --everywhere``: how an image gets to every host, a bar or a line for each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from p2pdist.cli.errors import CommandError
from p2pdist.cli.output import clean, human_bytes
from p2pdist.cli.progress import Show, pass_on, showing
from p2pdist.oci.reference import Reference


def pull_everywhere(reference: Reference, events: Iterable[dict[str, Any]], as_json: bool) -> None:
    """Show the events to their end; raises CommandError when a host, or all of it, has failed."""
    try:
        hosts, done = _followed(events, as_json)
    except KeyboardInterrupt:
        click.echo("interrupted: the hosts go on; the same command follows them again", err=True)
        raise
    if not as_json:
        for line in summary(hosts):
            click.echo(line)
    count, failed = _count(done.get("hosts")), _count(done.get("failed"))
    if not count:
        raise CommandError("no agent is in that zone", "p2pdist status shows this agent's zone")
    if failed:
        raise CommandError(f"{failed} of {count} hosts do not have {reference}")
    if not as_json:
        click.echo(f"{reference} is on {'the one host' if count == 1 else f'all of {count} hosts'}")


def _followed(
    events: Iterable[dict[str, Any]], as_json: bool
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    if as_json:
        return {}, pass_on(events)
    with showing() as show:
        return follow_hosts(events, show)


def follow_hosts(
    events: Iterable[dict[str, Any]], show: Show
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Show each event; the last of each host by its peer id, and the last of all. Raises CommandError."""
    hosts: dict[str, dict[str, Any]] = {}
    for event in events:
        kind = event.get("event")
        if kind == "error":
            raise CommandError(clean(event.get("message") or "the warm-up failed"))
        if kind == "done":
            return hosts, event
        if kind in ("host", "unknown") and isinstance(event.get("peer"), str):
            hosts[event["peer"]] = event
            size, received = _count(event.get("size")), _count(event.get("received"))
            if event.get("state") in ("running", "done") and size:
                show.layer(title(event), size, received, sources(event))
    raise CommandError("the agent ended the warm-up without saying how it went", "see its log, and try again")


def title(event: dict[str, Any]) -> str:
    """A host as people know it."""
    return clean(event.get("name")) or clean(event.get("where")) or clean(event.get("peer"))[:10]


def sources(event: dict[str, Any]) -> str:
    """Where its bytes came from; what was not moved was held."""
    moved = event.get("bytes")
    counts = moved.items() if isinstance(moved, dict) else ()
    parts = [f"{human_bytes(count)} {clean(name)}" for name, count in counts if _count(count)]
    return ", ".join(parts) or "store"


def summary(hosts: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each host that has failed, and a word on different digests."""
    lines = [
        f"{title(event)}: {_outcome(event)}: {clean(event.get('message') or 'no reason given')}"
        for event in hosts.values()
        if event.get("state") != "done"
    ]
    digests = {clean(event.get("digest")) for event in hosts.values() if event.get("state") == "done"}
    if len(digests) > 1:
        lines.append(f"hosts resolved the tag to different digests: {', '.join(sorted(digests))}")
    return lines


def _outcome(event: dict[str, Any]) -> str:
    return "failed" if event.get("event") == "host" else "left out, since it does not tell its zone"


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0
