"""Hosts on which a command of the documents can be run as it stands there, as root: nothing of it reaches this machine.

Each has a network, a host name, and /etc, /opt, /root, /usr/local and /var/log of its own: what is written there goes
into an overlay. It has the addresses that the documents name (10.0.0.1, 10.0.0.2), and all registries that they name are
the lab's.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from tests.e2e.agents import ADMIN_PORT, Metrics
from tests.e2e.lab import Lab
from tests.e2e.netlab import CommandError, Host, command
from tests.e2e.programs import Program
from tests.e2e.upstream import HUB_NAMES, OTHER_REGISTRIES
from tests.unit.deploy.files import ROOT

OVERLAID = ("/etc", "/opt", "/root", "/usr/local", "/var/log")
# State of programs that put file systems of their own on top, for which an overlay is no ground.
BOUND = ("/run/containerd", "/run/docker", "/var/lib/containerd", "/var/lib/p2pdist")
# What this machine's own programs may have there, and a new host has not.
ABSENT = (
    "/etc/containerd",
    "/etc/containers",
    "/etc/docker",
    "/etc/p2pdist",
    "/opt/p2pdist",
    "/usr/local/bin/p2pdist",
)
CHECKOUT = ("LICENSE", "README.md", "bin", "compose", "p2pdist", "pyproject.toml")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
FILES = {
    "/etc/resolv.conf": "nameserver 127.0.0.1\noptions timeout:1\n",
    "/etc/containerd/config.toml": "version = 2\n",
    "/etc/containers/policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
    "/etc/containers/registries.conf": 'unqualified-search-registries = ["docker.io"]\n',
    "/etc/containers/storage.conf": '[storage]\ndriver = "overlay"\ngraphroot = "/var/lib/containers/storage"\n'
    'runroot = "/run/containers/storage"\n',
}


class Machine:
    """One host. Commands run in a copy of the checkout."""

    def __init__(self, lab: Lab, number: int, wheels: Path) -> None:
        self.name = f"host-{number}"
        self.address = f"10.0.0.{number}"
        up = lab.net.up
        self.host = Host(up.run_record, self.name, 100 + number, lab.net.switch, {})
        self.checkout = self.host.directory / "checkout"
        self._daemons: dict[str, Program] = {}
        self.host.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self._mount()
        names = " ".join((*HUB_NAMES, *OTHER_REGISTRIES))
        hosts = f"127.0.0.1 localhost {self.name}\n{up.address} {names}\n10.0.0.1 host-1\n10.0.0.2 host-2\n"
        for path, text in {**FILES, "/etc/hosts": hosts, BUNDLE: lab.upstream.bundle.read_text()}.items():
            self.write(path, text)
        self.host.env |= {
            "HOME": "/root",
            "PATH": f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "SSL_CERT_FILE": BUNDLE,
            "COLUMNS": "110",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self._copy_checkout()

    def sh(self, script: str, *, seconds: float = 90, **env: str) -> str:
        """Run a line of shell to its end; returns what it printed, CommandError when any part of it failed."""
        return self.host.run(*self._shell(script), seconds=seconds, env=env)

    def copy(self, path: str, other: Machine) -> None:
        """What another host has written below one of the directories that each has for itself."""
        parts = Path(path).parts
        source = other.host.directory / "over" / parts[1] / "upper" / Path(*parts[2:])
        self.host.run("cp", "-a", str(source), path)

    def write(self, path: str, text: str) -> None:
        """A file of this host, with its directory."""
        self.host.run("mkdir", "-p", str(Path(path).parent))
        command(self.host.argv(["tee", path]), text=text)

    def start(self, script: str, name: str = "agent") -> None:
        """Start a line of shell that runs on, and wait until it serves."""
        daemon = self._daemons[name] = Program(self.host, name, self._shell(f"exec {script}"))
        daemon.start()
        daemon.wait(self.agent_is_ready if name == "agent" else self.containerd_answers)

    def stop(self, name: str = "agent") -> int | None:
        """SIGTERM, as from Ctrl-C or systemd; returns the exit code."""
        return self._daemons[name].stop(30)

    def restart_containerd(self) -> None:
        """What ``systemctl restart containerd`` does."""
        if "containerd" in self._daemons:
            self.stop("containerd")
        self.start("containerd", "containerd")

    def log(self, name: str = "agent") -> str:
        return self._daemons[name].log.read_text(errors="replace")

    def agent_is_ready(self) -> bool:
        try:
            return self.host.request("GET", ADMIN_PORT, "/readyz").status == 200
        except OSError:
            return False

    def containerd_answers(self) -> bool:
        try:
            self.sh("ctr version", seconds=5)
        except CommandError:
            return False
        return True

    def metrics(self) -> Metrics:
        return Metrics(self.host.request("GET", ADMIN_PORT, "/metrics").body.decode())

    def close(self) -> None:
        for daemon in self._daemons.values():
            daemon.stop()
        self.host.close()

    def _shell(self, script: str) -> list[str]:
        named = f'hostname {self.name}; cd {shlex.quote(str(self.checkout))}; exec "$@"'
        return ["unshare", "--uts", "bash", "-c", named, "bash", "bash", "-euo", "pipefail", "-c", script]

    def _mount(self) -> None:
        for path in OVERLAID:
            own = self.host.directory / "over" / path.strip("/").replace("/", "-")
            upper, work = own / "upper", own / "work"
            upper.mkdir(parents=True)
            work.mkdir()
            options = f"lowerdir={path},upperdir={upper},workdir={work}"
            self.host.run("mount", "-t", "overlay", "overlay", "-o", options, path)
        for path in BOUND:
            Path(path).mkdir(parents=True, exist_ok=True)
            own = self.host.directory / "bound" / path.strip("/").replace("/", "-")
            own.mkdir(parents=True)
            self.host.run("mount", "--bind", str(own), path)
        self.host.run("rm", "-rf", *ABSENT)

    def _copy_checkout(self) -> None:
        self.checkout.mkdir()
        for name in CHECKOUT:
            source, target = ROOT / name, self.checkout / name
            if source.is_dir():
                shutil.copytree(
                    source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.key")
                )
            else:
                shutil.copy(source, target)
