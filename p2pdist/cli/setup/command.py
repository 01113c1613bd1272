"""``p2pdist setup containerd|docker|podman``: point a runtime of this host at the agent, show it first, or undo it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from p2pdist.cli.errors import CommandError
from p2pdist.cli.options import config_file, config_option, json_option
from p2pdist.cli.output import emit_json
from p2pdist.cli.setup import containerd as for_containerd
from p2pdist.cli.setup import docker as for_docker
from p2pdist.cli.setup import podman as for_podman
from p2pdist.cli.setup.diff import unified
from p2pdist.cli.setup.mirrors import Mirrors, mirrors_of
from p2pdist.cli.setup.plan import Step
from p2pdist.cli.setup.report import report, what
from p2pdist.cli.setup.root import HostRoot
from p2pdist.cli.setup.writer import Work, run
from p2pdist.config.load import load_config
from p2pdist.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
_SAFETY = """\b
It writes files only, and starts or restarts nothing. What was there is kept beside, in a hidden state file; --remove
brings it back byte for byte. The same command twice changes nothing. The mirror's address and the registries are those
of the agent's configuration; run it again when these change.
"""
# Who reads the files of another one's name.
_OTHER_NAMES = {
    **dict.fromkeys(("crio", "cri-o", "buildah", "skopeo"), "podman"),
    **dict.fromkeys(("cri", "ctr", "k8s", "kubelet", "kubernetes", "nerdctl"), "containerd"),
    **dict.fromkeys(("dockerd", "moby"), "docker"),
}


@dataclass(frozen=True, slots=True)
class Mode:
    """What the common options say."""

    dry_run: bool
    remove: bool
    force: bool
    root: Path
    as_json: bool

    @property
    def host(self) -> HostRoot:
        return HostRoot(self.root.absolute())


def common_options(command: F) -> F:
    """``--dry-run``, ``--remove``, ``--force``, ``--json``, ``--root`` and ``--config``."""
    for option in (
        click.option(
            "--root",
            type=click.Path(path_type=Path, file_okay=False, exists=True),
            metavar="DIR",
            default="/",
            help="Where the host's root is mounted; other paths are the host's own [default: /].",
        ),
        json_option,
        click.option("--force", is_flag=True, help="Also overwrite, or undo, what setup did not write."),
        click.option("--remove", is_flag=True, help="Bring back what was there before."),
        click.option("--dry-run", is_flag=True, help="Show a diff; write nothing."),
    ):
        command = option(command)
    return config_option(command)


class Runtimes(click.Group):
    """Says which command is meant where a name is none of a command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        instead = _OTHER_NAMES.get(args[0].lower()) if args else None
        if instead is not None:
            raise click.UsageError(f"{args[0]} reads what p2pdist setup {instead} writes: run that.", ctx)
        return super().resolve_command(ctx, args)


def path_option(flag: str, name: str, default: Path | None, text: str) -> Callable[[F], F]:
    """Where a runtime has its files, on hosts and in tests where that is elsewhere."""
    shown = f" [default: {default}]" if default else ""
    return click.option(
        flag, name, type=click.Path(path_type=Path), metavar="PATH", default=default, help=f"{text}{shown}."
    )


@click.group(
    cls=Runtimes,
    epilog="""\b
Examples:
  p2pdist setup containerd --dry-run     what would be written
  p2pdist setup docker                   write it, as root
  p2pdist setup podman --remove          as it was before
\b
docs/runtimes.md says what each runtime can do, and how to do the same by hand.""",
)
def setup() -> None:
    """Point a container runtime of this host at the agent."""


@setup.command(
    name="containerd",
    short_help="certs.d/REGISTRY/hosts.toml for containerd.",
    epilog=_SAFETY
    + """\b
Examples:
  p2pdist setup containerd --dry-run
  p2pdist setup containerd --certs-dir /etc/containerd/certs.d""",
)
@common_options
@path_option(
    "--certs-dir",
    "certs",
    None,
    "Host files [default: the first of config_path, else /etc/containerd/certs.d]",
)
@path_option(
    "--containerd-config",
    "main",
    None,
    f"containerd's own file, read only [default: {for_containerd.CONFIG}]",
)
def containerd(config: Path | None, certs: Path | None, main: Path | None, **common: Any) -> None:
    """Write a hosts.toml for each registry that the agent mirrors.

    Where containerd's config.toml does not name the directory, the lines to add are shown: that file is never edited.
    """
    mode = Mode(**common)
    at = main or for_containerd.CONFIG
    read = (
        []
        if mode.remove and certs
        else for_containerd.read_config(at.absolute(), mode.host, required=bool(main))
    )
    directory = certs.absolute() if certs else for_containerd.certs_dir(read)
    if mode.remove:
        _do(for_containerd.remove_work(directory, mode.host), mode, if_changed=[for_containerd.REMOVED])
        return
    mirrors = _mirrors(config)
    notes = for_containerd.notes(directory, mode.host, at, read, mirrors)
    _do(for_containerd.write_work(directory, mode.host, mirrors, read), mode, notes)


