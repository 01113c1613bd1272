"""The ring along which pieces travel from the member that fetched them to all the others.

The members stand in a circle, by zone and then by rendezvous. A piece goes from its fetcher round it, from each member to
the next, while it is still arriving there: so each member receives nearly everything from one other and sends nearly
everything to one, over few, full connections, and each piece crosses into a zone once. That costs a fraction of the CPU
that as many trickles as there are members would. In a circle of more than ONE_WAY pieces go both ways round, for half as
many hops. A member that lags, is busy or does not deliver is stepped over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from p2pdist.swarm.members import Member

ONE_WAY = 12


class Ring:
    """``own`` is this host's place. Rebuilt by ``stand`` when members come and go."""

    def __init__(self, own: tuple[str, int]) -> None:
        self._own = own
        self._circle: list[tuple[tuple[str, int], Member | None]] = [(own, None)]
        self._at = 0
        self._places: dict[Member, int] = {}

    def stand(self, members: list[Member]) -> None:
        """These are the members of the circle, besides this host."""
        circle: list[tuple[tuple[str, int], Member | None]] = [(self._own, None)]
        circle += [(member.place, member) for member in members]
        circle.sort(key=lambda each: each[0])
        self._circle = circle
        self._at = bisect_left([place for place, _ in circle], self._own)
        self._places = {member: at for at, (_, member) in enumerate(circle) if member is not None}

    def turn(self, piece: int) -> int:
        """How many members' turn it is before this host's to fetch a piece from upstream."""
        return (self._at - piece) % len(self._circle)

    def behind(self) -> Iterator[Member]:
        """The others, from the one before this host back to the one after it."""
        at, count = self._at, len(self._circle)
        for _ in range(count - 1):
            at = (at - 1) % count
            member = self._circle[at][1]
            if member is not None:
                yield member
