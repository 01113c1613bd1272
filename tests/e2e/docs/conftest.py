"""Two machines on which the first hour was lived through, for the tests of the documents' commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.docs.hour import Hour, play
from tests.e2e.docs.machines import Machine
from tests.e2e.lab import Lab


@pytest.fixture(scope="package")
def hour(whole_lab: Lab, wheels: Path) -> Iterator[Hour]:
    machines: list[Machine] = []
    try:
        machines += [Machine(whole_lab, number, wheels) for number in (1, 2)]
        lived = Hour(whole_lab, machines)
        play(lived)
        yield lived
    finally:
        for machine in machines:
            machine.close()
