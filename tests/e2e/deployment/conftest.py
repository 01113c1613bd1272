"""One engine, and the agent's image, for all tests of the deployment files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pdist import __version__
from tests.e2e.deployment.engine import Engine
from tests.e2e.deployment.rootfs import python_base
from tests.e2e.lab import Lab
from tests.e2e.netlab import Host
from tests.unit.deploy.files import COMPOSE, ROOT

IMAGE, BASE = f"p2pdist:{__version__}", "base:test"


@pytest.fixture(scope="session")
def engine(whole_lab: Lab) -> Iterator[Engine]:
    up = whole_lab.net.up
    host = Host(up.run_record, "engine", 249, whole_lab.net.switch, {})
    engine = Engine(host)
    try:
        engine.start()
        yield engine
    finally:
        engine.close()
        host.close()


@pytest.fixture(scope="session")
def image(engine: Engine, wheels: Path) -> str:
    """The agent's image, built by compose/Dockerfile without any network."""
    engine.load(python_base(engine.directory / "base.tar", wheels), BASE, "ENV PATH=/usr/local/bin:/bin")
    given = {"BASE": BASE, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
    arguments = [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
    file = str(COMPOSE / "Dockerfile")
    engine.docker(
        "build", "--network", "none", "--tag", IMAGE, "--file", file, *arguments, str(ROOT), seconds=180
    )
    return IMAGE


def answers(engine: Engine, port: int, path: str) -> bool:
    try:
        return engine.host.request("GET", port, path).status == 200
    except OSError:
        return False
