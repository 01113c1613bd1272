"""From a TOML file, the environment and the command line to a ``Config``; later ones win, key by key.

Rules: nothing is ignored in silence: an unknown key or section is an error that names the nearest known one. Whatever the
input, the outcome is a Config or a ConfigError; its message has a line per problem: which key, where, what was found,
what is allowed. Secrets are never repeated.
"""

from __future__ import annotations

import difflib
import re
import socket
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from p2pdist.config import addresses, schema, texts, values
from p2pdist.config.crosscheck import crosscheck
from p2pdist.config.model import Config, RegistryConfig
from p2pdist.config.schema import ENV_PREFIX, REGISTRIES, Key
from p2pdist.config.secrets import key_from_file, read_secret
from p2pdist.errors import ConfigError

MAX_FILE_BYTES = 1024 * 1024
MAX_REGISTRIES = 1000
# Read by bin/p2pdist and the command line itself.
_OTHER_VARIABLES = frozenset({"P2PDIST_CONFIG", "P2PDIST_DEBUG", "P2PDIST_VENV"})
# What Kubernetes sets in every pod when a Service's name begins with p2pdist; never meant for us.
_SERVICE_LINK = re.compile(
    r"P2PDIST(?:_[A-Z0-9]+)*_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)\Z"
)


@dataclass(slots=True)
class _Reading:
    """What has been read so far: values by section and key, and what is wrong with them."""

    base: Path
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def take(self, section: str, key: Key, raw: object, label: str, base: Path) -> None:
        """Parse one value, or note the problem."""
        try:
            value = key.kind.parse(raw)
        except ValueError as error:
            self.problems.append(f"{label}: {_found(key, raw)} {error}; give {key.kind.allowed}")
            return
        if key.kind is values.FILE and value is not None:
            value = base / value
        self.sections.setdefault(section, {})[key.name] = value


def load_config(
    file: Path | None, env: Mapping[str, str], overrides: Mapping[str, str], *, secrets: bool = True
) -> Config:
    """Read everything; ``overrides`` maps ``section.key`` to text.

    With ``secrets`` false the key and password files are not opened, for commands that only need to know where the agent
    listens. Relative paths are taken from the file's own directory. Raises ConfigError.
    """
    reading = _Reading(Path.cwd())
    tables = _read_toml(file) if file is not None else {}
    if file is not None:
        _take_file(reading, tables, file)
    _take_env(reading, env)
    _take_overrides(reading, overrides)
    if reading.problems:
        raise ConfigError("\n".join(reading.problems))
    config = _build(reading, env, file, secrets)
    if reading.problems:
        raise ConfigError("\n".join(reading.problems))
    return config


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"the configuration {file} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return tomllib.loads(data.decode())
    except RecursionError:
        raise ConfigError(f"{file} is not usable: it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not usable: it is not UTF-8 text") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not valid TOML: {str(error)[:300]}") from None


def _take_file(reading: _Reading, tables: dict[str, Any], file: Path) -> None:
    base = file.absolute().parent
    for name, table in tables.items():
        if name == REGISTRIES and isinstance(table, dict):
            _take_registries(reading, table, file, base)
            continue
        section = schema.BY_NAME.get(name)
        if section is None:
            known = [f"[{section}]" for section in (*schema.BY_NAME, REGISTRIES)]
            what = (
                f"[{_shown(name)}]"
                if isinstance(table, dict)
                else f"the key {_shown(name)} outside of any section"
            )
            reading.problems.append(f"{file}: unknown: {what}" + _stray_hint(name, known))
        elif not isinstance(table, dict):
            reading.problems.append(f"{file}: {name} is a section: write [{name}] and its keys below")
        else:
            for key_name, raw in table.items():
                key = section.key(key_name)
                if key is None:
                    known = [key.name for key in section.keys]
                    reading.problems.append(
                        f"{file}: unknown key {_shown(key_name)} in [{name}]" + _hint(key_name, known)
                    )
                else:
                    reading.take(name, key, raw, f"{file}: [{name}] {key_name}", base)


def _take_registries(reading: _Reading, tables: dict[str, Any], file: Path, base: Path) -> None:
    if len(tables) > MAX_REGISTRIES:
        reading.problems.append(f"{file}: more than {MAX_REGISTRIES} registries")
        return
    for written, table in tables.items():
        place = f"{file}: [{REGISTRIES}.{texts.quote(written[:100])}]"
        try:
            name = addresses.parse_registry_name(written)
        except ValueError as error:
            reading.problems.append(f"{place}: {error}")
            continue
        if not isinstance(table, dict):
            reading.problems.append(
                f"{place}: is not a table; write [{REGISTRIES}.{texts.quote(name)}] and its keys below"
            )
            continue
        section = f"{REGISTRIES}.{name}"
        if section in reading.sections:
            reading.problems.append(f"{place}: {name} is given twice")
            continue
        reading.sections[section] = {}
        for key_name, raw in table.items():
            key = schema.REGISTRY.key(key_name)
            if key is not None:
                reading.take(section, key, raw, f"{place} {key_name}", base)
            else:
                # An unquoted name with dots is TOML for nested tables: the commonest slip here.
                quoting = "; a name with dots needs quotes" if isinstance(raw, dict) else ""
                known = [key.name for key in schema.REGISTRY.keys]
                reading.problems.append(
                    f"{place}: unknown key {_shown(key_name)}{quoting}" + _hint(key_name, known)
                )


