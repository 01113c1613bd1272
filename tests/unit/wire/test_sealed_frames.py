"""Sealed frames: the same however they are cut, and nothing that their sender did not make."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.wire.flow_frames import MAX_REQUEST, REQUESTS
from p2pdist.wire.sealed_frames import FrameFormat, FrameReader, FrameSeal
from p2pdist.wire.swarm_messages import LINK_FRAMES

KEY = b"k" * 32
LINK_ALIVE = bytes(4)
formats = st.sampled_from([REQUESTS, LINK_FRAMES])


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(each % (len(data) + 1) for each in cuts)})
    return [data[low:high] for low, high in pairwise(at)]


def read(form: FrameFormat, parts: list[bytes]) -> tuple[list[bytes], bool]:
    """The payloads that come out, and whether all was in order."""
    reader, found = FrameReader(form, FrameSeal(KEY)), list[bytes]()
    try:
        for part in parts:
            reader.push(part)
            while (payload := reader.next()) is not None:
                found.append(payload)
    except InvalidInputError:
        return found, False
    return found, True


def sealed(form: FrameFormat, payloads: list[bytes]) -> bytes:
    seal = FrameSeal(KEY)
    return b"".join(form.pack(seal.next(payload), payload) for payload in payloads)


@given(
    formats,
    st.lists(st.binary(min_size=1, max_size=MAX_REQUEST), max_size=6),
    st.lists(st.integers(0, 5000), max_size=12),
)
def test_frames_are_the_same_however_they_are_cut(
    form: FrameFormat, payloads: list[bytes], cuts: list[int]
) -> None:
    stream = sealed(form, payloads)
    assert read(form, [stream]) == read(form, cut(stream, cuts)) == (payloads, True)


@given(formats, st.lists(st.binary(min_size=1, max_size=60), max_size=5), st.binary(max_size=80))
def test_garbage_never_comes_out(form: FrameFormat, payloads: list[bytes], garbage: bytes) -> None:
    assert read(form, [sealed(form, payloads) + garbage])[0] == payloads


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=12))
def test_garbage_is_judged_alike_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    assert read(REQUESTS, [data]) == read(REQUESTS, cut(data, cuts))


@given(
    st.lists(st.sampled_from([b"", b"one", b"two"]), max_size=12), st.lists(st.integers(0, 300), max_size=9)
)
def test_signs_of_life_are_no_frames(payloads: list[bytes], cuts: list[int]) -> None:
    seal = FrameSeal(KEY)
    parts = [LINK_FRAMES.pack(seal.next(each), each) if each else LINK_ALIVE for each in payloads]
    assert read(LINK_FRAMES, cut(b"".join(parts), cuts)) == ([each for each in payloads if each], True)


def test_an_empty_frame_needs_its_mac_where_there_are_no_signs_of_life() -> None:
    assert read(REQUESTS, [sealed(REQUESTS, [b""])]) == ([b""], True)
    assert read(REQUESTS, [REQUESTS.pack(bytes(FrameSeal.SIZE), b"")]) == ([], False)


@pytest.mark.parametrize("form", [REQUESTS, LINK_FRAMES])
def test_a_frame_that_is_too_long_is_refused_by_its_head(form: FrameFormat) -> None:
    longest = b"x" * form.longest
    assert read(form, [sealed(form, [longest])]) == ([longest], True)
    reader = FrameReader(form, FrameSeal(KEY))
    reader.push((form.longest + 1).to_bytes(form.length_bytes, "big"))
    with pytest.raises(InvalidInputError, match=f"{form.longest + 1} bytes"):
        reader.next()


@pytest.mark.parametrize("form", [REQUESTS, LINK_FRAMES])
@pytest.mark.parametrize("order", [[1], [0, 0], [1, 0], [0, 2]])
def test_a_frame_in_another_place_is_refused(form: FrameFormat, order: list[int]) -> None:
    seal = FrameSeal(KEY)
    frames = [form.pack(seal.next(payload), payload) for payload in (b"zero", b"one", b"two")]
    stream = b"".join(frames[index] for index in order)
    found, sound = read(form, [stream])
    assert not sound
    assert found == ([b"zero"] if order[0] == 0 else [])
