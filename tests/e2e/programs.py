"""Long-running programs on a host of the lab: started, awaited by what they answer, stopped, and quoted when they fail."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.guard import wait_until
from tests.e2e.netlab import Host

TAIL = 6000
# Programs are to die with us, and Linux takes that to mean the thread that started them (prctl(2), PR_SET_PDEATHSIG):
# so all are started by one thread that lives as long as the process.
_SPAWNER = ThreadPoolExecutor(max_workers=1)


def clean_environment() -> dict[str, str]:
    """Ours without what would configure an agent behind a test's back."""
    return {name: value for name, value in os.environ.items() if not name.startswith("P2PDIST_")}


class Program:
    """One program on one host. It may be started again after it was stopped; its log goes on in the same file."""

    def __init__(
        self, host: Host, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> None:
        self.host = host
        self.name = name
        self._argv = argv
        self._env = dict(env or {})
        self.log: Path = host.directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the program itself: everything before it on its command line replaced itself by exec."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, without waiting for anything."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = _SPAWNER.submit(
                subprocess.Popen,
                self.host.argv(self._argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**clean_environment(), **self.host.env, **self._env},
                start_new_session=True,
            ).result()
        self.host.run_record.process(self._process.pid)

    def wait(self, ready: Callable[[], bool], seconds: float = 45) -> None:
        """Until ``ready()``; AssertionError with the log's end when the program dies before, or takes longer."""
        try:
            wait_until(lambda: not self.running or ready(), seconds, f"{self.name} on {self.host.name} ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None
        assert self.running, f"{self.name} on {self.host.name} ended at start\n{self.tail()}"

    def stop(self, seconds: float = 20) -> int | None:
        """SIGTERM, and SIGKILL when that does nothing; returns the exit code."""
        if self._process is None:
            return None
        self._process.terminate()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def tail(self) -> str:
        """The end of the log, with a heading."""
        text = self.log.read_bytes()[-TAIL:].decode(errors="replace") if self.log.exists() else "(no log)"
        return f"--- end of {self.log.name} of {self.host.name} ---\n{text}"
