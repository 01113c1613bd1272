"""The planner's numbers. They were tuned with tests/lab/simulate.py; docs name the scenario of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlannerSettings:
    """Counts are pieces or requests, times seconds, ``longest_run`` bytes.

    ``per_peer``, ``flights``: requests to one neighbour, and to all;
    ``waiting``: times as many, with those that their source waits for itself; ``relayed``: requests to a neighbour in the
    ring. ``lag``: so long after it was asked for what it has, a neighbour owes it; ``lag_window``: over so long hosts are
    compared, in a swarm of eight; ``lag_pause``: so long pieces go past one that lags.
    ``close``: in larger rings word comes too late to go by what members have, or to fetch again what only those have that
    lag.
    ``window``: how far ahead of the front pieces are fetched. ``upstream_flights``: own requests to upstream.
    ``backlog``: pieces claimed and not yet spread. ``open_claims``: of all members together, as far as known, and one more
    for each ``more_claims`` members, up to ``most_claims``. ``head_start``: what the first to announce gets at upstream.
    ``arc``: so many members share an arc of the ring at most; beyond that there are several arcs (ring.py), and
    ``outsiders``: neighbours of other arcs that a host looks for. ``arc_claims``:
    pieces that an arc takes from others at a time; ``arc_rank_delay``: as ``rank_delay``, for these; ``foreign_patience``:
    how long a piece is left to the arc that is to fetch it.
    ``late``: who comes when another holds this part of the pieces more is late, until it has caught up; ``old``: what more
    than this part of the ring has nobody waits for, and a late host has ``old_pieces`` of these in flight while others come.
    ``far``: a far neighbour counts as if it had so many requests more. ``eager`` False: only what was
    wanted is fetched.
    """

    per_peer: int = 2
    relayed: int = 64
    lag: float = 0.8
    lag_window: float = 2.0
    lag_pause: float = 30.0
    close: int = 12
    flights: int = 64
    waiting: int = 3
    window: int = 192
    upstream_flights: int = 1
    backlog: int = 16
    spread_to: float = 0.5
    head_start: float = 0.5
    open_claims: int = 5
    more_claims: int = 16
    most_claims: int = 7
    race: float = 1.0
    rival: float = 5.0
    longest_run: int = 32 * 1024 * 1024
    rank_delay: float = 0.1
    wanted_ranks: int = 2
    arc: int = 64
    outsiders: int = 32
    arc_claims: int = 16
    arc_rank_delay: float = 0.02
    foreign_patience: float = 8.0
    stall: float = 3.0
    relay_stall: float = 10.0
    claim_stale: float = 4.0
    upstream_stall: float = 15.0
    upstream_failures: int = 6
    starved: float = 5.0
    give_up_after: float = 5.0
    endgame: int = 2
    endgame_after: float = 3.0
    late: float = 0.25
    old: float = 0.34
    old_pieces: int = 2
    far: int = 1
    eager: bool = True
