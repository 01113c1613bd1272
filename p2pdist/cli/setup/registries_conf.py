"""The drop-in for Podman, CRI-O, buildah and skopeo (containers-registries.conf(5)): a table per registry. Pure.

A table of a drop-in takes the place of the whole table that other files have for the same prefix. So always true here: what
these say (location, insecure, other mirrors) is carried over, and only the first mirror is new. Keys outside of tables, such
as unqualified-search-registries, are never written.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from p2pdist.cli.setup.mirrors import MirroredRegistry, Mirrors
from p2pdist.config.texts import quote
from p2pdist.errors import InvalidInputError
from p2pdist.oci.reference import looks_like_host

FILE = "p2pdist.conf"
T = TypeVar("T")
_HEAD = "# Written by: p2pdist setup podman (undo: p2pdist setup podman --remove)\n"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place to pull from; ``use`` is ``pull-from-mirror``, "" where it is not written."""

    location: str
    insecure: bool = False
    use: str = ""


@dataclass(frozen=True, slots=True)
class RegistryTable:
    """One ``[[registry]]``, and the file it stands in."""

    prefix: str
    endpoint: Endpoint
    mirrors: tuple[Endpoint, ...] = ()
    blocked: bool = False
    by_digest_only: bool = False
    file: str = field(default="", compare=False)

    def matches(self, name: str) -> bool:
        return self.prefix == name or (self.prefix.startswith("*.") and name.endswith(self.prefix[1:]))


@dataclass(frozen=True, slots=True)
class DropIn:
    """The file (None: there is nothing to write), and what an operator should know about it."""

    content: bytes | None
    remarks: tuple[str, ...] = ()


def read_tables(file: str, data: bytes) -> list[RegistryTable]:
    """The tables of one file, the first for each prefix; raises InvalidInputError."""
    try:
        tables = tomllib.loads(data.decode())
    except RecursionError:
        raise InvalidInputError(f"{file} is nested too deeply") from None
    except ValueError as error:
        raise InvalidInputError(f"{file} is not valid TOML: {str(error)[:200]}") from None
    if "registries" in tables:
        raise InvalidInputError(
            f"{file} is in the old form (version 1, [registries.search] and the like), beside which newer tools accept no"
            " [[registry]]; write it anew as containers-registries.conf(5) says"
        )
    written = tables.get("registry", [])
    if not isinstance(written, list) or not all(isinstance(each, dict) for each in written):
        raise InvalidInputError(f"{file}: registry is not a list of tables ([[registry]])")
    found: dict[str, RegistryTable] = {}
    for each in written:
        table = _read_table(file, each)
        found.setdefault(table.prefix, table)
    return list(found.values())


def merge_files(files: Iterable[Sequence[RegistryTable]]) -> list[RegistryTable]:
    """What holds once all files are read in this order: a later file's table for a prefix takes the earlier one's place."""
    merged: dict[str, RegistryTable] = {}
    for tables in files:
        merged |= {table.prefix: table for table in tables}
    return list(merged.values())


def drop_in(mirrors: Mirrors, others: Sequence[RegistryTable], later: Sequence[RegistryTable]) -> DropIn:
    """The drop-in, given what the other files say, and what those say that are read after it."""
    remarks: list[str] = []
    paths = {registry.name: _path(registry, mirrors) for registry in mirrors.registries}
    # A stand-in exists for the sake of a name with a port. A table for it would also match its host at every other port,
    # and turn such an image's name into one that is malformed.
    stand_ins = {path for name, path in paths.items() if path != name}
    tables = []
    for registry in mirrors.registries:
        path = paths[registry.name]
        if registry.name in stand_ins:
            continue
        if path is None:
            remarks.append(_needs_name(registry))
            continue
        table = _table(registry, Endpoint(f"{mirrors.address}/{path}", insecure=True), others, remarks)
        if table is not None:
            tables.append(table)
            remarks += [_taken_over(each) for each in later if each.prefix == registry.name]
            remarks += [_goes_past(each) for each in others if each.prefix.startswith(f"{registry.name}/")]
    _check_conflicts(tables)
    content = _HEAD + "".join(_render(table) for table in tables) if tables else None
    return DropIn(None if content is None else content.encode(), tuple(remarks))


def says(data: bytes, wanted: bytes) -> bool:
    """Whether a file that someone else wrote has all the tables of the wanted one."""
    try:
        return set(read_tables("", wanted)) <= set(read_tables("", data))
    except InvalidInputError:
        return False


def _path(registry: MirroredRegistry, mirrors: Mirrors) -> str | None:
    """What names a registry behind the mirror's address: itself, else another name of the same upstream; None: nothing."""
    fit = [
        each.name for each in mirrors.registries if _fits(each.name) and each.upstream == registry.upstream
    ]
    host = registry.name.rpartition(":")[0]
    return registry.name if _fits(registry.name) else min(fit, key=lambda name: name != host, default=None)


def _fits(name: str) -> bool:
    """Whether a path can hold this name (no colon), and the mirror takes it for a registry's (a dot)."""
    return ":" not in name and looks_like_host(name)


