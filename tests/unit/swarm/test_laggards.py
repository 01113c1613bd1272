"""Who cannot keep up with the ring: how that is found out, and whose word counts for whom."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from p2pdist.records import PeerId
from p2pdist.swarm.flights import Flights
from p2pdist.swarm.geometry import Geometry
from p2pdist.swarm.laggards import Laggards, Trial, Verdict
from p2pdist.swarm.members import Member, Members
from p2pdist.swarm.rendezvous import seed_of
from p2pdist.swarm.ring import Ring
from p2pdist.swarm.settings import PlannerSettings

TICK = 0.25
PIECES = 1000
SIZE = 1 << 18
MOST = 16
SPAN = 2.0  # lag_window, among up to eight others


def peer(number: int) -> PeerId:
    return PeerId(hashlib.sha256(number.to_bytes(8, "big")).digest()[:20])


class Host:
    """One host's view of a ring. Time goes in ticks; ``ask`` and ``come`` stand for its planner."""

    def __init__(self, others: int = 3, **numbers: float) -> None:
        self.now = 0.0
        self.held: set[int] = set()
        self.settings = PlannerSettings(**numbers)  # type: ignore[arg-type]
        self.members = Members(PIECES, self.held)
        self.flights = Flights(64)
        self.ring = Ring(("", seed_of(peer(0))), self.settings.arc)
        for number in range(1, others + 1):
            self.members.add(peer(number), True, "", 0.0)
        self.stand()
        self.laggards = Laggards(
            Geometry(PIECES * SIZE, SIZE, PIECES), self.members, self.flights, self.ring, self.settings
        )

    def stand(self) -> None:
        self.ring.stand(list(self.members.table.values()))

    @property
    def behind(self) -> list[Member]:
        return list(self.ring.behind())

    def ask(self, *pieces: int) -> None:
        """The predecessor was asked for these."""
        for piece in pieces:
            self.flights.take_off(piece, self.behind[0], self.now)

    def follow(self, trial: Trial) -> None:
        """Ask as the trial says."""
        for piece in trial.pieces:
            assert self.flights.land(piece, trial.member)
            self.flights.take_off(piece, trial.other, self.now)

    def hold(self, piece: int) -> None:
        for source in self.flights.of(piece):
            self.flights.land(piece, source)
        self.held.add(piece)
        self.members.arrived(piece)
        self.laggards.progressed(-1, None, SIZE)

    def tick(self, seconds: float = TICK) -> Trial | None:
        self.now += seconds
        return self.laggards.look(self.now)

    def starve(self, rate: int = 2) -> Trial:
        """The others get ``rate`` pieces in each tick and this host none, until that is tried."""
        self.ask(*range(60))
        for step in range(40):
            fresh = range(step * rate, (step + 1) * rate)
            for member in self.behind:
                self.members.learn(member, fresh)
            trial = self.tick()
            if trial is not None:
                self.follow(trial)
                return trial
        pytest.fail("no trial")


# -- trials and verdicts --


def test_who_gets_little_of_what_its_predecessor_has_tries_another() -> None:
    host = Host()
    trial = host.starve()
    before, *others = host.behind
    assert trial.member is before
    assert trial.other in others
    assert 3 <= len(trial.pieces) <= 4
    assert all(host.members.has(trial.other, piece) for piece in trial.pieces)
    assert 0.8 * SPAN <= host.now <= SPAN + TICK


@given(gains=st.lists(st.integers(0, 4), min_size=8, max_size=60), late=st.integers(0, 3))
def test_a_healthy_ring_yields_no_trial(gains: list[int], late: int) -> None:
    """A host that gets what its predecessor gets, by a few pieces later, has no reason for one."""
    host = Host()
    host.ask(*range(250))
    theirs = 0
    for gain in gains:
        for member in host.behind:
            host.members.learn(member, range(theirs, theirs + gain))
        theirs += gain
        for piece in range(len(host.held), theirs - late):
            host.hold(piece)
        assert host.tick() is None
        assert host.laggards.judge(host.now) is None


def test_a_ring_in_which_nobody_gets_anything_yields_no_trial() -> None:
    host = Host()
    host.ask(*range(20))
    for _ in range(80):
        assert host.tick() is None


def test_what_the_predecessor_was_not_asked_for_it_does_not_owe() -> None:
    host = Host()
    for step in range(40):
        for member in host.behind:
            host.members.learn(member, range(2 * step, 2 * step + 2))
        assert host.tick() is None


