"""The whole lab: network, upstream registries, agents, runtimes and images, made once for a test session.

To add a case, write a test that takes ``lab`` (and ``runtime``, to have it for each of them):

    @every_runtime
    def test_it(lab: Lab, runtime: str) -> None:
        image = lab.images.image()
        lab.pull(runtime, 1, image)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.agents import Agent, Cluster, Settings
from tests.e2e.guard import Run, sweep, wait_until
from tests.e2e.images import ImageShop, Pushed
from tests.e2e.netlab import Host, NetLab
from tests.e2e.runtimes import RUNTIMES, Docker, Runtime, configure_containers
from tests.e2e.upstream import NAMES, Served, Upstream

HOSTS = 3
every_runtime = pytest.mark.parametrize("runtime", list(RUNTIMES))
running_runtime = pytest.mark.parametrize("runtime", [name for name, kind in RUNTIMES.items() if kind.runs])
PULL_SECONDS = 90


def runtimes(*names: str) -> pytest.MarkDecorator:
    """Only these."""
    assert set(names) <= set(RUNTIMES)
    return pytest.mark.parametrize("runtime", names)


@dataclass
class Watch:
    """What the upstream sent while a ``with lab.watch()`` block ran; complete once it ended."""

    served: Served = field(default_factory=lambda: Served(()))
    wire_bytes: int = 0


class Lab:
    """See the module's text. Hosts, agents and runtimes are numbered from 1."""

    def __init__(self, hosts: int = HOSTS) -> None:
        sweep()
        self._run = Run()
        self._runtimes: dict[tuple[str, int], Runtime] = {}
        try:
            self.net = NetLab(self._run, hosts, NAMES)
            self.upstream = Upstream(self.net.up, self._run.directory / "upstream")
            for host in (self.net.up, *self.net.hosts):
                host.env["SSL_CERT_FILE"] = str(self.upstream.bundle)
                configure_containers(host)
            self.images = ImageShop(self.upstream, self._run.directory)
            self.cluster = Cluster(self.net.hosts, self.upstream, self._run.directory)
            self.upstream.start()
        except BaseException:
            self._run.close()
            raise

    def host(self, number: int) -> Host:
        return self.net.hosts[number - 1]

    def agent(self, number: int) -> Agent:
        return self.cluster.agents[number - 1]

    def ready(self, settings: Settings) -> None:
        """As each test finds the lab: whole links, upstream up, all agents running with these settings."""
        self.net.heal()
        self.upstream.start()
        self.cluster.ensure(settings)

    def start_runtimes(self, name: str, numbers: Iterable[int]) -> None:
        """Have a runtime's daemons run on these hosts, started at the same time."""
        new = [number for number in numbers if (name, number) not in self._runtimes]
        for number in new:
            self._runtimes[name, number] = RUNTIMES[name](self.host(number))
            self._runtimes[name, number].start()
        for number in new:
            self._runtimes[name, number].wait()

    def runtime(self, name: str, number: int) -> Runtime:
        """A runtime on a host, started when it does not run yet."""
        self.start_runtimes(name, [number])
        return self._runtimes[name, number]

    def docker(self, number: int) -> Docker:
        docker = self.runtime("docker", number)
        assert isinstance(docker, Docker)
        return docker

    def pull(self, name: str, number: int, image: Pushed) -> None:
        """Pull an image with a runtime on a host."""
        self.runtime(name, number).pull(image)

    def run(self, name: str, number: int, image: Pushed) -> None:
        """Run a pulled image, and see that it is the one that was pushed."""
        printed = self.runtime(name, number).run(image)
        assert printed.strip() == image.label, f"{image.ref} printed {printed!r}"

    @contextlib.contextmanager
    def watch(self) -> Iterator[Watch]:
        """Count what the upstream sends during the block."""
        watch = Watch()
        since, before = self.upstream.mark(), self.net.up.sent_bytes()
        yield watch
        watch.wire_bytes = self.net.up.sent_bytes() - before
        watch.served = self.upstream.served(since)

    @contextlib.contextmanager
    def meanwhile(self, action: Callable[[], None], *, may_fail: bool = False) -> Iterator[threading.Thread]:
        """Run ``action`` in a thread during the block; the block's end waits for it, and raises what it raised."""
        errors: list[BaseException] = []

        def work() -> None:
            try:
                action()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield thread
        finally:
            thread.join(2 * PULL_SECONDS)
        assert not thread.is_alive(), "the action in the background hangs"
        if errors and not may_fail:
            raise errors[0]

    def await_bytes(self, read: Callable[[], int], more: int, doing: threading.Thread) -> None:
        """Until a byte counter has grown by ``more`` while ``doing`` still runs, so that one is in mid-transfer."""
        start = read()
        wait_until(
            lambda: read() - start >= more or not doing.is_alive(), PULL_SECONDS, f"{more} bytes on the link"
        )
        assert doing.is_alive(), "the transfer ended before it was half-way: nothing to interrupt"

    def logs(self) -> str:
        """What every program said last."""
        parts = [self.upstream.logs(), self.cluster.logs(), *(r.logs() for r in self._runtimes.values())]
        return "\n".join(part for part in parts if part)

    def close(self) -> None:
        """Stop everything and leave nothing."""
        try:
            for runtime in self._runtimes.values():
                runtime.stop()
            self.cluster.stop()
            self.upstream.stop()
            self.net.close()
        finally:
            keep_logs(self._run.directory)
            self._run.close()


def keep_logs(directory: Path) -> None:
    """Copy all logs to $E2E_LOGS, where that names a directory."""
    target = os.environ.get("E2E_LOGS")
    for log in directory.glob("*/*.log") if target else ():
        copy = Path(str(target)) / f"{log.parent.name}-{log.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, copy)
