"""The files of ``compose/`` with a real engine: the Dockerfile is built, the cluster is started, images and metrics flow.

The agent's image is built from the Dockerfile as it is, on a base made of this machine's Python; registry and Prometheus
are this machine's programs in images of their own. Grafana cannot be had here: in its place stands a web server that
shows what Grafana would find mounted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.e2e.agents import Metrics
from tests.e2e.deployment.conftest import BASE, IMAGE, answers
from tests.e2e.deployment.engine import Engine, Project, run_quietly
from tests.e2e.deployment.rootfs import program_root
from tests.e2e.guard import wait_until
from tests.e2e.netlab import Host
from tests.unit.deploy.files import COMPOSE

AGENTS = {"agent-1": (5050, 5052), "agent-2": (5150, 5152), "agent-3": (5250, 5252)}  # mirror, admin
REGISTRY_CONFIG = (
    "version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nhttp: {addr: ':5000'}\n"
)
LAYER = 8_000_000


@pytest.fixture(scope="module")
def project(engine: Engine, image: str) -> Iterator[Project]:
    """The whole cluster, up."""
    at = engine.directory
    texts = {"etc/docker/registry/config.yml": REGISTRY_CONFIG}
    tar = program_root(at / "r.tar", {"docker-registry": "bin/registry"}, texts, {"var/lib/registry": 0})
    start = 'ENTRYPOINT ["/bin/registry","serve","/etc/docker/registry/config.yml"]'
    engine.load(tar, "registry:test", start)
    tar = program_root(at / "p.tar", {"prometheus": "bin/prometheus"}, {}, {"prometheus": 65534})
    engine.load(tar, "prometheus:test", 'ENTRYPOINT ["/bin/prometheus"]', "USER 65534")
    engine.load(program_root(at / "g.tar", {}, {}, {"var/lib/grafana": 472}), "grafana:test",
        'ENTRYPOINT ["/bin/httpd","-f","-p","3000","-h","/"]', "USER 472")  # fmt: skip
    directory = at / "compose"
    shutil.copytree(COMPOSE, directory)
    scraping = directory / "prometheus" / "prometheus.yml"
    scraping.write_text(scraping.read_text().replace("15s", "1s"))  # as it is, but at a test's pace
    key = directory / "cluster.key"
    key.write_text(engine.docker("run", "--rm", "--network", "none", image, "cluster", "key"))
    key.chmod(0o400)
    os.chown(key, 65532, 65532)
    images = {f"{name.upper()}_IMAGE": f"{name}:test" for name in ("registry", "prometheus", "grafana")}
    project = Project(engine, directory / "compose.yaml", images)
    project.up()
    try:
        yield project
    finally:
        project.down()


def test_the_image_is_small_unprivileged_and_without_tools_or_secrets(engine: Engine, image: str) -> None:
    config = engine.inspect(image)["Config"]
    assert config["User"] == "65532:65532"
    assert engine.inspect(image)["Size"] - engine.inspect(BASE)["Size"] < 100e6
    look = "ls /opt/p2pdist/bin; id; ls -A /etc/p2pdist /src /build /wheels/requirements.txt 2>/dev/null; touch /x"
    said = engine.docker(
        "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", f"{look} || echo no"
    )
    assert "uid=65532(p2pdist)" in said
    assert "p2pdist\n" in said
    assert "pip" not in said
    assert "/src" not in said
    assert "/build" not in said
    assert said.endswith("no\n")  # it can write nowhere but in its volume
    assert not [line for line in config["Env"] if "KEY" in line or "TOKEN" in line or "PASSWORD" in line]


def test_the_image_can_send_traces(engine: Engine, image: str) -> None:
    given = ["run", "--rm", "--network", "none", "--env", "P2PDIST_TELEMETRY_TRACES=http://127.0.0.1:4318"]
    said = engine.docker(*given, "--entrypoint", "sh", image, "-c", "p2pdist check; true")
    assert re.search(r"^traces +warn +nothing answers at http", said, re.MULTILINE), said
    assert "otel" not in said


def test_the_health_check_tells_a_living_agent_from_none(engine: Engine, project: Project) -> None:
    container = project.compose("ps", "--quiet", "agent-1").strip()
    kind, *check = engine.inspect(container)["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    wait_until(lambda: run_quietly(engine, ["exec", container, *check]) == 0, 30, "agent-1 to be healthy")
    without = ["run", "--rm", "--network", "none", "--entrypoint", check[0], IMAGE, *check[1:]]
    assert run_quietly(engine, without) == 1


def metrics(engine: Engine, name: str) -> Metrics:
    return Metrics(engine.host.request("GET", AGENTS[name][1], "/metrics").body.decode())


@pytest.fixture(scope="module")
def cluster(engine: Engine, project: Project) -> Project:
    """All agents ready, and acquainted."""
    for name, (_, admin) in AGENTS.items():
        wait_until(lambda port=admin: answers(engine, port, "/readyz"), 30, f"{name} to be ready")
    for name in AGENTS:
        wait_until(
            lambda n=name: metrics(engine, n).value("p2pdist_peers") == 2, 30, f"{name} to know the others"
        )
    wait_until(lambda: answers(engine, 5000, "/v2/"), 30, "the registry to answer")
    return project


def test_three_hosts_pull_what_was_pushed_and_one_copy_leaves_the_registry(
    engine: Engine, cluster: Project
) -> None:
    (engine.directory / "content").write_bytes(os.urandom(LAYER))
    tar = engine.directory / "demo.tar"
    subprocess.run(["tar", "-C", engine.directory, "-cf", tar, "content"], check=True)
    engine.load(tar, "127.0.0.1:5000/team/app:v1")
    engine.docker("push", "--quiet", "127.0.0.1:5000/team/app:v1")
    for name, (mirror, _) in AGENTS.items():
        source = f"docker://127.0.0.1:{mirror}/registry.internal/team/app:v1"
        into = engine.directory / f"pulled-{name}"
        copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]
        engine.host.run(*copy, source, f"dir:{into}")
        assert sum(file.stat().st_size for file in into.iterdir()) > LAYER
    read = [metrics(engine, name) for name in AGENTS]
    given = [each.value("p2pdist_client_bytes_total", registry="registry.internal") for each in read]
    assert given[0] == given[1] == given[2] > LAYER
    assert sum(each.value("p2pdist_received_bytes_total", source="upstream") for each in read) == given[0]
    assert sum(each.value("p2pdist_received_bytes_total", source="peer") for each in read) == 2 * given[0]


def test_the_commands_work_inside_a_container(cluster: Project) -> None:
    peers = cluster.compose("exec", "-T", "agent-1", "p2pdist", "peers")
    assert peers.count(":5051") == 2, peers
    assert "agent-2, version" in cluster.compose("exec", "-T", "agent-2", "p2pdist", "status")


def query(host: Host, expression: str) -> list[dict[str, object]]:
    reply = host.request("GET", 9090, f"/api/v1/query?query={quote(expression)}")
    answer = json.loads(reply.body)
    assert answer["status"] == "success", answer
    result: list[dict[str, object]] = answer["data"]["result"]
    return result


def test_prometheus_scrapes_all_agents_and_has_the_rules(engine: Engine, cluster: Project) -> None:
    wait_until(
        lambda: answers(engine, 9090, "/-/ready") and len(query(engine.host, 'up{job="p2pdist"} == 1')) == 3,
        40,
        "Prometheus to scrape three agents",
    )
    names = {str(row["metric"]["instance"]) for row in query(engine.host, "p2pdist_peers")}  # type: ignore[index]
    assert names == {f"{name}:5052" for name in AGENTS}
    rules = json.loads(engine.host.request("GET", 9090, "/api/v1/rules").body)
    assert {group["name"] for group in rules["data"]["groups"]} == {"p2pdist-recorded", "p2pdist-alerts"}


@pytest.mark.parametrize(("mounted", "file"), [
    ("/etc/grafana/provisioning/datasources/p2pdist.yml", "datasource.yml"),
    ("/etc/grafana/provisioning/dashboards/p2pdist.yml", "dashboards.yml"),
    ("/var/lib/p2pdist-dashboards/dashboard.json", "dashboard.json"),
])  # fmt: skip
def test_grafana_would_find_its_provisioning(
    engine: Engine, project: Project, mounted: str, file: str
) -> None:
    wait_until(lambda: answers(engine, 3000, "/etc/passwd"), 20, "Grafana's stand-in to answer")
    assert engine.host.request("GET", 3000, mounted).body == (COMPOSE / "grafana" / file).read_bytes()


def test_the_key_is_in_no_container_s_description(engine: Engine, cluster: Project) -> None:
    key = (engine.directory / "compose" / "cluster.key").read_text().strip()
    container = cluster.compose("ps", "--quiet", "agent-1").strip()
    assert engine.docker("exec", container, "cat", "/run/secrets/cluster_key").strip() == key
    for shown in (json.dumps(engine.inspect(container)), cluster.compose("config"), cluster.logs()):
        assert key not in shown


def test_an_agent_that_is_stopped_ends_by_itself(engine: Engine, cluster: Project) -> None:
    container = cluster.compose("ps", "--quiet", "agent-3").strip()
    cluster.compose("stop", "agent-3")
    assert engine.inspect(container)["State"]["ExitCode"] == 0
