"""A container engine for the tests of ``compose/``: dockerd with bridges, alone in namespaces of its own.

It has its own process ids, mounts and network, so that with it everything ends that it ever started. Images come from
tars and from Dockerfiles; nothing is pulled.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.netlab import CommandError, Host
from tests.e2e.programs import Program

COMPOSE = Path(sys.executable).parent / "docker-compose"


class Engine:
    """dockerd on one host of the lab, and the command lines that speak to it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.directory = host.directory / "d"
        self.directory.mkdir()
        socket = f"unix://{self.directory}/s"
        at = ["-H", socket, "--data-root", f"{self.directory}/root", "--exec-root", f"{self.directory}/exec"]
        alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._daemon = Program(host, "engine", [*alone, "dockerd", *at, "--pidfile", f"{self.directory}/pid"])
        # The builder without BuildKit is the one that every engine has, Debian's included.
        self.env = {
            "DOCKER_HOST": socket,
            "DOCKER_CONFIG": str(self.directory / "client"),
            "DOCKER_BUILDKIT": "0",
        }

    def start(self) -> None:
        self._daemon.start()
        self._daemon.wait(self._answers)

    def close(self) -> None:
        """End it, and with it every container."""
        self._daemon.kill()

    def docker(self, *words: str, seconds: float = 90) -> str:
        return self.host.run("docker", *words, seconds=seconds, env=self.env)

    def load(self, tar: Path, name: str, *changes: str) -> None:
        """An image of one layer from a root file system; ``changes`` are Dockerfile lines (USER, ENTRYPOINT, ...)."""
        self.docker("import", *(word for line in changes for word in ("--change", line)), str(tar), name)

    def inspect(self, name: str) -> Any:
        return json.loads(self.docker("inspect", name))[0]

    def logs(self) -> str:
        return self._daemon.tail()

    def _answers(self) -> bool:
        try:
            self.docker("version", seconds=5)
        except CommandError:
            return False
        return True


class Project:
    """``docker compose`` for one file."""

    def __init__(self, engine: Engine, file: Path, env: Mapping[str, str]) -> None:
        self.engine = engine
        self._file = file
        self._env = {**engine.env, **env}

    def up(self, *services: str) -> None:
        self.compose("up", "--detach", "--no-build", "--pull", "never", "--quiet-pull", *services)

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "1")

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "40")

    def compose(self, *words: str, seconds: float = 90) -> str:
        return self.engine.host.run(
            str(COMPOSE), "-f", str(self._file), *words, seconds=seconds, env=self._env
        )


def run_quietly(engine: Engine, words: Sequence[str]) -> int:
    """The exit code of a docker command line; 0 or what failed."""
    try:
        engine.docker(*words)
    except CommandError as error:
        return int(str(error).partition(": exit ")[2].partition("\n")[0] or 1)
    return 0
