"""The planner's rules as transcripts: events in, commands out. Times are seconds on nobody's clock."""

from __future__ import annotations

import pytest

from p2pdist.records import PeerId
from p2pdist.swarm import events as ev
from p2pdist.swarm.geometry import MIN_PIECE, Geometry
from p2pdist.swarm.planner import Planner, PlannerSettings
from p2pdist.swarm.rendezvous import seed_of, weight

TICK = ev.Ticked()


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(20, "big")[::-1])


ME, ANN, BOB, CAT = peer(1), peer(2), peer(3), peer(4)


def planner(pieces: int = 8, held: tuple[int, ...] = (), **settings: object) -> Planner:
    geometry = Geometry(pieces * MIN_PIECE, MIN_PIECE, pieces)
    return Planner(geometry, ME, held, 0.0, PlannerSettings(**settings))  # type: ignore[arg-type]


def joined(who: PeerId, *have: int, claims: tuple[int, ...] = (), complete: bool = False) -> ev.MemberJoined:
    return ev.MemberJoined(who, frozenset(have), claims, complete)


def asked(commands: list[ev.Command]) -> list[tuple[PeerId, int]]:
    return [(c.peer, c.piece) for c in commands if isinstance(c, ev.AskPeer)]


def upstream(commands: list[ev.Command]) -> list[int]:
    return [piece for c in commands if isinstance(c, ev.AskUpstream) for piece in c.pieces]


def claimed(commands: list[ev.Command]) -> list[int]:
    return [piece for c in commands if isinstance(c, ev.Tell) for piece in c.claim]


def released(commands: list[ev.Command]) -> list[int]:
    return [piece for c in commands if isinstance(c, ev.Tell) for piece in c.release]


def first_in_order(piece: int, *peers: PeerId) -> PeerId:
    return min(peers, key=lambda p: weight(seed_of(p), piece))


def mine_among(*others: PeerId, pieces: int = 64) -> int:
    """A piece that comes to this host first."""
    return next(p for p in range(pieces) if first_in_order(p, ME, *others) == ME)


def theirs(who: PeerId, *others: PeerId, pieces: int = 64) -> int:
    return next(p for p in range(pieces) if first_in_order(p, who, *others) == who)


# -- alone --


def test_nothing_is_asked_for_before_the_first_tick() -> None:
    plan = planner()
    assert plan.handle(joined(ANN, 0, 1), 0.0) == []
    assert asked(plan.handle(TICK, 0.1))


def test_a_lone_host_claims_then_asks_upstream_in_runs_that_double() -> None:
    plan = planner(pieces=32)
    commands = plan.handle(TICK, 0.0)
    assert commands == [ev.Tell(claim=(0,)), ev.AskUpstream((0,))]
    assert upstream(plan.handle(ev.PieceHeld(0), 0.1)) == [1, 2]
    assert upstream(plan.handle(ev.PieceHeld(1), 0.2)) == []
    assert upstream(plan.handle(ev.PieceHeld(2), 0.3)) == [3, 4, 5, 6]


def test_a_run_ends_at_a_piece_that_is_held() -> None:
    plan = planner(held=(2, 5))
    assert upstream(plan.handle(TICK, 0.0)) == [0]
    assert upstream(plan.handle(ev.PieceHeld(0), 0.1)) == [1]


def test_a_held_piece_is_told_and_the_last_one_ends_it() -> None:
    plan = planner(pieces=1)
    plan.handle(TICK, 0.0)
    assert plan.handle(ev.PieceHeld(0), 0.1) == [ev.Tell(have=(0,))]
    assert plan.complete
    assert plan.handle(TICK, 9.0) == []


def test_an_empty_blob_is_complete_from_the_start() -> None:
    plan = planner(pieces=0)
    assert plan.complete
    assert plan.handle(TICK, 0.0) == []


def test_a_member_that_joins_cuts_a_long_run_to_its_first_piece() -> None:
    plan = planner(pieces=32)
    plan.handle(TICK, 0.0)
    plan.handle(ev.PieceHeld(0), 0.1)
    commands = plan.handle(joined(ANN), 0.2)
    assert ev.Drop(2, None) in commands
    assert released(commands) == [2]
    assert plan.claims == (1,)


def test_a_run_is_not_cut_as_long_as_its_fetcher_is_ahead() -> None:
    """It would begin its pieces again, and what is on its way already would come twice."""
    plan = planner(pieces=32, head_start=0.5)
    plan.handle(ev.Announced(ahead=0), 0.0)
    plan.handle(TICK, 0.0)
    plan.handle(ev.PieceHeld(0), 0.1)
    assert not released(plan.handle(joined(ANN), 0.2))
    assert plan.claims == (1, 2)
    assert released(plan.handle(joined(BOB), 0.6)) == [2]


# -- members --


def test_what_a_neighbour_holds_is_asked_of_it_and_never_claimed() -> None:
    plan = planner(pieces=2)
    plan.handle(joined(ANN, 0, 1), 0.0)
    commands = plan.handle(TICK, 0.0)
    assert sorted(asked(commands)) == [(ANN, 0), (ANN, 1)]
    assert not upstream(commands)


def test_at_most_per_peer_requests_go_to_one_complete_neighbour() -> None:
    plan = planner(per_peer=2)
    plan.handle(joined(ANN, complete=True), 0.0)
    plan.handle(joined(BOB, complete=True), 0.0)
    whom = [who for who, _ in asked(plan.handle(TICK, 0.0))]
    assert sorted(whom) == sorted([ANN, ANN, BOB, BOB])


def test_at_most_relayed_requests_go_to_the_neighbour_behind() -> None:
    plan = planner(relayed=3, rank_delay=9.0, late=9.0)
    plan.handle(joined(ANN, *range(7)), 0.0)
    plan.handle(joined(BOB, *range(7)), 0.0)
    first = asked(plan.handle(TICK, 0.0))
    assert [who for who, _ in first] == [BOB] * 3
    ((who, fourth),) = asked(plan.handle(ev.PieceHeld(first[0][1]), 0.1))
    assert who == BOB
    assert fourth not in {piece for _, piece in first}


