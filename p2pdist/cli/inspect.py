"""``p2pdist status`` and ``peers``: what the running agent says about itself.

Rule: a field that an older or newer agent does not send is shown as "-", never an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from p2pdist.cli import bundle as bundles
from p2pdist.cli.admin_client import AdminClient
from p2pdist.cli.errors import ExitCode
from p2pdist.cli.options import admin_client, agent_options, config_file, json_option
from p2pdist.cli.output import clean, console, emit_json, human_bytes, human_seconds, percent, print_table


@click.command(
    epilog="""\b
Examples:
  p2pdist status
  p2pdist status --json | jq .store
  p2pdist status --bundle p2pdist.tar.gz     all that helps to find a fault, in one file, without secrets"""
)
@json_option
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a debug bundle (tar.gz): status, peers, images, metrics, configuration, log lines; no secrets.",
)
@agent_options
def status(as_json: bool, bundle: Path | None, admin: str | None, config: Path | None) -> int:
    """Show this agent: savings, peers, transfers in flight, store use."""
    client = admin_client(admin, config)
    if bundle is not None:
        return _write_bundle(client, config, bundle)
    answer = client.get("status")
    if as_json:
        emit_json(answer)
        return ExitCode.OK
    width = 14
    for label, value in status_lines(answer if isinstance(answer, dict) else {}):
        console().print(Text.assemble((f"{label:<{width}}", "bold"), clean(value)))
    return ExitCode.OK


def _write_bundle(client: AdminClient, config: Path | None, target: Path) -> int:
    files, missing = bundles.collect(client, config_file(config))
    bundles.write(target, files)
    click.echo(f"wrote {target}: {', '.join(sorted(files))}")
    for line in missing:
        click.echo(f"p2pdist: not in it: {clean(line)}", err=True)
    return ExitCode.OK if "status.json" in files else ExitCode.UNREACHABLE


def status_lines(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and value of each line for people."""
    yield (
        "agent",
        f"{answer.get('name', '-')}, version {answer.get('version', '-')}, up {human_seconds(answer.get('uptime'))}",
    )
    yield "state", _state(answer)
    if answer.get("zone"):
        yield "zone", str(answer["zone"])
    yield "peers", str(_count(answer.get("peers")))
    yield "in flight", f"{_count(answer.get('transfers'))} transfers"
    yield "store", _store(_table(answer, "store"))
    if "containerd" in answer:
        yield "containerd", _containerd(_table(answer, "containerd"))
    yield "to clients", _sources(_table(answer, "client_bytes"))
    client = _table(answer, "client_bytes")
    total = sum(_number(value) for value in client.values())
    saved = _number(answer.get("saved_bytes", total - _number(client.get("upstream"))))
    yield "saved", f"{human_bytes(saved)} ({percent(saved, total)}) did not cross the upstream link"
    yield "received", _sources(_table(answer, "received_bytes"))
    yield "sent", _sources(_table(answer, "sent_bytes"))
    for name, address in sorted(_table(answer, "listeners").items()):
        yield f"{name}", str(address)
    for warning in answer.get("warnings") or ():
        yield "warning", str(warning)


@click.command(
    epilog="""\b
STATE is ok, busy (it asked for time), backing off (unreachable, or slow, a moment ago) or banned (it gave wrong bytes).
The last three end by themselves.
\b
Examples:
  p2pdist peers
  p2pdist peers --json | jq -r '.peers[] | select(.state != "ok") | .endpoint'"""
)
@json_option
@agent_options
def peers(as_json: bool, admin: str | None, config: Path | None) -> None:
    """List the cluster's other agents, as this one knows them."""
    answer = admin_client(admin, config).get("peers")
    if as_json:
        emit_json(answer)
        return
    rows = entries(answer, "peers")
    print_table(
        ("PEER", "ADDRESS", "STATE", "RTT", "SEEN"),
        [
            (
                str(row.get("peer", "-"))[:10],
                row.get("endpoint") or row.get("address") or "-",
                row.get("state") or "-",
                human_seconds(row.get("rtt")),
                f"{human_seconds(row.get('seen'))} ago" if row.get("seen") is not None else "-",
            )
            for row in rows
        ],
        right=("RTT", "SEEN"),
    )
    if not rows:
        click.echo("No peers: this agent is alone, or has not met another yet (see p2pdist check).", err=True)


def entries(answer: Any, name: str) -> list[dict[str, Any]]:
    """The list in an answer, whether it is the answer or stands under its name."""
    rows = answer.get(name) if isinstance(answer, dict) else answer
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _state(answer: dict[str, Any]) -> str:
    ready = answer.get("ready")
    reasons = answer.get("reasons")
    text = "ready" if ready else "not ready" if ready is not None else "-"
    if isinstance(reasons, list) and reasons:
        text += f" ({'; '.join(map(str, reasons))})"
    return text


def _store(store: dict[str, Any]) -> str:
    committed, quota = store.get("committed"), store.get("quota")
    used = percent(_number(committed), _number(quota))
    return f"{human_bytes(committed)} of {human_bytes(quota)} ({used}), {store.get('blobs', '-')} blobs"


def _containerd(content: dict[str, Any]) -> str:
    text = f"{content.get('blobs', '-')} blobs, {human_bytes(content.get('size'))}, seeded from its own store"
    unchecked, trouble = content.get("unchecked"), content.get("trouble")
    text += f"; {unchecked} to be checked" if unchecked else ""
    return f"{text}; {clean(trouble)}" if trouble else text


def _sources(table: dict[str, Any]) -> str:
    return ", ".join(f"{human_bytes(value)} {name}" for name, value in table.items()) or "-"


def _table(answer: dict[str, Any], name: str) -> dict[str, Any]:
    value = answer.get(name)
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> object:
    return len(value) if isinstance(value, list | dict) else "-" if value is None else value


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