def _take_env(reading: _Reading, env: Mapping[str, str]) -> None:
    for variable in sorted(env):
        if not variable.startswith(ENV_PREFIX) or variable in _OTHER_VARIABLES:
            continue
        if variable in schema.BY_ENV:
            section, key = schema.BY_ENV[variable]
            reading.take(section.name, key, env[variable], f"{variable} in the environment", reading.base)
        elif not _SERVICE_LINK.match(variable):
            reading.problems.append(
                f"unknown variable {_shown(variable)} in the environment" + _hint(variable, schema.BY_ENV)
            )


def _take_overrides(reading: _Reading, overrides: Mapping[str, str]) -> None:
    known = [f"{section.name}.{key.name}" for section in schema.SECTIONS for key in section.keys]
    for dotted, raw in overrides.items():
        section_name, _, key_name = dotted.partition(".")
        section = schema.BY_NAME.get(section_name)
        key = section.key(key_name) if section else None
        if key is None:
            reading.problems.append(
                f"unknown key {_shown(dotted)} on the command line" + _hint(dotted, known)
            )
        else:
            reading.take(section_name, key, raw, f"{dotted} on the command line", reading.base)


def _build(reading: _Reading, env: Mapping[str, str], file: Path | None, secrets: bool) -> Config:
    sections = reading.sections
    agent = sections.setdefault("agent", {})
    docker_config = agent.pop("docker_config") if "docker_config" in agent else _find_docker_config(env)
    agent["name"] = agent.get("name") or socket.gethostname()[:64] or "unnamed"
    parts = {section.name: section.model(**sections.get(section.name, {})) for section in schema.SECTIONS}
    registries = _build_registries(reading, secrets)
    config = Config(**parts, registries=registries, docker_config_file=docker_config, source=file)
    config, warnings = crosscheck(config, reading.problems, files=secrets)
    if secrets and config.peer.cluster_key_file is not None:
        try:
            warnings += key_from_file(config.peer.cluster_key_file)[1]
        except ConfigError as error:
            reading.problems.append(str(error))
    return replace(config, warnings=(*reading.warnings, *warnings))


def _build_registries(reading: _Reading, secrets: bool) -> dict[str, RegistryConfig]:
    written = {
        name.removeprefix(f"{REGISTRIES}."): dict(table)
        for name, table in reading.sections.items()
        if name.startswith(f"{REGISTRIES}.")
    }
    tables: dict[str, dict[str, Any]] = {name: {} for name in schema.DEFAULT_REGISTRIES} | written
    registries = {}
    for name, table in tables.items():
        if table.pop("enabled", True):
            registries[name] = _build_registry(reading, name, table, secrets)
    return registries


def _build_registry(reading: _Reading, name: str, table: dict[str, Any], secrets: bool) -> RegistryConfig:
    label = f"{REGISTRIES}.{texts.quote(name)}"
    file = table.get("password_file")
    if file is not None and table.get("password"):
        reading.problems.append(f"{label}: give password or password_file, not both")
    elif table.get("username") and file is None and not table.get("password"):
        reading.problems.append(f"{label}: username needs a password_file (or password)")
    elif not table.get("username") and (file is not None or table.get("password")):
        reading.problems.append(f"{label}: a password needs a username")
    elif file is not None and secrets:
        try:
            mend = "put the registry's password or token there, readable by the agent"
            table["password"], warnings = read_secret(file, f"{label}.password_file", mend)
            reading.warnings += warnings
        except ConfigError as error:
            reading.problems.append(str(error))
    return RegistryConfig(name=name, **table)


def _find_docker_config(env: Mapping[str, str]) -> Path | None:
    directory = env.get("DOCKER_CONFIG") or (f"{env['HOME']}/.docker" if env.get("HOME") else "")
    if not directory or "\0" in directory:
        return None
    path = Path(directory) / "config.json"
    try:
        return path if path.is_file() else None
    except OSError:
        return None


def _found(key: Key, raw: object) -> str:
    if key.kind.secret:
        return "its value"
    if isinstance(raw, str):
        return texts.quote(raw[:80])
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, dict):
        return "a table"
    return f"{str(raw)[:80]}" if not isinstance(raw, list) else "the list"


def _shown(name: str) -> str:
    return texts.quote(name[:80])


def _stray_hint(name: str, known: Iterable[str]) -> str:
    """The section that a key written outside of any section belongs to, or all that have such a key."""
    homes = [f"[{section.name}]" for section in schema.SECTIONS if section.key(name)]
    if len(homes) > 1:
        return f"; such a key stands in {', '.join(homes)}"
    return _hint(homes[0] if homes else f"[{name}]", known)


def _hint(name: str, known: Iterable[str]) -> str:
    """The nearest known name, or all of them when there are few."""
    names = list(known)
    nearest = difflib.get_close_matches(name[:80], names, n=1, cutoff=0.5)
    if nearest:
        return f"; the nearest known is {nearest[0]}"
    return f"; known are {', '.join(names)}" if len(names) <= 12 else "; see docs/configuration.md"