def test_who_comes_late_takes_what_others_lack_along_the_ring_and_little_else_meanwhile() -> None:
    plan = planner(pieces=64, rank_delay=9.0, late=0.25, old_pieces=2)
    for who in (ANN, BOB, CAT):
        plan.handle(joined(who, *range(32)), 0.0)
    plan.handle(ev.MemberHas(ANN, (40, 41, 42)), 0.0)
    pieces = [piece for _, piece in asked(plan.handle(TICK, 0.0))]
    assert sorted(pieces[:3]) == [40, 41, 42]
    assert len(pieces) == 3 + 2
    later = [piece for _, piece in asked(plan.handle(ev.PieceHeld(pieces[3]), 0.1))]
    assert len(later) == 1
    rest = [command for piece in (40, 41, 42) for command in plan.handle(ev.PieceHeld(piece), 0.2)]
    rest += plan.handle(TICK, 0.5)
    assert {who for who, _ in asked(rest)} == {ANN, BOB, CAT}  # nothing new comes: the old ones from all
    assert len(asked(rest)) > 2


def test_a_claimed_piece_is_asked_of_its_claimer_at_once() -> None:
    plan = planner()
    plan.handle(joined(ANN), 0.0)
    plan.handle(TICK, 0.0)
    other = next(p for p in range(8) if p not in plan.claims)
    assert asked(plan.handle(ev.MemberClaims(ANN, (other,)), 0.1)) == [(ANN, other)]


def test_a_near_neighbour_is_preferred() -> None:
    plan = planner(pieces=1)
    plan.handle(ev.MemberJoined(ANN, frozenset({0}), near=False), 0.0)
    plan.handle(ev.MemberJoined(BOB, frozenset({0}), near=True), 0.0)
    plan.handle(ev.MemberJoined(CAT, frozenset({0}), near=False), 0.0)
    # one piece: all three are complete, and more than the others (none)
    assert asked(plan.handle(TICK, 0.0)) == [(BOB, 0)]


def test_a_member_that_leaves_has_its_requests_dropped_and_asked_elsewhere() -> None:
    plan = planner(pieces=2, rank_delay=9.0)
    plan.handle(joined(ANN, 0), 0.0)
    plan.handle(joined(BOB), 0.0)
    assert asked(plan.handle(TICK, 0.0)) == [(BOB, 0)]  # on the way to it from Ann
    plan.handle(ev.MemberHas(BOB, (0,)), 0.1)
    commands = plan.handle(ev.MemberLeft(BOB), 0.2)
    assert commands == [ev.Drop(0, BOB), ev.AskPeer(ANN, 0)]
    assert plan.members == {ANN}


def test_a_member_that_comes_back_holds_only_what_it_says_now() -> None:
    plan = planner(pieces=4)
    plan.handle(joined(ANN, complete=True), 0.0)
    assert plan.is_complete(ANN)
    plan.handle(joined(ANN, 0), 0.1)
    assert not plan.is_complete(ANN)
    assert {piece for who, piece in asked(plan.handle(TICK, 0.2))} == {0}


def test_unknown_members_and_pieces_that_do_not_exist_are_ignored() -> None:
    plan = planner(pieces=2)
    plan.handle(TICK, 0.0)
    for event in (
        ev.MemberHas(CAT, (0,)),
        ev.MemberClaims(CAT, (0,)),
        ev.MemberReleases(CAT, (0,)),
        ev.MemberLeft(CAT),
        ev.RequestFailed(0, CAT, ev.Failure.MISSING),
        ev.Progressed(0, CAT),
        ev.PieceHeld(99),
        ev.Wanted((-1, 99)),
        joined(ME, 0, 1),
    ):
        assert plan.handle(event, 0.1) == []
    plan.handle(joined(ANN, -1, 2, 99, claims=(77,)), 0.2)
    assert not asked(plan.handle(ev.MemberHas(ANN, (50, -3)), 0.3))


# -- claims --


def test_the_first_in_order_claims_at_once_and_the_second_after_the_rank_delay() -> None:
    piece = mine_among(ANN, pieces=1000)
    later = theirs(ANN, ME, pieces=1000)
    for which, first_claim in ((piece, 0.0), (later, 0.2)):
        plan = planner(pieces=1000, held=tuple(p for p in range(1000) if p != which), rank_delay=0.2)
        plan.handle(joined(ANN), 0.0)
        times = [t for t in (0.0, 0.1, 0.2) if claimed(plan.handle(TICK, t)) == [which]]
        assert times == [first_claim]


def test_in_a_race_the_order_decides_and_the_winner_says_so_again() -> None:
    piece = mine_among(ANN)
    plan = planner(pieces=64, held=tuple(p for p in range(64) if p != piece))
    plan.handle(joined(ANN), 0.0)
    assert claimed(plan.handle(TICK, 0.0)) == [piece]
    assert plan.handle(ev.MemberClaims(ANN, (piece,)), 0.01) == [ev.Tell(claim=(piece,))]
    assert plan.claims == (piece,)


def test_in_a_race_the_later_in_order_yields_and_asks_the_winner() -> None:
    piece = theirs(ANN, ME)
    plan = planner(pieces=64, held=tuple(p for p in range(64) if p != piece), rank_delay=0.0)
    plan.handle(joined(ANN), 0.0)
    assert claimed(plan.handle(TICK, 0.0)) == [piece]
    commands = plan.handle(ev.MemberClaims(ANN, (piece,)), 0.01)
    assert commands == [ev.Drop(piece, None), ev.Tell(release=(piece,)), ev.AskPeer(ANN, piece)]


def test_a_claim_that_comes_long_after_ours_is_a_take_over_and_wins() -> None:
    piece = mine_among(ANN)
    plan = planner(pieces=64, held=tuple(p for p in range(64) if p != piece))
    plan.handle(joined(ANN), 0.0)
    plan.handle(TICK, 0.0)
    assert released(plan.handle(ev.MemberClaims(ANN, (piece,)), 5.0)) == [piece]


def test_claims_of_members_that_meet_late_are_a_race_however_old() -> None:
    piece = mine_among(ANN)
    plan = planner(pieces=64, held=tuple(p for p in range(64) if p != piece))
    plan.handle(TICK, 0.0)
    commands = plan.handle(joined(ANN, claims=(piece,)), 5.0)
    assert ev.Tell(claim=(piece,)) in commands
    assert plan.claims == (piece,)


