"""Sealed datagrams: only members read and write them, each is taken once, and refusing is cheap."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.wire.datagram import (
    MAX_DATAGRAM,
    MAX_PAYLOAD,
    MAX_SKEW,
    OVERHEAD,
    Opened,
    Reason,
    Refused,
    Sealer,
)

KEY = bytes(range(32))


def sealer(name: str, key: bytes = KEY, wall: float = 1_000_000.0, max_sessions: int = 8192) -> Sealer:
    return Sealer(key, name.encode().ljust(16, b"."), wall=wall, now=0.0, max_sessions=max_sessions)


def test_a_member_reads_what_another_sealed() -> None:
    anna, bert = sealer("anna"), sealer("bert")

    opened = bert.open(anna.seal(b"hello", 1.0), 1.0)

    assert opened == Opened(b"anna".ljust(16, b"."), b"hello")


def test_the_largest_payload_fills_a_datagram_and_one_byte_more_is_refused() -> None:
    anna, bert = sealer("anna"), sealer("bert")
    datagram = anna.seal(bytes(MAX_PAYLOAD), 0.0)

    assert len(datagram) == MAX_DATAGRAM == MAX_PAYLOAD + OVERHEAD
    assert isinstance(bert.open(datagram, 0.0), Opened)
    with pytest.raises(InvalidInputError):
        anna.seal(bytes(MAX_PAYLOAD + 1), 0.0)


def test_another_key_opens_nothing_and_leaves_no_trace() -> None:
    stranger, bert = sealer("anna", key=bytes(32)), sealer("bert")

    assert bert.open(stranger.seal(b"hello", 0.0), 0.0) == Refused(Reason.WRONG_KEY)
    assert bert.sessions == 0


def test_no_byte_of_a_datagram_can_be_changed() -> None:
    datagram = sealer("anna").seal(b"hello", 0.0)

    for i in range(len(datagram)):
        changed = datagram[:i] + bytes([datagram[i] ^ 1]) + datagram[i + 1 :]
        assert isinstance(sealer("bert").open(changed, 0.0), Refused), i


def test_a_datagram_is_taken_once() -> None:
    anna, bert = sealer("anna"), sealer("bert")
    datagram = anna.seal(b"hello", 0.0)

    assert isinstance(bert.open(datagram, 0.0), Opened)
    assert bert.open(datagram, 0.0) == Refused(Reason.REPLAYED)


def test_datagrams_may_arrive_in_any_order_within_the_window() -> None:
    anna, bert = sealer("anna"), sealer("bert")
    datagrams = [anna.seal(bytes([i % 256]), 0.0) for i in range(1025)]

    late, newest, *rest = datagrams[0], datagrams[-1], *datagrams[1:-1]
    assert isinstance(bert.open(newest, 0.0), Opened)
    assert all(isinstance(bert.open(datagram, 0.0), Opened) for datagram in reversed(rest))
    assert bert.open(late, 0.0) == Refused(Reason.REPLAYED)
    assert all(bert.open(datagram, 0.0) == Refused(Reason.REPLAYED) for datagram in datagrams)


@given(st.lists(st.integers(0, 3000), max_size=60))
def test_whatever_the_order_nothing_is_taken_twice(order: list[int]) -> None:
    anna, bert = sealer("anna"), sealer("bert")
    datagrams = {}
    for counter in range(max(order, default=-1) + 1):
        if counter in order:
            datagrams[counter] = anna.seal(counter.to_bytes(2, "big"), 0.0)
        else:
            anna.seal(b"", 0.0)

    taken = [opened.payload for i in order if isinstance(opened := bert.open(datagrams[i], 0.0), Opened)]

    assert len(taken) == len(set(taken))
    assert not order or taken[0] == order[0].to_bytes(2, "big")


@pytest.mark.parametrize("skew", [-MAX_SKEW - 5, MAX_SKEW + 5])
def test_a_new_session_beyond_the_skew_is_refused_and_told_apart(skew: float) -> None:
    anna, bert = sealer("anna", wall=1_000_000.0 + skew), sealer("bert")

    refused = bert.open(anna.seal(b"hello", 0.0), 0.0)

    assert isinstance(refused, Refused)
    assert refused.reason is Reason.SKEWED
    assert refused.skew == pytest.approx(skew, abs=1)
    assert bert.sessions == 0


def test_a_recording_opens_no_session_later() -> None:
    anna, bert = sealer("anna"), sealer("bert")
    recorded = anna.seal(b"hello", 0.0)

    refused = bert.open(recorded, MAX_SKEW + 2)

    assert isinstance(refused, Refused)
    assert refused.reason is Reason.SKEWED


def test_a_known_session_goes_on_however_the_clocks_drift() -> None:
    anna, bert = sealer("anna"), sealer("bert")

    assert isinstance(bert.open(anna.seal(b"1", 0.0), 0.0), Opened)
    assert isinstance(bert.open(anna.seal(b"2", 5.0), 100_000.0), Opened)


def test_our_own_datagrams_come_back_as_ours() -> None:
    anna = sealer("anna")
    assert anna.open(anna.seal(b"hello", 0.0), 0.0) == Refused(Reason.OWN)


def test_sessions_are_bounded_and_the_quietest_is_forgotten() -> None:
    bert = sealer("bert", max_sessions=2)
    anna = sealer("anna")
    bert.open(anna.seal(b"", 0.0), 0.0)
    for name in ("carl", "dora"):
        bert.open(sealer(name).seal(b"", 0.0), 0.0)

    assert bert.sessions == 2
    assert isinstance(bert.open(anna.seal(b"again", 1.0), 1.0), Opened)


@given(st.binary(max_size=MAX_DATAGRAM + 10))
def test_noise_is_refused(data: bytes) -> None:
    bert = sealer("bert")
    assert isinstance(bert.open(data, 0.0), Refused)
    assert isinstance(bert.open(b"p\x01" + data, 0.0), Refused)
    assert bert.sessions == 0


def test_a_sealer_needs_a_whole_key_and_session() -> None:
    with pytest.raises(InvalidInputError):
        Sealer(b"short", os.urandom(16), wall=0.0, now=0.0)
    with pytest.raises(InvalidInputError):
        Sealer(KEY, b"short", wall=0.0, now=0.0)
