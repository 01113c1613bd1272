"""Swarm messages of a later version: what it says more, or otherwise, costs no more than itself."""

from __future__ import annotations

import pytest

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.wire import codec, swarm_messages
from p2pdist.wire.swarm_messages import MAX_MEMBERS, Join, UnknownKindError, decode, encode

SENDER = Provider(PeerId(b"p" * 20), (Endpoint("10.0.0.1", 5051),))
MEMBER = Provider(PeerId(b"m" * 20), (Endpoint("10.0.0.2", 5051),))
LATER = codec.pack((b"q" * 20, [b"\x07" * 10], "", True))  # its address has a form to come
DIGEST = Digest.of(b"x")


def joined(*members: object) -> bytes:
    fields = list(swarm_messages._fields(Join(DIGEST, 1, SENDER, frozenset())))
    fields[6] = list(members)
    return codec.pack(tuple(fields))


@pytest.mark.parametrize("later", [LATER, b"", b"\xc1", b"x" * 600, 7, ()])
def test_a_member_of_a_later_form_does_not_spoil_the_others(later: object) -> None:
    expected = Join(DIGEST, 1, SENDER, frozenset(), members=(MEMBER,))
    assert decode(joined(later, codec.encode_provider(MEMBER))) == expected


def test_too_many_members_are_refused_before_they_are_read() -> None:
    with pytest.raises(InvalidInputError):
        decode(joined(*[LATER] * (MAX_MEMBERS + 1)))


def test_a_kind_of_a_later_version_is_told_from_a_fault() -> None:
    with pytest.raises(UnknownKindError):
        decode(codec.pack((9, str(DIGEST), "a later kind")))
    with pytest.raises(InvalidInputError) as malformed:
        decode(encode(Join(DIGEST, 1, SENDER, frozenset()))[:-1])
    assert malformed.type is InvalidInputError
