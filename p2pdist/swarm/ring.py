"""The ring along which pieces travel from the member that fetched them to all the others.

The members stand in a circle, by zone and then by rendezvous. A piece goes from its fetcher round it, from each member to
the next, while it is still arriving there: so each member receives nearly everything from one other and sends everything
once to one other, whoever fetched how much; connections are few and full, and each piece crosses into a zone once. That
costs a fraction of the CPU that as many trickles as there are members would. A member that lags, is busy or does not
deliver is stepped over.

In a large swarm the circle is the *arc* of this host: the members whose seeds begin with the same ``bits``. Each arc is a
ring of its own, and fetches some of the pieces from upstream (``fetches``); the others come from arc to arc (duty.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from p2pdist.swarm.members import Member
from p2pdist.swarm.rendezvous import weight

SEED_BITS = 64
SOURCE_BITS = 3
MOST_BITS = 12
_FEW = 0.1
_ENOUGH = 0.3


class Ring:
    """``own`` is this host's place; ``most``: with so many others the arc is halved. Rebuilt by ``stand`` when members come
    and go."""

    def __init__(self, own: tuple[str, int], most: int) -> None:
        self._own = own
        self._most = most
        self.bits = 0
        self._circle: list[tuple[tuple[str, int], Member | None]] = [(own, None)]
        self._at = 0
        self._places: dict[Member, int] = {}

    def stand(self, members: list[Member]) -> list[Member]:
        """These are the members, besides this host; those of its arc come into the circle, and are returned."""
        members = self._of_own_arc(members)
        circle: list[tuple[tuple[str, int], Member | None]] = [(self._own, None)]
        circle += [(member.place, member) for member in members]
        circle.sort(key=lambda each: each[0])
        self._circle = circle
        self._at = bisect_left([place for place, _ in circle], self._own)
        self._places = {member: at for at, (_, member) in enumerate(circle) if member is not None}
        return members

    def _of_own_arc(self, members: list[Member]) -> list[Member]:
        """Halve the arc as long as it has too many members; double it again when there are next to none."""
        bits = self.bits
        near = self._within(members, bits)
        while bits and len(near) < self._most * _FEW:
            bits -= 1
            near = self._within(members, bits)
        while len(near) >= self._most and bits < MOST_BITS:
            bits += 1
            near = self._within(near, bits)
        self.bits = bits
        return near

    def _within(self, members: list[Member], bits: int) -> list[Member]:
        own = self._own[1] >> (SEED_BITS - bits)
        return [member for member in members if member.seed >> (SEED_BITS - bits) == own]

    def halve(self, seed: int, bits: int, members: list[Member]) -> bool:
        """A member with this seed says how long its arc is. If it is of this host's arc, and there are so many members that
        it may be right, this host's becomes half as long. Whether it did; then ``stand`` is due."""
        if bits <= self.bits or not self.is_near(seed):
            return False
        near = self._within(members, self.bits)
        if len(near) < self._most * _ENOUGH or len(self._within(near, self.bits + 1)) < self._most * _FEW:
            return False
        self.bits += 1
        return True

    def is_near(self, seed: int) -> bool:
        """Whether a member with this seed is of this host's arc."""
        return (seed ^ self._own[1]) >> (SEED_BITS - self.bits) == 0

    def fetches(self, piece: int) -> bool:
        """Whether it is for this host's arc to fetch the piece from upstream; 2 ** SOURCE_BITS arcs do, at most."""
        bits = min(self.bits, SOURCE_BITS)
        first = weight(0, piece) >> (SEED_BITS - bits) << (self.bits - bits)
        return self._own[1] >> (SEED_BITS - self.bits) == first

    def turn(self, piece: int) -> int:
        """How many members' turn it is before this host's to fetch a piece from upstream."""
        return (self._at - piece) % len(self._circle)

    def __len__(self) -> int:
        return len(self._circle)

    def ahead(self, member: Member | None) -> Iterator[Member | None]:
        """The others, from the one after ``member`` (None: this host) on; None stands for this host. None at all when
        it is not in the circle."""
        at = self._at if member is None else self._places.get(member, -1)
        if at < 0:
            return
        for step in range(1, len(self._circle)):
            yield self._circle[(at + step) % len(self._circle)][1]

    def before(self, member: Member) -> Iterator[Member | None]:
        """The others, from the one before ``member`` back; None stands for this host."""
        at = self._places.get(member)
        if at is not None:
            for step in range(1, len(self._circle)):
                yield self._circle[(at - step) % len(self._circle)][1]

    def behind(self) -> Iterator[Member]:
        """The others, from the one before this host back to the one after it."""
        for step in range(1, len(self._circle)):
            member = self._circle[(self._at - step) % len(self._circle)][1]
            if member is not None:
                yield member
