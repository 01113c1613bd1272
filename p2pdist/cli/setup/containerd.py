"""``p2pdist setup containerd``: its host files, and what its ``config.toml`` has to say for it to read them.

A file per registry, and no ``_default``: the agent refuses registries that its configuration does not name, so with it
each pull from those would come here first, for nothing, and the agent's refusal would stand in place of their own errors;
nor can it name the server to fall back to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pdist.cli.errors import CommandError
from p2pdist.cli.setup import containerd_config, files, hosts_toml
from p2pdist.cli.setup.containerd_config import ConfigFile
from p2pdist.cli.setup.mirrors import Mirrors
from p2pdist.cli.setup.root import HostRoot
from p2pdist.cli.setup.writer import Place, Work
from p2pdist.errors import InvalidInputError

RUNTIME = "containerd"
CONFIG = Path("/etc/containerd/config.toml")
CERTS_DIR = Path("/etc/containerd/certs.d")
MAX_IMPORTS = 100
REMOVED = (
    "containerd reads the directory at each pull: nothing to restart. config_path may stay in config.toml."
)


@dataclass(frozen=True, slots=True)
class HostsFile:
    """A registry's ``hosts.toml``."""

    name: str
    content: bytes
    mirror: str
    shared: bool = False
    added: str = ""

    def wanted(self, original: bytes | None) -> bytes:
        return self.content

    def satisfied(self, content: bytes) -> bool:
        return hosts_toml.points_at(content, self.mirror)

    def take_out(self, content: bytes, added: str) -> bytes:
        raise AssertionError("setup owns the whole file")


def read_config(main: Path, root: HostRoot, *, required: bool) -> list[ConfigFile]:
    """``config.toml`` and what it imports, in the order that containerd reads them; nothing where there is none."""
    found: list[ConfigFile] = []
    pending = [main]
    while pending:
        path = pending.pop(0)
        if any(file.path == path for file in found):
            continue
        data = files.read(root.here(path))
        if data is None:
            if path == main and required:
                raise CommandError(
                    f"there is no {root.here(main)}", "name containerd's own file with --containerd-config"
                )
            continue
        try:
            file = containerd_config.parse(path, data)
        except InvalidInputError as error:
            raise CommandError(
                f"cannot use containerd's configuration: {error}",
                "correct it (containerd config dump reads it as containerd does) and run this again; nothing was changed",
            ) from None
        found.append(file)
        for pattern in containerd_config.imports(file):
            pending += root.glob(path.parent / pattern)
        if len(found) + len(pending) > MAX_IMPORTS:
            raise CommandError(
                f"{main} imports more than {MAX_IMPORTS} files",
                "name the one that matters: --containerd-config",
            )
    return found


def certs_dir(config: list[ConfigFile]) -> Path:
    """The directory that containerd reads first, else the usual one."""
    configured = containerd_config.directories(config)
    if configured and not configured[0].startswith("/"):
        raise CommandError(
            f"containerd's config_path, {configured[0][:200]!r}, is no absolute path",
            "where it leads depends on where containerd starts: write the whole path there and restart containerd, or name"
            " the directory with --certs-dir; nothing was changed",
        )
    return Path(configured[0]) if configured else CERTS_DIR


def write_work(directory: Path, root: HostRoot, mirrors: Mirrors, config: Sequence[ConfigFile] = ()) -> Work:
    """A file per registry; files of registries that are mirrored no more are undone."""
    later = neighbours(directory, config)[1]
    present = files.names_in(root.here(directory))
    targets = []
    for registry in mirrors.registries:
        own = hosts_toml.directory_of(registry.name, present)
        path = directory / own
        beside = _trusted(registry.name, path, later, root)
        content = hosts_toml.render(registry, mirrors.url, beside)
        targets.append(HostsFile(f"{own}/{hosts_toml.FILE}", content, mirrors.url))
    return Work(Place(RUNTIME, directory, root), tuple(targets), others=True)


def neighbours(directory: Path, config: Sequence[ConfigFile]) -> tuple[list[Path], list[Path]]:
    """The directories that ``config_path`` names before this one, and after it."""
    named = [Path(each) for each in containerd_config.directories(config) if each.startswith("/")]
    at = named.index(directory) if directory in named else len(named)
    return named[:at], named[at + 1 :]


def found_in(directory: Path, registry: str, root: HostRoot) -> tuple[Path, list[str]]:
    """The directory for a registry below another one, and what is in it."""
    path = directory / hosts_toml.directory_of(registry, files.names_in(root.here(directory)))
    return path, files.names_in(root.here(path))


def _trusted(registry: str, own: Path, later: Sequence[Path], root: HostRoot) -> hosts_toml.Certificates:
    """The certificates that count for a registry. containerd reads the first directory that has it, and then no other: what
    only a later one has would be lost with the file that is written here."""
    there = files.names_in(root.here(own))
    if not set(there) - {hosts_toml.FILE}:
        for directory in later:
            path, names = found_in(directory, registry, root)
            if names:
                return hosts_toml.certificates_in(str(path), names)
    return hosts_toml.certificates_in(str(own), there)


def _order_notes(
    directory: Path, root: HostRoot, config: Sequence[ConfigFile], mirrors: Mirrors
) -> Iterator[str]:
    earlier, later = neighbours(directory, config)
    for registry in mirrors.registries:
        for other in earlier:
            for path in (found_in(other, registry.name, root)[0], other / "_default"):
                if root.here(path).exists():
                    yield f"{registry.name}: containerd reads {path}, and not {directory}: config_path names it first."
                    break
        for other in later:
            path, names = found_in(other, registry.name, root)
            if hosts_toml.FILE in names:
                yield (
                    f"{path / hosts_toml.FILE} is not read any more: what {directory} has of {registry.name}"
                    " goes before it."
                )


def remove_work(directory: Path, root: HostRoot) -> Work:
    return Work(Place(RUNTIME, directory, root), (), others=True)


def notes(
    directory: Path, root: HostRoot, main: Path, config: list[ConfigFile], mirrors: Mirrors
) -> list[str]:
    """What is left to do by hand, and what to know."""
    advice = containerd_config.advise(config, main, str(directory))
    told = list(advice.paragraphs)
    if advice.works and not told:
        told.append(f"containerd reads {directory} at each pull: nothing to restart.")
    told += _order_notes(directory, root, config, mirrors)
    if "_default" in files.names_in(root.here(directory)):
        names = ", ".join(registry.name for registry in mirrors.registries)
        told.append(f"{directory}/_default is for other registries from now on than {names}.")
    told.append(
        "ctr reads no configuration; give it the directory:\n"
        f"  ctr images pull --hosts-dir {directory} docker.io/library/nginx:latest"
    )
    return told
