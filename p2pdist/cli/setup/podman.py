"""``p2pdist setup podman``: a drop-in that Podman, CRI-O, buildah and skopeo all read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from p2pdist.cli.errors import CommandError
from p2pdist.cli.setup import files, registries_conf
from p2pdist.cli.setup.mirrors import Mirrors
from p2pdist.cli.setup.registries_conf import RegistryTable
from p2pdist.cli.setup.root import HostRoot
from p2pdist.cli.setup.writer import Place, Work
from p2pdist.errors import ConfigError, InvalidInputError

RUNTIME = "podman"
CONF_DIR = Path("/etc/containers/registries.conf.d")
MAIN = "registries.conf"
USERS = (".config", "containers", "registries.conf.d")
RELOAD = "Podman, buildah and skopeo read it at each pull: nothing to restart. CRI-O: systemctl reload crio"


@dataclass(frozen=True, slots=True)
class DropInFile:
    """Our file among the drop-ins."""

    name: str
    content: bytes
    shared: bool = False
    added: str = ""

    def wanted(self, original: bytes | None) -> bytes:
        return self.content

    def satisfied(self, content: bytes) -> bool:
        return registries_conf.says(content, self.content)

    def take_out(self, content: bytes, added: str) -> bytes:
        raise AssertionError("setup owns the whole file")


def check(mirrors: Mirrors) -> None:
    """Raises ConfigError for a mirror that these tools cannot name; with such a location in their files no pull works."""
    if mirrors.address.startswith("["):
        raise ConfigError(
            f"the mirror is at {mirrors.address}, and Podman and its kin take no IPv6 address for a location: have the agent"
            ' listen on one of IPv4, such as mirror.listen = "127.0.0.1:5050"'
        )


def write_work(directory: Path, root: HostRoot, mirrors: Mirrors) -> tuple[Work, tuple[str, ...]]:
    """The drop-in, and remarks on it. Where nothing is left to write, what was written before is undone."""
    main = root.here(directory.parent / MAIN)
    others = [*_of_system(directory, main, root), _tables(main)]
    later = []
    for name in files.names_in(root.here(directory)):
        if not name.endswith(".conf") or name == registries_conf.FILE:
            continue
        tables = _tables(root.here(directory / name))
        others.append(tables)
        if name > registries_conf.FILE:
            later += tables
    try:
        drop_in = registries_conf.drop_in(mirrors, registries_conf.merge_files(others), later)
    except InvalidInputError as error:
        raise CommandError(
            f"cannot write {root.here(directory / registries_conf.FILE)}: {error}", "nothing was changed"
        ) from None
    targets = () if drop_in.content is None else (DropInFile(registries_conf.FILE, drop_in.content),)
    return Work(Place(RUNTIME, directory, root), targets, others=True), drop_in.remarks


def remove_work(directory: Path, root: HostRoot) -> Work:
    return Work(Place(RUNTIME, directory, root), (), others=True)


def _of_system(directory: Path, main: Path, root: HostRoot) -> list[list[RegistryTable]]:
    """What holds beside a user's drop-ins: the system's files, unless the user has a ``registries.conf``, too."""
    if directory.parts[-3:] != USERS or main.exists():
        return []
    drop_ins = [name for name in files.names_in(root.here(CONF_DIR)) if name.endswith(".conf")]
    return [
        _tables(root.here(path)) for path in (CONF_DIR.parent / MAIN, *(CONF_DIR / name for name in drop_ins))
    ]


def _tables(path: Path) -> list[RegistryTable]:
    data = files.read(path)
    try:
        return [] if data is None else registries_conf.read_tables(str(path), data)
    except InvalidInputError as error:
        raise CommandError(
            f"cannot use {error}", "correct it and run this again; nothing was changed"
        ) from None
