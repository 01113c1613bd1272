"""Root file systems for container images, made of this machine's own programs: no image registry is needed.

A file system is a tar: busybox for a shell, the programs that were asked for at their usual places, and the shared
libraries that they name. ``python_base`` is what the agent's Dockerfile builds on.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Of the standard library, what neither the agent nor pip needs.
LEFT_OUT = {"__pycache__", "dist-packages", "idlelib", "lib2to3", "site-packages", "test", "tests", "tkinter"}
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)")


class RootFs:
    """A tar that grows; ``close`` finishes it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._tar = tarfile.open(file, "w", dereference=True)  # noqa: SIM115  (closed by close)
        self._has: set[str] = set()
        for name, mode in (
            ("tmp", 0o1777),
            ("var/tmp", 0o1777),
            ("etc", 0o755),
            ("proc", 0o555),
            ("bin", 0o755),
        ):
            self.directory(name, mode)  # fmt: skip
        self.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        self.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
        self.add(BUSYBOX, "bin/busybox")
        for applet in subprocess.run(
            [BUSYBOX, "--list"], check=True, capture_output=True, text=True
        ).stdout.split():
            self.link(f"bin/{applet}", "busybox")  # fmt: skip

    def directory(self, name: str, mode: int = 0o755, owner: int = 0) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
        self._tar.addfile(entry)

    def text(self, name: str, content: str) -> None:
        data = content.encode()
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), 0o644
        self._tar.addfile(entry, io.BytesIO(data))

    def link(self, name: str, target: str) -> None:
        if name != "bin/busybox" and name not in self._has:
            self._has.add(name)
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
            self._tar.addfile(entry)

    def add(self, source: Path, name: str) -> None:
        """A file, or a directory without what LEFT_OUT names; once."""
        if name not in self._has:
            self._has.add(name)
            self._tar.add(source, name, filter=_as_root)

    def libraries_of(self, programs: Iterable[Path]) -> None:
        """The shared libraries that these load, at the paths where they look for them."""
        listed = subprocess.run(["ldd", *programs], check=False, capture_output=True, text=True)
        for library in sorted(set(_LIBRARY.findall(listed.stdout))):
            self.add(Path(library), library.lstrip("/"))

    def program(self, name: str, at: str) -> None:
        """A program of this machine, found on the PATH, with its libraries."""
        found = shutil.which(name)
        assert found is not None, f"{name} is not on the PATH"
        self.add(Path(found).resolve(), at)
        self.libraries_of([Path(found)])

    def close(self) -> Path:
        self._tar.close()
        return self.file


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = Path(entry.name).parts
    if LEFT_OUT.intersection(parts) or any(part.startswith("config-") for part in parts):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    if entry.isdir():
        entry.mode = 0o755
    return entry


def python_base(file: Path, wheels: Path) -> Path:
    """This Python with venv and pip, and a directory of wheels at /wheels."""
    root = RootFs(file)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    standard = Path(sysconfig.get_path("stdlib"))
    root.add(Path(sys.executable).resolve(), f"usr/local/bin/{version}")
    root.link("usr/local/bin/python3", version)
    root.add(standard, f"usr/local/lib/{version}")
    bundled = Path("/usr/share/python-wheels")  # where Debian keeps the pip that its venv installs
    if bundled.exists():
        root.add(bundled, str(bundled).lstrip("/"))
    modules = [standard, Path(sysconfig.get_path("platlib"))]
    root.libraries_of([Path(sys.executable).resolve(), *(so for at in modules for so in at.rglob("*.so"))])
    if CERTIFICATES.exists():
        root.add(CERTIFICATES, str(CERTIFICATES).lstrip("/"))
    root.add(wheels, "wheels")
    return root.close()


def program_root(
    file: Path, programs: Mapping[str, str], texts: Mapping[str, str], directories: Mapping[str, int]
) -> Path:
    """``programs`` by name with the path each gets; ``texts`` by path; ``directories`` with their owners."""
    root = RootFs(file)
    for name, at in programs.items():
        root.program(name, at)
    for at, content in texts.items():
        root.text(at, content)
    for at, owner in directories.items():
        root.directory(at, owner=owner)
    return root.close()
