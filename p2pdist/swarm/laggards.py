"""Which members cannot keep up with the ring, so that pieces go past them.

In a ring everyone behind a slow member waits. Rules:
- A host that gets much less than its predecessor in the ring, though that has pieces it was asked for, does not know
  whose link is to blame. So it asks one other for a few of these pieces (a trial). Where that brings much more, the
  predecessor lags; otherwise this host does.
- So does a host that would need long, at the rate at which it got others, for what its predecessor has and owes; and one
  whose predecessor would need long for what the one before that has more. Of the hosts behind a slow one, which all wait,
  only the first sees that: the others see those before them wait. Where it gets more with the trial than without, its own
  link had room; if the other brings more than the predecessor, too, that one lags.
- It says so to all. What a member says of itself counts, and what the one after it in the ring says of it; and never of
  more than half of the members.
- Who lags takes pieces from the end of their way round, passes none on, and takes no turns at upstream while others do.
  After a while it is tried again.

Counts are pieces, sizes bytes, times seconds. Bounded by the members and a window of ticks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from p2pdist.swarm.flights import Flights
from p2pdist.swarm.geometry import Geometry
from p2pdist.swarm.members import Member, Members
from p2pdist.swarm.ring import Ring
from p2pdist.swarm.settings import PlannerSettings

_OWED = 3
_GAINED = 6
_LITTLE = 1 / 2
_LEAST = 1 / 3
_BETTER = 3
_TRIED = 4
_BEHIND = 6
_LONG = 1.5
_ROOM = 1.5
_MORE = 2
_TRIAL = 0.75
_LONGEST_TRIAL = 2.0


@dataclass(slots=True)
class _Trial:
    """``pieces`` are asked of another than ``member``; ``other`` and ``own``: bytes that came of that one, and of the
    member until the last of those. ``usual``: bytes a second that came before, of all, where this host is behind."""

    member: Member
    since: float
    pieces: set[int]
    usual: float | None = None
    other: int = 0
    own: int = 0
    later: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who lags; None is this host."""

    member: Member | None


@dataclass(frozen=True, slots=True)
class Trial:
    """Ask ``other`` for pieces that ``member`` was asked for."""

    member: Member
    other: Member
    pieces: tuple[int, ...]