def test_what_it_was_asked_for_only_now_it_does_not_owe_yet() -> None:
    host = Host(lag=1.0)
    for step in range(8):
        for member in host.behind:
            host.members.learn(member, range(2 * step, 2 * step + 2))
        assert host.tick() is None
    host.ask(*range(16))
    for step in range(8, 40):
        for member in host.behind:
            host.members.learn(member, range(2 * step, 2 * step + 2))
        trial = host.tick()
        if trial is not None:
            break
    assert trial is not None
    assert host.now == 2.0 + 1.0


def behind_a_slow_one(*, others_wait: bool = False, others: int = 5) -> tuple[Host, Trial | None]:
    """The predecessor stands still, and so does this host; the one before it goes on, or (``others_wait``) stands still too,
    and only those before that go on."""
    host = Host(others=others)
    before, second, *rest = host.behind
    host.ask(*range(60))
    for step in range(40):
        for member in rest if others_wait else (second, *rest):
            host.members.learn(member, (step,))
        trial = host.tick()
        if trial is not None:
            host.follow(trial)
            return host, trial
    assert not before.have
    return host, None


def test_the_first_behind_one_that_stands_still_tries_another() -> None:
    host, trial = behind_a_slow_one()
    assert trial is not None
    assert trial.member is host.behind[0]
    assert trial.other in host.behind[1:]
    assert host.now <= SPAN + 6 * TICK


@pytest.mark.parametrize(("others", "tried"), [(11, True), (12, False)])
def test_in_large_rings_nobody_goes_by_what_others_say_that_they_have(others: int, tried: bool) -> None:
    _, trial = behind_a_slow_one(others=others)
    assert (trial is not None) is tried


def test_those_further_behind_have_no_reason_to() -> None:
    _, trial = behind_a_slow_one(others_wait=True)
    assert trial is None


def test_one_that_passes_on_what_it_does_not_tell_of_stands_in_nobodys_way() -> None:
    """Its word is late; but nobody passes on more than it gets."""
    host = Host(others=5)
    before, second, *_ = host.behind
    host.ask(*range(60))
    for step in range(10):
        host.members.learn(second, range(2 * step, 2 * step + 2))
        host.laggards.progressed(2 * step, before, 2 * SIZE)
        assert host.tick() is None
    assert not before.have


@pytest.mark.parametrize("own", [400, 600])
def test_the_predecessor_is_blamed_only_where_another_brings_much_more(own: int) -> None:
    host, trial = behind_a_slow_one()
    assert trial is not None
    host.laggards.progressed(50, trial.member, own)
    host.laggards.progressed(trial.pieces[0], trial.other, 1000)
    assert host.laggards.judge(host.now + 2.0) == (Verdict(trial.member) if own < 500 else None)


@pytest.mark.parametrize(("brought", "slow"), [(3, "nobody"), (8, "the predecessor")])
def test_who_gets_more_with_the_trial_than_without_has_room_so_the_predecessor_is_slow(
    brought: int, slow: str
) -> None:
    """Two pieces a second are what this host had before."""
    host = Host(others=5)
    before, *rest = host.behind
    host.ask(*range(100))
    for step in range(40):
        for member in rest:
            host.members.learn(member, range(3 * step, 3 * step + 3))
        if step % 2:
            host.laggards.progressed(99, before, SIZE)
        trial = host.tick()
        if trial is not None:
            break
    assert trial is not None
    assert trial.member is before
    host.follow(trial)
    host.laggards.progressed(trial.pieces[0], trial.other, brought * SIZE)
    verdict = host.laggards.judge(host.now + 2.0)
    assert verdict == (None if slow == "nobody" else Verdict(before))


def test_who_would_need_long_for_what_its_predecessor_has_and_gets_no_more_elsewhere_is_slow_itself() -> None:
    """Also when the predecessor gains nothing more, since it has nearly all."""
    host = Host(others=5)
    before, *_ = host.behind
    host.ask(*range(60))
    for member in host.behind:
        host.members.learn(member, range(50))
    for step in range(40):
        if step % 4 == 0:
            host.laggards.progressed(55, before, SIZE)
        trial = host.tick()
        if trial is not None:
            break
    assert trial is not None
    host.follow(trial)
    host.laggards.progressed(trial.pieces[0], trial.other, SIZE)
    assert host.laggards.judge(host.now + 2.0) == Verdict(None)


def test_where_no_other_has_what_is_owed_nothing_is_tried() -> None:
    host = Host()
    host.ask(*range(60))
    for step in range(40):
        host.members.learn(host.behind[0], range(2 * step, 2 * step + 2))
        assert host.tick() is None


