"""What agents tell each other about warm-ups: it reads back the same, and nothing else reads as anything but an error."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.records import Endpoint, PeerId
from p2pdist.wire.warm import (
    MAX_BODY,
    MAX_MEMBERS,
    MAX_MESSAGE,
    Member,
    WarmState,
    WarmStatus,
    encode_members,
    encode_message,
    encode_status,
    parse_members,
    parse_message,
    parse_status,
)

STATUS = WarmStatus(WarmState.RUNNING, 100, 40, {"peer": 30, "upstream": 10}, "sha256:ab", "")
MEMBER = Member(PeerId(bytes(range(20))), Endpoint("10.0.0.1", 5051))


def test_it_reads_back_the_same() -> None:
    assert parse_status(encode_status(STATUS)) == STATUS
    assert parse_members(encode_members([MEMBER])) == [MEMBER]
    assert parse_message(encode_message("no")) == "no"


def test_what_is_said_is_bounded() -> None:
    long = WarmStatus(WarmState.FAILED, message="x" * 10_000)
    assert parse_status(encode_status(long)).message == "x" * MAX_MESSAGE
    many = [Member(PeerId(number.to_bytes(20, "big")), MEMBER.endpoint) for number in range(2 * MAX_MEMBERS)]
    body = encode_members(many)
    assert len(body) <= MAX_BODY
    assert parse_members(body) == many[:MAX_MEMBERS]


def test_control_characters_reach_no_terminal() -> None:
    assert parse_message(encode_message("a\x1b[2Jb\n")) == "a [2Jb "


@pytest.mark.parametrize(
    "change",
    [
        {"state": "?"},
        {"state": 1},
        {"size": -1},
        {"size": True},
        {"size": 2**63},
        {"received": "1"},
        {"moved": []},
        {"moved": {"peer": -1}},
        {"moved": {str(n): 1 for n in range(9)}},
        {"digest": None},
        {"message": "x" * (MAX_MESSAGE + 1)},
    ],
)
def test_a_status_with_a_bad_field(change: dict[str, object]) -> None:
    document = json.loads(encode_status(STATUS)) | change
    with pytest.raises(InvalidInputError):
        parse_status(json.dumps(document).encode())


@pytest.mark.parametrize(
    "row",
    [
        1,
        [],
        ["ab", "h", 1],
        ["ab" * 20, 5, 1],
        ["ab" * 20, "h", 0],
        ["zz" * 20, "h", 1],
        ["ab" * 20, "h", "1"],
        ["ab" * 20, "h", True],
    ],
)
def test_a_member_that_is_none_is_left_out(row: object) -> None:
    good = [MEMBER.peer.hex, MEMBER.endpoint.host, MEMBER.endpoint.port]
    assert parse_members(json.dumps({"members": [row, good]}).encode()) == [MEMBER]


def test_a_member_with_more_fields_of_a_later_version_is_read() -> None:
    row = [MEMBER.peer.hex, MEMBER.endpoint.host, MEMBER.endpoint.port, "a later field"]
    assert parse_members(json.dumps({"members": [row]}).encode()) == [MEMBER]


def test_too_many_members_are_refused_before_they_are_read() -> None:
    with pytest.raises(InvalidInputError):
        parse_members(json.dumps({"members": [1] * (MAX_MEMBERS + 1)}).encode())


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b"{}" + b" " * MAX_BODY])
def test_a_body_that_is_none(body: bytes) -> None:
    for parse in (parse_status, parse_members, parse_message):
        with pytest.raises(InvalidInputError):
            parse(body)


@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["state", "size", "received", "moved", "digest", "message", "members"]), inner
)))  # fmt: skip
def test_nothing_that_a_stranger_says_does_more_harm_than_an_error(value: object) -> None:
    for parse in (parse_status, parse_members, parse_message):
        with suppress(InvalidInputError):
            parse(json.dumps(value).encode())