@setup.command(
    name="docker",
    short_help="registry-mirrors in Docker's daemon.json (docker.io only).",
    epilog=_SAFETY
    + """\b
Examples:
  p2pdist setup docker --dry-run
  p2pdist setup docker && systemctl reload docker""",
)
@common_options
@path_option("--daemon-json", "file", for_docker.DAEMON_JSON, "Docker's configuration")
def docker(config: Path | None, file: Path, **common: Any) -> None:
    """Put the agent first among the registry-mirrors of daemon.json; all other keys stay as they are.

    Docker asks mirrors for docker.io images only.
    """
    mode = Mode(**common)
    if mode.remove:
        _do(
            for_docker.work(file.absolute(), mode.host, _url_if_known(config)),
            mode,
            if_changed=[for_docker.RESTART],
        )
        return
    mirrors = _mirrors(config)
    for_docker.check(mirrors)
    _do(
        for_docker.work(file.absolute(), mode.host, mirrors.url),
        mode,
        [for_docker.LIMITS],
        [for_docker.RELOAD],
    )


@setup.command(
    name="podman",
    short_help="A registries.conf.d drop-in for Podman, CRI-O, buildah and skopeo.",
    epilog=_SAFETY
    + """\b
Examples:
  p2pdist setup podman --dry-run
  p2pdist setup podman --conf-dir ~/.config/containers/registries.conf.d""",
)
@common_options
@path_option(
    "--conf-dir", "directory", for_podman.CONF_DIR, "Drop-ins; registries.conf is looked for beside it"
)
def podman(config: Path | None, directory: Path, **common: Any) -> None:
    """Write p2pdist.conf, a table for each registry that the agent mirrors; for CRI-O, buildah and skopeo, too.

    What other files say of these registries is carried over into it.
    """
    mode = Mode(**common)
    if mode.remove:
        _do(for_podman.remove_work(directory.absolute(), mode.host), mode, if_changed=[for_podman.RELOAD])
        return
    mirrors = _mirrors(config)
    for_podman.check(mirrors)
    work, remarks = for_podman.write_work(directory.absolute(), mode.host, mirrors)
    _warn(remarks)
    _do(work, mode, if_changed=[for_podman.RELOAD])


def _mirrors(config: Path | None) -> Mirrors:
    return mirrors_of(load_config(config_file(config), os.environ, {}, secrets=False))


def _url_if_known(config: Path | None) -> str:
    """For undoing, which has to work when the agent and its configuration are gone."""
    try:
        return _mirrors(config).url
    except ConfigError:
        return ""


def _do(work: Work, mode: Mode, notes: Sequence[str] = (), if_changed: Sequence[str] = ()) -> None:
    steps = run(work, remove=mode.remove, force=mode.force, dry_run=mode.dry_run)
    told = [*notes, *(if_changed if any(step.changes for step in steps) else ())]
    if mode.as_json:
        by_path = {str(work.place.path(step.name)): step for step in steps}
        emit_json(report(work.place.runtime, by_path, told, remove=mode.remove, dry_run=mode.dry_run))
    else:
        _show(work, mode, steps)
        if told:
            click.echo("\n" + "\n\n".join(told))
    problems = [step for step in steps if step.problem]
    if problems:
        raise CommandError(
            "\n".join(f"{work.place.path(each.name)} {each.problem}" for each in problems), _go_on(work, mode)
        )


def _show(work: Work, mode: Mode, steps: Sequence[Step]) -> None:
    _warn(f"{work.place.path(step.name)} {step.remark}" for step in steps if step.remark)
    changing = [step for step in steps if step.changes]
    for step in changing:
        path = str(work.place.path(step.name))
        if mode.dry_run:
            for line in unified(path, step.now, step.after):
                click.echo(line)
        else:
            click.echo(f"{what(step, remove=mode.remove)} {path}")
    if not changing and not any(step.problem for step in steps):
        click.echo(f"nothing to {'undo' if mode.remove else 'change'} in {work.place.here}")
    if mode.dry_run and changing:
        if any(step.entry is not None for step in changing):
            click.echo(f"{work.place.state_file} would remember what was there")
        click.echo("nothing was written (--dry-run)")


def _go_on(work: Work, mode: Mode) -> str:
    """What to do about files that were left alone."""
    again = f"p2pdist setup {work.place.runtime}{' --remove' if mode.remove else ''} --force"
    if mode.remove and any(target.shared for target in work.targets):
        does = "takes out only what setup added"
    elif mode.remove:
        does = "brings back what was there before setup, and drops that change"
    else:
        does = "overwrites it (--remove brings back what was there before setup)"
    return f"look at it with {again} --dry-run; {again} {does}"


def _warn(lines: Iterable[str]) -> None:
    for text in lines:
        click.echo(f"p2pdist: warning: {text}", err=True)
