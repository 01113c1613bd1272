"""When another try is made, and when not."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.upstream.retry import RetryPolicy, parse_retry_after

NOW = 1_700_000_000.0


@given(
    done=st.integers(1, 10),
    elapsed=st.floats(0, 100),
    jitter=st.floats(0, 1, exclude_max=True),
    retry_after=st.none() | st.floats(0, 1e9),
)
def test_waits_stay_within_the_budget_and_never_undercut_the_server(
    done: int, elapsed: float, jitter: float, retry_after: float | None
) -> None:
    policy = RetryPolicy()
    wait = policy.wait(done, elapsed, jitter, retry_after)
    if wait is None:
        assert done >= policy.tries or elapsed + (retry_after or 0) + policy.cap > policy.budget
    else:
        assert done < policy.tries
        assert 0 <= wait <= policy.budget - elapsed
        assert wait >= (retry_after or 0)


def test_waits_grow_up_to_the_cap() -> None:
    policy = RetryPolicy(tries=10, base=0.2, cap=1.0, budget=100)
    assert [policy.wait(done, 0, 1.0) for done in (1, 2, 3, 4, 5)] == [0.2, 0.4, 0.8, 1.0, 1.0]
    assert policy.wait(1, 0, 0.0) == 0.1


def test_a_server_that_asks_for_longer_than_the_budget_is_not_waited_for() -> None:
    policy = RetryPolicy(budget=10)
    assert policy.wait(1, 0, 0.5, retry_after=11) is None
    assert policy.wait(1, 9, 0.5, retry_after=2) is None
    assert policy.wait(1, 0, 0.5, retry_after=9) is not None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        (" 0 ", 0.0),
        (email.utils.formatdate(NOW + 7, usegmt=True), 7.0),
        (email.utils.formatdate(NOW - 7, usegmt=True), 0.0),
        (email.utils.formatdate(NOW + 7), 7.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("9" * 60, None),
        ("Mon, 99 Foo 2023 99:99:99 GMT", None),
        ("1" * 1000, None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW) == seconds


@given(st.text(max_size=80))
def test_any_retry_after_is_read_without_error(header: str) -> None:
    seconds = parse_retry_after(header, NOW)
    assert seconds is None or seconds >= 0
