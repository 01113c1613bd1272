"""Sizes, times and tables for people."""

from __future__ import annotations

import pytest
from rich.text import Text

from p2pdist.cli import output


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (120_000_000, "120 MB"),
        (1.5e12, "1.5 TB"),
        (2e15, "2.0 PB"),
        (None, "-"),
        (True, "-"),
    ],
)
def test_bytes_are_in_decimal_units(count: object, text: str) -> None:
    assert output.human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.008, "8ms"),
        (1.25, "1.2s"),
        (245, "4m 5s"),
        (3600, "1h 0m"),
        (183845, "2d 3h"),
        (None, "-"),
        ("x", "-"),
    ],
)
def test_times_have_two_units(seconds: object, text: str) -> None:
    assert output.human_seconds(seconds) == text


def test_a_table_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("NAME", "SIZE"), [("x" * 150, 1), (Text("y", "red"), 22)], right=("SIZE",))
    printed = capsys.readouterr().out
    assert "x" * 150 in printed
    assert "\x1b" not in printed


def test_what_comes_from_elsewhere_cannot_move_the_cursor_or_style_the_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.print_table(("NAME",), [("a\x1b[2Jb\nc [red]d",)])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "[red]d" in printed


def test_percent_of_nothing() -> None:
    assert output.percent(1, 4) == "25.0 %"
    assert output.percent(1, 0) == "-"
