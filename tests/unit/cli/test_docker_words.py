"""Words that scripts know from Docker."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from p2pdist.cli import docker_words as words

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"), (999, "999B"), (1000, "1kB"), (1536, "1.54kB"), (20_000, "20kB"), (120_000_000, "120MB"),
        (177_300_000, "177MB"), (1_234_567_890, "1.23GB"), (999_600, "1000kB"), (10**21, "1000EB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second"), (0.5, "Less than a second"), (1, "1 second"), (59, "59 seconds"),
        (MINUTE, "About a minute"), (119, "About a minute"), (120, "2 minutes"), (HOUR - 1, "59 minutes"),
        (HOUR, "About an hour"), (1.4 * HOUR, "About an hour"), (1.5 * HOUR, "2 hours"), (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"), (13 * DAY, "13 days"), (14 * DAY, "2 weeks"), (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"), (729 * DAY, "24 months"), (730 * DAY, "2 years"), (1000 * DAY, "2 years"),
    ],
)  # fmt: skip
def test_how_long_ago(seconds: float, text: str) -> None:
    assert words.since(seconds) == f"{text} ago"


@pytest.fixture
def _berlin() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "CET-1"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("_berlin")
def test_times_are_of_this_hosts_zone() -> None:
    moment = words.parse_time("2024-01-01T00:00:00.123456789Z")
    assert moment is not None
    assert words.local_time(moment) == "2024-01-01T01:00:00+01:00"


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13-01T00:00:00Z", "9" * 400])
def test_what_is_no_time(text: str) -> None:
    assert words.parse_time(text) is None


def test_times_at_the_ends_of_the_calendar_are_still_written() -> None:
    for text in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        moment = words.parse_time(text)
        assert moment is not None
        assert words.local_time(moment)
    assert words.parse_time("2024-01-01T00:00:00") == words.parse_time("2024-01-01T00:00:00Z")


def test_cut_texts_and_ids() -> None:
    assert words.ellipsis("x" * 45, 45) == "x" * 45
    assert words.ellipsis("x" * 46, 45) == "x" * 44 + "…"
    assert words.short_id("sha256:0123456789abcdef") == "0123456789ab"