def test_of_three_claimers_the_first_in_order_is_asked() -> None:
    piece = next(p for p in range(64) if first_in_order(p, ANN, BOB, CAT) == CAT)
    second = first_in_order(piece, ANN, BOB)
    third = ANN if second == BOB else BOB
    plan = planner(pieces=64, held=tuple(p for p in range(64) if p != piece), rank_delay=9.0)
    for who in (ANN, BOB, CAT):
        plan.handle(joined(who), 0.0)
    plan.handle(ev.MemberClaims(second, (piece,)), 0.0)
    assert asked(plan.handle(TICK, 0.0)) == [(CAT, piece)]  # by which it comes round the ring
    assert plan.handle(ev.MemberClaims(third, (piece,)), 0.1) == []
    assert plan._members.claims[piece].member.peer == second
    commands = plan.handle(ev.MemberClaims(CAT, (piece,)), 0.2)
    assert commands == [ev.Drop(piece, CAT), ev.AskPeer(CAT, piece)]
    assert plan._members.claims[piece].member.peer == CAT


def test_a_piece_is_asked_of_the_neighbour_in_the_ring_before_that_has_it() -> None:
    plan = planner(pieces=8, rank_delay=9.0)
    for who in (ANN, BOB, CAT):
        plan.handle(joined(who), 0.0)
    plan.handle(TICK, 0.0)
    assert asked(plan.handle(ev.MemberClaims(ANN, (5,)), 0.1)) == [(CAT, 5)]
    failed = ev.RequestFailed(5, CAT, ev.Failure.MISSING)
    assert asked(plan.handle(failed, 3.0)) == [(BOB, 5)]  # stepped over
    failed = ev.RequestFailed(5, BOB, ev.Failure.MISSING)
    assert asked(plan.handle(failed, 3.1)) == [(ANN, 5)]  # its fetcher


def test_who_passed_on_false_bytes_is_left_alone_for_a_while() -> None:
    plan = planner(pieces=8, rank_delay=9.0)
    for who in (ANN, BOB, CAT):
        plan.handle(joined(who), 0.0)
    plan.handle(TICK, 0.0)
    assert asked(plan.handle(ev.MemberClaims(ANN, (5,)), 0.1)) == [(CAT, 5)]
    assert plan.handle(ev.PassedOnWrong(CAT), 0.2) == [ev.Drop(5, CAT), ev.AskPeer(BOB, 5)]


def test_who_is_not_the_first_lets_the_first_begin() -> None:
    plan = planner(pieces=8, head_start=0.5, rank_delay=0.0)
    plan.handle(joined(ANN), 0.0)
    plan.handle(ev.Announced(ahead=1), 0.0)
    assert not claimed(plan.handle(TICK, 0.25))
    assert claimed(plan.handle(TICK, 0.5))


def test_the_first_takes_no_turns_at_the_beginning() -> None:
    plan = planner(pieces=8, head_start=0.5, rank_delay=9.0)
    plan.handle(joined(ANN), 0.0)
    plan.handle(ev.Announced(ahead=0), 0.0)
    assert claimed(plan.handle(TICK, 0.0)) == [0]
    assert claimed(plan.handle(ev.PieceHeld(0), 0.1)) == [1]


@pytest.mark.parametrize(("took", "at_a_time"), [(0.02, 4), (0.1, 2), (0.2, 1), (2.0, 1)])
def test_where_pieces_come_quickly_more_are_asked_for_at_a_time(took: float, at_a_time: int) -> None:
    plan = planner(pieces=256, rank_delay=0.0, open_claims=5, backlog=1000)
    plan.handle(joined(ANN), 0.0)
    plan.handle(TICK, 0.0)
    now = 0.0
    for _ in range(30):
        now += took
        for piece in plan.claims:
            plan.handle(ev.PieceHeld(piece), now)
            plan.handle(ev.MemberHas(ANN, (piece,)), now)
    assert len(plan.claims) == at_a_time
    assert plan._duty._open_claims() == int(5 * max(1.0, min(4.0, 0.25 / took)))


def test_a_lone_host_asks_for_one_run_at_a_time_however_quickly_they_come() -> None:
    plan = planner(pieces=256)
    plan.handle(TICK, 0.0)
    for step in range(1, 60):
        plan.handle(ev.PieceHeld(plan.claims[0]), step / 100)
        assert len(plan._division.runs) == 1


def test_few_pieces_are_asked_of_upstream_at_a_time() -> None:
    plan = planner(pieces=16, open_claims=2, rank_delay=0.0)
    plan.handle(joined(ANN, claims=(0,)), 0.0)
    plan.handle(joined(BOB, claims=(1,)), 0.0)
    assert not claimed(plan.handle(TICK, 0.0))
    assert claimed(plan.handle(ev.MemberHas(ANN, (0,)), 0.3) + plan.handle(TICK, 0.35))


def test_a_blob_begun_later_asks_for_one_piece_at_a_time() -> None:
    plan = planner(pieces=16, open_claims=4, rank_delay=0.0)
    plan.give_way(1)
    plan.handle(joined(ANN, claims=(0,)), 0.0)
    assert not claimed(plan.handle(TICK, 0.0))
    plan.give_way(0)
    assert claimed(plan.handle(TICK, 0.25))


def test_a_released_piece_goes_to_the_next_in_order() -> None:
    plan = planner(pieces=1, rank_delay=0.1)
    plan.handle(joined(ANN, claims=(0,)), 0.0)
    assert asked(plan.handle(TICK, 0.0)) == [(ANN, 0)]
    commands = plan.handle(ev.MemberReleases(ANN, (0,)), 0.5)
    assert ev.Drop(0, ANN) in commands
    commands += plan.handle(TICK, 0.75)
    assert upstream(commands) == [0]


def test_a_claimer_that_dies_is_taken_over_from() -> None:
    plan = planner(pieces=1)
    plan.handle(joined(ANN, claims=(0,)), 0.0)
    plan.handle(TICK, 0.0)
    commands = plan.handle(ev.MemberLeft(ANN), 1.0)
    assert ev.Drop(0, ANN) in commands
    assert upstream(commands) == [0]


def test_a_claim_without_progress_is_stale_and_its_request_dropped() -> None:
    plan = planner(pieces=1, stall=3.0)
    plan.handle(joined(ANN, claims=(0,)), 0.0)
    plan.handle(TICK, 0.0)
    assert plan.handle(TICK, 2.9) == []
    commands = plan.handle(TICK, 3.1) + plan.handle(TICK, 3.4)
    assert ev.Drop(0, ANN) in commands
    assert upstream(commands) == [0]


