"""A machine whose first process is systemd, in namespaces of its own, with the agent installed where its unit looks for it.

systemd-nspawn boots it on this machine's ``/usr``, in half a second. All else is a directory that is thrown away; the
network is a loopback.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.e2e.guard import Run, wait_until
from tests.e2e.netlab import CommandError, command
from tests.unit.deploy.files import ROOT

DIRECTORIES = (
    "usr",
    "etc/systemd/system",
    "opt/p2pdist/bin",
    "var",
    "tmp",
    "proc",
    "sys",
    "dev",
    "run",
    "root",
)
TARGET = "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# In place of the virtual environment, whose paths are those of this machine. Its Python may need its own library.
PROGRAM = f"""\
#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/p2pdist/source:/opt/p2pdist/packages
exec /opt/python/bin/{PYTHON} -B -m p2pdist "$@"
"""


class Machine:
    """Booted by ``start``. Commands in it are run as root."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.root = run.directory / "machine"
        self._log = run.directory / "machine.log"
        self._process: subprocess.Popen[bytes] | None = None
        for name in DIRECTORIES:
            (self.root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / name).symlink_to(f"usr/{name}")
        shutil.copy("/usr/lib/os-release", self.root / "etc" / "os-release")
        # With an id it is no first boot, which would enable every unit of this machine's packages.
        self.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        self.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
        self.write("etc/group", "root:x:0:\n")
        self.write("etc/systemd/system/machine.target", TARGET)
        self.write("opt/p2pdist/bin/p2pdist", PROGRAM, 0o755)

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def start(self) -> None:
        binds = {
            "/usr": "/usr",
            sys.base_prefix: "/opt/python",
            str(ROOT / "p2pdist"): "/opt/p2pdist/source/p2pdist",
            sysconfig.get_path("purelib"): "/opt/p2pdist/packages",
        }
        words = [f"--bind-ro={source}:{target}" for source, target in binds.items()]
        alone = ["--quiet", "--register=no", "--keep-unit", "--private-network", "--console=pipe"]
        alone += ["--tmpfs=/usr/local/bin"]
        argv = ["systemd-nspawn", *alone, f"--directory={self.root}", *words, "--boot"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *argv, "systemd.unit=machine.target"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._run.process(self._process.pid)
        try:
            wait_until(self._up, 30, "systemd to boot")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._log.read_text(errors='replace')[-4000:]}") from None

    def sh(self, line: str, seconds: float = 60) -> str:
        """A shell's command line in it, to its end; CommandError when that fails."""
        inside = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"]
        argv = ["nsenter", "--target", self._first(), *inside, "--", "sh", "-e", "-c", line]
        return command(argv, seconds=seconds, env={"PATH": "/usr/local/bin:/usr/bin:/usr/sbin"})

    def show(self, unit: str, name: str) -> str:
        """What systemd says of a unit's property."""
        return self.sh(f"systemctl show --property={name} --value {unit}").strip()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _first(self) -> str:
        """Process 1, as it is numbered outside."""
        assert self._process is not None
        at = Path(f"/proc/{self._process.pid}")
        children = (at / "task" / str(self._process.pid) / "children").read_text().split()
        if not children:
            raise CommandError("systemd-nspawn has no child yet")
        return children[0]

    def _up(self) -> bool:
        try:
            return self.sh("systemctl is-active machine.target").strip() == "active"
        except (CommandError, FileNotFoundError):
            assert self._process is not None
            assert self._process.poll() is None, "systemd-nspawn ended"
            return False
