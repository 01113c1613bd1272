"""The row of cells that shows a blob on its way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.retention.ranges import RangeSet
from p2pdist.swarm.geometry import MIN_PIECE as PIECE
from p2pdist.transfer.piece_map import MAX_CELLS, PieceMap


def test_cells_say_whole_part_or_nothing() -> None:
    held = RangeSet.of([(0, PIECE), (2 * PIECE, 2 * PIECE + PIECE // 2), (3 * PIECE + 1, 3 * PIECE + 2)])
    shown = PieceMap.of(held, 4 * PIECE + 100)
    assert (shown.piece, shown.count, shown.cells) == (PIECE, 5, "#.51.")


def test_a_short_last_piece_is_whole_when_all_of_it_is_here() -> None:
    assert PieceMap.of(RangeSet.of([(PIECE, PIECE + 100)]), PIECE + 100).cells == ".#"
    assert PieceMap.of(RangeSet(), 0).cells == ""


@given(
    st.integers(0, 3_000 * PIECE),
    st.lists(st.tuples(st.integers(0, 3_000 * PIECE), st.integers(1, 40 * PIECE)), max_size=30),
)
def test_the_row_is_short_and_true_to_the_byte(size: int, spans: list[tuple[int, int]]) -> None:
    held = RangeSet.of((start, start + length) for start, length in spans).clip(size)
    shown = PieceMap.of(held, size)
    assert len(shown.cells) <= MAX_CELLS
    width = shown.piece * -(-shown.count // MAX_CELLS)
    for at, cell in enumerate(shown.cells):
        start, stop = at * width, min((at + 1) * width, size)
        inside = sum(end - begin for begin, end, is_held in held.within(start, stop) if is_held)
        expected = "." if inside == 0 else str(max(1, 10 * inside // (stop - start)))
        assert cell == ("#" if inside == stop - start else expected)
    assert bool(shown.cells) == (size > 0)
