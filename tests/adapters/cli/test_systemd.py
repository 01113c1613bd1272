"""sd_notify on real datagram sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pdist.agent.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and NOTIFY_SOCKET for it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"\0p2pdist-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name)
        listener.settimeout(10)
        yield listener, name.replace("\0", "@")


def test_the_life_of_a_service(manager: tuple[socket.socket, str]) -> None:
    listener, address = manager
    with Notifier.from_env({"NOTIFY_SOCKET": address}) as notifier:
        notifier.ready("mirror on 127.0.0.1:5050\nX=1")
        assert listener.recv(4096) == b"READY=1\nSTATUS=mirror on 127.0.0.1:5050 X=1"
        notifier.alive()
        assert listener.recv(4096) == b"WATCHDOG=1"
        notifier.status("3 transfers")
        assert listener.recv(4096) == b"STATUS=3 transfers"
        notifier.reloading()
        first, second = listener.recv(4096).split(b"\n")
        assert first == b"RELOADING=1"
        assert int(second.removeprefix(b"MONOTONIC_USEC=")) > 0
        notifier.stopping()
        assert listener.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "relative", "/nonexistent/socket", "@", "/" + "x" * 200, "@a\0b"])
def test_no_manager_or_a_strange_one_is_no_obstacle(address: str) -> None:
    with Notifier.from_env({"NOTIFY_SOCKET": address}) as notifier:
        notifier.ready()
        notifier.alive()
        notifier.stopping()
    notifier.alive()


def test_a_manager_that_does_not_read_blocks_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        with Notifier.from_env({"NOTIFY_SOCKET": str(tmp_path / "notify")}) as notifier:
            for _ in range(5000):
                notifier.alive()


@pytest.mark.parametrize(
    ("env", "watchdog"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_interval(env: dict[str, str], watchdog: float | None) -> None:
    with Notifier.from_env({"NOTIFY_SOCKET": "/x", **env}) as notifier:
        assert notifier.watchdog == watchdog
    with Notifier.from_env(env) as notifier:
        assert notifier.watchdog is None
