"""The scripts of a checkout, with stand-ins for the programs of its environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STAND_IN = """#!/bin/sh
echo "$(pwd): ${0##*/} $*"
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment that counts as prepared."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "ruff", "mypy", "lint-imports"):
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    with (ROOT / "pyproject.toml").open("rb") as project:
        checksum = subprocess.run(["cksum"], stdin=project, capture_output=True, text=True, check=True)
    for extra in ("", "test"):
        stamp = f".p2pdist-ready{'-' if extra else ''}{extra}"
        (programs.parent / stamp).write_text(f"{checksum.stdout.strip()} {extra}\n")
    return programs.parent


def run(script: Path, environment: Path, *words: str, cwd: Path) -> list[str]:
    done = subprocess.run(
        [script, *words],
        env={"PATH": "/usr/bin:/bin", "P2PDIST_VENV": str(environment)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("links", [0, 1, 2])
@pytest.mark.parametrize("name", ["p2pdist", "test"])
def test_a_script_finds_its_checkout_through_links_too(
    tmp_path: Path, environment: Path, name: str, links: int
) -> None:
    script = ROOT / "bin" / name
    for number in range(links):
        link = tmp_path / f"link-{number}"
        link.symlink_to(script if number == 0 else script.name)
        script = link
    said = run(script, environment, "status", cwd=tmp_path)
    if name == "p2pdist":
        assert said == [f"{tmp_path}: python -m p2pdist status"]
    else:
        assert said[-1] == f"{ROOT}: python -m pytest status"
        assert [line.split()[1] for line in said] == ["ruff", "ruff", "mypy", "lint-imports", "python"]
