"""The packages that an installation of the agent needs, fetched once, so that hosts without a network can install it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path

from packaging.requirements import Requirement

from tests.unit.deploy.files import COMPOSE


def download_wheels(directory: Path) -> Path:
    """Every pinned wheel, its hash checked, for this Python; returns the directory."""
    pins = ["-r", str(COMPOSE / "requirements.txt"), "-r", str(COMPOSE / "build-requirements.txt")]
    _download(directory, "--require-hashes", *pins)
    return directory


def download_extra(directory: Path, extra: str) -> None:
    """Add what an extra of the project needs, in the versions that this environment has."""
    names = sorted(_needed("p2pdist", extra) - _needed("p2pdist", ""))
    _download(directory, *(f"{name}=={version(name)}" for name in names))


def _needed(name: str, extra: str) -> set[str]:
    """The distributions that one needs here, and those that they need."""
    found: set[str] = set()
    todo = [(name, extra)]
    while todo:
        wanted, its_extra = todo.pop()
        for text in distribution(wanted).requires or []:
            need = Requirement(text)
            if need.name not in found and (need.marker is None or need.marker.evaluate({"extra": its_extra})):
                found.add(need.name)
                todo += [(need.name, each) for each in need.extras or ("",)]
    return found


def _download(directory: Path, *what: str) -> None:
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*fetch, "--only-binary", ":all:", *what, "--dest", str(directory)], check=True, timeout=120
    )
