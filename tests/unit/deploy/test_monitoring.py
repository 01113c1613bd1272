"""Dashboard, rules, docs/monitoring.md and what an agent exposes speak of the same metrics."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from p2pdist import __version__
from p2pdist.telemetry.metrics import Metrics
from p2pdist.telemetry.recent import MAX_CHARACTERS, MAX_LINES
from tests.unit.deploy.files import (
    COMPOSE,
    MONITORING,
    dashboard,
    dashboard_expressions,
    metrics_in,
    read_yaml,
    rule_groups,
    rules,
)
from tests.unit.docs.pages import ROOT, anchors
from tests.unit.docs.test_facts import rows, section

PAGE = (ROOT / "docs" / "monitoring.md").read_text()
UNITS = {"bytes", "seconds", ""}


def exposition(accept: str = "") -> str:
    """What an agent exposes once everything has happened."""
    metrics = Metrics(("docker.io",), __version__)
    metrics.on_delivered("docker.io", "peer", 1)
    metrics.on_pulled("blob", "peer", 1.0)
    metrics.upstream_response("docker.io", "blob", 200)
    metrics.set_dht({"timeouts": 1}, {"contacts": 1})
    return metrics.render(accept)[0].decode()


def families() -> dict[str, tuple[str, set[str], set[str]]]:
    """By name as in the TYPE line: type, label names, and the names of the samples."""
    found: dict[str, tuple[str, set[str], set[str]]] = {}
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", exposition(), re.MULTILINE))
    labels: dict[str, set[str]] = defaultdict(set)
    names: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(exposition()):
        for sample in family.samples:
            shown = sample.name if sample.name in kinds else family.name
            labels[shown] |= set(sample.labels) - {"le"}
            names[shown].add(sample.name)
    for name, kind in kinds.items():
        found[name] = (kind, labels[name], names[name])
    return found


def test_the_page_has_every_metric_with_its_type_unit_and_labels() -> None:
    exposed = {
        name: (kind, labels) for name, (kind, labels, _) in families().items() if name.startswith("p2pdist_")
    }
    told = {}
    for name, kind, unit, labels, meaning in rows(section(PAGE, "Metrics")):
        assert unit in UNITS
        assert ("bytes" in name) == (unit == "bytes"), name
        assert ("seconds" in name) == (unit == "seconds"), name
        assert len(meaning) > 10
        told[name.strip("`")] = (kind, set(re.findall(r"`(\w+)`", labels)))
    assert told == exposed


def test_the_page_says_how_many_log_lines_are_kept() -> None:
    assert MAX_CHARACTERS == 256 * 1024
    assert f"the last {MAX_LINES} log lines (256 KiB at most)" in PAGE


def known_names() -> set[str]:
    samples = {name for _, _, names in families().values() for name in names}
    return samples | {"up"} | set(rules("record"))


def test_every_metric_of_the_dashboard_exists() -> None:
    asked = {name for _, expression in dashboard_expressions() for name in metrics_in(expression)}
    assert len(asked) > 20
    assert asked - known_names() == set()


def test_every_metric_of_the_rules_exists() -> None:
    asked = {
        name for rule in (rules("alert") | rules("record")).values() for name in metrics_in(rule["expr"])
    }
    assert len(asked) > 15
    assert asked - known_names() == set()


def test_every_metric_is_on_the_dashboard() -> None:
    asked = {name for _, expression in dashboard_expressions() for name in metrics_in(expression)}
    shown = {name for name, (_, _, samples) in families().items() if samples & asked}
    assert {name for name in families() if name.startswith("p2pdist_")} - shown == set()


def test_the_dashboard_is_one_that_grafana_reads_whole() -> None:
    """Read and written again by Grafana's own model of a dashboard: what that does not know would be lost."""
    assert lost(dashboard(), rewritten(dashboard())) == []
    misspelt = dashboard()
    misspelt["panels"][1]["gridPosition"] = misspelt["panels"][1].pop("gridPos")
    assert lost(misspelt, rewritten(misspelt)) == [".panels.1.gridPosition"]


def rewritten(given: dict[str, Any]) -> dict[str, Any]:
    register_default_plugins()
    found: dict[str, Any] = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))
    return found


def lost(given: Any, kept: Any, at: str = "") -> list[str]:
    """Where ``kept`` lacks something of ``given``; it may have more (defaults)."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [where for key in given for where in lost(given[key], kept.get(key), f"{at}.{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [where for i in range(len(given)) for where in lost(given[i], kept[i], f"{at}.{i}")]
    return [] if given == kept else [at]


def test_the_dashboard_is_laid_out_without_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_asks_the_chosen_source_and_hosts() -> None:
    names = {variable["name"] for variable in dashboard()["templating"]["list"]}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            used = set(re.findall(r"\$\{?(\w+)", target["expr"])) - {"__range", "__rate_interval"}
            assert used <= names, panel["title"]
            assert "instance" in used or "up{" in target["expr"], panel["title"]


def test_every_alert_is_explained() -> None:
    told = {cells[0]: cells[1:] for cells in rows(section(PAGE, "Alerts"))}
    assert set(told) == {f"[`{name}`](#{name.lower()})" for name in rules("alert")}
    for name, rule in rules("alert").items():
        severity, tells = told[f"[`{name}`](#{name.lower()})"]
        assert severity == rule["labels"]["severity"], name
        assert len(tells) > 15, name


def runbook(name: str) -> list[str]:
    """The paragraphs under an alert's heading: what follows of it, and what to do."""
    text = section(PAGE, "Alerts").partition(f"\n### {name}\n")[2].partition("\n### ")[0]
    return text.strip().split("\n\n")


@pytest.mark.parametrize("alert", sorted(rules("alert")))
def test_every_alert_names_its_runbook_which_says_what_to_do(alert: str) -> None:
    file, _, anchor = rules("alert")[alert]["annotations"]["runbook"].partition("#")
    assert anchor in anchors(ROOT / file)
    assert anchor == alert.lower()
    follows, todo = runbook(alert)
    assert len(follows) > 15
    assert len(todo) > 15
    assert follows != todo


def test_the_units_of_the_page_are_those_of_openmetrics() -> None:
    text = exposition("application/openmetrics-text; version=1.0.0")
    told = {
        name.strip("`").removesuffix("_total"): unit for name, _, unit, _, _ in rows(section(PAGE, "Metrics"))
    }
    units = {family.name: family.unit for family in openmetrics(text) if family.name in told}
    assert units == told


@pytest.mark.parametrize("alert", sorted(rules("alert")))
def test_every_alert_is_tested_to_fire_and_to_be_quiet(alert: str) -> None:
    tests = read_yaml(COMPOSE / "prometheus" / "rules_test.yml")["tests"]
    outcomes = [
        bool(case["exp_alerts"])
        for test in tests
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == alert
    ]
    # The healthy cluster, in which no alert at all is up, is a quiet case for each.
    assert any(outcomes), alert
    healthy = [case["expr"] for case in tests[0]["promql_expr_test"] if case["exp_samples"] == []]
    assert healthy == ["ALERTS", "ALERTS"]


def test_the_operator_s_rules_are_the_same() -> None:
    rule = read_yaml(MONITORING / "prometheusrule.yaml")
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["spec"] == {"groups": rule_groups()}
