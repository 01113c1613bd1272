"""The configuration in force as plain values, for people who look for a fault: without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from p2pdist.config import schema
from p2pdist.config.model import Config, ListenAddress, RegistryConfig
from p2pdist.config.schema import Section

MASK = "***"


def effective_config(config: Config) -> dict[str, Any]:
    """Every key by section, as JSON values: sizes in bytes, times in seconds; a secret that is set is "***"."""
    sections = {section.name: _values(section, getattr(config, section.name)) for section in schema.SECTIONS}
    sections[schema.AGENT.name]["docker_config"] = _plain(config.docker_config_file)
    return {
        "source": _plain(config.source),
        **sections,
        schema.REGISTRIES: {name: _registry(registry) for name, registry in config.registries.items()},
        "warnings": list(config.warnings),
    }


def known_secrets(config: Config) -> list[str]:
    """Every secret that the configuration holds in the clear, to be looked for in what leaves this host."""
    return [registry.password for registry in config.registries.values() if registry.password]


def _registry(registry: RegistryConfig) -> dict[str, Any]:
    return {key: value for key, value in _values(schema.REGISTRY, registry).items() if key != "enabled"}


def _values(section: Section, model: object) -> dict[str, Any]:
    found = {}
    for key in section.keys:
        value = getattr(model, key.name, None)
        found[key.name] = (MASK if value else "") if key.kind.secret else _plain(value)
    return found


def _plain(value: object) -> Any:
    if isinstance(value, Path | ListenAddress):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
