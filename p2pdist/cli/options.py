"""Options that several commands share: where the configuration is, and where the running agent listens."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from p2pdist.agent.admin_token import FILE as TOKEN_FILE
from p2pdist.agent.admin_token import read_admin_token
from p2pdist.cli.admin_client import AdminClient
from p2pdist.cli.errors import CommandError
from p2pdist.config.addresses import parse_listen
from p2pdist.config.load import load_config
from p2pdist.oci.platforms import parse_platform

DEFAULT_CONFIG = Path("/etc/p2pdist/config.toml")
F = TypeVar("F", bound=Callable[..., Any])


def config_file(given: Path | None) -> Path | None:
    """The file to read: as given, else $P2PDIST_CONFIG, else the default one when it exists."""
    if given is not None:
        return given
    if os.environ.get("P2PDIST_CONFIG"):
        return Path(os.environ["P2PDIST_CONFIG"])
    return DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None


def config_option(command: F) -> F:
    """``--config FILE``."""
    return click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help=f"Configuration [default: $P2PDIST_CONFIG, else {DEFAULT_CONFIG} if it exists].",
    )(command)


def json_option(command: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def platform_option(command: F) -> F:
    """``--platform``: which image of an index; checked before the agent is asked."""
    return click.option(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        callback=_check_platform,
        help="Which image of an index [default: this host's].",
    )(command)


def _check_platform(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else str(parse_platform(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def agent_options(command: F) -> F:
    """``--admin HOST:PORT`` and ``--config FILE``: how to find the running agent."""
    admin = click.option(
        "--admin",
        metavar="HOST:PORT",
        help="The agent's admin address [default: admin.listen of the configuration].",
    )
    return admin(config_option(command))


def admin_client(admin: str | None, config: Path | None) -> AdminClient:
    """The running agent; raises ConfigError, or UsageError for a malformed address."""
    if admin is None:
        # Secrets stay closed: these commands are for every user of the host.
        return AdminClient(load_config(config_file(config), os.environ, {}, secrets=False).admin.listen)
    try:
        return AdminClient(parse_listen(admin))
    except ValueError as error:
        raise click.UsageError(
            f"--admin {admin!r} {error}; give an IP address and a port such as 127.0.0.1:5052"
        ) from None


def token_header(config: Path | None) -> dict[str, str]:
    """The proof, for commands that want one, that this user may read the agent's files; raises CommandError."""
    data_dir = load_config(config_file(config), os.environ, {}, secrets=False).agent.data_dir
    path = data_dir / TOKEN_FILE
    try:
        return {"Authorization": f"Bearer {read_admin_token(data_dir)}"}
    except PermissionError as error:
        raise CommandError(
            f"this command is not for every user of the host: {path} cannot be read",
            "run it as root, or as the agent's user",
        ) from error
    except FileNotFoundError as error:
        raise CommandError(
            f"there is no {path}: no agent runs on that data directory",
            "start the agent, or name its configuration: --config FILE",
        ) from error
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot read {path}: {error}") from error
