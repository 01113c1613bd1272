"""What kubectl itself makes of the kustomizations in compose/kubernetes, where there is a kubectl (tests/conftest.py)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from p2pdist import __version__
from tests.unit.deploy.files import COMPOSE
from tests.unit.deploy.test_kubernetes import NEWEST


@pytest.mark.parametrize("which", ["base", "monitoring", "seeding", "remove"])
def test_what_kubectl_makes_of_them_fits_together(tmp_path: Path, which: str) -> None:
    shutil.copytree(COMPOSE / "kubernetes", tmp_path / "k")
    (tmp_path / "k" / "base" / "cluster.key").write_text("p2pdist1-not-a-real-one\n")
    made = subprocess.run(
        ["kubectl", "kustomize", tmp_path / "k" / which],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    objects = list(yaml.safe_load_all(made.stdout))
    for each in objects:
        if not each["apiVersion"].startswith("monitoring.coreos.com/"):
            kubernetes_validate.validate(each, NEWEST, strict=True)
        if each["kind"] not in {"Namespace", "PriorityClass"}:
            assert each["metadata"]["namespace"] == "p2pdist"
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    pod = next(each for each in objects if each["kind"] == "DaemonSet")["spec"]["template"]["spec"]
    for volume in pod["volumes"]:
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in names
        if "secret" in volume:
            assert ("Secret", volume["secret"]["secretName"]) in names
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["image"] == f"registry.example.com/p2pdist:{__version__}"
    assert ("ServiceMonitor" in {each["kind"] for each in objects}) == (which == "monitoring")
    mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert ("containerd-content" in mounts) == (which == "seeding")
    assert {"config", "key", "data"} <= mounts
    assert mounts | {"setup", "certs-d", "containerd"} == {volume["name"] for volume in pod["volumes"]}
