"""Telling systemd how the service does (sd_notify(3)); without NOTIFY_SOCKET every call does nothing.

Rules: nothing here ever raises or blocks: a service manager that does not listen is no reason to stop serving.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self


class Notifier:
    """A datagram socket to the service manager; a context manager. Only ``from_env`` needs to know systemd's variables."""

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        """``watchdog``: seconds within which the manager wants to hear ``alive``; None when it does not."""
        self.watchdog = watchdog if address else None
        self._address = address
        self._socket: socket.socket | None = None
        if address is not None:
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Notifier:
        """Read NOTIFY_SOCKET, and WATCHDOG_USEC when it is meant for this process (sd_watchdog_enabled(3))."""
        path = env.get("NOTIFY_SOCKET", "")
        if path.startswith("@"):
            address: str | None = "\0" + path[1:]
        else:
            address = path if path.startswith("/") else None
        microseconds, for_pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
        ours = not for_pid or for_pid == str(os.getpid())
        enabled = ours and microseconds.isascii() and microseconds.isdigit() and int(microseconds[:18]) > 0
        return cls(address, int(microseconds[:18]) / 1e6 if enabled else None)

    def ready(self, status: str = "") -> None:
        self._send("READY=1", *_status(status))

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", *_status(status))

    def reloading(self) -> None:
        """Call ``ready`` when done. The time stamp is what Type=notify-reload wants (systemd 253)."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def alive(self) -> None:
        """Feed the watchdog; at least twice per ``watchdog`` seconds."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line that ``systemctl status`` shows."""
        self._send(*_status(text))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is None or self._address is None or not lines:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except (OSError, ValueError):
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())[:500]}",) if text.strip() else ()
