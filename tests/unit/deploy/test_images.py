"""Dockerfile and compose file: linted, checked by the real docker compose, pinned, hardened, without secrets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from p2pdist import __version__
from p2pdist.config.load import load_config
from tests.unit.deploy.files import COMPOSE, ROOT, read_yaml

TOOLS = Path(sys.executable).parent
AGENTS = ("agent-1", "agent-2", "agent-3")
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; .*)? \\$", re.MULTILINE)


def test_the_dockerfile_passes_the_linter() -> None:
    done = subprocess.run(
        [TOOLS / "hadolint", "--no-color", COMPOSE / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_linter_finds_what_is_wrong() -> None:
    text = (COMPOSE / "Dockerfile").read_text().replace("USER 65532:65532", "USER root")
    done = subprocess.run(
        [TOOLS / "hadolint", "--no-color", "-"], input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "DL3002" in done.stdout


def test_the_image_is_pinned_unprivileged_and_health_checked() -> None:
    text = (COMPOSE / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE=\S+:\d+\.\d+\.\d+-\S+$", text, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == "65532:65532"
    assert "/healthz" in text.partition("HEALTHCHECK")[2]
    assert text.count("--require-hashes") == 2
    for word in ("password", "token", "cluster.key", "secret"):
        assert word not in text.lower()


def test_the_build_sees_only_what_it_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        name
        for line in re.findall(r"^COPY (?!--)(.+) \S+$", (COMPOSE / "Dockerfile").read_text(), re.MULTILINE)
        for name in line.split()
    }
    assert "*" in lines
    assert copied == allowed


def test_every_dependency_is_pinned_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for file, wanted in (
        ("requirements.txt", project["project"]["dependencies"]),
        ("requirements.txt", project["project"]["optional-dependencies"]["otel"]),
        ("build-requirements.txt", project["build-system"]["requires"]),
    ):
        text = (COMPOSE / file).read_text()
        pins = {canonicalize_name(name): version for name, version in PINNED.findall(text)}
        for each in map(Requirement, wanted):
            assert each.specifier.contains(pins[canonicalize_name(each.name)]), f"{each} in {file}"
        blocks = re.split(r"^(?=[A-Za-z])", text, flags=re.MULTILINE)[1:]
        assert len(blocks) == len(pins)
        assert all("--hash=sha256:" in block for block in blocks)


@pytest.fixture(scope="module")
def understood(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """compose.yaml as docker compose itself reads it, after its own schema check."""
    at = tmp_path_factory.mktemp("compose") / "compose"
    shutil.copytree(COMPOSE, at)
    (at / "cluster.key").touch()
    done = subprocess.run(
        [TOOLS / "docker-compose", "-f", at / "compose.yaml", "config", "--format", "json"],
        check=True, capture_output=True, text=True, timeout=60, env={"HOME": str(at)},
    )  # fmt: skip
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_compose_refuses_an_unknown_key(tmp_path: Path) -> None:
    text = (COMPOSE / "compose.yaml").read_text().replace("read_only: true", "readonly: true")
    (tmp_path / "compose.yaml").write_text(text)
    done = subprocess.run(
        [TOOLS / "docker-compose", "-f", tmp_path / "compose.yaml", "config", "-q"],
        capture_output=True, text=True, timeout=60, env={"HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode != 0
    assert "readonly" in done.stderr


def test_the_cluster_has_all_its_parts(understood: dict[str, Any]) -> None:
    assert set(understood["services"]) == {"registry", *AGENTS, "prometheus", "grafana"}
    assert set(understood["networks"]) == {"cluster", "monitoring"}
    for name in AGENTS:
        agent = understood["services"][name]
        assert agent["image"] == f"p2pdist:{__version__}"
        assert agent["environment"] == {"P2PDIST_AGENT_NAME": name}
        assert agent["networks"]["cluster"]["aliases"] == ["agents"]
        assert [secret["source"] for secret in agent["secrets"]] == ["cluster_key"]
        assert agent["stop_grace_period"] == "1m0s"
    targets = read_yaml(COMPOSE / "prometheus" / "prometheus.yml")["scrape_configs"][0]["static_configs"]
    assert targets == [{"targets": [f"{name}:5052" for name in AGENTS]}]


def test_every_service_is_locked_in_and_published_on_loopback_only(understood: dict[str, Any]) -> None:
    published = []
    for name, service in understood["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        for port in service["ports"]:
            assert port["host_ip"] == "127.0.0.1", name
            published.append(port["published"])
    assert len(published) == len(set(published))


def test_the_agents_configuration_is_one_that_an_agent_takes(tmp_path: Path) -> None:
    shutil.copy(COMPOSE / "agent.toml", tmp_path / "config.toml")
    config = load_config(tmp_path / "config.toml", {}, {}, secrets=False)
    assert config.peer.bootstrap == ("dns:agents:5051",)
    assert str(config.peer.cluster_key_file) == "/run/secrets/cluster_key"
    assert config.registries["registry.internal"].url == "http://registry:5000"
    # What is published, and where, is compose.yaml's to say: on the host's loopback (tested above).
    assert [warning.split()[0] for warning in config.warnings] == ["mirror.listen", "admin.listen"]


def test_grafana_s_provisioning_names_what_is_mounted(understood: dict[str, Any]) -> None:
    grafana = understood["services"]["grafana"]
    mounted = {volume["target"] for volume in grafana["volumes"]}
    (provider,) = read_yaml(COMPOSE / "grafana" / "dashboards.yml")["providers"]
    assert f"{provider['options']['path']}/dashboard.json" in mounted
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in mounted
    (source,) = read_yaml(COMPOSE / "grafana" / "datasource.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert set(source) <= {"name", "uid", "type", "access", "url", "isDefault", "editable", "jsonData"}
