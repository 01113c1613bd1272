"""The figures of docs/operations.md on capacity are those of the newest benchmark."""

from __future__ import annotations

import pytest

from tests.unit.docs.capacity import CASES, DOCUMENT, cases, newest, replaced

TEXT = DOCUMENT.read_text()


def test_the_figures_are_up_to_date() -> None:
    assert replaced(TEXT, newest()) == TEXT, "run: python -m tests.unit.docs.capacity"


def test_every_case_is_read() -> None:
    measured = cases(newest().read_text())
    assert [case.name for case in measured] == list(CASES)
    assert [case.hosts for case in measured] == [1, 8, 16, 32]
    assert all(0 < case.cpu < 1000 and case.multiple >= 1 for case in measured)


def test_a_report_that_lacks_a_case_is_refused() -> None:
    report = "\n".join(
        line for line in newest().read_text().splitlines() if not line.startswith("| crowd-16")
    )
    with pytest.raises(ValueError, match="lacks crowd-16"):
        cases(report)


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        replaced("nothing here", newest())
