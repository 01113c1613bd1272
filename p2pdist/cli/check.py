"""``p2pdist check``: would the agent start and work with this configuration, on this host, as this user?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.text import Text

from p2pdist.cli.admin_client import AdminClient
from p2pdist.cli.checks.finding import Finding, Level, fail, ok, warn
from p2pdist.cli.checks.local import (
    check_clock,
    check_containerd,
    check_data_dir,
    check_open_files,
    check_ports,
    check_tls,
)
from p2pdist.cli.checks.network import check_network
from p2pdist.cli.checks.traces import check_traces
from p2pdist.cli.errors import ExitCode
from p2pdist.cli.options import config_file, config_option, json_option
from p2pdist.cli.output import clean, emit_json, print_table
from p2pdist.config.load import load_config
from p2pdist.config.model import Config
from p2pdist.errors import ConfigError, P2PDistError

_STYLE = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command(
    short_help="Say what is wrong with the configuration, and how to mend it.",
    epilog="""\b
Exits 1 when something fails; a warning is no failure. It changes nothing, and may be run beside a running agent.
\b
Examples:
  p2pdist check --config /etc/p2pdist/config.toml
  p2pdist check --offline --json | jq '.findings[] | select(.level != "ok")'""",
)
@config_option
@click.option("--offline", is_flag=True, help="Do not try bootstrap names and registries.")
@json_option
def check(config: Path | None, offline: bool, as_json: bool) -> int:
    """Validate the configuration, key, ports, disk and upstream reachability; say what is wrong and how to mend it."""
    findings = list(run_checks(config_file(config), offline=offline))
    failed = any(finding.level is Level.FAIL for finding in findings)
    if as_json:
        emit_json({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
    else:
        print_table(
            ("CHECK", "RESULT", "DETAIL"),
            [(each.name, Text(each.level.value, _STYLE[each.level]), _detail(each)) for each in findings],
        )
    return ExitCode.FAILED if failed else ExitCode.OK


def run_checks(file: Path | None, *, offline: bool) -> Iterator[Finding]:
    """Everything; when the configuration cannot be read there is nothing else to look at."""
    source = f"{file}" if file else "defaults and environment (no configuration file)"
    try:
        config = load_config(file, os.environ, {})
    except ConfigError as error:
        for line in str(error).splitlines():
            yield fail("configuration", line, "correct it; docs/configuration.md lists every key")
        return
    yield ok("configuration", source)
    for warning in config.warnings:
        yield warn("configuration", warning, "see docs/configuration.md, or leave it if it is meant so")
    yield _check_key(config)
    yield from check_tls(config)
    yield from check_data_dir(config)
    yield from check_containerd(config)
    yield from check_ports(config, running_agent(config))
    yield check_clock()
    yield check_open_files()
    yield from check_traces(config, offline=offline)
    if not offline:
        yield from asyncio.run(_check_network(config))


def running_agent(config: Config) -> str | None:
    """The name of the agent that answers at this configuration's admin address."""
    try:
        answer = AdminClient(config.admin.listen).get("status")
    except P2PDistError:
        return None
    return (
        str(answer.get("name") or "(unnamed)") if isinstance(answer, dict) and "version" in answer else None
    )


def _check_key(config: Config) -> Finding:
    if config.peer.cluster_key_file is not None:
        return ok("cluster key", str(config.peer.cluster_key_file))
    if config.peer.insecure_open_cluster:
        return warn(
            "cluster key", "none, and the cluster is open to all", "make one with p2pdist cluster key"
        )
    return ok("cluster key", "none: this agent serves its own host only")


async def _check_network(config: Config) -> list[Finding]:
    # Late: it brings the whole HTTP client, which nothing else here needs.
    from p2pdist.config.upstream import upstream_settings
    from p2pdist.upstream.registry_client import RegistryClient

    try:
        async with RegistryClient(upstream_settings(config)) as upstream:
            return await check_network(config, upstream.ping)
    except ConfigError as error:
        return [fail("registries", str(error), "correct it; docs/configuration.md lists every key")]


def _detail(finding: Finding) -> Text:
    text = Text(clean(finding.detail))
    if finding.mend:
        text.append(f"\n-> {clean(finding.mend)}", "italic")
    return text