def test_a_host_whose_pieces_are_overtaken_stands_back() -> None:
    """Ann and Bob report what Cat claimed after us, but not ours: our uplink is slow, others claim on."""
    pieces = 400
    plan = planner(pieces=pieces, rank_delay=0.0, backlog=1)
    for who in (ANN, BOB, CAT):
        plan.handle(joined(who), 0.0)
    (own,) = claimed(plan.handle(TICK, 0.0))
    other = next(p for p in range(pieces) if p != own)
    plan.handle(ev.MemberClaims(CAT, (other,)), 0.9)
    assert not claimed(plan.handle(ev.PieceHeld(own), 1.0))  # the first claim must spread before the second
    for who in (ANN, BOB, CAT):
        plan.handle(ev.MemberHas(who, (other,)), 1.5)
    plan.handle(ev.MemberClaims(CAT, (other + 1,)), 1.6)
    assert not claimed(plan.handle(TICK, 2.0))
    spread = plan.handle(ev.MemberHas(ANN, (own,)), 2.1) + plan.handle(ev.MemberHas(BOB, (own,)), 2.2)
    assert claimed(spread)


def test_few_seeds_are_divided_and_many_are_asked_directly() -> None:
    few = planner(pieces=8, rank_delay=0.0)
    for event in (joined(ANN, complete=True), joined(BOB), joined(CAT)):
        few.handle(event, 0.0)
    commands = few.handle(TICK, 0.0)
    assert len(claimed(commands)) == 1
    assert asked(commands) == [(ANN, claimed(commands)[0])]
    assert not upstream(commands)

    many = planner(pieces=8)
    for event in (joined(ANN, complete=True), joined(BOB, complete=True), joined(CAT)):
        many.handle(event, 0.0)
    commands = many.handle(TICK, 0.0)
    assert len(asked(commands)) == 4
    assert not claimed(commands)


# -- what fails --


def test_a_busy_neighbour_is_left_alone_for_as_long_as_it_asked() -> None:
    plan = planner(pieces=1)
    plan.handle(joined(ANN, 0), 0.0)
    plan.handle(TICK, 0.0)
    plan.handle(ev.RequestFailed(0, ANN, ev.Failure.BUSY, retry_after=0.5), 0.1)
    assert plan.handle(TICK, 0.5) == []
    assert asked(plan.handle(TICK, 0.75)) == [(ANN, 0)]


def test_a_neighbour_without_the_piece_is_not_asked_for_it_again() -> None:
    plan = planner(pieces=2)
    plan.handle(joined(ANN, 0), 0.0)
    plan.handle(TICK, 0.0)
    commands = plan.handle(ev.RequestFailed(0, ANN, ev.Failure.MISSING), 0.1) + plan.handle(TICK, 0.5)
    assert not asked(commands)


def test_sources_that_are_always_busy_end_in_upstream() -> None:
    plan = planner(pieces=1, starved=5.0)
    plan.handle(joined(ANN, complete=True), 0.0)
    commands = plan.handle(TICK, 0.0)
    now, got = 0.0, []
    while now < 10.0 and not got:
        now += 0.25
        failed = [
            ev.RequestFailed(piece, who, ev.Failure.BUSY, retry_after=0.25) for who, piece in asked(commands)
        ]
        commands = [command for event in (*failed, TICK) for command in plan.handle(event, now)]
        got = upstream(commands)
    assert got == [0]
    assert now > 5.0


def test_upstream_that_failed_is_asked_again_after_the_time_it_asked_for() -> None:
    plan = planner(pieces=1)
    plan.handle(TICK, 0.0)
    assert released(plan.handle(ev.UpstreamFailed((0,), final=False, retry_after=1.0), 0.1)) == [0]
    assert not upstream(plan.handle(TICK, 1.0))
    assert upstream(plan.handle(TICK, 1.25)) == [0]


def test_a_final_refusal_without_members_gives_up_at_once_and_once() -> None:
    plan = planner(pieces=1)
    plan.handle(TICK, 0.0)
    assert ev.GiveUp() in plan.handle(ev.UpstreamFailed((0,), final=True), 0.1)
    assert plan.handle(TICK, 9.0) == []


def test_a_final_refusal_waits_a_while_for_members_that_may_do_better() -> None:
    plan = planner(pieces=1, give_up_after=5.0)
    plan.handle(joined(ANN), 0.0)
    now = 0.0
    while not upstream(plan.handle(TICK, now)):
        now += 0.25
    assert ev.GiveUp() not in plan.handle(ev.UpstreamFailed((0,), final=True), now)
    assert asked(plan.handle(joined(BOB, complete=True), 2.0) + plan.handle(TICK, 2.25)) == [(BOB, 0)]
    plan.handle(ev.RequestFailed(0, BOB, ev.Failure.MISSING), 3.0)
    assert ev.GiveUp() in plan.handle(TICK, 9.0)


def test_the_last_pieces_are_asked_of_a_second_source_when_the_first_takes_long() -> None:
    plan = planner(pieces=2, held=(0,), endgame_after=1.0)
    plan.handle(joined(ANN, complete=True), 0.0)
    plan.handle(joined(BOB, complete=True), 0.0)
    ((first, _),) = asked(plan.handle(TICK, 0.0))
    plan.handle(ev.Progressed(1, first), 0.9)
    assert plan.handle(TICK, 1.0) == []
    ((second, _),) = asked(plan.handle(TICK, 1.25))
    assert {first, second} == {ANN, BOB}
    commands = plan.handle(ev.PieceHeld(1), 1.5)
    assert {c.source for c in commands if isinstance(c, ev.Drop)} == {ANN, BOB}


# -- clients --


def test_wanted_pieces_come_first_wherever_they_are() -> None:
    plan = planner(pieces=400, window=10, per_peer=1)
    plan.handle(joined(ANN, complete=True), 0.0)
    plan.handle(joined(BOB, complete=True), 0.0)
    plan.handle(ev.Wanted((399, 300)), 0.0)
    assert {piece for _, piece in asked(plan.handle(TICK, 0.0))} == {399, 300}


