"""The command line's root: commands, and how every failure becomes one clear line and an exit code.

Rule: no traceback reaches a user who did not ask for it with ``--debug``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import click

from p2pdist import __version__
from p2pdist.cli.agent import agent
from p2pdist.cli.check import check
from p2pdist.cli.cluster import cluster
from p2pdist.cli.demo.command import demo
from p2pdist.cli.errors import CommandError, ExitCode
from p2pdist.cli.image_history import history
from p2pdist.cli.image_import import import_image
from p2pdist.cli.images import images
from p2pdist.cli.inspect import peers, status
from p2pdist.cli.manage import gc, pin, pins, unpin
from p2pdist.cli.pull import pull
from p2pdist.cli.setup.command import setup
from p2pdist.cli.usage import df, diff
from p2pdist.errors import ConfigError, P2PDistError


@dataclass(slots=True)
class State:
    """What the root command's options say."""

    debug: bool = False


class _Root(click.Group):
    """Lists its commands as they were added, the ones met first, first; and leaves quietly when its reader has left."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return _silence_stdout()


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Examples:
  p2pdist demo                           see it work: a registry and three agents on this machine
  p2pdist cluster key > cluster.key      the secret that makes hosts a cluster
  p2pdist agent --config config.toml     run the daemon
  p2pdist pull docker.io/library/nginx   fetch an image into this host's store
\b
Completion, in bash (zsh_source and fish_source for the others):
  eval "$(_P2PDIST_COMPLETE=bash_source p2pdist)"
\b
Exit codes:
  0 done    1 failed    2 usage or configuration error    3 no agent answers    4 a promise did not hold (demo)""",
)
@click.version_option(__version__, prog_name="p2pdist")
@click.option("--debug", is_flag=True, envvar="P2PDIST_DEBUG", help="Show tracebacks.")
@click.pass_obj
def cli(state: State, debug: bool) -> None:
    """Peer-to-peer container image distribution: one daemon per host, one upstream copy per cluster."""
    state.debug = debug


for command in (
    agent,
    demo,
    pull,
    import_image,
    status,
    peers,
    images,
    history,
    df,
    diff,
    pin,
    unpin,
    pins,
    gc,
    cluster,
    setup,
    check,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run, and exit with the code that ``run`` gives."""
    code = run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _silence_stdout()
    sys.exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; an exit code, never an exception (except with ``--debug``)."""
    state = State()
    try:
        result = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="p2pdist",
            standalone_mode=False,
            obj=state,
        )
        return result if isinstance(result, int) else ExitCode.OK
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except Exception as error:
        if state.debug:
            raise
        return _explain(error)


def _explain(error: Exception) -> int:
    if isinstance(error, CommandError):
        _complain(str(error), error.hint)
        return error.code
    if isinstance(error, ConfigError):
        _complain(str(error), "see docs/configuration.md; p2pdist check tries the whole configuration")
        return ExitCode.USAGE
    if isinstance(error, P2PDistError | OSError):
        _complain(str(error), "")
        return ExitCode.FAILED
    _complain(
        f"internal error: {type(error).__name__}: {error}",
        "please report it, with the output of p2pdist --debug ...",
    )
    return ExitCode.FAILED


def _complain(message: str, hint: str) -> None:
    for line in message.splitlines() or [""]:
        click.echo(f"p2pdist: error: {line}", err=True)
    if hint:
        click.echo(f"p2pdist: hint: {hint}", err=True)


def _silence_stdout() -> int:
    """The reader of our output has left (as with ``| head``): leave too, without Python's complaint at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.BROKEN_PIPE
