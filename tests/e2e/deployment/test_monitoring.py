"""Dashboard and rules with the real Prometheus: accepted, tested, and asked of one that scrapes a running agent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml

from tests.e2e.agents import ADMIN_PORT
from tests.e2e.guard import wait_until
from tests.e2e.lab import Lab
from tests.e2e.netlab import CommandError, Host, command
from tests.e2e.programs import Program
from tests.unit.deploy.files import COMPOSE, dashboard_expressions, metrics_in, read_yaml, rule_groups

AT = COMPOSE / "prometheus"
PORT = 9090
BLOBS = 'p2pdist_pull_seconds_count{kind="blob"}'
# What Grafana puts in for its variables.
VARIABLES = {"$__rate_interval": "1m", "$__range": "15m", "$instance": ".*", "$registry": ".*"}
# Of what one agent that has delivered an image exposes, these have samples; the others have no event yet.
WITHOUT_EVENTS = {"p2pdist_peers_banned", "p2pdist_upstream_requests_total"}


def test_promtool_accepts_rules_and_configuration() -> None:
    assert "SUCCESS" in command(["promtool", "check", "rules", str(AT / "rules.yml")])
    assert "SUCCESS" in command(["promtool", "check", "config", str(AT / "prometheus.yml")])


def test_every_alert_s_unit_tests_pass(tmp_path: Path) -> None:
    assert "SUCCESS" in command(["promtool", "test", "rules", str(AT / "rules_test.yml")])
    broken = (AT / "rules.yml").read_text().replace("p2pdist_peers_banned > 0", "p2pdist_peers_banned > 1")
    (tmp_path / "rules.yml").write_text(broken)
    tests = read_yaml(AT / "rules_test.yml")
    tests["tests"] = [test for test in tests["tests"] if "banned" in test["name"]]
    (tmp_path / "rules_test.yml").write_text(yaml.safe_dump(tests))
    with pytest.raises(CommandError, match="P2pdistPeerBanned"):
        command(["promtool", "test", "rules", str(tmp_path / "rules_test.yml")])


class Prometheus:
    """The server, on the host of the agent that it scrapes."""

    def __init__(self, host: Host, directory: Path) -> None:
        self._host = host
        configuration = (AT / "prometheus.yml").read_text().replace("15s", "1s")
        configuration, targets = re.subn(
            r"targets: .*", f'targets: ["127.0.0.1:{ADMIN_PORT}"]', configuration
        )
        assert targets == 1
        (directory / "prometheus.yml").write_text(configuration)
        (directory / "rules.yml").write_text((AT / "rules.yml").read_text())
        files = [f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
        listen = f"--web.listen-address=127.0.0.1:{PORT}"
        self.program = Program(host, "prometheus", ["prometheus", *files, listen])

    def get(self, path: str, **parameters: str) -> dict[str, object]:
        reply = self._host.request("GET", PORT, f"/api/v1/{path}?{urlencode(parameters)}")
        answer: dict[str, object] = json.loads(reply.body)
        assert answer["status"] == "success", f"{path} {parameters}: {answer}"
        data = answer["data"]
        assert isinstance(data, dict)
        return data

    def exposition(self, accept: str) -> str:
        """What the agent beside it exposes."""
        reply = self._host.request("GET", ADMIN_PORT, "/metrics", headers={"Accept": accept})
        return reply.body.decode()

    def ask(self, expression: str) -> list[dict[str, object]]:
        """An instant query's series; a range query of it has to succeed too."""
        now = str(self.get("query", query="time()")["result"][0])  # type: ignore[index]
        self.get("query_range", query=expression, start=now, end=now, step="15")
        result = self.get("query", query=expression)["result"]
        assert isinstance(result, list)
        return result

    def ready(self) -> bool:
        try:
            return self._host.request("GET", PORT, "/-/ready").status == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def prometheus(whole_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It scrapes an agent through which an image was pulled, and has done so for long enough to give rates."""
    whole_lab.ready({})
    server = Prometheus(whole_lab.host(1), tmp_path_factory.mktemp("prometheus"))
    server.program.start()
    try:
        server.program.wait(server.ready)
        wait_until(lambda: bool(server.ask("p2pdist_peers")), 30, "a first scrape")
        whole_lab.pull("skopeo", 1, whole_lab.images.image((1,)))
        wait_until(lambda: bool(server.ask(f"sum(rate({BLOBS}[1m])) > 0")), 30, "the pull to be scraped")
        yield server
    finally:
        server.program.stop()


@pytest.mark.parametrize(("title", "expression"), dashboard_expressions(), ids=lambda text: str(text)[:40])
def test_the_dashboard_s_expressions_are_answered(
    prometheus: Prometheus, title: str, expression: str
) -> None:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    found = prometheus.ask(expression)
    if not metrics_in(expression) & WITHOUT_EVENTS:
        assert found, f"{title}: nothing is shown"


def test_the_rules_are_evaluated_without_error(prometheus: Prometheus) -> None:
    wait_until(
        lambda: all(rule["lastEvaluation"] > "0001" for rule in loaded(prometheus)), 30, "a first evaluation"
    )
    assert {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in loaded(prometheus)} == {
        rule.get("alert", rule.get("record")): ("ok", "")
        for group in rule_groups()
        for rule in group["rules"]
    }


def loaded(prometheus: Prometheus) -> list[dict[str, str]]:
    groups = prometheus.get("rules")["groups"]
    assert isinstance(groups, list)
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_what_is_exposed_is_as_promtool_wants_names_and_help(prometheus: Prometheus, accept: str) -> None:
    exposed = prometheus.exposition(accept)
    assert exposed.count("# HELP p2pdist_") > 20
    if accept == "text/plain":
        assert command(["promtool", "check", "metrics"], text=exposed) == ""
        bad = exposed.replace("p2pdist_pulls_total", "p2pdist_pulls")
        with pytest.raises(CommandError, match="p2pdist_pulls counter metrics should have"):
            command(["promtool", "check", "metrics"], text=bad)
    else:
        assert "# UNIT p2pdist_client_bytes bytes" in exposed
        assert exposed.endswith("# EOF\n")


def test_prometheus_knows_type_and_help_of_every_metric(prometheus: Prometheus) -> None:
    known = prometheus.get("metadata", limit_per_metric="1")
    for name, kind in re.findall(
        r"^# TYPE (p2pdist_\S+) (\w+)$", prometheus.exposition("text/plain"), re.MULTILINE
    ):
        (told,) = known[name.removesuffix("_total")] if name not in known else known[name]  # type: ignore[misc]
        assert told["type"] == kind, name
        assert told["help"], name


def test_a_healthy_agent_raises_no_alert(prometheus: Prometheus) -> None:
    assert prometheus.ask("ALERTS") == []
