"""The demo's directory and child processes.

Always true here: only processes started here are ever signalled, by pid; they die with the demo even if it is killed
outright (PR_SET_PDEATHSIG); a directory that a killed demo left is removed by the next one, once its owner is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pdist.cli.errors import CommandError

PREFIX = "p2pdist-demo-"
STOP_TIMEOUT = 15.0
_PR_SET_PDEATHSIG = 1
_LOG_TAIL = 15
# Below Linux's ephemeral ports, so that no outgoing connection takes one between the choice and its use.
_PORTS = range(20000, 32000)


class Workspace:
    """A temporary directory with an owner."""

    def __init__(self) -> None:
        remove_stale(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        (self.path / "owner").write_text(process_identity(os.getpid()))

    def keep(self) -> None:
        """Let it outlive the demo, and every later one."""
        (self.path / "owner").unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def remove_stale(parent: Path) -> None:
    """Remove what demos of this user left that were killed before they could clean up."""
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            owner = (path / "owner").read_text()
            if path.stat().st_uid == os.getuid() and process_identity(int(owner.split()[0])) != owner:
                shutil.rmtree(path, ignore_errors=True)


def process_identity(pid: int) -> str:
    """``PID START``, so that a later process with the same number is another one; only ``PID`` when it is gone."""
    try:
        # After the command's closing parenthesis; the start time is field 22 of proc(5)'s stat, the 20th after it.
        return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return str(pid)


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """For children: nothing of the user's own configuration, and no proxy between processes of one machine."""
    return {
        name: value
        for name, value in env.items()
        if not name.startswith("P2PDIST_") and not name.lower().endswith("_proxy") and name != "NOTIFY_SOCKET"
    }


@dataclass(slots=True)
class Child:
    """A process of the demo. Its output goes to ``log``."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str], directory: Path) -> Child:
        """``python -m ARGUMENTS`` with this interpreter."""
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        log = directory / "log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *arguments,
                cwd=directory,
                env=child_environment(os.environ) | _import_path(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is for the demo, which then stops these in order
                preexec_fn=die_with(os.getpid()),
            )
        return cls(name, process, log)

    def check(self) -> None:
        """Raise CommandError with the end of the log if it has ended."""
        if self.process.returncode is not None:
            raise CommandError(
                f"{self.name} ended early (exit code {self.process.returncode})\n{self.tail()}"
            )

    def tail(self) -> str:
        """The last lines of its log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
        except OSError as error:
            return f"(no log: {error.strerror})"
        return "\n".join(f"  {self.name}: {line}" for line in lines)

    async def stop(self) -> int:
        """Ask it to stop, then insist; its exit code."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT)
        return -signal.SIGKILL


def die_with(parent: int) -> Callable[[], None]:
    """A pre-exec step: be killed when the parent dies, however it dies. Linux only; elsewhere it does nothing."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return lambda: None

    def apply() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return apply


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free for TCP and UDP now; raises CommandError when there are not enough."""
    held: list[socket.socket] = []
    found: list[int] = []
    try:
        for port in random.sample(_PORTS, len(_PORTS)):
            if len(found) == count:
                return found
            pair = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
            held += pair
            with contextlib.suppress(OSError):
                for each in pair:
                    each.bind(("127.0.0.1", port))
                found.append(port)
    finally:
        for each in held:
            each.close()
    raise CommandError(
        f"fewer than {count} free ports from {_PORTS.start} to {_PORTS.stop - 1}", "stop other programs"
    )


def _import_path() -> dict[str, str]:
    """Children run this very package, also from a checkout that is not installed, whatever directory they start in."""
    import p2pdist

    root = str(Path(p2pdist.__file__).resolve().parent.parent)
    return {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
