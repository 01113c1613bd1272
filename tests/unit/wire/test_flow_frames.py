"""The frames of a flow. Invariant: whatever bytes come, there is a request or an InvalidInputError, and nothing else."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.wire.flow_frames import (
    MAX_REQUEST,
    MAX_WANT,
    Cancel,
    Want,
    decode_request,
    encode_cancel,
    encode_want,
)

DIGEST = Digest.of(b"blob")
LARGEST = 1 << 50
handles = st.integers(0, 2**32 - 1)


@st.composite
def wants(draw: st.DrawFn) -> Want:
    size = draw(st.integers(1, LARGEST))
    length = draw(st.integers(1, min(size, MAX_WANT)))
    offset = draw(st.integers(0, size - length))
    return Want(draw(handles), Digest.of(draw(st.binary(max_size=8))), offset, length, size)


def encode(request: Want | Cancel) -> bytes:
    return encode_want(request) if isinstance(request, Want) else encode_cancel(request.handle)


requests = st.one_of(wants(), st.builds(Cancel, handles))


@given(requests)
def test_what_is_encoded_is_decoded(request: Want | Cancel) -> None:
    payload = encode(request)
    assert len(payload) <= MAX_REQUEST
    assert decode_request(payload) == request


def test_the_longest_digest_fits() -> None:
    want = Want(1, Digest.parse("sha512:" + "a" * 128), 0, 1, 1)
    assert decode_request(encode_want(want)) == want
    assert len(encode_want(want)) <= MAX_REQUEST


@pytest.mark.parametrize(
    ("offset", "length", "size"),
    [
        (0, 0, 10),
        (0, 11, 10),
        (1, 10, 10),
        (10, 1, 10),
        (0, MAX_WANT + 1, 2 * MAX_WANT),
        (0, 1, LARGEST + 1),
        (2**64 - 1, 1, LARGEST),
    ],
)
def test_bytes_that_cannot_be_are_refused(offset: int, length: int, size: int) -> None:
    with pytest.raises(InvalidInputError, match="cannot be"):
        decode_request(encode_want(Want(1, DIGEST, offset, length, size)))


def test_bytes_at_the_bounds_are_taken() -> None:
    for want in (Want(1, DIGEST, LARGEST - MAX_WANT, MAX_WANT, LARGEST), Want(1, DIGEST, 0, 1, 1)):
        assert decode_request(encode_want(want)) == want


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0",
        b"\3" + b"x" * 60,
        encode_cancel(1)[:-1],
        encode_cancel(1) + b"x",
        encode_want(Want(1, DIGEST, 0, 1, 1))[:25],
        encode_want(Want(1, DIGEST, 0, 1, 1))[:-1],
        encode_want(Want(1, DIGEST, 0, 1, 1)) + b"a",
        encode_want(Want(1, DIGEST, 0, 1, 1))[:25] + b"sha256:" + b"\xff" * 64,
        encode_want(Want(1, DIGEST, 0, 1, 1))[:25] + b"../../../etc/passwd",
    ],
)
def test_malformed_requests_are_refused(payload: bytes) -> None:
    with pytest.raises(InvalidInputError):
        decode_request(payload)


@given(st.one_of(st.binary(max_size=600), st.binary(max_size=90).map(lambda rest: b"\1" + rest)))
def test_garbage_is_refused_or_means_something_sound(payload: bytes) -> None:
    with suppress(InvalidInputError):
        request = decode_request(payload)
        assert encode(request) == payload
        if isinstance(request, Want):
            assert 0 < request.length <= MAX_WANT
            assert request.offset + request.length <= request.size <= LARGEST
