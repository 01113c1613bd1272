"""compose/p2pdist.service, as systemd itself reads and rates it (test_unit_booted.py starts it)."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from p2pdist.config.load import load_config
from tests.unit.deploy.files import COMPOSE

UNIT = COMPOSE / "p2pdist.service"
INSTALLED = "/opt/p2pdist/bin/"
# Of 10; what is left of it is the network, and that the host's root directory is read.
MOST_EXPOSED = 1.5


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with the program at a place where it exists, which is looked for."""
    text = UNIT.read_text()
    assert text.count(INSTALLED) == 1
    file = tmp_path / "p2pdist.service"
    file.write_text(text.replace(INSTALLED, f"{Path(sys.executable).parent}/"))
    return file


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_systemd_finds_nothing_to_say(unit: Path) -> None:
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_it_says_something_about_an_unknown_key(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectClock=", "ProtectClocks="))
    assert "ProtectClocks" in analyze("verify", "--man=no", str(unit)).stderr


def test_its_exposure_is_low(unit: Path) -> None:
    done = analyze(
        "security", "--offline=true", "--no-pager", f"--threshold={int(MOST_EXPOSED * 10)}", str(unit)
    )
    assert done.returncode == 0, done.stdout
    found = re.search(r"Overall exposure level for p2pdist\.service: ([\d.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED
    open_wide = unit.read_text().replace("CapabilityBoundingSet=\n", "").replace("SystemCallFilter=@", "#")
    unit.write_text(open_wide)
    assert analyze("security", "--offline=true", "--no-pager", "--threshold=15", str(unit)).returncode != 0


def test_it_fits_the_agent() -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    service, config = parser["Service"], load_config(None, {}, {})
    assert service["Type"] == "notify"
    assert f"/var/lib/{service['StateDirectory']}" == str(config.agent.data_dir)
    assert float(service["TimeoutStopSec"].removesuffix("s")) > config.agent.drain_timeout
    assert float(service["WatchdogSec"].removesuffix("s")) >= 30
