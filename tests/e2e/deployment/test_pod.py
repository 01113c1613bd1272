"""The pod of the Kubernetes DaemonSet that also seeds from containerd, run by Docker: its containers as the manifest says,
on a made-up node.

Kubernetes is not here. What it would make of the manifest (users, capabilities, mounts, environment, the mode of the
secret) is handed to Docker instead: the init container, then the agent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from p2pdist.oci.digest import Digest
from tests.e2e.deployment.conftest import answers
from tests.e2e.deployment.engine import Engine, run_quietly
from tests.e2e.guard import wait_until
from tests.unit.deploy.files import BASE, CONTAINERD_CONTENT, REMOVE, patched, read_yaml
from tests.unit.docs.commands import ELSEWHERE

MIRROR, ADMIN = 6050, 6052
POD = patched(read_yaml(BASE / "daemonset.yaml"), read_yaml(CONTAINERD_CONTENT / "daemonset.yaml"))["spec"][
    "template"
]["spec"]
LAYER = b"a layer that containerd holds" * 1000


class Node:
    """Files of a node, and what Kubernetes would mount."""

    said = ""

    def __init__(self, directory: Path, key: str) -> None:
        self.containerd, self.data = directory / "etc-containerd", directory / "data"
        self.certs = self.containerd / "certs.d"
        for made in (self.certs, self.data):  # hostPath's DirectoryOrCreate: root's, 0755
            made.mkdir(parents=True)
        secret = directory / "secret" / "cluster.key"
        secret.parent.mkdir()
        secret.write_text(key)
        secret.chmod(0o440)
        os.chown(secret, 0, POD["securityContext"]["fsGroup"])
        self.content = _containerd_content(directory)
        self._sources = {
            "containerd-content": self.content,
            "containerd": self.containerd,
            "certs-d": self.certs,
            "data": self.data,
            "key": secret.parent,
            "config": BASE,
            "setup": BASE,
        }

    def mount(self, mount: dict[str, Any]) -> str:
        source = self._sources[mount["name"]] / mount.get("subPath", "")
        return f"{source}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"


def _containerd_content(directory: Path) -> Path:
    """As containerd makes it: what is in the store may be read by all, and its root is closed to all but root."""
    root = directory / "containerd"
    blobs = root / "io.containerd.content.v1.content" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    blob = blobs / Digest.of(LAYER).hex
    blob.write_bytes(LAYER)
    blob.chmod(0o444)
    root.chmod(0o700)
    return blobs.parents[1]


def arguments(container: dict[str, Any], node: Node) -> list[str]:
    """``docker run``'s words for what the manifest says of a container."""
    security = container["securityContext"]
    words = ["--user", f"{security['runAsUser']}:{security['runAsGroup']}"]
    words += ["--read-only"] if security["readOnlyRootFilesystem"] else []
    words += [] if security["allowPrivilegeEscalation"] else ["--security-opt", "no-new-privileges"]
    words += [f"--cap-drop={name}" for name in security["capabilities"]["drop"]]
    words += [f"--cap-add={name}" for name in security["capabilities"].get("add", ())]
    words += ["--memory", container["resources"]["limits"]["memory"].replace("Mi", "m")]
    for variable in container.get("env", ()):
        words += ["--env", f"{variable['name']}={variable.get('value', 'node-1')}"]
    for mount in container["volumeMounts"]:
        words += ["--volume", node.mount(mount)]
    return words


@pytest.fixture(scope="module")
def node(engine: Engine, image: str) -> Node:
    """After the init container."""
    key = engine.docker("run", "--rm", "--network", "none", image, "cluster", "key")
    node = Node(engine.directory / "node", key)
    for _ in range(2):  # and again, as when the pod is replaced
        node.said = set_up(engine, node, image)
    return node


def set_up(engine: Engine, node: Node, image: str, *words: str) -> str:
    """Run the init container; returns its output."""
    (setup,) = POD["initContainers"]
    program, *rest = setup["command"]
    run = ["run", "--rm", "--network", "none", *arguments(setup, node), "--entrypoint", program, image, *rest]
    return engine.docker(*run, *words)


@pytest.fixture(scope="module")
def agent(engine: Engine, node: Node, image: str) -> Iterator[str]:
    (agent,) = POD["containers"]
    published = ["--publish", f"127.0.0.1:{MIRROR}:5050", "--publish", f"127.0.0.1:{ADMIN}:5052"]
    run = ["run", "--detach", *published, *arguments(agent, node), image, *agent["args"]]
    container = engine.docker(*run).strip()
    yield container
    engine.docker("rm", "--force", container)


def test_the_init_container_sets_the_node_up(node: Node) -> None:
    assert 'host."http://127.0.0.1:5050"' in (node.certs / "docker.io" / "hosts.toml").read_text()
    assert "nothing to change" in node.said
    assert "There is no /etc/containerd/config.toml" in node.said  # what is left to do on that node
    status = node.data.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65532, 65532, 0o750)


