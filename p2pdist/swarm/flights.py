"""The requests to neighbours that are in flight: by piece, and how many each neighbour has.

The number of pieces in flight has a limit that halves when requests stall and grows by one with each round of pieces
that comes.

Always true here: a member's ``load`` is the number of its flights, ``total`` the number of all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from p2pdist.swarm.members import Member

_FEWEST = 1.0


@dataclass(slots=True)
class _Flight:
    since: float
    progressed: float


class Flights:
    """See the module's rules."""

    def __init__(self, limit: int) -> None:
        self.pieces: dict[int, dict[Member, _Flight]] = {}
        self.total = 0
        self.limit = float(limit)

    def of(self, piece: int) -> Collection[Member]:
        """The members a piece is on its way from."""
        return tuple(self.pieces.get(piece, ()))

    def from_member(self, member: Member) -> list[int]:
        return [piece for piece, flights in self.pieces.items() if member in flights]

    def take_off(self, piece: int, member: Member, now: float) -> None:
        self.pieces.setdefault(piece, {})[member] = _Flight(now, now)
        member.load += 1
        self.total += 1

    def progressed(self, piece: int, member: Member, now: float) -> bool:
        """Bytes came; whether they were asked for."""
        flight = self.pieces.get(piece, {}).get(member)
        if flight is None:
            return False
        flight.progressed = now
        return True

    def land(self, piece: int, member: Member) -> bool:
        """The request is over, well or badly; whether it was there."""
        flights = self.pieces.get(piece)
        if flights is None or flights.pop(member, None) is None:
            return False
        member.load -= 1
        self.total -= 1
        if not flights:
            del self.pieces[piece]
        return True

    def stalled(self, before: float) -> list[tuple[int, Member]]:
        """Flights without progress since ``before``."""
        return [
            (piece, member)
            for piece, flights in self.pieces.items()
            for member, flight in flights.items()
            if flight.progressed < before
        ]

    def began(self, piece: int, member: Member, after: float) -> bool:
        """Whether the flight began after ``after``."""
        flight = self.pieces.get(piece, {}).get(member)
        return flight is not None and flight.since > after

    def coming(self, has: Callable[[Member, int], bool]) -> int:
        """How many pieces are arriving, or are about to, as their source has them."""
        return sum(
            any(flight.progressed > flight.since or has(member, piece) for member, flight in flights.items())
            for piece, flights in self.pieces.items()
        )

    def lately(self, piece: int, member: Member, after: float) -> bool:
        """Whether the flight progressed, or began, after ``after``."""
        flight = self.pieces.get(piece, {}).get(member)
        return flight is not None and flight.progressed > after

    def narrow(self) -> None:
        """Requests stalled: more are in flight than the links can feed."""
        self.limit = max(_FEWEST, self.limit / 2)

    def widen(self, most: int) -> None:
        self.limit = min(float(most), self.limit + 1 / self.limit)

    def single(self) -> list[int]:
        return [piece for piece, flights in self.pieces.items() if len(flights) == 1]

    def alone_since(self, before: float) -> list[int]:
        """Pieces on their way from one source only, since ``before`` or longer."""
        return [
            piece
            for piece, flights in self.pieces.items()
            if len(flights) == 1 and next(iter(flights.values())).since < before
        ]
