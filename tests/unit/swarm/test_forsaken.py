"""Neighbours that have everything and give nothing: frozen, cut off, or busy for ever. Upstream is asked instead."""

from __future__ import annotations

import pytest

from p2pdist.swarm import events as ev
from tests.unit.swarm.test_planner import ANN, asked, joined, planner, upstream

TICK = ev.Ticked()
PIECES = 12


def run(silent: ev.Failure | None) -> list[float]:
    """When each piece came from upstream, in a swarm with Ann, who has all of it and gives none, in 25 s. Every quarter
    of a second is a tick; what Ann is asked for fails at once, or never ends; upstream takes a quarter of a second."""
    plan = planner(pieces=PIECES)
    plan.handle(joined(ANN, complete=True), 0.0)
    came: list[float] = []
    coming: list[int] = []
    for step in range(100):
        now = step / 4
        commands = plan.handle(TICK, 1.0 + now)
        for piece in coming:
            came.append(now)
            commands += plan.handle(ev.PieceHeld(piece), 1.0 + now)
        for who, piece in asked(commands):
            if silent is not None:
                commands += plan.handle(ev.RequestFailed(piece, who, silent, 0.25), 1.0 + now)
        coming = upstream(commands)
    return came


@pytest.mark.parametrize("silent", [None, ev.Failure.BUSY, ev.Failure.UNREACHABLE])
def test_upstream_is_asked_for_one_piece_after_the_other_when_the_only_source_gives_none(
    silent: ev.Failure | None,
) -> None:
    came = run(silent)
    assert len(came) == PIECES
    assert came[-1] <= 14.0  # and then no piece waits for it: one every five seconds would take a minute


def test_who_gives_something_is_asked_on_and_upstream_is_not() -> None:
    plan = planner(pieces=PIECES)
    plan.handle(joined(ANN, complete=True), 0.0)
    given, held = 0.0, []
    on_its_way: list[int] = []
    for step in range(160):
        now = 1.0 + step / 4
        commands = plan.handle(TICK, now)
        if on_its_way and now - given >= 1.0:  # slowly, but something
            given = now
            commands += plan.handle(ev.Progressed(on_its_way[0], ANN, 1000), now)
            commands += plan.handle(ev.PieceHeld(on_its_way[0]), now)
            held.append(on_its_way.pop(0))
        assert not upstream(commands)
        on_its_way += [piece for _, piece in asked(commands) if piece not in on_its_way]
    assert len(held) == PIECES


def test_who_claims_everything_again_and_again_and_gives_nothing_is_not_believed() -> None:
    plan = planner(pieces=PIECES)
    plan.handle(joined(ANN, claims=tuple(range(PIECES))), 0.0)
    coming: list[int] = []
    for step in range(100):
        now = 1.0 + step / 4
        commands = plan.handle(ev.MemberClaims(ANN, tuple(range(PIECES))), now) + plan.handle(TICK, now)
        for piece in coming:
            commands += plan.handle(ev.PieceHeld(piece), now)
        coming = upstream(commands)
    assert plan.complete


def test_a_member_that_goes_on_claiming_and_gives_nothing_is_not_waited_for() -> None:
    """It may tell its claims again as often as it likes, as one does that is slow."""
    plan = planner(pieces=4)
    plan.handle(joined(ANN), 0.0)
    came: list[float] = []
    for step in range(1, 200):
        now = step / 4
        commands = plan.handle(ev.MemberClaims(ANN, tuple(range(4))), now) + plan.handle(TICK, now)
        for piece in upstream(commands):
            came.append(now)
            commands += plan.handle(ev.PieceHeld(piece), now)
    assert len(came) == 4
    assert came[2] <= 8.0
    assert came[-1] <= 25.0
