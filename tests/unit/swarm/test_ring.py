"""The ring: all members see the same circle, and along it every piece comes from its holders to each of them once."""

from __future__ import annotations

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.records import PeerId
from p2pdist.swarm.choice import Choice
from p2pdist.swarm.division import Division
from p2pdist.swarm.flights import Flights
from p2pdist.swarm.geometry import Geometry
from p2pdist.swarm.laggards import Laggards
from p2pdist.swarm.members import Member, Members
from p2pdist.swarm.rendezvous import seed_of
from p2pdist.swarm.ring import Ring
from p2pdist.swarm.settings import PlannerSettings

ZONES = ("", "east", "west")
MOST = PlannerSettings().arc


def member(number: int, zone: str = "") -> Member:
    peer = PeerId(hashlib.sha256(number.to_bytes(8, "big")).digest()[:20])
    return Member(peer, near=True, seed=seed_of(peer), zone=zone)


def rings(members: list[Member]) -> dict[Member, Ring]:
    """Each member's own view of the same circle."""
    found = {}
    for own in members:
        ring = found[own] = Ring(own.place, MOST)
        ring.stand([other for other in members if other is not own])
    return found


@st.composite
def circles(draw: st.DrawFn, least: int = 2, most: int = 37) -> list[Member]:
    numbers = draw(st.lists(st.integers(0, 2**60), min_size=least, max_size=most, unique=True))
    return [member(number, draw(st.sampled_from(ZONES))) for number in numbers]


def in_order(members: list[Member]) -> list[Member]:
    return sorted(members, key=lambda each: each.place)


def test_a_lone_host_has_every_turn_and_nobody_to_ask() -> None:
    ring = Ring(("", 1), MOST)
    assert [ring.turn(piece) for piece in range(5)] == [0] * 5
    assert list(ring.behind()) == list(ring.ahead(None)) == []


def test_who_is_not_in_the_circle_stands_before_and_after_nobody() -> None:
    members = [member(number) for number in range(4)]
    ring = rings(members)[members[0]]
    for other in (member(99), members[0]):  # this host itself is None
        assert list(ring.ahead(other)) == list(ring.before(other)) == []


def test_a_circle_is_rebuilt_when_members_go() -> None:
    members = in_order([member(number) for number in range(4)])
    ring = Ring(members[3].place, MOST)
    ring.stand(members[:3])
    assert list(ring.behind()) == [members[2], members[1], members[0]]
    assert list(ring.ahead(members[1])) == [members[2], None, members[0]]
    assert list(ring.before(members[1])) == [members[0], None, members[2]]
    assert list(ring.ahead(None)) == members[:3]
    ring.stand([members[0], members[1]])
    assert list(ring.behind()) == [members[1], members[0]]
    assert list(ring.ahead(members[2])) == []
    ring.stand([])
    assert list(ring.behind()) == []
    assert len(ring) == 1


@given(circles())
def test_the_members_of_a_zone_stand_together(members: list[Member]) -> None:
    """So each piece crosses into a zone once: from one member to the next, zones change as seldom as they can."""
    views, circle = rings(members), in_order(members)
    after = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    for before, own in after.items():
        assert next(views[own].behind()) is before
    changes = sum(one.zone != other.zone for one, other in after.items())
    zones = len({each.zone for each in members})
    assert changes == (zones if zones > 1 else 0)


@given(circles())
def test_all_see_the_same_circle(members: list[Member]) -> None:
    circle = in_order(members)
    for own, ring in rings(members).items():
        at = circle.index(own)
        others = circle[at + 1 :] + circle[:at]
        assert list(ring.ahead(None)) == others
        assert list(ring.behind()) == others[::-1]
        for other in others:
            seen = [own if each is None else each for each in ring.ahead(other)]
            start = circle.index(other)
            assert seen == circle[start + 1 :] + circle[:start]
            assert [own if each is None else each for each in ring.before(other)] == seen[::-1]


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


# -- whom each member asks --

PIECE = 0
NOW = 10.0


