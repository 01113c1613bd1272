"""The Kubernetes manifests against Kubernetes' own schemas (package kubernetes-validate), and what they promise.

There is no Kubernetes here: that they are accepted and consistent is checked, that they run is not. The node's set-up
script is run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from p2pdist import __version__
from p2pdist.config.load import load_config
from tests.unit.deploy.files import (
    BASE,
    COMPOSE,
    CONTAINERD_CONTENT,
    MONITORING,
    REMOVE,
    SEEDING,
    patched,
    read_yaml,
)

OLDEST, NEWEST = "1.27", kubernetes_validate.latest_version()
MANIFESTS = sorted(file for file in BASE.glob("*.yaml") if file.name != "kustomization.yaml")
KINDS = {
    "Namespace", "PriorityClass", "ServiceAccount", "Service", "NetworkPolicy", "DaemonSet", "PodDisruptionBudget",
}  # fmt: skip


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [read_yaml(file) for file in MANIFESTS if read_yaml(file)["kind"] == kind]
    return dict(found)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_each_manifest_has_the_form_that_kubernetes_wants(file: Path, version: str) -> None:
    kubernetes_validate.validate(read_yaml(file), version, strict=True)


def test_the_schema_check_finds_what_is_wrong() -> None:
    wrong = manifest("DaemonSet")
    wrong["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_the_kustomizations_name_every_file() -> None:
    base, monitoring = (read_yaml(at / "kustomization.yaml") for at in (BASE, MONITORING))
    assert {BASE / name for name in base["resources"]} == set(MANIFESTS)
    assert {read_yaml(file)["kind"] for file in MANIFESTS} == KINDS
    assert set(monitoring["resources"]) == {"../base", "servicemonitor.yaml", "prometheusrule.yaml"}
    for generator in (*base["configMapGenerator"], *base["secretGenerator"]):
        for name in generator["files"]:
            assert name == "cluster.key" or (BASE / name).is_file()
    assert "cluster.key" in (COMPOSE / ".gitignore").read_text().splitlines()
    assert base["images"] == [
        {"name": "p2pdist", "newName": "registry.example.com/p2pdist", "newTag": __version__}
    ]


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = manifest("DaemonSet")["spec"]["template"]["spec"]
    return spec


def test_the_agent_runs_with_nothing_that_it_does_not_need() -> None:
    (agent,) = pod()["containers"]
    assert agent["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod()["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod())
    assert set(agent["resources"]["requests"]) == {"cpu", "memory"}
    assert agent["resources"]["limits"]["memory"] == "512Mi"
    (setup,) = pod()["initContainers"]
    assert setup["securityContext"]["capabilities"] == {
        "drop": ["ALL"],
        "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"],
    }
    assert setup["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_mirror_is_on_the_node_s_loopback_and_no_other_port_is_on_the_node() -> None:
    ports = {port["name"]: port for port in pod()["containers"][0]["ports"]}
    assert (ports["mirror"]["hostPort"], ports["mirror"]["hostIP"]) == (5050, "127.0.0.1")
    assert [name for name, port in ports.items() if "hostPort" in port] == ["mirror"]


def test_ports_probes_selectors_and_files_agree(tmp_path: Path) -> None:
    (agent,) = pod()["containers"]
    shutil.copy(BASE / "config.toml", tmp_path / "config.toml")
    config = load_config(tmp_path / "config.toml", {}, {}, secrets=False)
    ports = {port["name"]: port["containerPort"] for port in agent["ports"]}
    assert ports == {
        "mirror": config.mirror.listen.port,
        "peer": config.peer.listen.port,
        "dht": config.peer.listen.port,
        "admin": config.admin.listen.port,
    }
    mounts = {mount["name"]: mount["mountPath"] for mount in agent["volumeMounts"]}
    assert mounts["data"] == str(config.agent.data_dir)
    assert str(config.peer.cluster_key_file) == f"{mounts['key']}/cluster.key"
    assert {volume["name"] for volume in pod()["volumes"]} == set(mounts) | {"setup", "certs-d", "containerd"}
    probes = {probe: agent[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe: (get["path"], get["port"]) for probe, get in probes.items()} == {
        "startupProbe": ("/healthz", "admin"),
        "livenessProbe": ("/healthz", "admin"),
        "readinessProbe": ("/readyz", "admin"),
    }
    assert pod()["terminationGracePeriodSeconds"] > config.agent.drain_timeout
    labels = manifest("DaemonSet")["spec"]["template"]["metadata"]["labels"]
    for selector in (
        manifest("DaemonSet")["spec"]["selector"]["matchLabels"],
        manifest("Service")["spec"]["selector"],
        manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


def seeding_daemonset() -> dict[str, Any]:
    made: dict[str, Any] = patched(manifest("DaemonSet"), read_yaml(CONTAINERD_CONTENT / "daemonset.yaml"))
    return made


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_daemonset_that_seeds_has_the_form_that_kubernetes_wants(version: str) -> None:
    kubernetes_validate.validate(seeding_daemonset(), version, strict=True)


def test_the_seeding_overlay_is_the_base_with_the_component() -> None:
    overlay, component = (read_yaml(at / "kustomization.yaml") for at in (SEEDING, CONTAINERD_CONTENT))
    assert (overlay["resources"], overlay["components"]) == (["../base"], ["../containerd-content"])
    assert (component["apiVersion"], component["kind"]) == ("kustomize.config.k8s.io/v1alpha1", "Component")
    assert component["patches"] == [{"path": "daemonset.yaml"}]


def test_containerds_content_is_read_only_where_the_agent_looks_for_it(tmp_path: Path) -> None:
    base, pod = (
        manifest("DaemonSet")["spec"]["template"]["spec"],
        seeding_daemonset()["spec"]["template"]["spec"],
    )
    (before,), (agent,) = base["containers"], pod["containers"]
    (mount,) = [mount for mount in agent["volumeMounts"] if mount not in before["volumeMounts"]]
    (volume,) = [volume for volume in pod["volumes"] if volume not in base["volumes"]]
    (variable,) = [each for each in agent["env"] if each not in before["env"]]
    shutil.copy(BASE / "config.toml", tmp_path / "config.toml")
    given = {variable["name"]: variable["value"]}
    config = load_config(tmp_path / "config.toml", given, {}, secrets=False)
    assert mount == {
        "name": volume["name"],
        "mountPath": str(config.store.containerd_content),
        "readOnly": True,
    }
    assert volume["hostPath"] == {"path": mount["mountPath"], "type": "Directory"}
    assert agent["securityContext"] == before["securityContext"]
    assert {key: agent[key] for key in agent if key not in ("env", "volumeMounts")} == {
        key: before[key] for key in before if key not in ("env", "volumeMounts")
    }


def test_agents_meet_through_the_headless_service(tmp_path: Path) -> None:
    service = manifest("Service")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    shutil.copy(BASE / "config.toml", tmp_path / "config.toml")
    config = load_config(tmp_path / "config.toml", {}, {}, secrets=False)
    assert config.peer.bootstrap == (f"dns:{service['metadata']['name']}.p2pdist.svc:5051",)


def test_upgrades_keep_most_agents_up_and_a_budget_that_kubernetes_can_count() -> None:
    update = manifest("DaemonSet")["spec"]["updateStrategy"]
    assert update == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}
    assert manifest("PodDisruptionBudget")["spec"]["minAvailable"] == 1


def test_the_service_monitor_gives_the_job_its_name() -> None:
    monitor = read_yaml(MONITORING / "servicemonitor.yaml")
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "ServiceMonitor")
    assert set(monitor["spec"]) == {"jobLabel", "selector", "namespaceSelector", "endpoints"}
    service = manifest("Service")
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "p2pdist"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["p2pdist"]}
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """The environment of the set-up script on a node, whose files are a temporary directory."""
    (tmp_path / "etc" / "containerd" / "certs.d").mkdir(parents=True)
    owner = f"{os.geteuid()}:{os.getegid()}"
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOST": str(tmp_path), "OWNER": owner,
        "CERTS_D": "/etc/containerd/certs.d", "DATA_DIR": str(tmp_path / "data"),
        "P2PDIST_MIRROR_LISTEN": "0.0.0.0:5050",
    }  # fmt: skip


def set_up(node: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        ["sh", BASE / "node-setup.sh", *words],
        env=node,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout + done.stderr


def hosts_of(node: dict[str, str], registry: str) -> Path:
    return Path(node["HOST"]) / "etc" / "containerd" / "certs.d" / registry / "hosts.toml"


def test_a_node_is_set_up_once_and_undone(node: dict[str, str]) -> None:
    hosts = hosts_of(node, "docker.io")
    assert "wrote" in set_up(node)
    assert '[host."http://127.0.0.1:5050"]' in hosts.read_text()
    assert hosts.stat().st_mode & 0o777 == 0o644
    before = hosts.stat()
    assert "nothing to change" in set_up(node)
    assert (hosts.stat().st_ino, hosts.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert Path(node["DATA_DIR"]).is_dir()
    assert "removed" in set_up(node, "--remove")
    assert list(hosts.parents[1].iterdir()) == []
    assert Path(node["DATA_DIR"]).is_dir()


def test_a_set_up_for_other_settings_is_renewed(node: dict[str, str]) -> None:
    set_up(node)
    node["P2PDIST_MIRROR_LISTEN"] = "0.0.0.0:6050"
    assert "changed" in set_up(node)
    assert "6050" in hosts_of(node, "docker.io").read_text()


def test_somebody_else_s_file_stays_and_the_agent_starts(node: dict[str, str]) -> None:
    hosts = hosts_of(node, "ghcr.io")
    hosts.parent.mkdir()
    hosts.write_text('server = "https://mirror.example.com"\n')
    said = set_up(node)
    assert "is there already, and was not written by setup" in said
    assert "the agent is started all the same" in said
    assert hosts.read_text() == 'server = "https://mirror.example.com"\n'
    assert hosts_of(node, "quay.io").exists()


def test_a_configuration_that_the_agent_would_refuse_stops_the_pod(node: dict[str, str]) -> None:
    node["P2PDIST_MIRROR_LISTEN"] = "nowhere"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        set_up(node)
    assert caught.value.returncode == 2


def test_what_undoes_the_set_up_is_the_same_pod_without_an_agent() -> None:
    overlay = read_yaml(REMOVE / "kustomization.yaml")
    assert (overlay["resources"], overlay["patches"]) == (["../base"], [{"path": "daemonset.yaml"}])
    patch = read_yaml(REMOVE / "daemonset.yaml")
    spec = patched(manifest("DaemonSet"), patch)["spec"]["template"]["spec"]
    (setup,), (waiting,) = spec["initContainers"], spec["containers"]
    assert setup["command"] + setup["args"] == ["/bin/sh", "/setup/node-setup.sh", "--remove"]
    assert waiting["command"][0] == "/opt/p2pdist/bin/python"
    assert [waiting[probe] for probe in ("startupProbe", "livenessProbe", "readinessProbe")] == [None] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_the_data_directory_is_given_to_the_agent(node: dict[str, str]) -> None:
    node["OWNER"] = "65532:65532"
    set_up(node)
    status = Path(node["DATA_DIR"]).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65532, 65532, 0o750)
