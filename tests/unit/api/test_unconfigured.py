"""How often a registry that is not configured is complained of."""

from __future__ import annotations

import pytest

from p2pdist.api.unconfigured import CAPACITY, EVERY, UnconfiguredLog


def test_each_registry_is_told_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    log = UnconfiguredLog()
    for now in (0.0, 1.0, EVERY - 1, EVERY):
        log.refused("other.test", now)
    log.refused("another.test", 1.0)
    told = [record.args for record in caplog.records]
    assert told == [("other.test",) * 2, ("other.test",) * 2, ("another.test",) * 2]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert '[registries."other.test"]' in caplog.messages[0]


def test_many_names_fill_neither_memory_nor_log(caplog: pytest.LogCaptureFixture) -> None:
    log = UnconfiguredLog()
    for number in range(CAPACITY * 100):
        log.refused(f"registry-{number}.test", number / 1000)
    assert len(caplog.records) == CAPACITY
    caplog.clear()
    log.refused("other.test", EVERY + 7)
    assert len(caplog.records) == 1
