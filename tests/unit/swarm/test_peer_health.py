"""The standing of peers over time, as a transcript of what happens with them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.swarm.peer_health import (
    BAN,
    MAX_BACKOFF,
    MAX_BUSY,
    Observation,
    Outcome,
    PeerHealth,
    Standing,
)

A, B, C, D = (PeerId(bytes([number]) * 20) for number in range(4))


def provider(peer: PeerId, zone: str = "", *, complete: bool = True) -> Provider:
    return Provider(peer, (Endpoint("10.0.0.1", 5051),), zone, complete)


def names(ordered: list[Provider]) -> list[PeerId]:
    return [each.peer for each in ordered]


def test_an_unknown_peer_is_usable() -> None:
    assert PeerHealth().standing(A, 0.0) is Standing.OK
    assert PeerHealth().usable(A, 0.0)


@pytest.mark.parametrize("outcome", [Outcome.UNREACHABLE, Outcome.STALLED, Outcome.SLOW])
def test_each_outage_doubles_the_wait_up_to_a_bound(outcome: Outcome) -> None:
    health, now, waits = PeerHealth(), 100.0, []
    for _ in range(8):
        health.observe(Observation(A, outcome), now)
        assert not health.usable(A, now)
        wait = health.view(now)[0].seconds_left
        waits.append(wait)
        assert not health.usable(A, now + wait - 0.01)
        now += wait
        assert health.usable(A, now)
    assert waits == [1, 2, 4, 8, 16, MAX_BACKOFF, MAX_BACKOFF, MAX_BACKOFF]


def test_many_failures_of_one_outage_count_once() -> None:
    health = PeerHealth()
    for number in range(10):
        health.unreachable(A, 100.0 + number / 100)
    assert health.view(100.1)[0].failures == 1
    assert health.usable(A, 101.0)


def test_success_forgives() -> None:
    health = PeerHealth()
    for now in (100.0, 102.0, 105.0):
        health.stalled(A, now)
    health.succeeded(A, 105.5)
    assert health.usable(A, 105.5)
    health.stalled(A, 106.0)
    assert health.usable(A, 107.0)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (None, 0.5),
        (0.2, 0.2),
        (0.0, 0.05),
        (-5.0, 0.05),
        (1e9, MAX_BUSY),
        (math.nan, 0.5),
        (math.inf, MAX_BUSY),
    ],
)
def test_busy_is_short_whatever_the_peer_asks(asked: float | None, seconds: float) -> None:
    health = PeerHealth()
    health.busy(A, 100.0, asked)
    assert health.standing(A, 100.0) is Standing.BUSY
    assert health.view(100.0)[0].seconds_left == pytest.approx(seconds)
    assert health.usable(A, 100.0 + seconds + 0.001)
    assert health.view(100.0)[0].failures == 0


def test_a_liar_is_banned_and_nothing_but_time_lifts_it() -> None:
    health = PeerHealth()
    health.banned(A, 100.0)
    for event in (health.succeeded, health.unreachable, health.stalled, health.slow, health.busy):
        event(A, 101.0)
        assert health.standing(A, 101.0) is Standing.BANNED
    assert health.standing(A, 100.0 + BAN - 1) is Standing.BANNED
    assert health.usable(A, 100.0 + BAN)


def test_a_second_lie_bans_from_then_on() -> None:
    health = PeerHealth()
    health.banned(A, 100.0)
    health.banned(A, 400.0)
    assert not health.usable(A, 100.0 + BAN + 1)
    assert health.usable(A, 400.0 + BAN)


def test_order_prefers_the_own_zone_then_speed_then_completeness() -> None:
    health = PeerHealth()
    health.received(A, 100_000_000, 1.0, 0.0)
    health.received(B, 1_000_000, 1.0, 0.0)
    health.received(C, 110_000_000, 1.0, 0.0)
    health.received(D, 400_000, 1.0, 0.0)
    offered = [
        provider(D, "near"),
        provider(A, "far"),
        provider(B, "near"),
        provider(C, "far", complete=False),
    ]
    assert names(health.order(offered, 1.0, "near")) == [B, D, A, C]


def test_speeds_that_hardly_differ_do_not_decide() -> None:
    """Otherwise every host would run to the one that is a percent faster."""
    fast, faster = 70_000_000, 90_000_000
    first = []
    for seed in range(20):
        health = PeerHealth(bytes([seed]))
        health.received(A, fast, 1.0, 0.0)
        health.received(B, faster, 1.0, 0.0)
        first.append(names(health.order([provider(A), provider(B)], 1.0))[0])
    assert set(first) == {A, B}


def test_one_host_always_gives_the_same_order() -> None:
    offered = [provider(peer) for peer in (A, B, C, D)]
    orders = {tuple(names(PeerHealth(b"seed").order(offered[n:] + offered[:n], 0.0))) for n in range(4)}
    assert len(orders) == 1


def test_different_blobs_burden_different_peers() -> None:
    offered = [provider(peer) for peer in (A, B, C, D)]
    health = PeerHealth(b"seed")
    assert len({names(health.order(offered, 0.0, salt=bytes([n])))[0] for n in range(64)}) == 4


def test_who_is_not_usable_is_not_offered() -> None:
    health = PeerHealth()
    health.unreachable(A, 100.0)
    health.busy(B, 100.0)
    health.banned(C, 100.0)
    assert names(health.order([provider(peer) for peer in (A, B, C, D)], 100.1)) == [D]


def test_an_unmeasured_peer_is_tried_beside_the_fastest() -> None:
    first = set()
    for seed in range(20):
        health = PeerHealth(bytes([seed]))
        health.received(A, 100_000_000, 1.0, 0.0)
        health.received(B, 1_000, 1.0, 0.0)
        ordered = names(health.order([provider(peer) for peer in (A, B, C)], 0.0))
        first.add(ordered[0])
        assert ordered[-1] == B
    assert first == {A, C}


def test_the_rate_follows_slowly_and_tiny_samples_are_dropped() -> None:
    health = PeerHealth()
    health.received(A, 1000, 1.0, 0.0)
    health.received(A, 2000, 1.0, 0.0)
    health.received(A, 0, 1.0, 0.0)
    health.received(A, 5, 0.0, 0.0)
    assert health.view(0.0)[0].rate == pytest.approx(1300)


def test_the_least_recently_heard_of_is_forgotten_first_but_bans_last() -> None:
    health = PeerHealth(capacity=3)
    health.banned(A, 100.0)
    health.unreachable(B, 100.0)
    health.unreachable(C, 100.0)
    health.unreachable(D, 100.0)
    assert [view.peer for view in health.view(100.0)] == [D, C, A]
    assert health.usable(B, 100.0)


def test_bans_alone_do_not_grow_without_end() -> None:
    health = PeerHealth(capacity=2)
    for peer in (A, B, C):
        health.banned(peer, 100.0)
    assert [view.peer for view in health.view(100.0)] == [C, B]


@given(st.lists(st.sampled_from([A, B, C, D]), max_size=8), st.binary(max_size=100))
def test_order_keeps_each_offer_once(peers: list[PeerId], seed: bytes) -> None:
    offered = [provider(peer) for peer in peers]
    assert sorted(names(PeerHealth(seed).order(offered, 0.0))) == sorted(peers)


class HealthMachine(RuleBasedStateMachine):
    """Whatever happens, in any order: standings end in time, memory is bounded, and bans hold."""

    def __init__(self) -> None:
        super().__init__()
        self.health = PeerHealth(capacity=3)
        self.now = 0.0
        self.banned_until: dict[PeerId, float] = {}

    @rule(
        peer=st.sampled_from([A, B, C]),
        outcome=st.sampled_from(Outcome),
        retry_after=st.none() | st.floats(allow_nan=True),
    )
    def happens(self, peer: PeerId, outcome: Outcome, retry_after: float | None) -> None:
        before = self.health.standing(peer, self.now)
        after = self.health.observe(Observation(peer, outcome, retry_after), self.now)
        assert self.health.standing(peer, self.now) is after
        if outcome is Outcome.LIED:
            self.banned_until[peer] = self.now + BAN
        if outcome is Outcome.SUCCEEDED and before is not Standing.BANNED:
            assert after is Standing.OK

    @rule(seconds=st.floats(0, 700))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def all_is_bounded(self) -> None:
        views = self.health.view(self.now)
        assert len(views) <= 3
        for view in views:
            bound = {
                Standing.OK: 0.0,
                Standing.BACKING_OFF: MAX_BACKOFF,
                Standing.BUSY: MAX_BUSY,
                Standing.BANNED: BAN,
            }
            assert view.seconds_left <= bound[view.standing] + 1e-6
        for peer, until in self.banned_until.items():
            if self.now < until:
                assert self.health.standing(peer, self.now) is Standing.BANNED


TestHealthMachine = HealthMachine.TestCase
