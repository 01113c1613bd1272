"""``p2pdist setup``: the real runtimes use what it wrote: they pull through the agent, and past it when it is down."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.guard import wait_until
from tests.e2e.images import Pushed
from tests.e2e.lab import Lab
from tests.e2e.netlab import Host
from tests.e2e.programs import Program
from tests.e2e.runtimes import MIRROR, Containerd, Cri, Docker, configure_containers
from tests.e2e.upstream import PLAIN, PRIVATE

Pull = Callable[[Pushed], None]


class FreshContainerd(Cri):
    """containerd with no host files, and a config.toml that names no directory for them. ``pull`` is CRI's."""

    name = "fresh-containerd"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        shutil.rmtree(self.hosts)
        self.config = self.directory / "config.toml"
        written = self.config.read_text()
        self.config.write_text(re.sub(r"\[[^\n]*\.registry\]\nconfig_path[^\n]*\n", "", written))
        assert self.config.read_text() != written

    def by_ctr(self, image: Pushed) -> None:
        Containerd.pull(self, image)


class FreshDocker(Docker):
    """dockerd with a daemon.json of its owner's, and no mirror."""

    name = "fresh-docker"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.file = self.directory / "daemon.json"
        self.file.write_bytes(b'{\r\n\t"log-level": "warn",\r\n\t"max-concurrent-downloads": 2\r\n}')
        argv = [word for word in self._daemon._argv if not word.startswith("--registry-mirror")]
        self._daemon = Program(host, self.name, [*argv, "--config-file", str(self.file)])

    def reload(self) -> None:
        os.kill(self._daemon.pid, signal.SIGHUP)
        wait_until(lambda: self.mirrors() == [f"http://{MIRROR}/"], 20, "dockerd to have the mirror")

    def mirrors(self) -> list[str]:
        shown = json.loads(self.docker("info", "--format", "{{json .RegistryConfig.Mirrors}}"))
        return list(shown or [])


@pytest.fixture
def containerd(lab: Lab) -> Iterator[FreshContainerd]:
    runtime = FreshContainerd(lab.host(1))
    try:
        yield runtime
    finally:
        runtime.stop()


@pytest.fixture
def docker(lab: Lab) -> Iterator[FreshDocker]:
    runtime = FreshDocker(lab.host(1))
    try:
        yield runtime
    finally:
        runtime.stop()


@pytest.fixture
def etc_containers(lab: Lab) -> Iterator[Path]:
    """/etc/containers as an owner who knows of no agent has it."""
    etc = lab.host(1).private_path("/etc/containers")
    lines = ['unqualified-search-registries = ["docker.io"]']
    lines += [f'[[registry]]\nlocation = "{where}"\ninsecure = true' for where in (PLAIN, PRIVATE)]
    (etc / "registries.conf").write_text("\n".join(lines) + "\n")
    try:
        yield etc
    finally:
        shutil.rmtree(etc / "registries.conf.d", ignore_errors=True)
        configure_containers(lab.host(1))


def pulls_through_the_agent(lab: Lab, pull: Pull, image: Pushed) -> None:
    before = lab.agent(1).metrics().value("p2pdist_client_bytes_total")
    pull(image)
    assert lab.agent(1).metrics().value("p2pdist_client_bytes_total") - before >= image.size


def pulls_from_upstream(lab: Lab, pull: Pull, image: Pushed) -> None:
    with lab.watch() as seen:
        pull(image)
    assert seen.served.by(lab.host(1)).blob_bytes == image.size


def test_containerd_by_cri_and_ctr(lab: Lab, containerd: FreshContainerd) -> None:
    agent, image = lab.agent(1), lambda: lab.images.image((1,))
    setup = (
        "setup",
        "containerd",
        "--certs-dir",
        str(containerd.hosts),
        "--containerd-config",
        str(containerd.config),
    )
    printed = agent.cli(*setup)
    # What it says to add is added as it stands.
    lines = re.search(r"^\[plugins[^\n]*\n[^\n]*$", printed, re.MULTILINE)
    assert lines is not None, printed
    containerd.config.write_text(f"{containerd.config.read_text()}{lines[0]}\n")
    again = agent.cli(*setup)
    assert "nothing to change" in again
    assert "nothing to restart" in again

    containerd.start()
    containerd.wait()
    for pull in (containerd.pull, containerd.by_ctr):
        pulls_through_the_agent(lab, pull, image())
        pulls_through_the_agent(lab, pull, image().at_hub())
    agent.stop()
    for pull in (containerd.pull, containerd.by_ctr):
        pulls_from_upstream(lab, pull, image())
        pulls_from_upstream(lab, pull, image().at_hub())
    agent.cli(*setup, "--remove")
    assert not containerd.hosts.exists()


def test_docker(lab: Lab, docker: FreshDocker) -> None:
    agent, image = lab.agent(1), lambda: lab.images.image((1,)).at_hub()
    before = docker.file.read_bytes()
    docker.start()
    docker.wait()
    assert docker.mirrors() == []
    printed = agent.cli("setup", "docker", "--daemon-json", str(docker.file))
    assert "docker.io images only" in printed
    docker.reload()
    pulls_through_the_agent(lab, docker.pull, image())
    agent.stop()
    pulls_from_upstream(lab, docker.pull, image())
    agent.cli("setup", "docker", "--daemon-json", str(docker.file), "--remove")
    assert docker.file.read_bytes() == before
    docker.stop()
    docker.start()
    docker.wait()
    assert docker.mirrors() == []


def test_podman_buildah_and_skopeo(lab: Lab, etc_containers: Path) -> None:
    agent = lab.agent(1)
    before = sorted(path.name for path in etc_containers.iterdir())
    agent.cli("setup", "podman")
    assert "nothing to change" in agent.cli("setup", "podman")
    runtimes = [lab.runtime(name, 1) for name in ("podman", "buildah", "skopeo")]
    for runtime in runtimes:
        pulls_through_the_agent(lab, runtime.pull, lab.images.image((1,)))
        pulls_through_the_agent(lab, runtime.pull, lab.images.image((1,)).at_hub())
    agent.stop()
    for runtime in runtimes:
        pulls_from_upstream(lab, runtime.pull, lab.images.image((1,)))
        pulls_from_upstream(lab, runtime.pull, lab.images.image((1,)).at_hub())
    agent.cli("setup", "podman", "--remove")
    assert sorted(path.name for path in etc_containers.iterdir()) == before