class Laggards:
    """See the module's rules."""

    def __init__(
        self, geometry: Geometry, members: Members, flights: Flights, ring: Ring, settings: PlannerSettings
    ) -> None:
        self._piece = geometry.piece
        self._pieces = geometry.count
        self._received = 0
        self._parts: dict[int, int] = {}
        self._members = members
        self._flights = flights
        self._ring = ring
        self._settings = settings
        self._window: deque[tuple[float, float, int]] = deque()
        self._before: Member | None = None
        self._trial: _Trial | None = None
        self._quiet_until = 0.0
        self.own_until = self._lagging_until = 0.0

    def lags(self, now: float) -> bool:
        """Whether this host does."""
        return self.own_until > now

    def any(self, now: float) -> bool:
        """Whether any member is known to lag."""
        return self._lagging_until > now

    def progressed(self, piece: int, member: Member | None, size: int) -> None:
        """Bytes of a piece came from a member, or (None) from upstream."""
        self._received += size
        self._parts[piece] = self._parts.get(piece, 0) + size
        trial = self._trial
        if trial is None:
            return
        if member is trial.member:
            trial.later += size
        elif member is not None and piece in trial.pieces:
            trial.other += size
            trial.own += trial.later
            trial.later = 0

    def look(self, now: float) -> Trial | None:
        """Compare this host with its predecessor; the trial to make, if there is a reason for one."""
        before = self._predecessor(now)
        if before is not self._before:
            self._before, self._trial = before, None
            self._window.clear()
        if before is None:
            return None
        flying = self._flights.pieces
        self._parts = {piece: size for piece, size in self._parts.items() if piece in flying}
        self._window.append((now, self._received / self._piece, len(before.have)))
        span = self._settings.lag_window * min(6.0, max(1.0, len(self._members.table) / 8))
        while now - self._window[0][0] > span:
            self._window.popleft()
        if self._trial is not None or now < self._quiet_until or now - self._window[0][0] < 0.8 * span:
            return None
        owed, usual = self._owed(before, now), None
        if not (len(owed) >= _OWED and (before.complete or self._gets(_LITTLE))):
            if len(self._ring) > self._settings.close:
                return None
            if not self._needs_long_for(owed):
                owed = self._has_instead(before, now)
            if len(owed) < _OWED:
                return None
            usual = self._rate()
        other = self._other(owed, before, now)
        if other is None:
            return None
        pieces = tuple(piece for piece in owed if self._members.has(other, piece))[-_TRIED:]
        self._trial = _Trial(before, now, set(pieces), usual)
        return Trial(before, other, pieces)

    def _needs_long_for(self, pieces: list[int]) -> bool:
        lacking = len(pieces) - sum(self._parts.get(piece, 0) for piece in pieces) / self._piece
        return lacking >= _BEHIND and self._gained() * _LONG < lacking

    def _has_instead(self, before: Member, now: float) -> list[int]:
        """What was asked of the predecessor for a while, and the one before it has; nothing, if the predecessor keeps up
        with that."""
        first = next((m for m in self._ring.before(before) if m is None or m.lags_until <= now), None)
        if first is None or before.complete:
            return []
        lacking = self._count(first) - len(before.have)
        # What it says that it gained is told late; but nobody passes on more than it gets.
        gained = max(self._gained(), self._window[-1][2] - self._window[0][2])
        if lacking < _BEHIND or gained * _LONG >= lacking:
            return []
        has = self._members.has
        return [p for p in self._asked_long(before, now) if has(first, p) and not has(before, p)]

    def _count(self, member: Member) -> int:
        return self._pieces if member.complete else len(member.have)

    def _gained(self) -> float:
        """Pieces' worth of bytes that came in the window."""
        return self._window[-1][1] - self._window[0][1]

    def _rate(self) -> float:
        """Bytes a second that came in the window."""
        return self._gained() * self._piece / max(0.001, self._window[-1][0] - self._window[0][0])

    def _other(self, owed: list[int], before: Member, now: float) -> Member | None:
        """Who has most of what is owed, and is not in the way itself."""
        having = [
            (sum(self._members.has(member, piece) for piece in owed), -member.load, member.seed, member)
            for member in self._members.table.values()
            if member is not before and max(member.lags_until, member.quiet_until) <= now
        ]
        most = max(having, key=lambda each: each[:3], default=None)
        return most[3] if most is not None and most[0] else None

    def judge(self, now: float) -> Verdict | None:
        """How a trial ended; None while there is nothing to say."""
        trial = self._trial
        if trial is None:
            return None
        took = now - trial.since
        over = took >= _TRIAL and trial.pieces.isdisjoint(self._flights.pieces)
        over = over or took >= _LONGEST_TRIAL
        if not over:
            return None
        self._trial, self._quiet_until = None, now + self._settings.lag_pause / 4
        if trial.usual is not None:
            room = trial.other + trial.own + trial.later > _ROOM * trial.usual * took
            if room and trial.other > _MORE * trial.own:
                return Verdict(trial.member)
            return Verdict(None) if self._needs_long_for(self._owed(trial.member, now)) else None
        if trial.other > _BETTER * trial.own:
            return Verdict(trial.member)
        return Verdict(None) if self._gets(_LEAST) else None

    def note(self, member: Member | None, now: float, *, said_by: Member | None) -> bool:
        """``said_by`` (None: this host) says that ``member`` (None: this host) lags; whether that counts."""
        if (self.own_until if member is None else member.lags_until) > now:
            return False
        if said_by is not member and self._after(member, now) is not said_by:
            return False
        lagging = sum(other.lags_until > now for other in self._members.table.values()) + self.lags(now)
        if 2 * (lagging + 1) > len(self._ring):
            return False
        self._lagging_until = until = now + self._settings.lag_pause
        if member is None:
            self.own_until = until
        else:
            member.lags_until = until
        return True

    def _predecessor(self, now: float) -> Member | None:
        if self.lags(now) or len(self._ring) < 3:
            return None
        return next((member for member in self._ring.behind() if member.lags_until <= now), None)

    def _after(self, member: Member | None, now: float) -> Member | None:
        """Who comes after a member (None: after this host) in the ring; None for this host."""
        for other in self._ring.ahead(member):
            if other is None and not self.lags(now):
                return None
            if other is not None and other.lags_until <= now:
                return other
        return member

    def _gets(self, part: float) -> bool:
        """Whether this host gets no more than so large a part of what its predecessor gets."""
        _, mine, theirs = self._window[0]
        _, mine_now, theirs_now = self._window[-1]
        gained = theirs_now - theirs
        return gained >= _GAINED and mine_now - mine < part * gained

    def _owed(self, member: Member, now: float) -> list[int]:
        """What the member has had, and was asked for, for a while."""
        return [piece for piece in self._asked_long(member, now) if self._members.has(member, piece)]

    def _asked_long(self, member: Member, now: float) -> list[int]:
        limit = now - self._settings.lag
        flights = self._flights
        return [piece for piece in flights.from_member(member) if not flights.began(piece, member, limit)]
