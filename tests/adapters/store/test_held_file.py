import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.retention.ranges import RangeSet
from p2pdist.store.held_file import MAX_BYTES, MAX_RANGES, encode_held, parse_held

SIZE = 10_000
ranges = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=30).map(RangeSet.of)


@given(ranges)
def test_reads_back_what_was_written(held: RangeSet) -> None:
    assert parse_held(encode_held(SIZE, held)) == (SIZE, held)


@given(st.binary(max_size=200))
def test_noise_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_held(raw)


@given(ranges, st.data())
def test_one_changed_byte_is_noticed(held: RangeSet, data: st.DataObject) -> None:
    raw = bytearray(encode_held(SIZE, held))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidInputError):
        parse_held(bytes(raw))


@given(ranges, st.integers(1, 40))
def test_one_that_was_cut_is_noticed(held: RangeSet, lost: int) -> None:
    with pytest.raises(InvalidInputError):
        parse_held(encode_held(SIZE, held)[:-lost])


def test_ranges_beyond_the_blob_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="beyond"):
        parse_held(encode_held(9, RangeSet.of([(0, 10)])))


def test_of_too_many_ranges_the_first_are_kept() -> None:
    held = RangeSet.of((2 * n, 2 * n + 1) for n in range(MAX_RANGES + 10))
    raw = encode_held(10**9, held)
    assert len(raw) == MAX_BYTES
    assert parse_held(raw)[1] == held.first(MAX_RANGES)
