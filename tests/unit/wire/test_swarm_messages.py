"""What members tell each other. Invariant: whatever bytes come, there is a message or an InvalidInputError."""

from __future__ import annotations

from contextlib import suppress

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.wire.swarm_messages import (
    MAX_ARC,
    MAX_FRAME,
    MAX_LAGGING,
    MAX_LISTED,
    MAX_MEMBERS,
    MAX_PIECES,
    PIECE_DIGEST,
    Join,
    Leave,
    SwarmMessage,
    Update,
    decode,
    encode,
    from_bits,
    to_bits,
)

DIGEST = Digest.of(b"blob")
NAME = str(DIGEST)
PEER = PeerId(b"p" * 20)
UPDATE = 2

pieces = st.integers(0, MAX_PIECES - 1)
peers = st.binary(min_size=20, max_size=20).map(PeerId)
digests = st.binary(max_size=8).map(Digest.of)
listed = st.lists(pieces, max_size=12).map(tuple)
providers = st.builds(
    Provider, peers, st.just((Endpoint("127.0.0.1", 5001),)), st.sampled_from(["", "east"]), st.booleans()
)
updates = st.builds(
    Update,
    digests,
    st.lists(st.tuples(pieces, st.binary(min_size=PIECE_DIGEST, max_size=PIECE_DIGEST)), max_size=6).map(
        tuple
    ),
    listed,
    listed,
    st.lists(peers, max_size=MAX_LAGGING).map(tuple),
)
joins = st.builds(
    Join,
    digests,
    st.integers(0, 1 << 50),
    providers,
    st.frozensets(pieces, max_size=12),
    listed,
    st.lists(providers, max_size=3).map(tuple),
    st.booleans(),
)
messages: st.SearchStrategy[SwarmMessage] = st.one_of(updates, joins, st.builds(Leave, digests))


@given(messages)
def test_what_is_encoded_is_decoded(message: SwarmMessage) -> None:
    frame = encode(message)
    assert len(frame) <= MAX_FRAME
    assert decode(frame) == message


@given(st.frozensets(pieces, max_size=50))
def test_pieces_travel_as_bits(field: frozenset[int]) -> None:
    bits = to_bits(field)
    assert from_bits(bits) == field
    assert not bits.endswith(b"\0")


# -- members that lag: a trailing field --


def test_a_frame_of_a_version_without_the_field_is_read() -> None:
    frame = msgpack.packb((UPDATE, NAME, [3], b"d" * PIECE_DIGEST, [4], [5]))
    assert decode(frame) == Update(DIGEST, ((3, b"d" * PIECE_DIGEST),), (4,), (5,))


def test_a_frame_without_members_that_lag_is_as_it_always_was() -> None:
    """So earlier versions read all but the frames that they could do nothing with."""
    update = Update(DIGEST, ((3, b"d" * PIECE_DIGEST),), (4,), (5,))
    assert encode(update) == msgpack.packb((UPDATE, NAME, [3], b"d" * PIECE_DIGEST, [4], [5]))


def test_fields_of_a_later_version_are_passed_over() -> None:
    frame = msgpack.packb((UPDATE, NAME, [], b"", [], [], [PEER.raw], 3, "new", 7))
    assert decode(frame) == Update(DIGEST, lagging=(PEER,), arc=3)


def test_an_early_version_reads_the_six_fields_it_knows() -> None:
    fields = msgpack.unpackb(encode(Update(DIGEST, (), (4,), (5,), (PEER,))))
    assert fields == [UPDATE, NAME, [], b"", [4], [5], [PEER.raw]]


@pytest.mark.parametrize("message", [Update(DIGEST, arc=2), Update(DIGEST, lagging=(PEER,), arc=MAX_ARC)])
def test_how_long_the_arc_is_comes_after_the_fields_of_before(message: Update) -> None:
    assert decode(encode(message)) == message


def test_an_arc_out_of_bounds_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="from 0 to 16"):
        decode(msgpack.packb((UPDATE, NAME, [], b"", [], [], [], MAX_ARC + 1)))


def test_as_many_that_lag_as_the_bound_are_taken() -> None:
    lagging = tuple(PeerId(bytes([index]) * 20) for index in range(MAX_LAGGING))
    assert decode(encode(Update(DIGEST, lagging=lagging))) == Update(DIGEST, lagging=lagging)