def test_a_wanted_piece_is_waited_for_two_ranks_at_most() -> None:
    others = [peer(n) for n in range(2, 30)]
    plan = planner(pieces=400, held=tuple(range(399)), rank_delay=0.1)
    for who in others:
        plan.handle(joined(who), 0.0)
    plan.handle(TICK, 0.0)
    plan.handle(ev.Wanted((399,)), 0.0)
    commands = plan.handle(TICK, 0.25)
    assert upstream(commands) == [399] or plan.claims == (399,)


def test_without_eagerness_only_wanted_pieces_are_fetched() -> None:
    plan = planner(pieces=8, eager=False)
    assert plan.handle(TICK, 0.0) == []
    assert upstream(plan.handle(ev.Wanted((5,)), 0.1)) == [5]
    assert upstream(plan.handle(ev.PieceHeld(5), 0.2)) == []
    plan.handle(joined(ANN, 0, 6), 0.3)
    assert asked(plan.handle(ev.Wanted((6,)), 0.4)) == [(ANN, 6)]


# -- the ring: Cat is behind this host, then Bob, then Ann --


def in_a_ring(pieces: int = 64, **settings: object) -> Planner:
    plan = planner(pieces=pieces, rank_delay=9.0, **settings)
    for who in (ANN, BOB, CAT):
        plan.handle(joined(who), 0.0)
    plan.handle(TICK, 0.0)
    return plan


def test_a_piece_comes_from_the_nearest_behind_whether_it_has_it_or_not() -> None:
    plan = in_a_ring()
    assert asked(plan.handle(ev.MemberHas(ANN, (5,)), 0.1)) == [(CAT, 5)]
    assert asked(plan.handle(ev.MemberHas(BOB, (6,)), 0.2)) == [(CAT, 6)]
    assert asked(plan.handle(ev.MemberHas(CAT, (7,)), 0.3)) == [(CAT, 7)]
    assert plan.handle(ev.MemberHas(CAT, (5,)), 0.4) == []


def test_a_piece_that_waits_keeps_out_none_that_could_come() -> None:
    plan = in_a_ring(flights=2, waiting=3)
    assert asked(plan.handle(ev.MemberClaims(ANN, (10, 11, 12, 13)), 0.1)) == [
        (CAT, piece) for piece in (10, 11, 12, 13)
    ]
    assert asked(plan.handle(ev.MemberHas(CAT, (20, 21)), 0.2)) == [(CAT, 20), (CAT, 21)]
    # now as many come as may, and as many wait
    assert plan.handle(ev.MemberHas(CAT, (22,)), 0.3) == []
    assert plan.handle(ev.MemberClaims(ANN, (14,)), 0.3) == []


def test_a_piece_that_waited_takes_room_once_it_comes() -> None:
    plan = in_a_ring(flights=2, waiting=3)
    plan.handle(ev.MemberClaims(ANN, (10, 11)), 0.1)
    plan.handle(ev.Progressed(10, CAT), 0.2)
    assert asked(plan.handle(ev.MemberHas(CAT, (20, 21)), 0.3)) == [(CAT, 20)]
    assert asked(plan.handle(ev.PieceHeld(10), 0.4)) == [(CAT, 21)]


def test_a_piece_that_its_source_has_by_now_takes_room() -> None:
    plan = in_a_ring(flights=2, waiting=3)
    plan.handle(ev.MemberClaims(ANN, (10, 11)), 0.1)
    assert plan.handle(ev.MemberHas(CAT, (10, 11)), 0.2) == []
    assert plan.handle(ev.MemberHas(CAT, (20,)), 0.3) == []
    assert asked(plan.handle(ev.PieceHeld(10), 0.4)) == [(CAT, 20)]


def test_who_is_alive_otherwise_may_let_a_piece_wait_for_relay_stall() -> None:
    plan = in_a_ring(stall=3.0, relay_stall=10.0, claim_stale=4.0)
    plan.handle(ev.MemberClaims(ANN, (10,)), 0.0)
    for step in range(1, 40):
        now = 0.25 * step
        for who in (ANN, CAT):
            plan.handle(ev.MemberHas(who, (20 + step,)), now)
        assert ev.Drop(10, CAT) not in plan.handle(TICK, now)
    commands = plan.handle(TICK, 10.0)
    assert ev.Drop(10, CAT) in commands
    assert (BOB, 10) in asked(commands)


def test_who_is_silent_otherwise_too_has_let_a_piece_wait_after_stall() -> None:
    plan = in_a_ring(stall=3.0, relay_stall=10.0, claim_stale=4.0)
    plan.handle(ev.MemberClaims(ANN, (10,)), 0.0)
    plan.handle(ev.MemberHas(ANN, (11,)), 2.0)
    assert ev.Drop(10, CAT) not in plan.handle(TICK, 3.0)
    commands = plan.handle(TICK, 3.25)
    assert ev.Drop(10, CAT) in commands
    assert (BOB, 10) in asked(commands)