def test_one_that_lags_or_is_to_be_left_alone_is_not_tried() -> None:
    host = Host()
    _, busy, slow = host.behind
    busy.quiet_until = slow.lags_until = 1e9
    host.ask(*range(60))
    for step in range(40):
        for member in host.behind:
            host.members.learn(member, range(2 * step, 2 * step + 2))
        assert host.tick() is None


def test_two_hosts_judge_nobody() -> None:
    host = Host(others=1)
    host.ask(*range(60))
    for step in range(40):
        host.members.learn(host.behind[0], range(2 * step, 2 * step + 2))
        assert host.tick() is None


def test_a_predecessor_is_slow_when_another_brings_much_more() -> None:
    host = Host()
    trial = host.starve()
    for piece in trial.pieces:
        host.laggards.progressed(piece, trial.other, 1000)
        host.hold(piece)
    assert host.laggards.judge(host.now + 0.5) is None  # too early to tell
    assert host.laggards.judge(host.now + 0.75) == Verdict(trial.member)
    assert host.laggards.judge(host.now + 1.0) is None


def test_this_host_is_slow_when_another_brings_no_more() -> None:
    host = Host()
    trial = host.starve()
    for _ in range(5):
        host.laggards.progressed(50, trial.member, 500)
        host.laggards.progressed(trial.pieces[0], trial.other, 500)
    assert host.laggards.judge(host.now + 1.9) is None  # the pieces tried have not come
    assert host.laggards.judge(host.now + 2.0) == Verdict(None)


def test_what_the_predecessor_sends_after_the_others_last_bytes_does_not_count() -> None:
    """The trial is over for the one, and the other has the link for itself."""
    host = Host()
    trial = host.starve()
    host.laggards.progressed(50, trial.member, 300)
    host.laggards.progressed(trial.pieces[0], trial.other, 1000)
    host.laggards.progressed(50, trial.member, 1_000_000)
    for piece in trial.pieces:
        host.hold(piece)
    assert host.laggards.judge(host.now + 1.0) == Verdict(trial.member)


def test_other_bytes_of_the_one_that_is_tried_do_not_count() -> None:
    host = Host()
    trial = host.starve()
    host.laggards.progressed(50, trial.other, 1_000_000)
    host.laggards.progressed(50, trial.member, 1)
    host.laggards.progressed(trial.pieces[0], trial.other, 1)
    assert host.laggards.judge(host.now + 2.0) == Verdict(None)


def test_what_upstream_brings_of_the_pieces_tried_does_not_count() -> None:
    host = Host()
    trial = host.starve()
    host.laggards.progressed(trial.pieces[0], None, 1000)
    host.laggards.progressed(50, trial.member, 1)
    assert host.laggards.judge(host.now + 2.0) == Verdict(None)


def test_who_caught_up_meanwhile_is_not_slow() -> None:
    host = Host()
    trial = host.starve()
    for piece in range(40):
        host.hold(piece)
    host.tick()
    host.laggards.progressed(trial.pieces[0], trial.other, 10)
    host.laggards.progressed(50, trial.member, 10)
    host.laggards.progressed(trial.pieces[0], trial.other, 10)
    assert host.laggards.judge(host.now + 2.0) is None


