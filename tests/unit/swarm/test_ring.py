"""The ring: all members see the same circle, and along it every piece comes from its origin to each of them once."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.records import PeerId
from p2pdist.swarm.members import Member
from p2pdist.swarm.rendezvous import seed_of
from p2pdist.swarm.ring import ONE_WAY, Ring

ZONES = ("", "east", "west")


def member(number: int, zone: str = "") -> Member:
    peer = PeerId(hashlib.sha256(number.to_bytes(8, "big")).digest()[:20])
    return Member(peer, near=True, seed=seed_of(peer), zone=zone)


def rings(members: list[Member]) -> dict[Member, Ring]:
    """Each member's own view of the same circle."""
    found = {}
    for own in members:
        ring = found[own] = Ring(own.place)
        ring.stand([other for other in members if other is not own])
    return found


@st.composite
def circles(draw: st.DrawFn, least: int = 2, most: int = 2 * ONE_WAY + 5) -> list[Member]:
    numbers = draw(st.lists(st.integers(0, 2**60), min_size=least, max_size=most, unique=True))
    return [member(number, draw(st.sampled_from(ZONES))) for number in numbers]


def in_order(members: list[Member]) -> list[Member]:
    return sorted(members, key=lambda each: each.place)


def test_a_lone_host_has_every_turn_and_nobody_to_ask() -> None:
    ring = Ring(("", 1))
    assert [ring.turn(piece) for piece in range(5)] == [0] * 5
    assert list(ring.toward(member(1))) == []


def test_who_is_not_in_the_circle_gives_nothing() -> None:
    members = [member(number) for number in range(4)]
    ring = rings(members)[members[0]]
    assert list(ring.toward(member(99))) == []
    assert list(ring.toward(members[0])) == []  # this host itself


def test_a_circle_is_rebuilt_when_members_go() -> None:
    members = in_order([member(number) for number in range(4)])
    ring = Ring(members[3].place)
    ring.stand(members[:3])
    assert list(ring.toward(members[0])) == [members[2], members[1], members[0]]
    ring.stand([members[0], members[1]])
    assert list(ring.toward(members[0])) == [members[1], members[0]]
    assert list(ring.toward(members[2])) == []
    ring.stand([])
    assert list(ring.toward(members[0])) == []


@given(circles())
def test_the_members_of_a_zone_stand_together(members: list[Member]) -> None:
    """So each piece crosses into a zone once: from one member to the next, zones change as seldom as they can."""
    views, circle = rings(members), in_order(members)
    after = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    for before, own in after.items():
        assert next(views[own].toward(before)) is before
    changes = sum(one.zone != other.zone for one, other in after.items())
    zones = len({each.zone for each in members})
    assert changes == (zones if zones > 1 else 0)


@given(circles(), st.integers(0, 1000))
def test_every_piece_is_one_members_turn_and_the_others_follow(members: list[Member], piece: int) -> None:
    turns = [ring.turn(piece) for ring in rings(members).values()]
    assert sorted(turns) == list(range(len(members)))


@given(circles(), st.integers(0, 100))
def test_turns_go_round_the_circle(members: list[Member], piece: int) -> None:
    views = rings(members)
    first = [next(each for each in members if views[each].turn(p) == 0) for p in (piece, piece + 1)]
    circle = in_order(members)
    assert circle[(circle.index(first[0]) + 1) % len(circle)] is first[1]


@given(circles(), st.integers(0, 100))
def test_a_piece_reaches_every_member_and_goes_in_no_circle(members: list[Member], index: int) -> None:
    views, origin = rings(members), members[index % len(members)]
    most = len(members) - 1 if len(members) <= ONE_WAY else len(members) // 2
    for start in members:
        at, hops = start, 0
        while at is not origin:
            at, hops = next(views[at].toward(origin)), hops + 1
            assert hops <= most


@given(circles(), st.integers(0, 100))
def test_those_who_are_asked_end_with_the_origin_and_come_once(members: list[Member], index: int) -> None:
    views, origin = rings(members), members[index % len(members)]
    for own, ring in views.items():
        path = list(ring.toward(origin))
        assert len(set(path)) == len(path)
        assert own not in path
        if own is not origin:
            assert path[-1] is origin


@given(circles(), st.integers(0, 100))
def test_stepping_over_a_member_leads_where_it_would_have_asked(members: list[Member], index: int) -> None:
    views, origin = rings(members), members[index % len(members)]
    for own, ring in views.items():
        path = list(ring.toward(origin))
        assert all(next(views[one].toward(origin)) is other for one, other in pairwise(path)), own


@given(circles(), st.integers(0, 100))
def test_no_member_gives_a_piece_to_more_than_its_neighbours(members: list[Member], index: int) -> None:
    """One way: each member but the last gives it to one; both ways: the origin to two."""
    views, origin = rings(members), members[index % len(members)]
    given_by = Counter(next(views[own].toward(origin)) for own in members if own is not origin)
    one_way = len(members) <= ONE_WAY
    assert all(count == 1 for giver, count in given_by.items() if giver is not origin)
    assert given_by[origin] == (1 if one_way or len(members) == 2 else 2)


@given(circles(most=ONE_WAY))
def test_one_way_a_member_has_the_same_predecessor_whatever_the_origin(members: list[Member]) -> None:
    for own, ring in rings(members).items():
        assert len({next(ring.toward(origin)) for origin in members if origin is not own}) == 1


@pytest.mark.parametrize(("count", "sources"), [(ONE_WAY, 1), (ONE_WAY + 1, 2)])
def test_the_ring_goes_both_ways_from_a_size_on(count: int, sources: int) -> None:
    members = [member(number) for number in range(count)]
    own, *others = members
    assert len({next(rings(members)[own].toward(origin)) for origin in others}) == sources
