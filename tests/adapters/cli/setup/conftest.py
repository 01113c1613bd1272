"""Fixtures of these tests: a host, and no configuration from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.adapters.cli.setup.hosts import Host


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("P2PDIST_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)
