from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.swarm.geometry import MAX_PIECE, MIN_PIECE, TARGET_PIECES, Geometry

KIB = 1024
MIB = 1024 * KIB

sizes = st.integers(min_value=0, max_value=1 << 40)


def test_an_empty_blob_has_no_pieces() -> None:
    assert Geometry.of(0).count == 0


def test_a_small_blob_is_one_piece() -> None:
    assert Geometry.of(1).count == 1
    assert Geometry.of(MIN_PIECE).count == 1
    assert Geometry.of(MIN_PIECE + 1).count == 2


def test_pieces_grow_with_the_blob() -> None:
    assert Geometry.of(16 * MIB).piece == 512 * KIB
    assert Geometry.of(64 * MIB).piece == MIB
    assert Geometry.of(1024 * MIB).piece == MAX_PIECE


@given(sizes)
def test_the_spans_cover_the_blob_without_gap_or_overlap(size: int) -> None:
    cut = Geometry.of(size)
    last = max(0, cut.count - 3)
    assert MIN_PIECE <= cut.piece <= MAX_PIECE
    assert cut.piece == MAX_PIECE or cut.count <= TARGET_PIECES
    for piece in {0, last} & set(range(cut.count)):
        for index in range(piece, min(cut.count, piece + 3)):
            start, stop = cut.span(index)
            assert start == index * cut.piece
            assert start < stop <= size
            assert stop == size or stop == start + cut.piece
    if cut.count:
        assert cut.span(cut.count - 1)[1] == size


@given(st.integers(1, 64 * MIB), st.integers(0, 64 * MIB), st.integers(0, 64 * MIB))
def test_whole_pieces_lie_within_and_touching_ones_around(size: int, one: int, other: int) -> None:
    cut = Geometry.of(size)
    start, stop = sorted((min(one, size), min(other, size)))
    whole, touching = cut.whole_pieces(start, stop), cut.touching(start, stop)
    assert all(start <= cut.span(piece)[0] and cut.span(piece)[1] <= stop for piece in whole)
    for piece in range(cut.count):
        begin, end = cut.span(piece)
        assert (piece in touching) == (start < stop and begin < stop and start < end)
        if start <= begin and end <= stop:
            assert piece in whole