def test_bytes_of_pieces_that_are_not_whole_yet_are_counted_too() -> None:
    """Many pieces at once come late, all of them: that is no sign of a slow link."""
    host = Host()
    host.ask(*range(60))
    for step in range(20):
        for member in host.behind:
            host.members.learn(member, range(2 * step, 2 * step + 2))
        for piece in range(40):
            host.laggards.progressed(piece, host.behind[0], SIZE // 20)
        assert host.tick() is None


def test_less_than_half_is_a_reason_to_try_and_more_than_a_third_none_to_blame_oneself() -> None:
    host = Host()
    host.ask(*range(60))
    for step in range(40):
        for member in host.behind:
            host.members.learn(member, range(5 * step, 5 * step + 5))
        host.hold(500 + 2 * step)
        host.hold(501 + 2 * step)
        trial = host.tick()
        if trial is not None:
            break
    assert trial is not None
    host.laggards.progressed(50, trial.member, 1000)
    host.laggards.progressed(trial.pieces[0], trial.other, 1000)
    assert host.laggards.judge(host.now + 2.0) is None


def test_a_predecessor_that_has_everything_and_delivers_little_is_tried() -> None:
    host = Host()
    before, other, _ = host.behind
    host.ask(*range(60))
    host.members.learn(before, range(PIECES))
    host.members.learn(other, range(60))
    trial = next(trial for trial in (host.tick() for _ in range(9)) if trial is not None)
    assert trial.member is before
    assert trial.other is other
    host.follow(trial)
    for piece in trial.pieces:
        host.laggards.progressed(piece, other, 1000)
        host.hold(piece)
    assert host.laggards.judge(host.now + 1.0) == Verdict(before)


def test_after_a_trial_there_is_none_for_a_while() -> None:
    host = Host(lag_pause=40.0)
    host.starve()
    over = host.now + 2.0
    assert host.laggards.judge(over) is not None
    host.now = over
    step = 100
    while True:
        step += 1
        for member in host.behind:
            host.members.learn(member, range(2 * step, 2 * step + 2))
        if host.tick() is not None:
            break
    assert host.now >= over + 10.0


def test_another_predecessor_begins_anew() -> None:
    host = Host()
    trial = host.starve()
    trial.member.lags_until = 1e9
    assert host.tick() is None
    assert host.laggards.judge(host.now + 5.0) is None
    for step in range(100, 106):
        for member in host.behind:
            host.members.learn(member, range(2 * step, 2 * step + 2))
        assert host.tick() is None  # the window is empty again


def test_who_lags_itself_judges_nobody() -> None:
    host = Host()
    assert host.laggards.note(None, host.now, said_by=None)
    host.ask(*range(60))
    for step in range(40):
        for member in host.behind:
            host.members.learn(member, range(2 * step, 2 * step + 2))
        assert host.tick() is None


def test_a_larger_swarm_is_looked_at_for_longer() -> None:
    host = Host(others=32)
    host.starve(rate=1)
    assert 0.8 * SPAN * 4 <= host.now <= SPAN * 4 + TICK


# -- whose word counts --


def test_what_is_known_is_not_said_again() -> None:
    """So a word goes round once, and one that lags is tried again when its time is over."""
    host = Host()
    member = host.behind[0]
    assert host.laggards.note(member, 0.0, said_by=member)
    assert not host.laggards.note(member, 29.0, said_by=member)
    assert member.lags_until == 30.0
    assert host.laggards.note(member, 30.0, said_by=member)
    assert host.laggards.note(None, 0.0, said_by=None)
    assert not host.laggards.note(None, 29.0, said_by=None)


def test_what_a_member_says_of_itself_counts() -> None:
    host = Host()
    for member in host.behind[1:2]:
        assert host.laggards.note(member, 5.0, said_by=member)
        assert member.lags_until == 5.0 + host.settings.lag_pause


def test_what_the_successor_says_counts_and_what_others_say_does_not() -> None:
    host = Host(others=4)
    first, second, third, fourth = host.behind
    assert not host.laggards.note(third, 0.0, said_by=first)
    assert not host.laggards.note(third, 0.0, said_by=fourth)
    assert not host.laggards.note(third, 0.0, said_by=None)
    assert third.lags_until == 0.0
    assert host.laggards.note(third, 0.0, said_by=second)
    assert host.laggards.note(first, 0.0, said_by=None)  # this host comes after it


def test_of_this_host_its_successor_may_say_it() -> None:
    host = Host(others=4)
    *others, after = host.behind
    for member in others:
        assert not host.laggards.note(None, 0.0, said_by=member)
    assert not host.laggards.lags(0.0)
    assert host.laggards.note(None, 0.0, said_by=after)
    assert host.laggards.lags(0.0)
    assert host.laggards.lags(29.9)
    assert not host.laggards.lags(30.0)


def test_the_successor_of_one_is_the_next_that_keeps_up() -> None:
    host = Host(others=6)
    ahead = [member for member in host.ring.ahead(None) if member is not None]
    assert host.laggards.note(ahead[1], 0.0, said_by=ahead[1])
    assert not host.laggards.note(ahead[0], 0.0, said_by=ahead[1])
    assert host.laggards.note(ahead[0], 0.0, said_by=ahead[2])


def test_of_one_outside_of_the_ring_only_itself_may_say_it() -> None:
    host = Host()
    outside = host.members.add(peer(99), True, "", 0.0)
    for said_by in (*host.behind, None):
        assert not host.laggards.note(outside, 0.0, said_by=said_by)
    assert outside.lags_until == 0.0


@pytest.mark.parametrize(("others", "most"), [(1, 1), (2, 1), (3, 2), (4, 2), (7, 4)])
def test_never_more_than_half_lag(others: int, most: int) -> None:
    host = Host(others=others)
    noted = [host.laggards.note(member, 0.0, said_by=member) for member in (*host.behind, None)]
    assert sum(noted) == most
    assert noted[:most] == [True] * most
    assert all(host.laggards.note(member, 31.0, said_by=member) for member in host.behind[:1])  # later again


class Words(RuleBasedStateMachine):
    """Anything is said by anybody of anybody, pieces come or not, members come and go."""

    @initialize(others=st.integers(1, 12))
    def begin(self, others: int) -> None:
        self.host = Host(others=others, lag_pause=3.0)
        self.number = others

    def someone(self, draw: st.DataObject) -> Member | None:
        return draw.draw(st.sampled_from([None, *self.host.members.table.values()]))

    def lagging(self) -> int:
        host = self.host
        members = host.members.table.values()
        return sum(member.lags_until > host.now for member in members) + host.laggards.lags(host.now)

    def lags(self, member: Member | None) -> bool:
        if member is None:
            return self.host.laggards.lags(self.host.now)
        return member.lags_until > self.host.now

    def successor(self, member: Member | None) -> Member | None:
        """Who comes after one in the circle and keeps up, counted from this host's place."""
        circle: list[Member | None] = [None, *reversed(self.host.behind)]
        at = circle.index(member)
        after = circle[at + 1 :] + circle[:at]
        return next((each for each in after if not self.lags(each)), member)

    @rule(draw=st.data())
    def somebody_says_so(self, draw: st.DataObject) -> None:
        member, said_by = self.someone(draw), self.someone(draw)
        may = not self.lags(member) and (said_by is member or said_by is self.successor(member))
        before = self.lagging()
        room = 2 * (before + 1) <= len(self.host.ring)
        counts = self.host.laggards.note(member, self.host.now, said_by=said_by)
        assert counts == (may and room)
        assert self.lagging() == before or (counts and self.lagging() == before + 1)
        assert self.lags(member) or not counts
        assert not counts or 2 * self.lagging() <= len(self.host.ring)

    @rule(gain=st.integers(0, 3), mine=st.integers(0, 3), asks=st.integers(0, 3))
    def time_goes_by(self, gain: int, mine: int, asks: int) -> None:
        host = self.host
        have = max((max(member.have, default=-1) for member in host.behind), default=-1)
        for member in host.behind:
            host.members.learn(member, range(have + 1, have + 1 + gain))
        free = [piece for piece in range(PIECES) if piece not in host.held]
        for piece in free[:mine]:
            host.hold(piece)
        before = host.behind[0] if host.behind else None
        if before is not None:
            host.ask(*[piece for piece in free[mine : mine + 40] if piece not in host.flights.pieces][:asks])
        verdict = host.laggards.judge(host.now)
        if verdict is not None:
            assert verdict.member in (None, *host.behind)
            counts = host.laggards.note(verdict.member, host.now, said_by=None)
            assert not counts or 2 * self.lagging() <= len(host.ring)
        trial = host.tick()
        if trial is not None:
            assert len(host.ring) >= 3
            assert not host.laggards.lags(host.now)
            assert trial.member is next(m for m in host.behind if m.lags_until <= host.now)
            assert trial.other is not trial.member
            assert trial.other.lags_until <= host.now
            assert 0 < len(trial.pieces) <= 4
            host.follow(trial)

    @rule(draw=st.data(), size=st.integers(1, 5))
    def bytes_come(self, draw: st.DataObject, size: int) -> None:
        flights = [(piece, member) for piece, all_of in self.host.flights.pieces.items() for member in all_of]
        if flights:
            piece, member = draw.draw(st.sampled_from(flights))
            self.host.laggards.progressed(piece, member, size)

    @rule()
    def one_comes(self) -> None:
        if len(self.host.members.table) < MOST:
            self.number += 1
            self.host.members.add(peer(self.number), True, "", self.host.now)
            self.host.stand()

    @rule(draw=st.data())
    def one_goes(self, draw: st.DataObject) -> None:
        member = self.someone(draw)
        if member is not None:
            for piece in self.host.flights.from_member(member):
                self.host.flights.land(piece, member)
            self.host.members.forget(member)
            self.host.stand()

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "host"):
            span = SPAN * MOST / 8
            assert len(self.host.laggards._window) <= 2 + span / TICK


Words.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestWords = Words.TestCase
