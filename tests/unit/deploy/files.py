"""The files of ``compose/`` as values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "compose"
BASE = COMPOSE / "kubernetes" / "base"
SEEDING = COMPOSE / "kubernetes" / "seeding"
CONTAINERD_CONTENT = COMPOSE / "kubernetes" / "containerd-content"
REMOVE = COMPOSE / "kubernetes" / "remove"
MONITORING = COMPOSE / "kubernetes" / "monitoring"
# PromQL's own words, and what the expressions here use as labels and variables.
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_STRING = re.compile(r'"[^"]*"')
_BRACES = re.compile(r"\{[^}]*\}")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)")
_WINDOW = re.compile(r"\[[^\]]*\]")


def read_yaml(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def patched(given: Any, patch: Any) -> Any:
    """``given`` with a strategic merge patch of Kubernetes: maps merge, lists of named things by name, others are new."""
    if isinstance(given, dict) and isinstance(patch, dict):
        return {
            **given,
            **{key: patched(given[key], new) if key in given else new for key, new in patch.items()},
        }
    if isinstance(given, list) and isinstance(patch, list) and all(isinstance(old, dict) for old in given):
        news = {new["name"]: new for new in patch}
        kept = [patched(old, news.pop(old["name"])) if old.get("name") in news else old for old in given]
        return kept + list(news.values())
    return patch


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((COMPOSE / "grafana" / "dashboard.json").read_text())
    return found


def dashboard_expressions() -> list[tuple[str, str]]:
    """(panel's title, expression) of every query."""
    return [
        (panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


def rule_groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = read_yaml(COMPOSE / "prometheus" / "rules.yml")["groups"]
    return groups


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Rules by name; ``kind`` is "alert" or "record"."""
    return {rule[kind]: rule for group in rule_groups() for rule in group["rules"] if kind in rule}


def metrics_in(expression: str) -> set[str]:
    """The metric names in a PromQL expression: names that are no function, operator, label or number's unit."""
    bare = _STRING.sub('""', expression)
    for noise in (_BRACES, _GROUPING, _WINDOW):
        bare = noise.sub(" ", bare)
    words = [match[0] for match in _NAME.finditer(bare) if not bare[match.end() :].lstrip().startswith("(")]
    return {word for word in words if word not in {"and", "or", "unless", "bool", "e6"}}
