"""The demo as a whole, with a stand-in for the agents: what it says, and that it leaves nothing behind.

The demo with real agents is in tests/e2e.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN = """
import sys
from p2pdist.cli.demo import cluster
from p2pdist.cli.main import main
cluster.AGENT = sys.argv[1].split()
main(sys.argv[2:])
"""
STAND_IN = "tests.adapters.cli.stand_in_agent"


@contextmanager
def demo(directory: Path, *options: str, agent: str = STAND_IN) -> Iterator[subprocess.Popen[str]]:
    """``p2pdist demo`` in a process, its temporary files below ``directory``."""
    command = [sys.executable, "-c", RUN, agent, "demo", "--scale", "0.002", *options]
    env = {**os.environ, "TMPDIR": str(directory), "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, cwd=directory) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """Standard error up to the line with these words."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"never said {words!r}: {lines}")


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pids: list[int]) -> bool:
    """Whether these processes end, waiting for them as long as it takes a slow machine."""
    for pid in pids:
        try:
            watch = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([watch], [], [], 60)[0]:
                return False
        finally:
            os.close(watch)
    return True


def test_one_host_needs_one_copy_and_the_promises_hold(tmp_path: Path) -> None:
    with demo(tmp_path, "--agents", "1", "--json") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    figures = json.loads(out)
    assert figures["held"]
    assert figures["upstream_bytes"] == figures["unique_bytes"]
    assert len(figures["promises"]) == 5
    assert list(tmp_path.iterdir()) == []


def test_hosts_that_share_nothing_break_a_promise(tmp_path: Path) -> None:
    with demo(tmp_path, "--agents", "2") as process:
        out, err = process.communicate()
    assert process.returncode == 4, err
    assert "BROKEN  at most" in out
    assert "2.000 copies for 2 hosts" in out
    assert out.count("held  ") == 4
    assert "agent-2" in out
    assert list(tmp_path.iterdir()) == []


def test_agents_that_do_not_start_are_shown_with_their_log(tmp_path: Path) -> None:
    with demo(tmp_path, agent="no.such.module") as process:
        out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert "agent-1 ended early" in err
    assert "No module named" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_in_the_middle_it_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path, "--agents", "1") as process:
        lines_until(process, "starting a registry")
        process.send_signal(number)
        process.communicate()
        assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_kept_it_runs_until_it_is_stopped_and_keeps_the_files(tmp_path: Path) -> None:
    with demo(tmp_path, "--agents", "1", "--keep") as process:
        lines_until(process, "running until Ctrl-C")
        running = children(process.pid)
        assert len(running) == 2
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode == 0
        assert gone(running)
    (kept,) = tmp_path.iterdir()
    assert (kept / "agent-1" / "config.toml").exists()


def test_killed_outright_it_leaves_no_process_and_the_next_one_removes_its_files(tmp_path: Path) -> None:
    with demo(tmp_path, "--agents", "1", "--keep") as process:
        lines_until(process, "running until Ctrl-C")
        running = children(process.pid)
        process.kill()
        process.wait()
        assert gone(running)
    assert len(list(tmp_path.iterdir())) == 1
    with demo(tmp_path, "--agents", "1") as process:
        process.communicate()
    assert list(tmp_path.iterdir()) == []