def test_in_a_long_ring_a_piece_may_wait_longer() -> None:
    """48 hosts at 30 Mbit/s: a piece needs more than ten seconds for the way round, and must not be asked for twice."""
    plan = planner(pieces=64, stall=3.0, relay_stall=10.0, claim_stale=90.0, rank_delay=90.0)
    others = [peer(number) for number in range(2, 49)]
    for who in others:
        plan.handle(joined(who), 0.0)
    plan.handle(TICK, 0.0)
    ((source, _),) = asked(plan.handle(ev.MemberClaims(others[20], (10,)), 0.0))
    for step in range(1, 112):
        now = 0.25 * step
        if step % 20 == 0:
            plan.handle(ev.MemberHas(source, (20 + step // 20,)), now)
        assert ev.Drop(10, source) not in plan.handle(TICK, now)
    assert ev.Drop(10, source) in [
        command for step in range(112, 140) for command in plan.handle(TICK, 0.25 * step)
    ]


# -- members that lag --


def test_pieces_go_past_one_that_says_that_it_lags() -> None:
    plan = in_a_ring()
    plan.handle(ev.MemberClaims(ANN, (10,)), 0.1)
    assert plan.handle(ev.MembersLag(CAT, (CAT,)), 0.2) == [ev.Drop(10, CAT), ev.AskPeer(BOB, 10)]
    assert asked(plan.handle(ev.MemberClaims(ANN, (11,)), 0.3)) == [(BOB, 11)]
    assert asked(plan.handle(ev.MemberHas(CAT, (12,)), 0.4)) == [(CAT, 12)]  # nobody else has it
    assert asked(plan.handle(ev.MemberClaims(ANN, (13,)), 31.0)) == [(CAT, 13)]  # tried again


def test_pieces_go_past_one_of_which_its_successor_says_it() -> None:
    plan = in_a_ring()
    plan.handle(ev.MemberClaims(ANN, (10,)), 0.1)
    assert plan.handle(ev.MembersLag(CAT, (BOB,)), 0.2) == []  # Cat comes after Bob: believed
    assert plan._members.table[BOB].lags_until == 30.2


@pytest.mark.parametrize("liar", [peer(99), ANN, BOB])
def test_the_word_of_a_stranger_or_of_one_that_does_not_come_next_counts_for_nothing(liar: PeerId) -> None:
    plan = in_a_ring()
    plan.handle(ev.MemberClaims(ANN, (10,)), 0.1)
    assert plan.handle(ev.MembersLag(liar, (CAT,)), 0.2) == []
    assert asked(plan.handle(ev.MemberClaims(ANN, (11,)), 0.3)) == [(CAT, 11)]


def test_a_word_about_strangers_counts_for_nothing() -> None:
    plan = in_a_ring()
    assert plan.handle(ev.MembersLag(ANN, (peer(99), peer(98))), 0.2) == []
    assert plan.members == {ANN, BOB, CAT}


def test_at_most_half_of_the_members_can_be_said_to_lag() -> None:
    plan = in_a_ring()
    for who in (CAT, BOB, ANN):
        plan.handle(ev.MembersLag(who, (who,)), 0.1)
    plan.handle(ev.MembersLag(ANN, (ME, CAT, BOB)), 0.1)
    assert [plan._members.table[who].lags_until > 0.1 for who in (CAT, BOB, ANN)] == [True, True, False]
    assert asked(plan.handle(ev.MemberClaims(ANN, (10,)), 0.2)) == [(ANN, 10)]


def test_only_the_member_after_this_host_may_say_that_it_lags() -> None:
    plan = in_a_ring()
    for who in (CAT, BOB):
        plan.handle(ev.MembersLag(who, (ME,)), 0.1)
    assert not plan._laggards.lags(0.1)
    plan.handle(ev.MembersLag(ANN, (ME,)), 0.1)
    assert plan._laggards.lags(0.1)
    # from the end of its way round: past this host, the last to get it is the one before Bob
    assert asked(plan.handle(ev.MemberClaims(BOB, (10,)), 0.2)) == [(ANN, 10)]


def test_what_this_host_found_out_about_another_blob_it_holds_to_and_passes_on_once() -> None:
    plan = in_a_ring()
    plan.handle(ev.MemberClaims(ANN, (10,)), 0.1)
    found = ev.MembersLag(ME, (CAT, peer(99)))
    assert plan.handle(found, 0.2) == [ev.Drop(10, CAT), ev.Tell(lagging=(CAT,)), ev.AskPeer(BOB, 10)]
    assert plan.handle(found, 0.3) == []
    assert plan.handle(ev.MembersLag(ME, (ME,)), 0.4) == [ev.Tell(lagging=(ME,))]
    assert plan.handle(ev.MembersLag(ME, (ANN,)), 0.5) == []  # not the one before this host, nor itself


def test_who_lags_takes_no_turns_while_others_do() -> None:
    plan = planner(pieces=8, rank_delay=0.1)
    for who in (ANN, BOB, CAT):
        plan.handle(joined(who), 0.0)
    plan.handle(ev.MembersLag(ANN, (ME,)), 0.0)
    times = [0.25 * step for step in range(20)]
    first = next(now for now in times if claimed(plan.handle(TICK, now)))
    assert 2 * 4 * 0.1 <= first <= 2 * 4 * 0.1 + 0.5


def slow_cat() -> tuple[Planner, float, list[tuple[PeerId, int]]]:
    """Cat has pieces and delivers none; until others are tried."""
    plan, step = in_a_ring(), 0
    plan.handle(ev.MemberClaims(ANN, tuple(range(30))), 0.0)
    while True:
        now = 0.25 * step
        for who in (ANN, BOB, CAT):
            plan.handle(ev.MemberHas(who, (2 * step, 2 * step + 1)), now)
        commands = plan.handle(TICK, now)
        tried = [(who, piece) for who, piece in asked(commands) if who != CAT]
        if tried:
            assert [ev.Drop(piece, CAT) for _, piece in tried] == [
                c for c in commands if isinstance(c, ev.Drop)
            ]
            return plan, now, tried
        assert now < 5.0
        step += 1


def test_a_neighbour_that_has_what_it_does_not_deliver_is_tried_and_gone_past() -> None:
    plan, now, tried = slow_cat()
    assert {who for who, _ in tried} < {ANN, BOB}
    for who, piece in tried:
        plan.handle(ev.Progressed(piece, who, 1000), now + 0.5)
        plan.handle(ev.PieceHeld(piece), now + 0.5)
    commands = plan.handle(TICK, now + 1.0)
    assert ev.Tell(lagging=(CAT,)) in commands
    assert {who for who, _ in asked(commands)} == {BOB}


def test_a_host_that_gets_no_more_from_another_says_that_it_lags_itself() -> None:
    plan, now, tried = slow_cat()
    ((who, piece), *_) = tried
    plan.handle(ev.Progressed(29, CAT, 900), now + 0.5)
    plan.handle(ev.Progressed(piece, who, 1000), now + 0.6)
    assert not [c for c in plan.handle(TICK, now + 1.0) if isinstance(c, ev.Tell) and c.lagging]
    assert ev.Tell(lagging=(ME,)) in plan.handle(TICK, now + 2.25)


def left_with(who: PeerId, piece: int, *, claims: bool) -> Planner:
    """This host lacks one piece, which only one member has, or fetches, that cannot keep up."""
    plan = planner(pieces=8, held=tuple(each for each in range(8) if each != piece), rank_delay=0.1)
    for each in (ANN, BOB, CAT):
        has = () if each != who or claims else (piece,)
        plan.handle(joined(each, *has, claims=(piece,) if each == who and claims else ()), 0.0)
    plan.handle(ev.Announced(ahead=1), 0.0)
    plan.handle(TICK, 0.0)
    plan.handle(ev.MembersLag(who, (who,)), 0.1)
    return plan


@pytest.mark.parametrize("claims", [False, True])
def test_what_only_one_has_that_cannot_keep_up_is_fetched_once_more_after_a_while(claims: bool) -> None:
    plan = left_with(CAT, 5, claims=claims)
    times = [0.25 * step for step in range(1, 40)]
    first = next(now for now in times if upstream(plan.handle(TICK, now)))
    assert 0.8 <= first <= 2.0
    assert plan.claims == (5,)


def test_what_comes_of_one_that_cannot_keep_up_is_not_fetched_once_more() -> None:
    plan = left_with(CAT, 5, claims=False)
    ((_, flights),) = plan._flights.pieces.items()
    (source,) = (member.peer for member in flights)
    for step in range(1, 40):
        plan.handle(ev.Progressed(5, source, 100), 0.25 * step)
        assert not upstream(plan.handle(TICK, 0.25 * step))


def test_who_has_everything_and_cannot_keep_up_is_asked_only_when_upstream_is_gone() -> None:
    for gone in (False, True):
        plan = planner(pieces=8, rank_delay=0.0)
        for who in (ANN, BOB):
            plan.handle(joined(who), 0.0)
        plan.handle(joined(CAT), 0.0)
        plan.handle(ev.MemberHas(CAT, tuple(range(8))), 0.0)
        plan.handle(ev.MembersLag(CAT, (CAT,)), 0.0)
        if gone:
            plan.handle(ev.UpstreamFailed((), final=True), 0.0)
        commands = plan.handle(TICK, 0.1)
        assert bool(upstream(commands)) is not gone
        assert bool(asked(commands)) is gone


def test_of_those_that_have_everything_only_who_keeps_up_is_asked() -> None:
    others = [peer(10 + number) for number in range(4)]
    for slow, quick in ((CAT, BOB), (BOB, CAT)):
        plan = planner(pieces=8, rank_delay=0.0, upstream_flights=4)
        for who in (BOB, CAT, *others):
            plan.handle(joined(who), 0.0)
        for who in (BOB, CAT):
            plan.handle(ev.MemberHas(who, tuple(range(8))), 0.0)
        plan.handle(ev.MembersLag(slow, (slow,)), 0.0)
        sources = {who for who, _ in asked(plan.handle(TICK, 0.1))}
        assert sources == {quick}


def test_a_claim_from_one_that_cannot_keep_up_is_given_up() -> None:
    plan = planner(pieces=8, rank_delay=0.0)
    for who in (ANN, BOB, CAT):
        plan.handle(joined(who), 0.0)
    plan.handle(ev.MemberHas(CAT, tuple(range(8))), 0.0)
    commands = plan.handle(TICK, 0.1)
    (piece,) = claimed(commands)
    assert asked(commands) == [(CAT, piece)]
    commands = plan.handle(ev.MembersLag(CAT, (CAT,)), 0.2) + plan.handle(TICK, 0.3)
    assert piece in released(commands)
    assert ev.Drop(piece, CAT) in commands
    assert upstream(commands)


# -- take-overs and divided seeds --


def test_a_late_claim_of_another_takes_the_piece_over_from_the_first_claimer() -> None:
    piece = theirs(ANN, BOB, ME)
    plan = planner(pieces=64, held=tuple(p for p in range(64) if p != piece), rank_delay=9.0)
    plan.handle(joined(ANN), 0.0)
    plan.handle(joined(BOB), 0.0)
    plan.handle(TICK, 0.0)
    assert asked(plan.handle(ev.MemberClaims(ANN, (piece,)), 0.1)) == [(BOB, piece)]  # round the ring
    commands = plan.handle(ev.MemberClaims(BOB, (piece,)), 3.0)
    assert commands == [ev.Drop(piece, BOB), ev.AskPeer(BOB, piece)]
    assert plan._members.claims[piece].member.peer == BOB


def test_a_claim_of_which_no_byte_came_ends_when_a_neighbour_holds_the_piece() -> None:
    plan = planner(pieces=2, rank_delay=0.0)
    plan.handle(joined(ANN), 0.0)
    (piece,) = claimed(plan.handle(TICK, 0.0))
    commands = plan.handle(ev.MemberHas(ANN, (piece,)), 0.1)
    assert commands[:3] == [ev.Drop(piece, None), ev.Tell(release=(piece,)), ev.AskPeer(ANN, piece)]


def test_a_claim_that_is_under_way_is_finished_though_a_neighbour_holds_the_piece() -> None:
    plan = planner(pieces=2, rank_delay=0.0)
    plan.handle(joined(ANN), 0.0)
    (piece,) = claimed(plan.handle(TICK, 0.0))
    plan.handle(ev.Progressed(piece, None), 0.1)
    assert not released(plan.handle(ev.MemberHas(ANN, (piece,)), 0.2))


def divided(pieces: int = 1) -> tuple[Planner, int]:
    """Ann holds everything; we and Bob share what she sends; the piece that is ours comes from her."""
    plan = planner(pieces=pieces, rank_delay=0.0)
    plan.handle(joined(ANN, complete=True), 0.0)
    plan.handle(joined(BOB), 0.0)
    (piece,) = claimed(plan.handle(TICK, 0.0))
    return plan, piece


def test_a_piece_claimed_from_a_seed_is_given_up_to_the_winner_of_a_race() -> None:
    piece = theirs(BOB, ME)
    plan = planner(pieces=64, held=tuple(p for p in range(64) if p != piece), rank_delay=0.0)
    plan.handle(joined(ANN, complete=True), 0.0)
    plan.handle(joined(BOB), 0.0)
    assert asked(plan.handle(TICK, 0.0)) == [(ANN, piece)]
    commands = plan.handle(ev.MemberClaims(BOB, (piece,)), 0.01)
    assert commands == [ev.Drop(piece, ANN), ev.Tell(release=(piece,)), ev.AskPeer(BOB, piece)]


def test_a_seed_that_is_busy_gives_the_claim_back() -> None:
    plan, piece = divided()
    commands = plan.handle(ev.RequestFailed(piece, ANN, ev.Failure.BUSY, retry_after=0.5), 0.1)
    assert released(commands) == [piece]
    assert plan.claims == ()


def test_when_all_seeds_passed_on_wrong_pieces_upstream_is_asked_and_not_waited_with() -> None:
    plan = planner(pieces=8)
    for who in (ANN, BOB):
        plan.handle(joined(who, complete=True), 0.0)
    plan.handle(TICK, 0.0)
    for _ in range(2):
        plan.handle(ev.PassedOnWrong(ANN), 0.1)
    assert not upstream(plan.handle(TICK, 0.25))  # the other one gives
    plan.handle(ev.PassedOnWrong(BOB), 0.3)
    assert not upstream(plan.handle(TICK, 0.5))  # in two seconds it may be asked again
    assert upstream(plan.handle(ev.PassedOnWrong(BOB), 0.6))


def test_a_seed_that_leaves_gives_the_claim_back_and_upstream_is_asked() -> None:
    plan, piece = divided()
    commands = plan.handle(ev.MemberLeft(ANN), 0.1)
    assert ev.Drop(piece, ANN) in commands
    assert released(commands) == [piece]
    assert upstream(commands + plan.handle(TICK, 0.25)) == [piece]


# -- word that takes long --


def last_piece(which: int, **settings: object) -> Planner:
    """A host among two that lacks one piece."""
    plan = planner(pieces=64, held=tuple(p for p in range(64) if p != which), **settings)
    plan.handle(joined(ANN), 0.0)
    return plan


def claim_time(plan: Planner, begin: float) -> float:
    """When it claims the one piece that it lacks, looked at each 20 ms."""
    return next(begin + step / 50 for step in range(500) if claimed(plan.handle(TICK, begin + step / 50)))


def test_where_claims_meet_all_turns_become_longer_and_shorter_again_where_they_do_not() -> None:
    which = theirs(ANN, ME)  # so this host's turn is the second
    for contested, uncontested, least, most in (
        (0, 0, 0.1, 0.1),
        (1, 0, 0.1, 0.1),
        (6, 0, 0.3, 0.8),
        (6, 30, 0.1, 0.1),
    ):
        plan = last_piece(which, rank_delay=0.1)
        plan.handle(joined(BOB), 0.0)
        plan._ring.turn = lambda piece: 1  # type: ignore[method-assign]
        for claim in range(contested):
            plan.handle(ev.MemberClaims(ANN if claim % 2 else BOB, (which,)), 0.01)
            plan.handle(ev.MemberClaims(BOB if claim % 2 else ANN, (which,)), 0.02)
            plan.handle(ev.MemberReleases(ANN, (which,)), 0.03)
            plan.handle(ev.MemberReleases(BOB, (which,)), 0.03)
        for _ in range(uncontested):
            plan.handle(ev.MemberClaims(ANN, (which,)), 0.04)
            plan.handle(ev.MemberReleases(ANN, (which,)), 0.04)
        waited = claim_time(plan, 0.04) - 0.04
        assert least - 0.03 <= waited <= most + 0.03, (contested, uncontested)


def test_turns_do_not_become_longer_without_end() -> None:
    plan = last_piece(theirs(ANN, ME), rank_delay=0.1)
    for _ in range(200):
        plan._division.claimed(contested=True)
    plan._ring.turn = lambda piece: 1  # type: ignore[method-assign]
    assert 1.5 <= claim_time(plan, 0.0) <= 1.7


def test_who_has_yet_to_hear_from_members_leaves_it_to_others_to_fetch() -> None:
    plan = planner(pieces=8, head_start=0.0, rank_delay=0.0)
    plan.handle(joined(ANN, 3), 0.0)
    plan.meet(True)
    plan.handle(ev.Announced(ahead=2), 0.0)
    commands = plan.handle(TICK, 0.1)
    assert asked(commands) == [(ANN, 3)]  # what is there it takes
    assert not claimed(commands)
    plan.meet(False)
    assert claimed(plan.handle(TICK, 0.2))


def test_the_first_of_all_fetches_whomever_it_has_yet_to_hear_from() -> None:
    plan = planner(pieces=8)
    plan.meet(True)
    plan.handle(ev.Announced(ahead=0), 0.0)
    assert claimed(plan.handle(TICK, 0.1))


def test_in_a_long_ring_it_takes_longer_until_a_host_takes_itself_for_forsaken() -> None:
    for others, patience in ((4, 1.0), (31, 2.0), (60, 3.0)):
        plan = planner(pieces=4, starved=5.0, claim_stale=1000.0, stall=1000.0)
        for number in range(others):
            plan.handle(joined(peer(100 + number)), 0.0)
        plan.handle(TICK, 0.0)
        assert plan.patience == patience
        plan._division.flights.clear()
        assert not plan._starved(5.0 * patience)
        assert plan._starved(5.1 * patience)


def test_a_claim_that_comes_slowly_is_told_again_so_that_nobody_takes_it_for_given_up() -> None:
    slow = planner(pieces=1, claim_stale=4.0)
    patient = PlannerSettings(claim_stale=4.0, stall=1000.0, relay_stall=1000.0)
    other = Planner(Geometry(MIN_PIECE, MIN_PIECE, 1), ANN, (), 0.0, patient)
    for plan, who in ((slow, ANN), (other, ME)):
        plan.handle(joined(who), 0.0)
    assert claimed(slow.handle(TICK, 0.0)) == [0]
    other.handle(ev.MemberClaims(ME, (0,)), 0.0)
    told = list[float]()
    for tick in range(1, 80):
        now = tick / 4
        slow.handle(ev.Progressed(0, None, 10), now - 0.1)
        for _ in claimed(slow.handle(TICK, now)):
            told.append(now)
            other.handle(ev.MemberClaims(ME, (0,)), now)
        if now < 10.0:
            assert not upstream(other.handle(TICK, now)), now
    assert told == [2.0, 4.0, 6.0, 8.0, 10.0]  # and then no more: who is that slow is in the way


def test_a_claim_of_which_nothing_comes_is_not_told_again() -> None:
    plan = planner(pieces=1)
    plan.handle(joined(ANN), 0.0)
    assert claimed(plan.handle(TICK, 0.0)) == [0]
    assert not any(claimed(plan.handle(TICK, tick / 4)) for tick in range(1, 40))


def test_to_tell_a_claim_again_is_not_to_contest_it() -> None:
    plan = planner(pieces=4)
    plan.handle(joined(ANN), 0.0)
    before = plan._division._pace
    for tick in range(5):
        plan.handle(ev.MemberClaims(ANN, (2,)), tick / 10)
    assert plan._division._pace <= before
