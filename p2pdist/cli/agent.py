"""``p2pdist agent``: run the daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from p2pdist.cli.options import config_file, config_option
from p2pdist.config.load import load_config

# Flag, configuration key, help. Everything else goes through --set.
_FLAGS = (
    ("--data-dir", "agent.data_dir", "Where blobs, catalog and identity live."),
    ("--name", "agent.name", "What people call this agent."),
    ("--zone", "agent.zone", "Locality label, such as a rack."),
    ("--log-level", "agent.log_level", "debug, info, warning or error."),
    ("--log-format", "agent.log_format", "text or json."),
    ("--mirror", "mirror.listen", "Where runtimes pull, ADDRESS:PORT."),
    ("--peer", "peer.listen", "Where other agents reach this one, ADDRESS:PORT."),
    ("--admin", "admin.listen", "Metrics and health, ADDRESS:PORT."),
    ("--bootstrap", "peer.bootstrap", "Agents to meet first, comma-separated."),
    ("--cluster-key-file", "peer.cluster_key_file", "The cluster's shared secret."),
    ("--max-size", "store.max_size", "Most bytes kept, such as 50GiB."),
)


def _flags(command: Any) -> Any:
    for flag, key, text in reversed(_FLAGS):
        command = click.option(flag, key.replace(".", "__"), metavar="VALUE", help=f"{text} [{key}]")(command)
    return command


@click.command(
    short_help="Run the daemon.",
    epilog="""\b
Examples:
  p2pdist agent                                    a caching mirror for this host only
  p2pdist agent --config /etc/p2pdist/config.toml
  p2pdist agent --data-dir ./data --set tags.ttl=5m
\b
SIGTERM and SIGINT stop it: it closes the mirror's door, lets transfers finish (agent.drain_timeout), takes back
what it announced, and exits 0. Restart it to read a changed configuration; nothing stored is lost.""",
)
@config_option
@_flags
@click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Any other key; may be repeated."
)
def agent(config: Path | None, settings: tuple[str, ...], **flags: str | None) -> int:
    """Run the daemon: mirror for this host's runtimes, peer for the cluster's other agents.

    Values come from the file, then P2PDIST_SECTION_KEY variables, then flags. Without any it is a caching mirror
    on 127.0.0.1:5050.
    """
    loaded = load_config(config_file(config), os.environ, overrides(settings, flags))
    from p2pdist.agent.run import run_agent  # late: the other commands need none of it

    return int(run_agent(loaded))


def overrides(settings: tuple[str, ...], flags: dict[str, str | None]) -> dict[str, str]:
    """Flags and ``--set`` as configuration keys; raises UsageError for a ``--set`` without '='."""
    result = {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or "." not in key:
            raise click.UsageError(
                f"--set {setting!r} is not SECTION.KEY=VALUE, such as store.max_size=10GiB"
            )
        result[key.strip()] = value.strip()
    if result.get("agent.data_dir"):
        # On the command line a relative directory means here; in the file it would mean wherever the daemon started.
        result["agent.data_dir"] = str(Path(result["agent.data_dir"]).absolute())
    return result