@pytest.mark.parametrize(
    "lagging",
    [
        [PEER.raw] * (MAX_LAGGING + 1),
        [b"p" * 19],
        [b"p" * 21],
        [b""],
        ["p" * 20],
        [7],
        [None],
        [[PEER.raw]],
        PEER.raw,
        7,
        None,
        "peers",
    ],
)
def test_members_that_cannot_be_are_refused(lagging: object) -> None:
    with pytest.raises(InvalidInputError):
        decode(msgpack.packb((UPDATE, NAME, [], b"", [], [], lagging)))


# -- bounds --


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (UPDATE,),
        (UPDATE, 7),
        (UPDATE, "sha256:short"),
        (4, NAME),
        (True, NAME, 1, b"", b"", [], [], False),
        (2.0, NAME, [], b"", [], []),
        (UPDATE, NAME, [], b"", []),
        (UPDATE, NAME, [1], b"", [], []),
        (UPDATE, NAME, [1], b"d" * (PIECE_DIGEST + 1), [], []),
        (UPDATE, NAME, [MAX_PIECES], b"d" * PIECE_DIGEST, [], []),
        (UPDATE, NAME, [-1], b"d" * PIECE_DIGEST, [], []),
        (UPDATE, NAME, [], b"", [True], []),
        (UPDATE, NAME, [], b"", [], [1.0]),
        (UPDATE, NAME, [], b"", 7, []),
        (UPDATE, NAME, [], b"", [0] * (MAX_LISTED + 1), []),
        (1, NAME, 1, b"", b"", [], []),
        (1, NAME, -1, b"", b"", [], [], False),
        (1, NAME, 1, b"", b"", [], [b""] * (MAX_MEMBERS + 1), False),
    ],
)
def test_messages_that_cannot_be_are_refused(fields: tuple[object, ...]) -> None:
    with pytest.raises(InvalidInputError):
        decode(msgpack.packb(fields))


def test_too_large_a_frame_is_neither_made_nor_read() -> None:
    digest = b"d" * PIECE_DIGEST
    with pytest.raises(InvalidInputError, match="at most"):
        encode(Update(DIGEST, tuple((piece, digest) for piece in range(MAX_LISTED))))
    with pytest.raises(InvalidInputError, match="at most"):
        decode(bytes(MAX_FRAME + 1))


# -- what strangers send --


def check(frame: bytes) -> None:
    """There is a message that is what it says it is, or the one error."""
    with suppress(InvalidInputError):
        message = decode(frame)
        if isinstance(message, Update):
            assert len(message.lagging) <= MAX_LAGGING
            assert all(len(peer.raw) == 20 for peer in message.lagging)
            assert all(len(digest) == PIECE_DIGEST for _, digest in message.have)
            told = [piece for piece, _ in message.have] + [*message.claim, *message.release]
        elif isinstance(message, Join):
            assert len(message.members) <= MAX_MEMBERS
            told = [*message.have, *message.claims]
        else:
            told = []
        assert all(type(piece) is int and 0 <= piece < MAX_PIECES for piece in told)


@given(st.binary(max_size=200))
@example(b"\x96\x02\xa1\xff\x90\xc4\x00\x90\x90")  # a name that is not UTF-8
@example(b"\x91" * 2000)  # deeper than a stack
def test_garbage_is_refused_and_nothing_else(frame: bytes) -> None:
    check(frame)


@given(messages, st.data())
def test_a_frame_that_was_changed_on_its_way_is_read_or_refused(
    message: SwarmMessage, data: st.DataObject
) -> None:
    frame = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "insert", "repeat"]))
        if kind == "set":
            frame[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            frame[at:at] = data.draw(st.binary(max_size=4))
        elif kind == "repeat":
            frame[at:at] = frame[at : at + 8]
        elif at:
            del frame[at:]
    check(bytes(frame))


atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=40),
    st.just(NAME),
    st.integers(0, 4),
)
trees = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(atoms, inner, max_size=2)
)


@given(st.sampled_from([1, UPDATE, 3]), st.lists(trees, max_size=8))
def test_fields_of_any_other_shape_are_read_or_refused(kind: int, fields: list[object]) -> None:
    check(msgpack.packb([kind, NAME, *fields]))
