"""What is known of a swarm's members: who holds which piece, and who fetches which from upstream.

Always true here: only missing pieces have holders; a piece has at most one claim, and its claimer counts as a holder;
a complete member is in ``seeds`` and not among the holders; ``origin`` has who last claimed a missing piece. Bounded by
pieces x members.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from p2pdist.records import PeerId
from p2pdist.swarm.rendezvous import seed_of, weight


@dataclass(slots=True, eq=False)
class Member:
    """A neighbour. ``load`` counts its requests in flight; it gets none until ``quiet_until``.
    ``founder``: it held everything when it was met. ``outside``: it is not of this host's
    arc of the ring (ring.py), and is getting ``soon`` for its own. ``lags_until``: pieces go past it. ``wrong``: how often
    they came false. ``owes_since``: it has been asked all the time since then, and nothing came; 0: it owes nothing."""

    peer: PeerId
    near: bool
    seed: int
    zone: str = ""
    have: set[int] = field(default_factory=set)
    complete: bool = False
    load: int = 0
    quiet_until: float = 0.0
    strikes: int = 0
    progressed: float = 0.0
    claiming: float = 0.0
    founder: bool = False
    lags_until: float = 0.0
    wrong: int = 0
    outside: bool = False
    soon: set[int] = field(default_factory=set)
    owes_since: float = 0.0

    @property
    def place(self) -> tuple[str, int]:
        """Where it stands in the ring."""
        return self.zone, self.seed


@dataclass(slots=True)
class Claim:
    """Who said, and when, that it fetches a piece from upstream."""

    member: Member
    since: float


class Members:
    """See the module's rules. ``held`` is the planner's own set of pieces, read here and never changed."""

    def __init__(self, count: int, held: set[int]) -> None:
        self._count = count
        self._held = held
        self.table: dict[PeerId, Member] = {}
        self.seeds: set[Member] = set()
        self.holders: dict[int, set[Member]] = {}
        self.claims: dict[int, Claim] = {}
        self.origin: dict[int, Member] = {}
        self.delivered = float("-inf")  # when anything came from any of them last
        self._refused: dict[int, set[Member]] = {}

    def add(self, peer: PeerId, near: bool, zone: str, now: float) -> Member:
        member = self.table[peer] = Member(peer, near, seed_of(peer), zone, progressed=now, claiming=now)
        return member

    def forget(self, member: Member) -> list[int]:
        """Take a member out; returns the pieces it had claimed."""
        self.table.pop(member.peer, None)
        for piece in [piece for piece, origin in self.origin.items() if origin is member]:
            del self.origin[piece]
        for refused in self._refused.values():
            refused.discard(member)
        return self.restate(member, (), complete=False)

    def restate(self, member: Member, have: Collection[int], *, complete: bool) -> list[int]:
        """The member now holds exactly ``have`` and claims nothing; returns the pieces it had claimed."""
        opened = [piece for piece, claim in self.claims.items() if claim.member is member]
        for piece in opened:
            del self.claims[piece]
        for piece in [piece for piece, holders in self.holders.items() if member in holders]:
            self._drop(piece, member)
        self.seeds.discard(member)
        member.have, member.complete = set(), False
        member.soon = set()
        if complete:
            self._complete(member)
        else:
            self.learn(member, have)
        return opened

    def learn(self, member: Member, pieces: Collection[int]) -> list[int]:
        """The member holds these too; returns those that it was not known to hold."""
        if member.complete:
            return []
        fresh = []
        have, held, count = member.have, self._held, self._count
        if member.soon:
            member.soon.difference_update(pieces)
        for piece in pieces:
            if piece in have or not 0 <= piece < count:
                continue
            have.add(piece)
            fresh.append(piece)
            if piece in held:
                continue
            holders = self.holders.get(piece)
            if holders is None:
                self.holders[piece] = {member}
            else:
                holders.add(member)
            claim = self.claims.get(piece)
            if claim is not None and claim.member is member:
                del self.claims[piece]
        if len(have) == count:
            self._complete(member)
        return fresh

    def _complete(self, member: Member) -> None:
        for piece in [piece for piece, holders in self.holders.items() if member in holders]:
            self._drop(piece, member)
        for piece in [piece for piece, claim in self.claims.items() if claim.member is member]:
            del self.claims[piece]
        member.complete, member.have, member.soon = True, set(), set()
        self.seeds.add(member)

    def unlearn(self, member: Member, piece: int) -> bool:
        """The member did not deliver this piece: do not count on it for it. Whether that ended its claim."""
        if member.complete:
            member.complete = False
            self.seeds.discard(member)
            member.have = set(range(self._count))
            for other in member.have - self._held:
                self.holders.setdefault(other, set()).add(member)
        member.have.discard(piece)
        self._refused.setdefault(piece, set()).add(member)
        if self.release(member, piece):
            return True
        self._drop(piece, member)
        return False

    def claim(self, member: Member, piece: int, race: float, now: float) -> bool:
        """The member fetches a missing piece; whether that stands (in a race, one that comes first stays)."""
        known = self.claims.get(piece)
        if known is not None and known.member is not member:
            racing = now - known.since <= race
            if racing and weight(known.member.seed, piece) < weight(member.seed, piece):
                return False
            self._drop(piece, known.member)
        if known is None or known.member is not member:
            member.claiming = now
        self.claims[piece] = Claim(member, now)
        self.origin[piece] = member
        self.holders.setdefault(piece, set()).add(member)
        return True

    def coming(self, member: Member, pieces: Iterable[int]) -> list[int]:
        """A member outside the arc is getting these: as good as having them; returns those that are news."""
        fresh = []
        for piece in pieces:
            known = member.complete or piece in member.have or piece in self._held
            if not known and 0 <= piece < self._count:
                member.have.add(piece)
                member.soon.add(piece)
                self.holders.setdefault(piece, set()).add(member)
                fresh.append(piece)
        return fresh

    def gone(self, member: Member, piece: int) -> None:
        """A member outside the arc does not get the piece after all."""
        if piece in member.soon:
            member.soon.discard(piece)
            member.have.discard(piece)
            self._drop(piece, member)

    def put_outside(self, member: Member) -> list[int]:
        """The member is no more of the arc; the pieces it had claimed, which count as coming to it."""
        member.outside = True
        claimed = [piece for piece, claim in self.claims.items() if claim.member is member]
        for piece in claimed:
            del self.claims[piece]
            member.have.add(piece)
            member.soon.add(piece)
        return claimed

    def in_arc(self, piece: int) -> bool:
        """Whether a member of the arc has a missing piece, or is getting it for the arc."""
        return any(not member.outside for member in self.holders.get(piece, ()))

    def release(self, member: Member, piece: int) -> bool:
        """End the member's claim of a piece, if it has it."""
        claim = self.claims.get(piece)
        if claim is None or claim.member is not member:
            return False
        del self.claims[piece]
        self.origin.pop(piece, None)
        self._drop(piece, member)
        return True

    def arrived(self, piece: int) -> None:
        """The piece is held here: nobody is needed for it any more."""
        self.claims.pop(piece, None)
        self.holders.pop(piece, None)
        self.origin.pop(piece, None)
        self._refused.pop(piece, None)

    def refused(self, member: Member, piece: int) -> bool:
        """Whether the member was asked for the piece and did not deliver."""
        return member in self._refused.get(piece, ())

    def has(self, member: Member, piece: int) -> bool:
        return member.complete or piece in member.have

    def usable(self, piece: int, now: float) -> bool:
        """Whether some neighbour can be asked for the piece now or shortly."""
        soon = now + 1.0
        holders = self.holders.get(piece, ())
        return any(m.quiet_until <= soon for m in holders) or any(m.quiet_until <= soon for m in self.seeds)

    def withheld(self, piece: int, since: float) -> bool:
        """Whether everybody who could give the piece has been asked since before ``since``, for this or others, and gave
        nothing, nor did anyone else: a host whose own link is full gets little from each, but something."""
        return self.delivered < since and all(
            0 < member.owes_since < since for member in (*self.holders.get(piece, ()), *self.seeds)
        )

    def _drop(self, piece: int, member: Member) -> None:
        holders = self.holders.get(piece)
        if holders is not None:
            holders.discard(member)
            if not holders:
                del self.holders[piece]
