"""This host's part in dividing what has to come from upstream, or from the few members that hold everything.

Rules:
- The members take turns, piece by piece, in the order of the ring (ring.py). A piece that is unclaimed after
  ``rank_delay`` seconds may be taken by the next as well, and so on. The clock of a piece starts when this host first
  misses a source for it.
- Where word of a claim takes longer than ``rank_delay``, because hosts or links have much to do, members take their turns
  one after the other all the same, and claim what others have claimed. So all turns become longer (CONTESTED) with each
  claim that meets another, and shorter again (UNCONTESTED) with each that does not.
- A host whose pieces spread more slowly than those of others (spread.py) stands back until they have: so the division
  follows what each host's links can carry.
- Two claims of one piece within ``race`` seconds are a race, which the order decides; a later one is a take-over and wins.
- In a swarm of several arcs (ring.py) each piece is for one arc to fetch from upstream; another does so when none of it
  was heard of for ``foreign_patience`` seconds, and a share of each host's own. The claims that count are the arc's.
- Upstream that failed is left alone for the time asked; after ``upstream_failures`` in a row, or one that is final,
  for good, unless bytes come after all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from p2pdist.swarm.members import Member
from p2pdist.swarm.rendezvous import weight
from p2pdist.swarm.settings import PlannerSettings
from p2pdist.swarm.spread import Spread

CONTESTED = 1.4
UNCONTESTED = 0.9
FASTEST_PACE = 1 / CONTESTED  # one is forgiven
SLOWEST_PACE = 16.0
QUICK = 0.25  # seconds from the claim of a piece until it is here: as long as it takes less, more are asked for at a time,
MOST_QUICK = 4.0  # up to so many times as many
_WEIGHT = 0.3


class Division:
    """See the module's rules. ``seed`` orders this host among the members."""

    def __init__(self, seed: int, settings: PlannerSettings, now: float) -> None:
        self._seed = seed
        self._settings = settings
        self._open_since: dict[int, float] = {}
        self._missed_since: dict[int, float] = {}
        self._lost: set[int] = set()
        self.spread = Spread()
        self.flights: dict[int, float] = {}
        self.since: dict[int, float] = {}
        self._told: dict[int, float] = {}
        self.givers: dict[int, Member] = {}
        self.runs: list[set[int]] = []
        self.next_run = 1
        self.quiet_until = 0.0
        self.failures = 0
        self.denied = False
        self._begin_at = now
        self._ahead_until = now
        self._first = False
        self._pace = FASTEST_PACE
        self._took = QUICK
        self._many = False
        self.meets = False

    @property
    def over(self) -> bool:
        """Whether upstream is not to be asked any more."""
        return self.denied or self.failures >= self._settings.upstream_failures

    # -- duty --

    def announced(self, ahead: int, now: float) -> None:
        """So many members take part already. Who is not the first lets the first begin, and learns of all claims before
        it makes its own."""
        if ahead:
            self._begin_at = now + self._settings.head_start
        else:
            self._first = True
            self._ahead_until = now + self._settings.head_start

    def share_with_arcs(self) -> None:
        """There are several arcs, and most pieces are for others to fetch: this host asks for no more than usual."""
        self._many = True

    def waits(self) -> bool:
        """Whether it is left to others to claim, since this host does not know all of them yet."""
        return self.meets and not self._first

    def ahead(self, now: float) -> bool:
        """Whether this host has upstream for itself, as the first to announce."""
        return now < self._ahead_until

    @property
    def quickness(self) -> float:
        """How many times as many pieces as usual are to be asked of upstream at a time, so that what each costs in waiting
        does not count: pieces are small, or the links fast."""
        return 1.0 if self._many else min(MOST_QUICK, max(1.0, QUICK / self._took))

    def may_claim(self, others: int, members: Collection[Member], now: float) -> bool:
        """Whether another claim is in order, whatever its source; ``others`` is the number of others' open claims. When
        nobody else claims, a slow host is better than none."""
        at_a_time = (
            self.quickness if members else 1.0
        )  # a lone host asks for long runs, one after the other, in order
        if len(self.runs) >= int(self._settings.upstream_flights * at_a_time):
            return False
        unspread = 4 + self.spread.done
        if self.spread.unspread >= min(self._settings.backlog, unspread):
            return not others and not any(self._is_rival(member, now) for member in members)
        return not others or not self.spread.behind

    def upstream_open(self, now: float) -> bool:
        """Whether upstream may be asked now."""
        return not self.over and self.quiet_until <= now and self._begin_at <= now

    def _is_rival(self, member: Member, now: float) -> bool:
        lately = now - max(self._settings.rival, 2.0 * self.spread.typical)
        return not member.complete and member.claiming >= lately

    def due(self, piece: int, turn: int, most: int | None, now: float) -> bool:
        """Whether a piece without source is this host's to claim: ``turn`` others come first; ``most`` bounds how many of
        them are waited for."""
        opened = self._open_since.setdefault(piece, now)
        if self.ahead(now):
            return True
        place = turn if most is None else min(turn, most)
        return now - opened >= self._settings.rank_delay * max(1.0, self._pace) * place

    def due_for_arc(self, piece: int, turn: int, now: float) -> bool:
        """As ``due``, for a piece to be taken from another arc."""
        return (
            now - self._open_since.setdefault(piece, now)
            >= self._settings.arc_rank_delay * max(1.0, self._pace) * turn
        )

    def claimed(self, *, contested: bool) -> None:
        """A claim was told, while another was under way or not."""
        pace = self._pace * (CONTESTED if contested else UNCONTESTED)
        self._pace = min(SLOWEST_PACE, max(FASTEST_PACE, pace))

    def lost_for_arc(self, piece: int) -> None:
        """The arc's claim of the piece ended without it. Those outside who are getting it may be getting it from this arc:
        from now on only those count that have it."""
        self._lost.add(piece)

    def careful(self, piece: int) -> bool:
        """Whether only those count that have the piece."""
        return piece in self._lost

    def overdue(self, piece: int, now: float) -> bool:
        """Whether the arc whose piece it is has had its time."""
        share = (self._seed & 0xFFFF) / 0x10000
        patience = self._settings.foreign_patience * (1.0 + 2.0 * share)
        since = self._missed_since.setdefault(piece, now)
        return now - self._open_since.setdefault(piece, now) > patience or now - since > 2 * patience

    def reopen(self, piece: int, now: float) -> None:
        """A claim of the piece ended without it, or another arc has it: its order of duty begins anew."""
        self._open_since[piece] = now

    def wins(self, piece: int, other: Member, race: float, now: float) -> bool:
        """Whether this host's claim stands against another's that was told now."""
        if now - self.since[piece] > race:
            return False
        return weight(self._seed, piece) < weight(other.seed, piece)

    # -- what is on its way from upstream --

    def begin(
        self, run: Iterable[int], giver: Member | None, members: Collection[Member], now: float
    ) -> None:
        """Claim pieces; ``giver`` None is upstream."""
        pieces = set(run)
        self.runs.append(pieces)
        for piece in pieces:
            self.flights[piece] = self.since[piece] = self._told[piece] = now
            self.note_claim(piece, members, now, mine=True)
            if giver is not None:
                self.givers[piece] = giver

    def note_claim(self, piece: int, members: Collection[Member], now: float, *, mine: bool) -> None:
        """Watch how a claimed piece spreads among the members that are not complete."""
        settings = self._settings
        leechers = [member for member in members if not member.complete and not member.outside]
        there = sum(piece in member.have for member in leechers)
        self.spread.claimed(piece, math.ceil(len(leechers) * settings.spread_to) - there, now, mine=mine)

    def from_upstream(self, piece: int) -> bool:
        return piece in self.flights and piece not in self.givers

    def progressed(self, piece: int, now: float) -> None:
        """Bytes came: for the piece, and so for its run."""
        if piece not in self.givers:
            self.failures = 0
        for run in self.runs:
            if piece in run:
                self.flights.update(dict.fromkeys(run, now))

    def to_tell_again(self, now: float) -> tuple[int, ...]:
        """Own claims of which bytes come, but slowly: the others, to whom none have come yet, would take them for given up.
        For a while only: who is that slow is in the way."""
        stale = self._settings.claim_stale
        again = tuple(
            piece
            for piece, progressed in self.flights.items()
            if now - self._told[piece] >= stale / 2
            and progressed > self._told[piece]
            and now - self.since[piece] < 3 * stale
        )
        self._told.update(dict.fromkeys(again, now))
        return again

    def idle(self, piece: int) -> bool:
        """Whether the piece is claimed here and no byte of it has come."""
        return piece in self.flights and self.flights[piece] <= self.since[piece]

    def end(self, piece: int) -> bool:
        """The piece is no more on its way from upstream; whether it was."""
        if self.flights.pop(piece, None) is None:
            return False
        del self.since[piece]
        self._told.pop(piece, None)
        self.givers.pop(piece, None)
        for run in self.runs:
            run.discard(piece)
        self.runs = [run for run in self.runs if run]
        return True

    def came(self, piece: int, now: float) -> None:
        """A piece is here; if it was on its way from upstream, that is over."""
        if self.from_upstream(piece):
            self._took += _WEIGHT * (max(now - self.since[piece], 0.001) - self._took)
        self.end(piece)

    def yielded(self, piece: int) -> bool:
        """An own claim was given up: it does not count; whether there was one."""
        if not self.end(piece):
            return False
        self.spread.forget(piece)
        return True

    def stalled(self, now: float) -> list[int]:
        limit = self._settings.upstream_stall
        return sorted(p for p, since in self.flights.items() if now - since > limit and p not in self.givers)

    def tails(self, now: float) -> list[int]:
        """The later pieces of long runs, which the members there are now had better divide; none as long as this host is
        ahead, since it would begin them again."""
        if self.ahead(now):
            return []
        return sorted(piece for run in self.runs for piece in sorted(run)[1:])

    def failed(self, retry_after: float, now: float, *, final: bool) -> None:
        self.failures += 1
        self.quiet_until = now + retry_after
        self.denied = self.denied or final

    def arrived(self, piece: int) -> None:
        self._open_since.pop(piece, None)
        self._missed_since.pop(piece, None)
        self._lost.discard(piece)
