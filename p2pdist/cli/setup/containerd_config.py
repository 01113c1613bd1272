"""What containerd's ``config.toml`` says about the directory of host files, and what it should say. Pure; never edits it.

The key is ``config_path`` of a table whose name follows the file's version (containerd, docs/cri/registry.md): 1 is the old
form of containerd 1, 2 that of 1.6 and 1.7, 3 and above that of 2.x, which reads 2, too. An imported file wins over its
importer.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from typing import Any

from p2pdist.config.texts import quote
from p2pdist.errors import InvalidInputError

KEY = "config_path"
_PLUGINS = {1: "cri", 2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.images"}
_NEWEST = max(_PLUGINS)
_CRI = frozenset(_PLUGINS.values())
_RESTART = "Then restart containerd, once (containers go on running): systemctl restart containerd"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One file that was read: its name, its text, and the text as TOML."""

    path: Path
    text: str
    tables: Mapping[str, Any]

    @property
    def version(self) -> int:
        """The form of this file; one without a version is read as version 1."""
        written = self.tables.get("version", 1)
        return min(max(written, 1), _NEWEST) if isinstance(written, int) else 1

    @property
    def registry(self) -> Mapping[str, Any]:
        """The table that has ``config_path``; empty where there is none."""
        return _table(_table(_table(self.tables.get("plugins")).get(_PLUGINS[self.version])).get("registry"))

    @property
    def shown_version(self) -> str:
        """As it is written."""
        return str(self.tables.get("version", 1))[:20]

    @property
    def directories(self) -> str:
        """Its own ``config_path``; "" where it has none."""
        written = self.registry.get(KEY)
        return written if isinstance(written, str) else ""

    def misplaced(self) -> int | None:
        """The version whose table has the ``config_path`` that this file's own lacks; None: none."""
        plugins = _table(self.tables.get("plugins"))
        found = [
            version
            for version, name in _PLUGINS.items()
            if version != self.version and _table(_table(plugins.get(name)).get("registry")).get(KEY)
        ]
        return found[0] if found and not self.directories else None

    def header_line(self) -> int | None:
        """The line, from 1, on which that table's own header stands; None: nowhere."""
        name = re.escape(_PLUGINS[self.version])
        header = re.compile(rf"\s*\[\s*plugins\s*\.\s*([\"']?){name}\1\s*\.\s*[\"']?registry[\"']?\s*\]")
        lines = self.text.splitlines()
        return next((at for at, line in enumerate(lines, 1) if header.match(line)), None)


@dataclass(frozen=True, slots=True)
class Advice:
    """What an operator is told: whether containerd reads the directory already, in paragraphs of lines."""

    works: bool
    paragraphs: tuple[str, ...]


def parse(path: Path, data: bytes) -> ConfigFile:
    """Read one file; InvalidInputError says what is wrong with it."""
    try:
        text = data.decode()
        return ConfigFile(path, text, tomllib.loads(text))
    except RecursionError:
        raise InvalidInputError(f"{path} is nested too deeply") from None
    except ValueError as error:
        raise InvalidInputError(f"{path} is not valid TOML: {str(error)[:200]}") from None


def imports(file: ConfigFile) -> tuple[str, ...]:
    """The patterns of files that a file imports; relative ones start at its own directory."""
    written = file.tables.get("imports")
    return tuple(each for each in written if isinstance(each, str)) if isinstance(written, list) else ()


def directories(files: Sequence[ConfigFile]) -> tuple[str, ...]:
    """The directories that ``config_path`` names, in their order; none where it is not set. Files in the order of import."""
    file = _setter(files)
    return tuple(normpath(part) for part in file.directories.split(":") if part) if file else ()


def advise(files: Sequence[ConfigFile], main: Path, wanted: str) -> Advice:
    """What has to change in ``main`` for containerd to read the directory ``wanted``."""
    found, told = directories(files), list(_hindrances(files))
    setter = _setter(files)
    if setter is None:
        told = [*_lines_to_add(files, main, wanted), *told]
    elif wanted not in found:
        told.insert(
            0,
            f"containerd reads {':'.join(found)} ({KEY} in {setter.path}), and not {wanted}.\n"
            f"Set {KEY} to {quote(wanted)} there, or give the directory it reads with --certs-dir.\n{_RESTART}",
        )
    elif len(found) > 1:
        told.insert(
            0,
            f"{KEY} in {setter.path} is the list {':'.join(found)}.\n"
            "containerd 2.1 and newer take a list for the name of one directory in most pulls, and find nothing:\n"
            f"for these, set it to {quote(wanted)} alone. {_RESTART}",
        )
    return Advice(wanted in found, tuple(told))


def _setter(files: Sequence[ConfigFile]) -> ConfigFile | None:
    """The file whose ``config_path`` holds."""
    return next((file for file in reversed(files) if file.directories), None)


def _lines_to_add(files: Sequence[ConfigFile], main: Path, wanted: str) -> Iterator[str]:
    setting = f"{KEY} = {quote(wanted)}"
    if not files:
        yield f"containerd does not read {wanted} yet. There is no {main}; make it, for containerd 1.6 and 1.7:"
        yield f"version = 2\n{_table_name(2)}\n  {setting}"
        yield "or for containerd 2.x:"
        yield f"version = 3\n{_table_name(3)}\n  {setting}"
    else:
        file = files[0]
        yield f"containerd does not read {wanted} yet: {main} (version {file.shown_version}) does not set {KEY}."
        line = file.header_line()
        if KEY in file.registry and line is not None:
            yield f"In the table {_table_name(file.version)}, line {line}, change {KEY} to:"
            yield setting
        elif line is not None:
            yield f"Add to it, right below {_table_name(file.version)}, line {line}:"
            yield f"  {setting}"
        else:
            yield "Add to its end:"
            yield f"{_table_name(file.version)}\n  {setting}"
    yield _RESTART


def _hindrances(files: Sequence[ConfigFile]) -> Iterator[str]:
    for file in files:
        other = file.misplaced()
        if other is not None:
            yield (f"{file.path} sets it in {_table_name(other)}, the table of version {other}; move the line to"
                   f" that of its own version:\n{_table_name(file.version)}")  # fmt: skip
        old = _table(file.registry.get("mirrors"))
        tls = [name for name, each in _table(file.registry.get("configs")).items() if "tls" in _table(each)]
        if old or tls:
            kinds = " and ".join(["registry.mirrors"] * bool(old) + ["registry.configs (tls)"] * bool(tls))
            yield (f"{file.path} has older tables, {kinds}. Beside {KEY} they keep containerd's CRI plugin from loading:\n"
                   f"move what they say into hosts.toml files, and remove them.")  # fmt: skip
        disabled = file.tables.get("disabled_plugins")
        if isinstance(disabled, list) and any(each in _CRI for each in disabled if isinstance(each, str)):
            yield (f"CRI is off in {file.path} (disabled_plugins), as Docker's package of containerd has it: {KEY} serves\n"
                   "no one then. nerdctl and ctr --hosts-dir read the directory by themselves.")  # fmt: skip


def _table_name(version: int) -> str:
    plugin = _PLUGINS[version]
    quoted = plugin if "." not in plugin else f"'{plugin}'" if version >= 3 else f'"{plugin}"'
    return f"[plugins.{quoted}.registry]"


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
