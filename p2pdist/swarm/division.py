"""This host's part in dividing the upstream: what it fetches from there, and whether it may claim more.

Rules:
- A piece belongs to the member that comes first in its order (rendezvous); after ``rank_delay`` seconds unclaimed it
  may be taken by the second as well, and so on. The clock of a piece starts when this host first misses a source for it.
- A host claims on only while at most ``backlog`` of its pieces are unspread, that is, not yet held by half of the
  neighbours: so the division follows what each host's uplink carries.
- Only the ``core`` members that announced first claim. The others follow: a follower claims when for
  ``follow_patience`` seconds and a share of its own nothing new came into its neighbourhood, and then it is core.
- Upstream that failed is left alone for the time asked; after ``upstream_failures`` in a row, or one that is final,
  for good, unless bytes come after all.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2pdist.swarm.members import Member
from p2pdist.swarm.rendezvous import rank, weight
from p2pdist.swarm.settings import PlannerSettings


class Division:
    """See the module's rules. ``seed`` orders this host among the members."""

    def __init__(self, seed: int, settings: PlannerSettings, now: float) -> None:
        self._seed = seed
        self._settings = settings
        self._open_since: dict[int, float] = {}
        self.claimed = 0
        self._unspread: dict[int, tuple[int, float]] = {}
        self._news = now
        self.core = True
        self.flights: dict[int, float] = {}
        self.runs: list[set[int]] = []
        self.next_run = 1
        self.quiet_until = 0.0
        self.failures = 0
        self.denied = False

    @property
    def over(self) -> bool:
        """Whether upstream is not to be asked any more."""
        return self.denied or self.failures >= self._settings.upstream_failures

    # -- duty --

    def announced(self, ahead: int) -> None:
        """So many members take part already: this host is core, or follows."""
        self.core = ahead < self._settings.core

    def news(self, now: float) -> None:
        """Something new came into the neighbourhood."""
        self._news = now

    def may_claim(self, now: float) -> bool:
        """Whether another claim is in order at all."""
        if self.over or self.quiet_until > now or len(self.runs) >= self._settings.upstream_flights:
            return False
        if not self.core:
            share = (self._seed & 0xFFFF) / 0x10000
            self.core = now - self._news > self._settings.follow_patience * (1.0 + 2.0 * share)
        return self.core and len(self._unspread) + len(self.runs) < self._settings.backlog

    def rivals(self, members: Iterable[Member]) -> tuple[int, list[int]]:
        """How many members claimed less so far, and the seeds of those that claimed as much."""
        fewer, equal = 0, []
        for member in members:
            if not member.complete:
                if member.claimed < self.claimed:
                    fewer += 1
                elif member.claimed == self.claimed:
                    equal.append(member.seed)
        return fewer, equal

    def due(self, piece: int, rivals: tuple[int, list[int]], most: int | None, now: float) -> bool:
        """Whether a piece without source is this host's to claim; ``most`` bounds the ranks that are waited for."""
        opened = self._open_since.setdefault(piece, now)
        place = rivals[0]
        if now - opened < self._settings.rank_delay * (place if most is None else min(place, most)):
            return False
        place += rank(self._seed, rivals[1], piece)
        if most is not None:
            place = min(place, most)
        return now - opened >= self._settings.rank_delay * place

    def reopen(self, piece: int, now: float) -> None:
        """A claim of the piece ended without it: its order of duty begins anew."""
        self._open_since[piece] = now

    def wins(self, piece: int, other: Member, now: float) -> bool:
        """Whether this host's claim stands against another's: by the order, unless it has come to a standstill."""
        if now - self.flights[piece] > self._settings.claim_stale / 2:
            return False
        return weight(self._seed, piece) < weight(other.seed, piece)

    # -- what is on its way from upstream --

    def begin(self, run: Iterable[int], now: float) -> None:
        pieces = set(run)
        self.runs.append(pieces)
        self.claimed += len(pieces)
        self.flights.update(dict.fromkeys(pieces, now))

    def progressed(self, piece: int, now: float) -> None:
        """Bytes came: for the piece, and so for its run."""
        self.failures = 0
        for run in self.runs:
            if piece in run:
                self.flights.update(dict.fromkeys(run, now))

    def end(self, piece: int) -> bool:
        """The piece is no more on its way from upstream; whether it was."""
        if self.flights.pop(piece, None) is None:
            return False
        for run in self.runs:
            run.discard(piece)
        self.runs = [run for run in self.runs if run]
        return True

    def yielded(self, piece: int) -> None:
        """An own claim was given up: it does not count."""
        if self.end(piece):
            self.claimed -= 1

    def stalled(self, now: float) -> list[int]:
        limit = self._settings.upstream_stall
        return sorted(piece for piece, since in self.flights.items() if now - since > limit)

    def tails(self) -> list[int]:
        """The later pieces of long runs, which the members there are now had better divide."""
        return sorted(piece for run in self.runs for piece in sorted(run)[1:])

    def failed(self, retry_after: float, now: float, *, final: bool) -> None:
        self.failures += 1
        self.quiet_until = now + retry_after
        self.denied = self.denied or final

    # -- spread --

    def arrived(self, piece: int) -> None:
        self._open_since.pop(piece, None)

    def begin_spread(self, piece: int, members: Iterable[Member], now: float) -> None:
        """A piece from upstream is whole here: half of those who may need it are to have it soon."""
        leechers = [member for member in members if not member.complete]
        lacking = sum(piece not in member.have for member in leechers)
        left = int(len(leechers) * (1 - self._settings.spread_to))
        if lacking > left:
            self._unspread[piece] = (lacking - left, now)

    def spread(self, pieces: Iterable[int]) -> bool:
        """One more neighbour holds these; whether one of them counts as spread now."""
        done = False
        for piece in pieces:
            known = self._unspread.get(piece)
            if known is None:
                continue
            if known[0] <= 1:
                del self._unspread[piece]
                done = True
            else:
                self._unspread[piece] = (known[0] - 1, known[1])
        return done

    def expire(self, now: float) -> None:
        """What did not spread in time counts as spread: its neighbours may be slow, or gone."""
        late = now - self._settings.spread_patience
        self._unspread = {piece: known for piece, known in self._unspread.items() if known[1] > late}
