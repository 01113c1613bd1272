"""Interval maps equal a byte by byte account, and stay as small as they can be."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.transfer.intervals import IntervalMap

SIZE = 40
spans = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE))
steps = st.lists(st.tuples(st.sampled_from(["a", "b", "take"]), spans), max_size=60)


@given(steps)
def test_an_interval_map_is_a_byte_by_byte_account(script: list[tuple[str, tuple[int, int]]]) -> None:
    found: IntervalMap[str] = IntervalMap()
    account: list[str | None] = [None] * SIZE
    for what, (start, stop) in script:
        if what == "take":
            taken: list[str | None] = [None] * SIZE
            for low, high, value in found.take(start, stop):
                taken[low:high] = [value] * (high - low)
            assert taken[start:stop] == account[start:stop]
            account[start:stop] = [None] * max(0, stop - start)
        else:
            found.put(start, stop, what)
            account[start:stop] = [what] * max(0, stop - start)
        segments = list(found)
        noted: list[str | None] = [None] * SIZE
        for low, high, value in segments:
            assert low < high
            noted[low:high] = [value] * (high - low)
        assert noted == account
        assert all(left[1] <= right[0] for left, right in pairwise(segments))
    assert bool(found) is any(account)


def test_neighbours_of_one_value_are_one_segment_in_whatever_order_they_come() -> None:
    found: IntervalMap[str] = IntervalMap()
    for start in (4, 0, 2, 8, 6):
        found.put(start, start + 2, "a")
    assert list(found) == [(0, 10, "a")]
