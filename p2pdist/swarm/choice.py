"""Which pieces are to be had next, and from which neighbour each. Reads the planner's state and changes none of it.

Rules:
- What clients wait for comes first; the rest goes roughly from the front, since clients stream. Within a stretch of
  ``_STRETCH`` pieces the rare ones come first, for each host in an order of its own, so that hosts have something to
  exchange.
- A piece that a member fetches comes along the ring (ring.py), whether the next member has it yet or not.
- A host that came late takes first what others lack too, for those behind it wait for that; what most of them have it takes
  from the least busy one, and few pieces at a time as long as others come.
- Otherwise, of the neighbours that have a piece, or are getting it from upstream, the one with the fewest own requests
  is asked; near ones before far ones; ties are broken by rendezvous, so that not all ask the same one.
- Complete members are asked directly only when they are more than the others; few are divided (division.py).
- What only members outside of this host's arc of the ring have is not asked for, but claimed for the arc (duty.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from p2pdist.swarm.division import Division
from p2pdist.swarm.flights import Flights
from p2pdist.swarm.laggards import Laggards
from p2pdist.swarm.members import Member, Members
from p2pdist.swarm.rendezvous import weight
from p2pdist.swarm.ring import Ring
from p2pdist.swarm.settings import PlannerSettings

_RARE = 3
_FEW = 4
_COMMON = 0.75
_STRETCH = 64


class Choice:
    """See the module's rules."""

    def __init__(
        self,
        count: int,
        seed: int,
        held: set[int],
        members: Members,
        flights: Flights,
        division: Division,
        ring: Ring,
        laggards: Laggards,
        settings: PlannerSettings,
    ) -> None:
        self._ring = ring
        self._laggards = laggards
        self._count = count
        self._seed = seed
        self._held = held
        self._members = members
        self._flights = flights
        self._division = division
        self._settings = settings
        self._front = 0
        self.wanted: dict[int, None] = {}
        self.late = False
        self._caught_up = False

    def lacks(self, piece: int) -> bool:
        """Whether a piece is missing and not on its way."""
        return (
            piece not in self._held
            and piece not in self._flights.pieces
            and piece not in self._division.flights
        )

    def missing(self) -> Iterator[int]:
        """Pieces to be had that are not on their way: those clients wait for, then the window from the front."""
        wanted = [piece for piece in self.wanted if self.lacks(piece)]
        yield from wanted
        if not self._settings.eager:
            return
        held, flying, mine = self._held, self._flights.pieces, self._division.flights
        while self._front in held:
            self._front += 1
        for piece in range(self._front, min(self._count, self._front + self._settings.window)):
            if piece not in held and piece not in flying and piece not in mine and piece not in self.wanted:
                yield piece

    def obtainable(self) -> list[int]:
        """Pieces that some neighbour can give, in the order they are wanted."""
        if self.direct or not self._settings.eager:
            return list(self.missing())
        flying, mine = self._flights.pieces, self._division.flights
        ready = [piece for piece in self._members.holders if piece not in flying and piece not in mine]
        if len(ready) > 1:
            ready.sort(key=self._place)
        return ready

    def _place(self, piece: int) -> tuple[bool, int, int]:
        """Where a piece stands in the order: what clients wait for, then roughly from the front; among those near to
        each other the rare ones first, each host in an order of its own, so that hosts have something to exchange."""
        holders = len(self._members.holders.get(piece, ()))
        rare = holders <= max(_RARE, self.leechers * _COMMON) and piece not in self._members.claims
        return (
            piece not in self.wanted,
            piece // _STRETCH,
            weight(self._seed, piece) & 0xFFFF if rare else 0x10000 + piece,
        )

    @property
    def lacking(self) -> int:
        """How many pieces are missing here."""
        return self._count - len(self._held)

    @property
    def leechers(self) -> int:
        """How many members are not complete."""
        return len(self._members.table) - len(self._members.seeds)

    @property
    def direct(self) -> bool:
        """Whether there are so many complete members that pieces need not be divided among those that lack them."""
        return len(self._members.seeds) > self.leechers

    def best_source(self, piece: int, now: float) -> Member | None:
        """Whom to ask for the piece now; None: nobody can be asked yet."""
        if self.direct or piece not in self._members.holders:
            return self.other_source(piece, now)
        if self._ring.bits and not self._members.in_arc(piece):
            return None
        if self._laggards.lags(now):
            return self._end_of_way(piece, now)
        if self.late and self.is_old(piece):
            return self.other_source(piece, now)
        relay = self._relay(piece, now)
        if relay is None:
            return self.other_source(piece, now)
        return relay if relay.load < self._settings.relayed else None

    def look_whether_late(self, now: float) -> None:
        """Whether this host came when others held much already, and has not caught up with them since."""
        if self._caught_up:
            return
        counts = [
            len(member.have)
            for member in self._members.table.values()
            if not member.complete and not member.outside and member.lags_until <= now
        ]
        behind = max(counts, default=0) - len(self._held)
        self.late = behind > max(_FEW, self._settings.late * self._count)
        self._caught_up = not self.late

    def is_old(self, piece: int) -> bool:
        """Whether many have the piece, so that nobody waits for it behind this host."""
        holders = self._members.holders.get(piece, ())
        return piece not in self._members.claims and len(holders) > self._settings.old * (len(self._ring) - 1)

    def _relay(self, piece: int, now: float) -> Member | None:
        """The neighbour in the ring that the piece is to come from: the nearest behind this host, unless that failed or
        lags; whoever is as far away as the furthest holder, or nearer, has the piece or gets it. Holders that lag count
        only where no other has the piece, and then as if they kept up: else two of them would send hosts in a circle."""
        holders = {member for member in self._members.holders[piece] if not member.outside}
        sources = {member for member in holders if member.lags_until <= now} or holders
        left = set(sources)
        flying = self._flights.of(piece)
        for relay in self._ring.behind():
            keeps_up = relay.lags_until <= now or relay in sources
            if keeps_up and self._can_be_asked(relay, piece, now) and relay not in flying:
                return relay
            left.discard(relay)
            if not left:
                return None
        return None

    def _end_of_way(self, piece: int, now: float) -> Member | None:
        """For a host that lags: one of several that have the piece; else the last to get it, who has none to pass it to."""
        holders = self._members.holders[piece]
        if len(holders) > 1:
            return self.other_source(piece, now)
        (origin,) = holders
        flying = self._flights.of(piece)
        for member in self._ring.before(origin):
            if (
                member is not None
                and member.lags_until <= now
                and member not in flying
                and self._can_be_asked(member, piece, now)
            ):
                return member
        return self.other_source(piece, now)

    def _can_be_asked(self, member: Member, piece: int, now: float) -> bool:
        return member.quiet_until <= now and not self._members.refused(member, piece)

    def other_source(self, piece: int, now: float) -> Member | None:
        """The least loaded neighbour that has the piece or is getting it from upstream; near ones before far ones."""
        per_peer = self._settings.per_peer
        flying = self._flights.of(piece)
        best: list[Member] = []
        least = sys.maxsize
        seeds = self._members.seeds if self.direct else ()
        for group in (self._members.holders.get(piece, ()), seeds):
            for member in group:
                if member.load >= per_peer or member.quiet_until > now or member in flying:
                    continue
                load = member.load if member.near else member.load + self._settings.far
                if member.lags_until > now:
                    load += per_peer
                if load < least:
                    least, best = load, [member]
                elif load == least:
                    best.append(member)
        if len(best) < 2:
            return best[0] if best else None
        return min(best, key=lambda member: weight(member.seed ^ self._seed, piece))
