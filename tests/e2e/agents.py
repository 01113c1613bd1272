"""The agents under test: one per host, each on the default ports of its own namespace, run as ``p2pdist agent``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from p2pdist.oci.digest import Digest
from p2pdist.testing.tls import TestAuthority
from tests.e2e import tokenserver
from tests.e2e.guard import wait_until
from tests.e2e.netlab import Host, Reply
from tests.e2e.programs import Program
from tests.e2e.upstream import PLAIN, PRIVATE, Upstream, without_port

MIRROR_PORT, PEER_PORT, ADMIN_PORT = 5050, 5051, 5052
REPOSITORY = str(Path(__file__).parents[2])
# Settings by configuration key, as on the agent's command line: {"tags.ttl": "1s"}; {agent} is the agent's directory.
Settings = Mapping[str, str]


# TLS between peers, with the certificate that each agent has in its directory.
PEER_TLS = {
    "peer.tls_cert_file": "{agent}/tls/leaf.pem",
    "peer.tls_key_file": "{agent}/tls/leaf.key",
    "peer.tls_ca_file": "{agent}/tls/ca.pem",
}


class Metrics:
    """One reading of /metrics."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """The sum over all series of that name which have these labels; 0 where there is none."""
        wanted = labels.items()
        return sum(s.value for s in self._samples if s.name == name and wanted <= s.labels.items())

    def names(self) -> set[str]:
        return {sample.name for sample in self._samples}


NO_METRICS = Metrics("")


class Agent:
    """One agent. ``totals`` keeps counting over restarts, as far as they were read before the process ended."""

    def __init__(self, host: Host, upstream: Upstream, key_file: Path, others: Sequence[str]) -> None:
        self.host = host
        self.directory = host.directory / "agent"
        self.data = self.directory / "data"
        self.config = self.directory / "config.toml"
        self.directory.mkdir()
        self._upstream, self._key_file, self._others = upstream, key_file, others
        self._retired: list[Metrics] = []
        self._program: Program | None = None
        self.settings: dict[str, str] = {}
        self.frozen = False

    @property
    def running(self) -> bool:
        return self._program is not None and self._program.running

    @property
    def pid(self) -> int:
        assert self._program is not None
        return self._program.pid

    def start(self, settings: Settings | None = None) -> None:
        """Write the configuration and start, without waiting; ``settings`` hold until the next start that gives some."""
        if settings is not None:
            self.settings = dict(settings)
        self.config.write_text(self._config())
        extra = [
            word
            for key, value in self.settings.items()
            for word in ("--set", f"{key}={value.format(agent=self.directory)}")
        ]
        argv = [sys.executable, "-m", "p2pdist", "agent", "--config", str(self.config), *extra]
        self._program = Program(
            self.host, "agent", argv, {"HOME": str(self.directory), "PYTHONPATH": REPOSITORY}
        )
        self._program.start()

    def wait(self) -> None:
        """Until /readyz says yes."""
        assert self._program is not None
        self._program.wait(self.ready)

    def stop(self) -> int | None:
        """SIGTERM; returns the exit code."""
        self._retire()
        return self._program.stop(30) if self._program else None

    def kill(self) -> None:
        """SIGKILL."""
        self._retire()
        self.frozen = False
        if self._program is not None:
            self._program.kill()

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and says nothing. ``thaw`` ends it."""
        self._retire()
        os.kill(self.pid, signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT, where it is frozen."""
        if self.frozen and self.running:
            os.kill(self.pid, signal.SIGCONT)
            self._retired.pop()
        self.frozen = False

    def wipe(self) -> None:
        """Remove what it stored (it must not run)."""
        assert not self.running
        shutil.rmtree(self.data, ignore_errors=True)

    def ready(self) -> bool:
        try:
            return self.admin("/readyz").status == 200
        except OSError:
            return False

    def admin(self, path: str) -> Reply:
        """GET from the admin listener."""
        return self.host.request("GET", ADMIN_PORT, path)

    def mirror(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        """A request to the mirror, as a client on the same host."""
        return self.host.request(method, MIRROR_PORT, path, headers=headers, seconds=60)

    def metrics(self) -> Metrics:
        """Now; nothing where it does not answer."""
        if not self.running or self.frozen:
            return NO_METRICS
        try:
            return Metrics(self.admin("/metrics").body.decode())
        except OSError:
            return NO_METRICS

    def cli(self, *words: str) -> str:
        """A command of p2pdist on this host, against the running agent."""
        return self.host.run(
            sys.executable,
            "-m",
            "p2pdist",
            *words,
            env={"P2PDIST_CONFIG": str(self.config), "PYTHONPATH": REPOSITORY},
        )

    def total(self, name: str, **labels: str) -> float:
        """A counter's value over this agent's lives."""
        return sum(reading.value(name, **labels) for reading in [*self._retired, self.metrics()])

    def blob_path(self, digest: Digest) -> Path:
        """Where its store has a blob: the store is an OCI image layout."""
        return self.data / "store" / "blobs" / digest.algorithm / digest.hex

    def logs(self) -> str:
        return self._program.tail() if self._program else ""

    def log_text(self) -> str:
        """All that it ever logged."""
        return self._program.log.read_text(errors="replace") if self._program else ""

    def _retire(self) -> None:
        self._retired.append(self.metrics())

    def _config(self) -> str:
        others = ", ".join(f'"{address}:{PEER_PORT}"' for address in self._others)
        password = self.directory / "password"
        password.write_text(tokenserver.USERS["puller"])
        password.chmod(0o600)
        login = self._credentials(password)
        return (
            f'[agent]\ndata_dir = "{self.data}"\nname = "{self.host.name}"\nlog_level = "debug"\n'
            f'[peer]\nadvertise = "{self.host.address}:{PEER_PORT}"\nbootstrap = [{others}]\n'
            f'cluster_key_file = "{self._key_file}"\n'
            f'[registries."docker.io"]\nca_file = "{self._upstream.tls.authority}"\n'
            + "".join(self._registry(PLAIN, name, "") for name in (PLAIN, without_port(PLAIN)))
            + "".join(self._registry(PRIVATE, name, login) for name in (PRIVATE, without_port(PRIVATE)))
        )

    @staticmethod
    def _registry(where: str, name: str, login: str) -> str:
        """A table; a registry with a port has two, since podman's mirror path cannot name the port."""
        return f'[registries."{name}"]\nurl = "http://{where}"\n{login}'

    def _credentials(self, password: Path) -> str:
        """The configuration has the password, except where a test gives a Docker config.json."""
        if "agent.docker_config" in self.settings:
            return ""
        return f'username = "puller"\npassword_file = "{password}"\n'


class Cluster:
    """All agents. ``ensure`` gives a test running ones as they are; ``fresh`` gives it empty ones."""

    def __init__(self, hosts: Sequence[Host], upstream: Upstream, directory: Path) -> None:
        key_file = directory / "cluster.key"
        key = subprocess.run(
            [sys.executable, "-m", "p2pdist", "cluster", "key"],
            check=True,
            capture_output=True,
            cwd=REPOSITORY,
        )
        key_file.touch(mode=0o600)
        key_file.write_bytes(key.stdout)
        self.key = key.stdout.decode().strip()
        self._spoiled = False
        authority = TestAuthority("e2e peers")
        addresses = [host.address for host in hosts]
        self.agents = [
            Agent(host, upstream, key_file, [a for a in addresses if a != host.address]) for host in hosts
        ]
        for agent in self.agents:
            authority.issue(agent.directory / "tls", agent.host.name, agent.host.address)

    def ensure(self, settings: Settings) -> None:
        """Have all agents run with these settings, and know each other; they start empty where that needs a change."""
        for agent in self.agents:
            agent.thaw()
        if self._spoiled or any(agent.settings != settings for agent in self.agents):
            self.fresh(settings)
        else:
            self._start([agent for agent in self.agents if not agent.running], None)

    def spoil(self) -> None:
        """Say that stores or opinions of each other are no longer sound: the next test gets fresh agents."""
        self._spoiled = True

    def fresh(self, settings: Settings | None = None) -> None:
        """Start all agents anew with empty stores."""
        self._spoiled = False
        self.stop()
        for agent in self.agents:
            agent.wipe()
        self._start(self.agents, settings or {})

    def restart(self, agent: Agent, settings: Settings | None = None) -> None:
        """Start an agent that was stopped or killed, with what it had stored."""
        self._start([agent], settings)

    def wait_connected(self) -> None:
        """Until every running agent knows all the other running ones."""
        running = [agent for agent in self.agents if agent.running]
        for agent in running:
            self.await_metric(agent, lambda m: m.value("p2pdist_peers") >= len(running) - 1, "peers known")

    def await_metric(
        self, agent: Agent, holds: Callable[[Metrics], bool], what: str, seconds: float = 45
    ) -> None:
        """Until an agent's metrics satisfy ``holds``; fails with its log."""
        try:
            wait_until(lambda: holds(agent.metrics()), seconds, f"{what} at {agent.host.name}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{agent.logs()}") from None

    def total(self, name: str, **labels: str) -> float:
        """A counter over all agents and their lives."""
        return sum(agent.total(name, **labels) for agent in self.agents)

    def stop(self) -> None:
        """SIGTERM to all that run."""
        for agent in self.agents:
            if agent.running:
                agent.stop()

    def logs(self) -> str:
        return "\n".join(agent.logs() for agent in self.agents)

    def _start(self, agents: Sequence[Agent], settings: Settings | None) -> None:
        for agent in agents:
            agent.start(settings)
        for agent in agents:
            agent.wait()
        if agents:
            self.wait_connected()