def test_the_agent_serves_the_node(engine: Engine, agent: str) -> None:
    try:
        wait_until(lambda: answers(engine, ADMIN, "/readyz"), 30, "the pod's agent to be ready")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{engine.docker('logs', agent)}") from None
    assert engine.host.request("GET", MIRROR, "/v2/").status == 200
    status = engine.host.request("GET", ADMIN, "/api/v1/status").json()
    assert isinstance(status, dict)
    assert (status["name"], status["cluster"]) == ("node-1", True)
    assert [warning.split()[0] for warning in status["warnings"]] == ["mirror.listen", "admin.listen"]


def test_the_agent_serves_what_lies_in_the_node_s_containerd(engine: Engine, agent: str, node: Node) -> None:
    def seeded() -> bool:
        status = engine.host.request("GET", ADMIN, "/api/v1/status").json()
        assert isinstance(status, dict)
        return bool(status["containerd"]["blobs"] == 1)

    wait_until(seeded, 30, "the blob of the node's containerd to be held")
    digest = Digest.of(LAYER)
    answer = engine.host.request("GET", MIRROR, f"/v2/docker.io/library/app/blobs/{digest}")
    assert (answer.status, answer.body) == (200, LAYER)
    assert not [file for file in (node.data / "store" / "blobs").rglob("*") if file.is_file()]


TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def test_the_dashboard_is_in_the_image_whole(engine: Engine, agent: str) -> None:
    """The page and every asset of the checkout, which the image has from its wheel."""
    sources = sorted(file for file in resources.files("p2pdist.api.dashboard").joinpath("assets").iterdir())
    names = {Path(file.name).name: file.read_bytes() for file in sources}
    assert {"index.html", "app.js", "style.css"} <= set(names)
    page = engine.host.request("GET", ADMIN, "/")
    loaded = set(re.findall(r'(?:src|href)="dashboard/([^"]+)"', page.body.decode()))
    assert loaded >= {"app.js", "style.css"}
    assert loaded <= set(names)
    for name, content in names.items():
        answer = page if name == "index.html" else engine.host.request("GET", ADMIN, f"/dashboard/{name}")
        assert (answer.status, answer.body) == (200, content), name
        assert answer.headers["content-type"].partition(";")[0] == TYPES[Path(name).suffix]
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"].split("; ")
        assert {
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
        } <= set(policy)
        assert not [part for part in policy if "unsafe" in part]
    assert engine.host.request("GET", ADMIN, "/dashboard/absent.js").status == 404


def test_it_ends_by_itself_and_leaves_its_data_on_the_node(engine: Engine, agent: str, node: Node) -> None:
    engine.docker("stop", "--time", str(POD["terminationGracePeriodSeconds"]), agent)
    assert engine.inspect(agent)["State"]["ExitCode"] == 0
    assert (node.data / "peer.id").exists()


def test_the_set_up_is_undone_by_the_pod_that_removes(engine: Engine, node: Node, image: str) -> None:
    spec = read_yaml(REMOVE / "daemonset.yaml")["spec"]["template"]["spec"]
    assert "removed" in set_up(engine, node, image, *spec["initContainers"][0]["args"])
    assert list(node.certs.iterdir()) == []
    program, *words = spec["containers"][0]["command"]
    waiting = engine.docker("run", "--detach", "--entrypoint", program, image, *words).strip()
    try:
        wait_until(lambda: "to be deleted" in engine.docker("logs", waiting), 20, "it to wait")
        assert engine.inspect(waiting)["State"]["Running"] is True
        engine.docker("stop", "--time", "20", waiting)
        assert engine.inspect(waiting)["State"]["ExitCode"] == 0  # by itself, not killed
    finally:
        engine.docker("rm", "--force", waiting)


def test_the_documented_way_of_one_agent_in_a_container(engine: Engine, image: str) -> None:
    (command,) = (line for line in ELSEWHERE if line.startswith("docker run -d --name p2pdist "))
    etc = engine.directory / "etc"
    etc.mkdir()
    (etc / "config.toml").write_text('[peer]\ncluster_key_file = "/etc/p2pdist/cluster.key"\n')
    key = etc / "cluster.key"
    key.write_text(engine.docker("run", "--rm", "--network", "none", image, "cluster", "key"))
    key.chmod(0o600)
    os.chown(key, 65532, 65532)
    assert image in command
    assert "-v /etc/p2pdist:/etc/p2pdist:ro" in command
    try:
        engine.docker(*command.replace("-v /etc/p2pdist:", f"-v {etc}:").split()[1:])
        wait_until(lambda: answers(engine, 5052, "/readyz"), 30, "the agent to be ready")
        assert "peer          " in engine.docker("exec", "p2pdist", "p2pdist", "status")
        assert engine.host.listens(5051)
        engine.docker("stop", "p2pdist")
        assert engine.inspect("p2pdist")["State"]["ExitCode"] == 0
    finally:
        run_quietly(engine, ["rm", "--force", "--volumes", "p2pdist"])
