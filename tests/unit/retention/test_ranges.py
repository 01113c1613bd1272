import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.retention.ranges import RangeSet

ends = st.integers(0, 60)
pairs = st.lists(st.tuples(ends, ends), max_size=20)


def model(ranges: list[tuple[int, int]]) -> set[int]:
    return {offset for start, stop in ranges for offset in range(start, stop)}


def offsets(ranges: RangeSet) -> set[int]:
    return {offset for start, stop in ranges for offset in range(start, stop)}


@given(pairs)
def test_is_the_union_and_stays_sorted_disjoint_and_non_adjacent(ranges: list[tuple[int, int]]) -> None:
    held = RangeSet.of(ranges)
    assert offsets(held) == model(ranges)
    assert RangeSet(held.bounds) == held  # the constructor checks the invariant
    assert held.total == len(model(ranges))


@given(pairs, ends)
def test_front_and_held_from_agree_with_the_bytes(ranges: list[tuple[int, int]], offset: int) -> None:
    held, bytes_held = RangeSet.of(ranges), model(ranges)
    expected = offset
    while expected in bytes_held:
        expected += 1
    assert held.held_from(offset) == expected
    assert held.front == held.held_from(0)


@given(pairs, ends)
def test_clip_drops_what_is_beyond(ranges: list[tuple[int, int]], stop: int) -> None:
    clipped = RangeSet.of(ranges).clip(stop)
    assert offsets(clipped) == {offset for offset in model(ranges) if offset < stop}
    assert RangeSet(clipped.bounds) == clipped


@given(pairs, ends, ends)
def test_within_cuts_a_range_into_held_and_not(ranges: list[tuple[int, int]], start: int, stop: int) -> None:
    bytes_held, at = model(ranges), start
    for low, high, held in RangeSet.of(ranges).within(start, stop):
        assert low == at < high
        assert all((offset in bytes_held) is held for offset in range(low, high))
        at = high
    assert at == max(start, stop) or (stop <= start and at == start)


def test_covers_means_exactly_all() -> None:
    assert RangeSet().covers(0)
    assert not RangeSet().covers(1)
    assert RangeSet.of([(2, 5), (0, 2)]).covers(5)
    assert not RangeSet.of([(0, 6)]).covers(5)


def test_first_keeps_the_first_ranges() -> None:
    assert list(RangeSet.of([(0, 1), (2, 3), (4, 5)]).first(2)) == [(0, 1), (2, 3)]


@pytest.mark.parametrize("bounds", [(1,), (-1, 2), (3, 3), (0, 2, 2, 4), (5, 6, 1, 2)])
def test_refuses_what_breaks_the_invariant(bounds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ranges"):
        RangeSet(bounds)