def _table(
    registry: MirroredRegistry, mirror: Endpoint, others: Sequence[RegistryTable], remarks: list[str]
) -> RegistryTable | None:
    # An IPv6 address is no location for these tools; the name is what they went by before.
    location = registry.name if "[" in registry.location else registry.location
    fresh = RegistryTable(registry.name, Endpoint(location, registry.plain_http), (mirror,))
    matching = [table for table in others if table.matches(registry.name)]
    if not matching:
        return fresh
    found = max(matching, key=lambda table: len(table.prefix))
    if found.blocked:
        remarks.append(f"{registry.name} is blocked in {found.file}: left so")
        return None
    if found.mirrors and found.mirrors[0] == mirror:
        remarks.append(f"{registry.name} points at the agent in {found.file} already: left so")
        return None
    # A wildcard's own table has no location: each name under it is its own.
    endpoint = (
        found.endpoint
        if found.endpoint.location
        else replace(fresh.endpoint, insecure=found.endpoint.insecure)
    )
    endpoint = replace(endpoint, insecure=endpoint.insecure or registry.plain_http)
    rest = tuple(each for each in found.mirrors if each.location != mirror.location)
    remarks.append(
        f"{registry.name}: what {found.file} says of it was carried over; run this again when that changes"
    )
    return replace(found, prefix=registry.name, endpoint=endpoint, mirrors=(mirror, *rest))


def _check_conflicts(tables: Sequence[RegistryTable]) -> None:
    """The tools refuse a file, and so every pull, in which two tables with one location differ in ``insecure``."""
    seen: dict[str, RegistryTable] = {}
    for table in tables:
        other = seen.setdefault(table.endpoint.location, table)
        if other.endpoint.insecure != table.endpoint.insecure:
            raise InvalidInputError(
                f"{other.prefix} and {table.prefix} are both at {table.endpoint.location}, one of them insecure and one not,"
                " which registries.conf does not allow: say the same of both there, or give them one url in the agent's"
                " configuration"
            )


def _needs_name(registry: MirroredRegistry) -> str:
    host = registry.name.rpartition(":")[0] or registry.name
    name = host if _fits(host) else "registry.internal"
    return (
        f"{registry.name} is left out: a mirror's path cannot hold that name. Give it one with a dot and without a port"
        " in the agent's configuration, restart the agent, and run this again:\n"
        f'[registries."{name}"]\nurl = "{registry.upstream}"'
    )


def _taken_over(table: RegistryTable) -> str:
    return (
        f"{table.file} is read after {FILE}, and takes the place of its table for {table.prefix}: rename that file to sort"
        f" before {FILE}, and run this again"
    )


def _goes_past(table: RegistryTable) -> str:
    return f"{table.prefix} has a table of its own in {table.file}: its images go past the agent"


def _render(table: RegistryTable) -> str:
    lines = ["", "[[registry]]", f"prefix = {quote(table.prefix)}", *_render_endpoint(table.endpoint)]
    if table.by_digest_only:
        lines.append("mirror-by-digest-only = true")
    for mirror in table.mirrors:
        lines += ["[[registry.mirror]]", *_render_endpoint(mirror)]
    return "\n".join(lines) + "\n"


def _render_endpoint(endpoint: Endpoint) -> Iterator[str]:
    yield f"location = {quote(endpoint.location)}"
    if endpoint.insecure:
        yield "insecure = true"
    if endpoint.use:
        yield f"pull-from-mirror = {quote(endpoint.use)}"


def _read_table(file: str, table: dict[str, Any]) -> RegistryTable:
    location = _value(file, table, "location", str, "")
    prefix = _value(file, table, "prefix", str, "") or location
    if not prefix:
        raise InvalidInputError(f"{file}: a [[registry]] has neither prefix nor location")
    mirrors = table.get("mirror", [])
    if not isinstance(mirrors, list) or not all(isinstance(each, dict) for each in mirrors):
        raise InvalidInputError(f"{file}: the mirrors of {prefix} are not tables ([[registry.mirror]])")
    return RegistryTable(
        prefix.rstrip("/"),
        Endpoint(location.rstrip("/"), _value(file, table, "insecure", bool, False)),
        tuple(_read_mirror(file, each) for each in mirrors),
        _value(file, table, "blocked", bool, False),
        _value(file, table, "mirror-by-digest-only", bool, False),
        file,
    )


def _read_mirror(file: str, table: dict[str, Any]) -> Endpoint:
    location = _value(file, table, "location", str, "").rstrip("/")
    insecure = _value(file, table, "insecure", bool, False)
    return Endpoint(location, insecure, _value(file, table, "pull-from-mirror", str, ""))


def _value(file: str, table: dict[str, Any], key: str, kind: type[T], default: T) -> T:
    value = table.get(key, default)
    if not isinstance(value, kind):
        raise InvalidInputError(
            f"{file}: {key} is {str(value)[:80]!r}, not a {'text' if kind is str else 'true or false'}"
        )
    return value
