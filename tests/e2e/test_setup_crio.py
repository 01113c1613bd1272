"""``p2pdist setup podman`` for CRI-O: it takes up the drop-in on a reload, and pulls through the agent and past it.

Debian 12 has no package of CRI-O. Where a ``crio`` is on the PATH (1.37, built from its source, is what was tried), these
run; elsewhere they are no part of the run (tests/conftest.py), whose head says so.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.guard import wait_until
from tests.e2e.images import Pushed
from tests.e2e.lab import Lab
from tests.e2e.netlab import Host
from tests.e2e.programs import Program
from tests.e2e.runtimes import Cri, Runtime
from tests.e2e.test_setup import etc_containers, pulls_from_upstream, pulls_through_the_agent

__all__ = ["etc_containers"]  # a fixture
CRIO = shutil.which("crio")


class Crio(Runtime):
    """CRI-O without pods: its image service, asked as a kubelet asks."""

    name = "crio"
    runs = False

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.socket = self.directory / "s"
        config, at = self.directory / "crio.conf", self.directory
        config.write_text(
            f'[crio]\nroot = "{at}/root"\nrunroot = "{at}/run"\nstorage_driver = "vfs"\nversion_file = "{at}/version"\n'
            f'log_dir = "{at}/log"\nclean_shutdown_file = "{at}/clean"\n'
            f'[crio.api]\nlisten = "{self.socket}"\nstream_port = "0"\n'
            f'[crio.runtime]\ndefault_runtime = "runc"\ncgroup_manager = "cgroupfs"\nconmon_cgroup = "pod"\n'
            f'namespaces_dir = "{at}/ns"\ncontainer_exits_dir = "{at}/exits"\ncontainer_attach_socket_dir = "{at}/attach"\n'
            f'apparmor_profile = "unconfined"\nseccomp_profile = ""\npinns_path = "/bin/true"\n'
            f'[crio.runtime.runtimes.runc]\nruntime_path = "{shutil.which("runc")}"\n'
            f'monitor_path = "{shutil.which("conmon")}"\n'
            f'[crio.network]\nnetwork_dir = "{at}/cni"\nplugin_dirs = ["{at}/cni-bin"]\n'
            f"[crio.nri]\nenable_nri = false\n"
        )
        self._daemon = Program(host, self.name, [str(CRIO), "--config", str(config), "--config-dir", ""])

    def start(self) -> None:
        self._daemon.start()
        self._daemon.wait(lambda: self.socket.exists() and "SIGHUP" in self.log())

    def reload(self) -> None:
        """What ``systemctl reload crio`` does."""
        os.kill(self._daemon.pid, signal.SIGHUP)

    def logs(self) -> str:
        return self._daemon.tail()

    def log(self) -> str:
        return self._daemon.log.read_text()

    def stop(self) -> None:
        self._daemon.stop()

    def pull(self, image: Pushed) -> None:
        Cri.pull(self, image)  # type: ignore[arg-type]

    def run(self, image: Pushed) -> str:
        raise NotImplementedError

    def forget(self, image: Pushed) -> None:
        raise NotImplementedError


@pytest.fixture
def crio(lab: Lab, etc_containers: Path) -> Iterator[Crio]:
    runtime = Crio(lab.host(1))
    runtime.start()
    try:
        yield runtime
    finally:
        runtime.stop()


def test_crio_after_a_reload(lab: Lab, crio: Crio) -> None:
    agent, image = lab.agent(1), lambda: lab.images.image((1,))
    pulls_from_upstream(lab, crio.pull, image())
    assert "CRI-O: systemctl reload crio" in agent.cli("setup", "podman")
    crio.reload()
    wait_until(lambda: "Configuration reload completed" in crio.log(), 20, "CRI-O to read it again")
    pulls_through_the_agent(lab, crio.pull, image())
    pulls_through_the_agent(lab, crio.pull, image().at_hub())
    agent.stop()
    pulls_from_upstream(lab, crio.pull, image())
    pulls_from_upstream(lab, crio.pull, image().at_hub())
    agent.cli("setup", "podman", "--remove")
