"""The packages that an installation of the agent needs, fetched once, so that hosts without a network can install it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.unit.deploy.files import COMPOSE


def download_wheels(directory: Path) -> Path:
    """Every pinned wheel, its hash checked, for this Python; returns the directory."""
    pins = ["-r", str(COMPOSE / "requirements.txt"), "-r", str(COMPOSE / "build-requirements.txt")]
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*fetch, "--only-binary", ":all:", "--require-hashes", *pins, "--dest", str(directory)],
        check=True,
        timeout=120,
    )
    return directory
