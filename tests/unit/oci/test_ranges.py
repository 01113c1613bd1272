from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.oci.ranges import (
    MAX_RANGES,
    ByteRange,
    RangeNotSatisfiable,
    content_range,
    etag_matches,
    etag_of,
    if_range_matches,
    multipart_byteranges,
    parse_content_range,
    parse_range,
)


def spans(header: str | None, size: int) -> list[tuple[int, int]] | None:
    found = parse_range(header, size)
    return None if found is None else [(item.start, item.stop) for item in found]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=2-5", [(2, 6)]),
        ("bytes=7-", [(7, 10)]),
        ("bytes=7-99", [(7, 10)]),
        ("bytes=-3", [(7, 10)]),
        ("bytes=-99", [(0, 10)]),
        ("BYTES=0-1", [(0, 2)]),
        ("bytes=0-1, 5-6", [(0, 2), (5, 7)]),
        ("bytes=5-6,0-1", [(5, 7), (0, 2)]),  # in the order asked for
        ("bytes=0-1,,\t3-4,", [(0, 2), (3, 5)]),  # empty list elements count for nothing
        ("bytes=0-4,3-6", [(0, 7)]),
        ("bytes=0-1,2-3", [(0, 4)]),  # they touch
        ("bytes=0-3,9-9,3-5", [(0, 6), (9, 10)]),  # merged ones stand where the first was
        ("bytes=8-,0-1,-4", [(6, 10), (0, 2)]),
        ("bytes=0-1,50-", [(0, 2)]),  # what cannot be had is left out
        ("bytes=0-9999999999999999999", [(0, 10)]),
    ],
)
def test_ranges_of_ten_bytes(header: str, expected: list[tuple[int, int]]) -> None:
    assert spans(header, 10) == expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=0-1,5-2",  # one invalid spec makes the set invalid
        "bytes=0-1;2-3",
        "bytes=+1-2",
        "bytes=--1",
        "bytes=1-2-3",
        "bytes=\u0661-\u0662",  # digits, but not of ASCII
        "bytes=0-" + "9" * 20,
        "items=0-1",
        "bytes=" + ",".join(f"{at * 2}-{at * 2}" for at in range(MAX_RANGES + 1)),
        "bytes=" + " " * 2000 + "0-1",
    ],
)
def test_what_is_ignored(header: str | None) -> None:
    assert spans(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=11-12,99-"])
def test_what_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(header, 10)
    assert (caught.value.size, caught.value.content_range) == (10, "bytes */10")


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-1", "bytes=5-9"])
def test_an_empty_blob_is_sent_whole(header: str) -> None:
    assert parse_range(header, 0) is None


specs = st.one_of(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    st.integers(0, 60).map(lambda first: f"{first}-"),
    st.integers(0, 60).map(lambda count: f"-{count}"),
)


def asked_for(spec: str, size: int) -> set[int]:
    first, _, last = spec.partition("-")
    if not first:
        return set(range(max(0, size - int(last)), size))
    return set(range(int(first), min(size, int(last) + 1 if last else size)))


@given(st.lists(specs, min_size=1, max_size=MAX_RANGES), st.integers(1, 50))
def test_the_union_is_what_was_asked_for_and_nothing_twice(wanted: list[str], size: int) -> None:
    union = set().union(*(asked_for(spec, size) for spec in wanted))
    try:
        found = parse_range("bytes=" + ",".join(wanted), size)
    except RangeNotSatisfiable:
        assert not union
        return
    assert found is not None
    covered = [at for item in found for at in range(item.start, item.stop)]
    assert sorted(covered) == sorted(union)
    edges = sorted((item.start, item.stop) for item in found)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(edges))


@given(st.text(max_size=60), st.integers(0, 100))
def test_noise_is_ignored_or_refused(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        try:
            found = parse_range(text, size)
        except RangeNotSatisfiable:
            continue
        assert found is None or all(0 <= item.start < item.stop <= size for item in found)


@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(0, 1000))
def test_content_range_reads_back(start: int, length: int, after: int) -> None:
    found, size = ByteRange(start, start + length), start + length + after
    assert parse_content_range(content_range(found, size)) == (found, size)


def test_content_ranges_of_servers() -> None:
    assert parse_content_range("bytes 0-9/*") == (ByteRange(0, 10), None)
    assert parse_content_range("bytes */50") == (None, 50)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes 0-9",
        "bytes 9-0/10",
        "bytes 0-10/10",
        "bytes */*",
        "items 0-1/2",
        "bytes 0-9/10 x",
        "bytes=0-9/10",
    ],
)
def test_content_ranges_that_are_none(header: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_content_range(header)


@given(st.lists(st.tuples(st.integers(0, 80), st.integers(1, 20)), min_size=1, max_size=5))
def test_multipart_framing_counts_its_bytes(parts: list[tuple[int, int]]) -> None:
    content = bytes(range(100))
    framing = multipart_byteranges([ByteRange(a, a + n) for a, n in parts], 100, "application/x", "limit")
    body = b"".join(part.header + content[part.range.start : part.range.stop] for part in framing.parts)
    body += framing.trailer
    assert len(body) == framing.length
    assert framing.content_type == 'multipart/byteranges; boundary="limit"'
    assert body.startswith(b"--limit\r\n")
    assert body.endswith(b"\r\n--limit--\r\n")
    assert body.count(b"--limit\r\nContent-Type: application/x\r\nContent-Range: bytes ") == len(parts)


@pytest.mark.parametrize(
    ("media_type", "boundary"), [("a/b", ""), ("a/b", "x" * 71), ("a/b", "a\r\nb"), ("a\r\nb", "x")]
)
def test_framing_that_would_break(media_type: str, boundary: str) -> None:
    with pytest.raises(InvalidInputError):
        multipart_byteranges([ByteRange(0, 1)], 10, media_type, boundary)


def test_if_none_match() -> None:
    etag = etag_of("sha256:abc")
    assert etag == '"sha256:abc"'
    for header in (etag, "*", f"W/{etag}", f'"other", {etag}', f'"a,b",{etag}'):
        assert etag_matches(header, etag), header
    for other in (None, "", '"other"', "sha256:abc", '"sha256:abc', "W/*"):
        assert not etag_matches(other, etag), other


def test_if_range_is_strong() -> None:
    etag = etag_of("x")
    assert if_range_matches(None, etag)
    assert if_range_matches('"x"', etag)
    for header in ('W/"x"', '"y"', "*", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert not if_range_matches(header, etag), header
    assert not if_range_matches('W/"x"', 'W/"x"')


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 4), (-1, 4)])
def test_a_range_is_never_empty(start: int, stop: int) -> None:
    with pytest.raises(InvalidInputError):
        ByteRange(start, stop)
