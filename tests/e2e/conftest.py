"""Fixtures of the end-to-end tests: the lab, and the table at the end.

They need root and real programs. Without them the whole directory is skipped, once and loudly, with the way to mend
it; where CI is set the packages are installed, and what is still missing fails the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.agents import Settings
from tests.e2e.lab import Lab
from tests.e2e.report import Report, Row
from tests.e2e.wheels import download_wheels

HERE = Path(__file__).parent
INSTALLER = HERE.parents[1] / "bin" / ".e2e-packages.sh"
PROGRAMS = (
    "containerd", "ctr", "dockerd", "docker", "podman", "skopeo", "buildah", "docker-registry", "runc",
    "busybox", "nft", "ip", "tc", "nsenter", "unshare", "setpriv", "curl", "jq", "prometheus", "promtool", "systemd-analyze",
    "systemd-nspawn", "ssh", "sshd",
)  # fmt: skip
SECONDS_PER_TEST = 240

report_key = pytest.StashKey[Report]()
row_key = pytest.StashKey[Row]()


def missing() -> str:
    """Why the tests cannot run here, and what to do about it; "" when they can."""
    if os.geteuid() != 0:
        return "needs root (network namespaces, container runtimes): run bin/test as root"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"lacks {', '.join(lacking)}: run bin/.e2e-packages.sh" if lacking else ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    if not mine:
        return
    config.stash[report_key] = report = Report()
    reason = missing()
    if reason and os.environ.get("CI") and os.geteuid() == 0:
        subprocess.run([INSTALLER], check=True)
        reason = missing()
    if reason and os.environ.get("CI"):
        raise pytest.UsageError(f"tests/e2e cannot run in CI: {reason}")
    report.not_run = reason
    for item in mine:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(SECONDS_PER_TEST))
    if reason:  # one skip that stands for all is read; a hundred are scrolled past
        mine[0].add_marker(pytest.mark.skip(reason=f"all {len(mine)} cases of tests/e2e: {reason}"))
        config.hook.pytest_deselected(items=mine[1:])
        items[:] = [item for item in items if item not in mine[1:]]


@pytest.fixture(scope="session")
def whole_lab() -> Iterator[Lab]:
    """The lab as it stands; most tests take ``lab``."""
    lab = Lab()
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a host without a network installs the agent from."""
    return download_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def agent_settings() -> Settings:
    """What the agents' configuration has beside the ordinary; a class or module of tests overrides it."""
    return {}


@pytest.fixture
def lab(whole_lab: Lab, agent_settings: Settings, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab with whole links, upstream and all agents up; what the case moves goes into the table."""
    whole_lab.ready(agent_settings)
    callspec = getattr(request.node, "callspec", None)
    variant = "-".join(str(value) for value in callspec.params.values()) if callspec else ""
    row = Row(request.node.originalname.removeprefix("test_").replace("_", " "), variant)
    request.node.stash[row_key] = row
    cluster, since = whole_lab.cluster, whole_lab.upstream.mark()
    clients = cluster.total("p2pdist_client_bytes_total")
    peers = cluster.total("p2pdist_received_bytes_total", source="peer")
    started = time.monotonic()
    yield whole_lab
    row.seconds = time.monotonic() - started
    row.upstream_bytes = whole_lab.upstream.served(since).content_bytes
    row.peer_bytes = round(cluster.total("p2pdist_received_bytes_total", source="peer") - peers)
    row.client_bytes = round(cluster.total("p2pdist_client_bytes_total") - clients)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    row = item.stash.get(row_key, None)
    if row is not None and (call.when == "call" or outcome.failed):
        row.result = "error" if outcome.failed and call.when != "call" else outcome.outcome
        if row.result not in ("passed", "skipped") and "lab" in getattr(item, "funcargs", {}):
            outcome.sections.append(("programs of the lab", item.funcargs["lab"].logs()))
    if row is not None and call.when == "teardown":
        item.config.stash[report_key].rows.append(row)
    return outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash.get(report_key, None)
    if report is None:
        return
    if report.not_run:
        terminalreporter.section("END-TO-END TESTS DID NOT RUN", red=True, bold=True)
        terminalreporter.line(f"tests/e2e {report.not_run}")
    elif report.rows:
        terminalreporter.section("end-to-end cases, with the real programs")
        for line in report.lines():
            terminalreporter.line(line)
