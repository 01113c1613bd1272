"""Which piece this host is to claim next. Reads the planner's state; the order of duty itself is in division.py.

Rules: a piece with a usable source is not claimed, unless the host is starved, or all who have the piece have owed for so
long that they may never give anything (busy for ever, frozen, cut off); at most ``open_claims`` are open among
all members; in the endgame a piece whose only source is far slower than usual may be claimed once more, and so may any
that only members have that cannot keep up.
"""

from __future__ import annotations

from p2pdist.swarm.choice import Choice
from p2pdist.swarm.division import Division
from p2pdist.swarm.flights import Flights
from p2pdist.swarm.geometry import Geometry
from p2pdist.swarm.laggards import Laggards
from p2pdist.swarm.members import Member, Members
from p2pdist.swarm.ring import Ring
from p2pdist.swarm.settings import PlannerSettings


class Duty:
    """See the module's rules."""

    def __init__(
        self,
        geometry: Geometry,
        choice: Choice,
        members: Members,
        flights: Flights,
        division: Division,
        ring: Ring,
        laggards: Laggards,
        settings: PlannerSettings,
    ) -> None:
        self._geometry = geometry
        self._choice = choice
        self._members = members
        self._flights = flights
        self._division = division
        self._ring = ring
        self._laggards = laggards
        self._settings = settings
        self.gives_way = False

    def _open_claims(self) -> int:
        """How many pieces all members together ask of upstream at a time: few, for each to come and get about fast."""
        settings = self._settings
        if self.gives_way:
            return 1
        more = len(self._members.table) // settings.more_claims
        few = min(settings.most_claims, settings.open_claims + more)
        return int(few * self._division.quickness)

    def run(self, starved: bool, now: float) -> tuple[int, ...]:
        """One piece among others; alone, a run that doubles each time, so that few requests cover the blob."""
        first = self.next_piece(starved=starved, now=now)
        if first is None:
            return ()
        division = self._division
        if self._members.table:
            division.next_run = 1
            return (first,)
        length = division.next_run
        division.next_run = min(length * 2, max(1, self._settings.longest_run // self._geometry.piece))
        run = [first]
        while len(run) < length and self._follows(run[-1] + 1):
            run.append(run[-1] + 1)
        return tuple(run)

    def _follows(self, piece: int) -> bool:
        return (
            piece < self._geometry.count
            and self._choice.lacks(piece)
            and (self._settings.eager or piece in self._choice.wanted)
        )

    def next_piece(self, *, starved: bool, now: float) -> int | None:
        """The first piece that is this host's to claim: it comes first in its order, or those before it were slow."""
        members, division = self._members, self._division
        room = self._open_claims() - len(members.claims) - len(division.flights)
        if room <= 0 and members.table:
            return None
        looked = 0
        for piece in self._choice.missing():
            held = piece in members.holders and not members.withheld(piece, now - self._settings.starved)
            if held and (not starved or members.usable(piece, now)):
                continue
            if self._settings.eager and not self._ring.fetches(piece) and not division.overdue(piece, now):
                continue
            most = self._settings.wanted_ranks if piece in self._choice.wanted else None
            if division.due(piece, self._turn(piece, now), most, now):
                return piece
            looked += 1
            if looked >= room:
                return None
        if looked:
            return None
        late = self._left_behind(now)
        return self._laggard(now) if late is None else late

    def givers(self, piece: int, now: float) -> list[Member]:
        """Who outside of the arc can be asked for a piece."""
        careful = self._division.careful(piece)
        return [
            member
            for member in self._members.holders.get(piece, ())
            if member.quiet_until <= now and not (careful and piece in member.soon)
        ]

    def next_for_arc(self, now: float) -> int | None:
        """The first piece that is this host's to take from a member outside of the arc, for all of the arc."""
        members, division = self._members, self._division
        room = self._settings.arc_claims - len(members.claims) - len(division.flights)
        if not self._ring.bits or room <= 0:
            return None
        for piece in self._choice.missing():
            if piece not in members.holders or members.in_arc(piece):
                continue
            if division.due_for_arc(piece, self._turn(piece, now), now) and self.givers(piece, now):
                return piece
        return None

    def _turn(self, piece: int, now: float) -> int:
        """How many come before this host; all others, when it cannot keep up."""
        turn = self._ring.turn(piece)
        return turn + 2 * len(self._ring) if self._laggards.lags(now) else turn

    def _left_behind(self, now: float) -> int | None:
        """When all else is fetched: a piece that does not come, and that only members have or fetch that cannot keep up; to
        be fetched once more."""
        members = self._members
        if (
            self._ring.bits
            or len(self._ring) > self._settings.close
            or self._laggards.lags(now)
            or any(seed.lags_until <= now for seed in members.seeds)
        ):
            return None
        long_ago = now - self._settings.lag
        for piece, flights in self._flights.pieces.items():
            holders = members.holders.get(piece, ())
            if piece in self._division.flights or any(member.lags_until <= now for member in holders):
                continue
            if any(flight.since > long_ago or flight.progressed > long_ago for flight in flights.values()):
                continue
            if (holders or members.seeds) and self._division.due(piece, self._turn(piece, now), None, now):
                return piece
        return None

    def _laggard(self, now: float) -> int | None:
        """Endgame: a piece whose only source is far slower than is usual, to be fetched once more."""
        if self._choice.lacking > self._settings.endgame or self._members.seeds or self._ring.bits:
            return None
        for piece in self._flights.single():
            lags = self._division.spread.laggard(piece, now) and piece not in self._division.flights
            if (
                lags
                and len(self._members.holders.get(piece, ())) < 2
                and self._division.due(piece, self._turn(piece, now), None, now)
            ):
                return piece
        return None