def sources(
    members: list[Member], holders: set[Member], lagging: set[Member], **settings: int
) -> dict[Member, Member | None]:
    """Whom each that lacks the piece asks for it first, when all know the same of each other."""
    found: dict[Member, Member | None] = {}
    for own in members:
        if own in holders:
            continue
        numbers = PlannerSettings(**settings)  # type: ignore[arg-type]
        held: set[int] = set()
        table, flights, ring = Members(8, held), Flights(numbers.flights), Ring(own.place, MOST)
        known = {table.add(each.peer, True, each.zone, 0.0): each for each in members if each is not own}
        for other, each in known.items():
            other.lags_until = NOW + 1 if each in lagging else 0.0
            if each in holders:
                table.claim(other, PIECE, 1.0, 0.0)
                table.learn(other, (PIECE,))
        ring.stand(list(known))
        laggards = Laggards(Geometry(1, 1, 1), table, flights, ring, numbers)
        laggards.own_until = NOW + 1 if own in lagging else 0.0
        division = Division(own.seed, numbers, 0.0)
        choice = Choice(8, own.seed, held, table, flights, division, ring, laggards, numbers)
        asked = choice.best_source(PIECE, NOW)
        found[own] = known[asked] if asked is not None else None
    return found


@st.composite
def spread(draw: st.DrawFn, *, lag: bool) -> tuple[list[Member], set[Member], set[Member]]:
    """Members, who of them has the piece, and who lags: never more than half."""
    members = draw(circles(least=3, most=16))
    holders = draw(st.sets(st.sampled_from(members), min_size=1, max_size=len(members) - 1))
    most = len(members) // 2 if lag else 0
    return members, holders, draw(st.sets(st.sampled_from(members), max_size=most))


def hops(asked: dict[Member, Member | None], start: Member) -> list[Member]:
    """The way on which the piece comes to a member, backwards from it to a holder."""
    way = [start]
    while way[-1] in asked:
        source = asked[way[-1]]
        assert source is not None, "nobody to ask"
        assert source not in way, "in a circle"
        way.append(source)
    return way


@given(spread(lag=False))
def test_a_piece_goes_one_way_round_and_each_passes_it_to_one(
    case: tuple[list[Member], set[Member], set[Member]],
) -> None:
    members, holders, lagging = case
    circle, asked = in_order(members), sources(members, holders, lagging)
    for own, source in asked.items():
        assert source is circle[circle.index(own) - 1]
    assert all(times == 1 for times in Counter(asked.values()).values())
    for own in asked:
        assert hops(asked, own)[-1] in holders


@given(spread(lag=True))
def test_a_piece_reaches_every_member_past_those_that_lag(
    case: tuple[list[Member], set[Member], set[Member]],
) -> None:
    members, holders, lagging = case
    asked = sources(members, holders, lagging)
    for own in asked:
        way = hops(asked, own)
        assert way[-1] in holders
        assert not set(way[1:-1]) & lagging, "one that lags passes nothing on"
    if holders - lagging:
        assert not {asked[own] for own in asked if own not in lagging} & lagging


@given(spread(lag=True))
def test_those_that_keep_up_are_each_asked_by_one_other_that_does(
    case: tuple[list[Member], set[Member], set[Member]],
) -> None:
    members, holders, lagging = case
    asked = sources(members, holders, lagging)
    of_each = Counter(asked[own] for own in asked if own not in lagging)
    assert all(times == 1 for source, times in of_each.items() if source not in lagging)


def test_two_holders_that_lag_send_nobody_in_a_circle() -> None:
    circle = in_order([member(number) for number in range(6)])
    slow = {circle[1], circle[4]}
    asked = sources(circle, slow, slow)
    assert asked == {
        circle[0]: circle[5],
        circle[2]: circle[1],
        circle[3]: circle[2],
        circle[5]: circle[4],
    }


def test_who_lags_takes_a_piece_from_the_end_of_its_way() -> None:
    circle = in_order([member(number) for number in range(6)])
    asked = sources(circle, {circle[1]}, {circle[3]})
    assert asked[circle[4]] is circle[2]
    assert asked[circle[3]] is circle[0]  # the last to get it
    asked = sources(circle, {circle[1]}, {circle[0], circle[3]})
    assert asked[circle[3]] is asked[circle[0]] is circle[5]


def test_who_lags_asks_one_of_several_that_have_the_piece() -> None:
    circle = in_order([member(number) for number in range(6)])
    asked = sources(circle, {circle[1], circle[2]}, {circle[4]})
    assert asked[circle[4]] in {circle[1], circle[2]}
    assert asked[circle[5]] is circle[3]
