"""Arcs: the largest swarms are several rings, between which each piece goes once to each."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.records import PeerId
from p2pdist.swarm import events as ev
from p2pdist.swarm.geometry import MIN_PIECE, Geometry
from p2pdist.swarm.members import Member
from p2pdist.swarm.planner import Planner, PlannerSettings
from p2pdist.swarm.rendezvous import seed_of
from p2pdist.swarm.ring import SOURCE_BITS, Ring

TICK = ev.Ticked()
PIECES = 64


def peer(seed: int) -> PeerId:
    return PeerId(seed.to_bytes(8, "big") + bytes(12))


def member(seed: int) -> Member:
    return Member(peer(seed), near=True, seed=seed)


def spread(count: int) -> list[int]:
    """Seeds at equal distances all around the circle."""
    return [(2 * index + 1) << 64 >> (count.bit_length()) for index in range(count)]


# Of 8 members the lower four are one arc, the upper four the other.
ME, ANN, BOB, CAT, *FAR = (peer(seed) for seed in spread(8))
ZOE, YVES, XENIA, WALT = FAR


def planner(pieces: int = PIECES, **settings: object) -> Planner:
    """A host that knows all eight, where an arc has room for four."""
    geometry = Geometry(pieces * MIN_PIECE, MIN_PIECE, pieces)
    plan = Planner(geometry, ME, (), 0.0, PlannerSettings(arc=5, upstream_flights=4, **settings))  # type: ignore[arg-type]
    for other in (ANN, BOB, CAT, *FAR):
        plan.handle(ev.MemberJoined(other, frozenset()), 0.0)
    assert plan.arc == 1
    return plan


def asked(commands: list[ev.Command]) -> list[tuple[PeerId, int]]:
    return [(c.peer, c.piece) for c in commands if isinstance(c, ev.AskPeer)]


def upstream(commands: list[ev.Command]) -> list[int]:
    return [piece for c in commands if isinstance(c, ev.AskUpstream) for piece in c.pieces]


def claimed(commands: list[ev.Command]) -> list[int]:
    return [piece for c in commands if isinstance(c, ev.Tell) for piece in c.claim]


def released(commands: list[ev.Command]) -> list[int]:
    return [piece for c in commands if isinstance(c, ev.Tell) for piece in c.release]


def foreign(plan: Planner) -> int:
    """A piece that is for the other arc to fetch from upstream."""
    return next(piece for piece in range(PIECES) if not plan._ring.fetches(piece))


def run(plan: Planner, start: float, seconds: float) -> list[ev.Command]:
    """All that comes of ticks in that time."""
    ticks = [start + 0.25 * step for step in range(1, int(seconds * 4) + 1)]
    return [command for now in ticks for command in plan.handle(TICK, now)]


# -- who is of which arc --


@given(st.sets(st.integers(0, 2**64 - 1), min_size=2, max_size=60), st.integers(2, 20))
def test_who_knows_all_members_agrees_with_them_on_arcs(seeds: set[int], most: int) -> None:
    arcs = {}
    for own in seeds:
        ring = Ring(("", own), most)
        near = ring.stand([member(seed) for seed in seeds if seed != own])
        arcs[own] = ring.bits, {own, *(each.seed for each in near)}
    for own, (bits, arc) in arcs.items():
        assert len(arc) <= most or bits >= 12
        assert all(arcs[other][1] == arc for other in arc if arcs[other][0] == bits)
        assert arc == {seed for seed in seeds if seed >> (64 - bits) == own >> (64 - bits)}


@given(st.integers(0, 10), st.integers(0, 4000))
def test_one_arc_of_all_fetches_a_piece_from_upstream(bits: int, piece: int) -> None:
    fetching = []
    for arc in range(1 << bits):
        ring = Ring(("", arc << (64 - bits) if bits else 0), 64)
        ring.bits = bits
        fetching += [arc] if ring.fetches(piece) else []
    assert len(fetching) == 1


def test_no_more_arcs_fetch_from_upstream_than_there_are_sources() -> None:
    bits = 7
    fetching: Counter[int] = Counter()
    for arc in range(1 << bits):
        ring = Ring(("", arc << (64 - bits)), 64)
        ring.bits = bits
        fetching[arc] = sum(ring.fetches(piece) for piece in range(512))
    busy = [count for count in fetching.values() if count]
    assert len(busy) == 1 << SOURCE_BITS
    assert min(busy) > 512 / len(busy) / 2


def test_word_of_a_shorter_arc_counts_when_it_may_be_true() -> None:
    few = Ring(("", 1), 20)
    assert not few.halve(2, 12, [member(2), member(3)])
    seeds = [seed + 1 for seed in spread(16)]
    many = Ring(("", seeds[0]), 20)
    members = [member(seed) for seed in seeds[1:]]
    many.stand(members)
    assert many.bits == 0
    assert not many.halve(seeds[1], 0, members)
    assert many.halve(seeds[1], 1, members)
    assert many.bits == 1
    assert not many.halve(seeds[15], 2, members)  # it is of another arc


def test_a_liar_cannot_cut_the_arc_to_nothing() -> None:
    plan = planner()
    plan.handle(ev.ArcHalved(ANN, 16), 0.1)
    assert len(plan._ring) >= 2
    assert plan.arc <= 2


def test_an_arc_that_has_become_empty_grows() -> None:
    plan = planner()
    assert plan.arc == 1
    for other in (ANN, BOB, CAT):
        plan.handle(ev.MemberLeft(other), 0.1)
    assert plan.arc == 0


def test_all_of_the_arc_are_wanted_as_neighbours_and_some_of_the_others() -> None:
    plan = planner(outsiders=5)
    mate, stranger = peer(1), peer(2**64 - 1)
    assert plan.has_room(mate)
    assert plan.has_room(stranger)
    plan.handle(ev.MemberJoined(stranger, frozenset()), 0.1)
    assert not plan.has_room(peer(2**64 - 2))
    assert plan.has_room(mate)


# -- how pieces come from arc to arc --


def test_the_shorter_arc_is_told() -> None:
    geometry = Geometry(8 * MIN_PIECE, MIN_PIECE, 8)
    plan = Planner(geometry, ME, (), 0.0, PlannerSettings(arc=5))
    told = [
        c for other in (ANN, BOB, CAT, *FAR) for c in plan.handle(ev.MemberJoined(other, frozenset()), 0.0)
    ]
    assert ev.Tell(arc=1) in told


def test_what_another_arc_is_getting_is_claimed_for_this_one_and_asked_there() -> None:
    plan = planner(arc_rank_delay=0.0)
    plan.handle(TICK, 0.0)
    piece = foreign(plan)
    commands = plan.handle(ev.MemberClaims(ZOE, (piece,)), 0.1) + run(plan, 0.1, 1.0)
    assert asked(commands) == [(ZOE, piece)]
    assert piece in claimed(commands)
    assert piece not in upstream(commands)


def test_what_a_mate_takes_from_another_arc_comes_along_the_ring() -> None:
    plan = planner(arc_rank_delay=60.0)
    plan.handle(TICK, 0.0)
    piece = foreign(plan)
    assert not asked(plan.handle(ev.MemberClaims(ZOE, (piece,)), 0.1))
    assert not asked(run(plan, 0.1, 2.0))
    commands = plan.handle(ev.MemberClaims(ANN, (piece,)), 2.2)
    assert len(asked(commands)) == 1
    assert asked(commands)[0][0] in (ANN, BOB, CAT)
    assert piece not in claimed(commands)


def test_a_piece_of_another_arc_is_left_to_it_for_a_while() -> None:
    plan = planner(foreign_patience=5.0)
    for other in (ANN, BOB, CAT, *FAR):
        plan.handle(ev.MemberClaims(other, ()), 0.0)
    early = run(plan, 0.0, 4.5)
    taken = upstream(early)
    assert all(plan._ring.fetches(piece) for piece in taken)
    for piece in [p for p in range(PIECES) if plan._ring.fetches(p)]:
        plan.handle(ev.PieceHeld(piece), 4.6)
    late = upstream(run(plan, 4.6, 15.0))
    assert late
    assert not plan._ring.fetches(late[0])


def test_a_range_that_a_client_wants_is_fetched_whosever_piece_it_is() -> None:
    plan = planner(eager=False)
    plan.handle(TICK, 0.0)
    piece = foreign(plan)
    commands = plan.handle(ev.Wanted((piece,)), 0.1) + run(plan, 0.1, 2.0)
    assert upstream(commands) == [piece]


def test_a_source_that_gives_up_is_left_and_only_who_has_the_piece_is_asked_then() -> None:
    """Those who are getting it may be getting it from this host: it would go in a circle."""
    plan = planner(arc_rank_delay=0.0, foreign_patience=8.0, open_claims=1, most_claims=1)
    plan.handle(TICK, 0.0)
    piece = foreign(plan)
    plan.handle(ev.MemberClaims(ZOE, (piece,)), 0.1)
    run(plan, 0.1, 0.5)
    commands = plan.handle(ev.MemberReleases(ZOE, (piece,)), 0.7)
    assert ev.Drop(piece, ZOE) in commands
    assert released(commands) == [piece]
    commands = plan.handle(ev.MemberClaims(YVES, (piece,)), 0.8) + run(plan, 0.8, 2.0)
    assert (YVES, piece) not in asked(commands)
    commands = plan.handle(ev.MemberHas(YVES, (piece,)), 3.0) + run(plan, 3.0, 1.0)
    assert (YVES, piece) in asked(commands)


def test_claims_of_pieces_that_are_none_are_passed_over() -> None:
    plan = planner(arc_rank_delay=0.0)
    plan.handle(TICK, 0.0)
    plan.handle(ev.MemberClaims(ZOE, (PIECES, -1, 1 << 40)), 0.1)
    assert not asked(run(plan, 0.1, 2.0))
    assert plan._members.table[ZOE].have == set()


def test_claims_of_other_arcs_take_no_room_of_this_ones() -> None:
    plan = planner(pieces=PIECES, open_claims=1, most_claims=1, rank_delay=0.0, arc_rank_delay=60.0)
    theirs = [p for p in range(PIECES) if not plan._ring.fetches(p) and plan._ring.turn(p)]
    for far, piece in zip(FAR, theirs, strict=False):
        plan.handle(ev.MemberClaims(far, (piece,)), 0.0)
    assert upstream(run(plan, 0.0, 2.0))


def test_a_seed_of_a_peer_is_its_place() -> None:
    assert [seed_of(peer(seed)) for seed in spread(8)] == spread(8)
