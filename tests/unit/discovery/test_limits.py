"""Rates per sender, and complaints that are made only now and then."""

from __future__ import annotations

from p2pdist.discovery.limits import Bucket, PerSender, Seldom


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(rate=2.0, burst=3.0, now=0.0)
    assert [bucket.take(1, 0.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(1, 0.4)
    assert bucket.take(1, 0.5)
    assert [bucket.take(1, 100.0) for _ in range(4)] == [True, True, True, False]


def test_a_reservation_tells_how_long_to_wait() -> None:
    bucket = Bucket(rate=2.0, burst=1.0, now=0.0)
    assert [bucket.reserve(0.0) for _ in range(3)] == [0.0, 0.5, 1.0]
    assert bucket.reserve(1.0) == 0.5


def test_senders_do_not_share_and_are_bounded() -> None:
    limits = PerSender(rate=1.0, burst=1.0, senders=2)
    assert limits.take("anna", 1, 0.0)
    assert not limits.take("anna", 1, 0.0)
    assert limits.take("bert", 1, 0.0)
    assert limits.take("carl", 1, 0.0)
    assert limits.take("anna", 1, 0.0), "forgotten, so it starts anew"


def test_a_complaint_is_due_once_a_minute_for_each_kind() -> None:
    seldom = Seldom(every=60.0)
    assert seldom.due("key", 0.0)
    assert not seldom.due("key", 59.0)
    assert seldom.due("clock", 59.0)
    assert seldom.due("key", 60.0)
