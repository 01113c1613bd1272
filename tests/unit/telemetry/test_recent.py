"""The last log lines in memory: bounded, in order, masked as in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.telemetry.recent import RecentLines, keep_recent_lines, recent_lines


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("p2pdist.mirror", logging.INFO, "x.py", 1, message, (), None)


@given(
    messages=st.lists(st.text(max_size=80), max_size=40), lines=st.integers(1, 10), room=st.integers(1, 900)
)
def test_it_keeps_the_newest_within_its_bounds(messages: list[str], lines: int, room: int) -> None:
    recent = RecentLines(max_lines=lines, max_characters=room)
    for message in messages:
        recent.handle(record(message))
    kept = recent.lines()
    assert len(kept) <= lines
    assert sum(map(len, kept)) <= room
    assert bool(kept) == bool(messages)
    # The first of those kept may have been cut to fit; the others are the newest, in order.
    newest = [recent.format(record(message)).partition("info")[2] for message in messages][-len(kept) :]
    assert [line.partition("info")[2] for line in kept[1:]] == newest[1:]


def test_what_the_process_logs_is_remembered_without_secrets() -> None:
    assert recent_lines() == []
    keep_recent_lines()
    keep_recent_lines()
    logging.getLogger("p2pdist.x").error("failed: https://me:hunter2@registry.test/v2/?token=abc")
    (line,) = recent_lines()
    assert "failed: https://***@registry.test/v2/?token=***" in line
