"""The figures of docs/operations.md on capacity are those of the newest benchmark."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.unit.docs.capacity import CASES, DOCUMENT, cases, hits, newest, replaced, shown

TEXT = DOCUMENT.read_text()


def test_the_figures_are_up_to_date() -> None:
    assert replaced(TEXT, newest()) == TEXT, "run: python -m tests.unit.docs.capacity"


def test_every_case_is_read() -> None:
    measured = cases(newest().read_text())
    assert [case.name for case in measured] == list(CASES)
    assert [case.hosts for case in measured] == [1, 8, 16, 32, 8, 8]
    assert all(0 < case.cpu < 1000 and (case.multiple or 1) >= 1 for case in measured)
    assert [case.name for case in measured if case.multiple is None] == ["staggered-8"]
    stored = hits(newest().read_text())
    assert 0 < stored.cpu < 10
    assert stored.requests > 100


def test_a_report_that_lacks_a_case_is_refused() -> None:
    report = "\n".join(
        line for line in newest().read_text().splitlines() if not line.startswith("| crowd-16")
    )
    with pytest.raises(ValueError, match="lacks crowd-16"):
        cases(report)
    with pytest.raises(ValueError, match="lacks cached hits"):
        hits("| p2pdist | layer |")


def test_what_is_between_two_figures_is_rounded_up_as_the_report_does() -> None:
    case = cases(newest().read_text())[0]._replace(copies=Decimal("1.065"))
    assert shown(case)[1] == "1.07"


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        replaced("nothing here", newest())
