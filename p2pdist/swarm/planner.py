"""The swarm's planner for one blob on one host: who is asked for which piece, and which pieces this host fetches
from upstream for everybody.

Sans-IO: ``handle(event, now) -> commands``; the daemon and the simulator run this same code.

How it works: a host *claims* a piece before it fetches it from upstream and tells its neighbours, who at once request
the piece from the claimer and receive it while it is still arriving there (cut-through). Whom an unclaimed piece belongs
to is agreed on without words by rendezvous hashing; a member that is slow to claim is overtaken by the next in order.
A host claims on only while what it fetched has spread to half of its neighbours, so the division of the upstream link
follows what each host's uplink can carry.

Always true here:
- A piece is in flight from one source at a time, but for the endgame, when it may be from two.
- Upstream is asked for a piece only after claiming it, and no piece is claimed that a usable neighbour holds or claims.
- Two claims of one piece end as one: the member that comes first in the piece's order keeps it.
- While any source is left, some request is in flight or a time is known at which one will be made.
- Memory is bounded by pieces x neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from p2pdist.swarm import events as ev
from p2pdist.swarm.geometry import Geometry
from p2pdist.swarm.rendezvous import rank, seed_of, weight
from p2pdist.wire.records import PeerId


@dataclass(frozen=True, slots=True)
class PlannerSettings:
    """Counts are pieces or requests, times seconds."""

    per_peer: int = 2
    flights: int = 64
    window: int = 192
    upstream_flights: int = 2
    backlog: int = 4
    longest_run: int = 32 * 1024 * 1024
    rank_delay: float = 0.3
    stall: float = 3.0
    claim_stale: float = 4.0
    spread_patience: float = 3.0
    upstream_failures: int = 6
    endgame: int = 4
    endgame_after: float = 1.0


@dataclass(slots=True, eq=False)
class _Member:
    peer: PeerId
    seed: int
    have: set[int]
    complete: bool
    near: bool
    load: int = 0
    quiet_until: float = 0.0
    strikes: int = 0
    progressed: float = 0.0


@dataclass(slots=True)
class _Flight:
    since: float
    progressed: float


@dataclass(slots=True)
class _Claim:
    member: _Member
    since: float


@dataclass(slots=True)
class _Spread:
    """How many neighbours must still report a piece that this host fetched; after a while it counts as spread."""

    lacking: int
    since: float


@dataclass(slots=True)
class _Upstream:
    flights: set[int] = field(default_factory=set)
    runs: list[set[int]] = field(default_factory=list)
    run: int = 1
    quiet_until: float = 0.0
    failures: int = 0
    final: bool = False


class Planner:
    """See the module's rules. ``me`` orders this host among the members; ``held`` are pieces here from before."""

    def __init__(
        self,
        geometry: Geometry,
        me: PeerId,
        held: Iterable[int],
        now: float,
        settings: PlannerSettings | None = None,
    ) -> None:
        self.geometry = geometry
        self.settings = settings or PlannerSettings()
        self.held: set[int] = set(held)
        self.me = me
        self._seed = seed_of(me)
        self._members: dict[PeerId, _Member] = {}
        self._seeds: set[_Member] = set()
        self._holders: dict[int, set[_Member]] = {}
        self._claims: dict[int, _Claim] = {}
        self._flights: dict[int, dict[_Member, _Flight]] = {}
        self._upstream = _Upstream()
        self._unspread: dict[int, _Spread] = {}
        self._open_since: dict[int, float] = {}
        self._ranks: dict[int, int] = {}
        self._wanted: dict[int, None] = {}
        self._front = 0
        self._started = now
        self._gave_up = False
        self._out: list[ev.Command] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.MemberJoined: self._joined,
            ev.MemberLeft: self._left,
            ev.MemberHas: self._member_has,
            ev.MemberClaims: self._member_claims,
            ev.MemberReleases: self._member_releases,
            ev.Progressed: self._progressed,
            ev.PieceHeld: self._piece_held,
            ev.RequestFailed: self._request_failed,
            ev.UpstreamFailed: self._upstream_failed,
            ev.Wanted: self._want,
            ev.Ticked: self._tick,
        }

    # -- what the outside may ask --

    @property
    def complete(self) -> bool:
        return len(self.held) == self.geometry.count

    @property
    def claims(self) -> tuple[int, ...]:
        """The pieces this host is fetching from upstream, for a neighbour that joins."""
        return tuple(sorted(self._upstream.flights))

    @property
    def members(self) -> frozenset[PeerId]:
        return frozenset(self._members)

    def in_flight(self, piece: int) -> int:
        """From how many sources a piece is on its way."""
        return len(self._flights.get(piece, ())) + (piece in self._upstream.flights)

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Take one event in; what to do about it, in order."""
        self._out = []
        self._handlers[type(event)](event, now)
        if not isinstance(event, ev.Progressed) and not self.complete:
            self._request(now)
            self._claim(now)
            self._give_up_if_stuck(now)
        return self._out

    # -- members --

    def _joined(self, event: ev.MemberJoined, now: float) -> None:
        if event.peer == self.me:
            return
        member = self._members.get(event.peer)
        if member is None:
            member = _Member(event.peer, seed_of(event.peer), set(), False, event.near, progressed=now)
            self._members[event.peer] = member
            self._ranks.clear()
        self._add_pieces(member, event.have)
        if event.complete:
            self._complete(member)
        self._note_claims(member, event.claims, now)

    def _left(self, event: ev.MemberLeft, now: float) -> None:
        member = self._members.pop(event.peer, None)
        if member is None:
            return
        self._ranks.clear()
        self._seeds.discard(member)
        for piece in list(self._holders):
            self._drop_holder(piece, member)
        for piece, claim in list(self._claims.items()):
            if claim.member is member:
                self._open(piece, now)
        for piece in [p for p, flights in self._flights.items() if member in flights]:
            self._land(piece, member)
            self._out.append(ev.Drop(piece, event.peer))

    def _member_has(self, event: ev.MemberHas, now: float) -> None:
        member = self._members.get(event.peer)
        if member is None:
            return
        member.progressed = now
        self._add_pieces(member, event.pieces)

    def _add_pieces(self, member: _Member, pieces: Iterable[int]) -> None:
        for piece in pieces:
            if piece in member.have or not 0 <= piece < self.geometry.count:
                continue
            member.have.add(piece)
            if piece in self._unspread:
                self._spread(piece)
            if piece in self.held:
                continue
            self._holders.setdefault(piece, set()).add(member)
            claim = self._claims.get(piece)
            if claim is not None and claim.member is member:
                del self._claims[piece]
        if len(member.have) == self.geometry.count:
            self._complete(member)

    def _complete(self, member: _Member) -> None:
        if not member.complete:
            member.complete = True
            self._seeds.add(member)
            self._ranks.clear()

    def _drop_holder(self, piece: int, member: _Member) -> None:
        holders = self._holders.get(piece)
        if holders is not None:
            holders.discard(member)
            if not holders:
                del self._holders[piece]

    def _member_claims(self, event: ev.MemberClaims, now: float) -> None:
        member = self._members.get(event.peer)
        if member is not None:
            self._note_claims(member, event.pieces, now)

    def _note_claims(self, member: _Member, pieces: Iterable[int], now: float) -> None:
        for piece in pieces:
            if not 0 <= piece < self.geometry.count or piece in self.held or piece in member.have:
                continue
            if piece in self._upstream.flights:
                if weight(self._seed, piece) < weight(member.seed, piece):
                    continue
                self._yield_claim(piece)
            known = self._claims.get(piece)
            if (
                known is None
                or known.member is member
                or weight(member.seed, piece) < weight(known.member.seed, piece)
            ):
                if known is not None:
                    self._drop_holder(piece, known.member)
                self._claims[piece] = _Claim(member, now)
                self._holders.setdefault(piece, set()).add(member)

    def _yield_claim(self, piece: int) -> None:
        self._end_upstream(piece)
        self._out.append(ev.Drop(piece, None))
        self._out.append(ev.Tell(release=(piece,)))

    def _member_releases(self, event: ev.MemberReleases, now: float) -> None:
        for piece in event.pieces:
            claim = self._claims.get(piece)
            if claim is not None and claim.member.peer == event.peer:
                self._open(piece, now)

    def _open(self, piece: int, now: float) -> None:
        """A claim ended without the piece: its order of duty begins anew."""
        claim = self._claims.pop(piece, None)
        if claim is not None and piece not in claim.member.have:
            self._drop_holder(piece, claim.member)
        self._open_since[piece] = now

    # -- pieces --

    def _progressed(self, event: ev.Progressed, now: float) -> None:
        if event.source is None:
            self._upstream.failures = 0
            return
        member = self._members.get(event.source)
        flight = self._flights.get(event.piece, {}).get(member) if member else None
        if member is not None and flight is not None:
            flight.progressed = member.progressed = now
            member.strikes = 0

    def _piece_held(self, event: ev.PieceHeld, now: float) -> None:
        piece = event.piece
        if piece in self.held:
            return
        self.held.add(piece)
        self._claims.pop(piece, None)
        self._holders.pop(piece, None)
        self._open_since.pop(piece, None)
        self._wanted.pop(piece, None)
        if piece in self._upstream.flights:
            self._end_upstream(piece)
            self._begin_spread(piece, now)
        for member in list(self._flights.get(piece, ())):
            self._land(piece, member)
            self._out.append(ev.Drop(piece, member.peer))
        self._out.append(ev.Tell(have=(piece,)))

    def _begin_spread(self, piece: int, now: float) -> None:
        leechers = [m for m in self._members.values() if not m.complete]
        lacking = sum(piece not in member.have for member in leechers)
        if lacking * 2 > len(leechers):
            self._unspread[piece] = _Spread(lacking - len(leechers) // 2, now)

    def _spread(self, piece: int) -> None:
        self._unspread[piece].lacking -= 1
        if self._unspread[piece].lacking <= 0:
            del self._unspread[piece]

    def _land(self, piece: int, member: _Member) -> None:
        flights = self._flights.get(piece, {})
        if flights.pop(member, None) is not None:
            member.load -= 1
        if not flights:
            self._flights.pop(piece, None)

    def _request_failed(self, event: ev.RequestFailed, now: float) -> None:
        member = self._members.get(event.source)
        if member is None:
            return
        self._land(event.piece, member)
        if event.failure is ev.Failure.BUSY:
            member.quiet_until = now + event.retry_after
            return
        self._unlearn(member, event.piece, now)
        if event.failure is not ev.Failure.MISSING:
            self._strike(member, now)

    def _unlearn(self, member: _Member, piece: int, now: float) -> None:
        """The member did not deliver this piece: do not count on it for it."""
        if member.complete:
            member.complete = False
            self._seeds.discard(member)
            member.have = set(range(self.geometry.count))
            for other in range(self.geometry.count):
                if other not in self.held:
                    self._holders.setdefault(other, set()).add(member)
        member.have.discard(piece)
        self._drop_holder(piece, member)
        claim = self._claims.get(piece)
        if claim is not None and claim.member is member:
            self._open(piece, now)

    def _strike(self, member: _Member, now: float) -> None:
        member.strikes += 1
        member.quiet_until = now + min(30.0, 0.5 * 2**member.strikes)

    def _want(self, event: ev.Wanted, now: float) -> None:
        for piece in event.pieces:
            if 0 <= piece < self.geometry.count and piece not in self.held:
                self._wanted[piece] = None

    # -- requests to neighbours --

    def _missing(self) -> Iterator[int]:
        """Missing pieces that are not in flight: those clients wait for, then the window from the front."""
        held, flying, mine = self.held, self._flights, self._upstream.flights
        while self._front in held:
            self._front += 1
        for piece in self._wanted:
            if piece not in flying and piece not in mine:
                yield piece
        for piece in range(self._front, min(self.geometry.count, self._front + self.settings.window)):
            if piece not in held and piece not in flying and piece not in mine:
                yield piece

    def _request(self, now: float) -> None:
        per_peer = self.settings.per_peer
        free = sum(per_peer - m.load for m in self._members.values() if m.load < per_peer)
        room = min(self.settings.flights - len(self._flights), free)
        if room <= 0:
            return
        for piece in self._obtainable():
            member = self._best_source(piece, now)
            if member is not None:
                self._ask(member, piece, now)
                room -= 1
                if room <= 0:
                    return

    def _obtainable(self) -> list[int]:
        """Pieces that some neighbour can give, in the order they are wanted."""
        if self._seeds:
            return list(self._missing())
        flying, mine = self._flights, self._upstream.flights
        ready = [piece for piece in self._holders if piece not in flying and piece not in mine]
        ready.sort()
        if self._wanted:
            ready.sort(key=lambda piece: piece not in self._wanted)
        return ready

    def _ask(self, member: _Member, piece: int, now: float) -> None:
        member.load += 1
        self._flights.setdefault(piece, {})[member] = _Flight(now, now)
        self._out.append(ev.AskPeer(member.peer, piece))

    def _best_source(self, piece: int, now: float) -> _Member | None:
        """The least loaded neighbour that has the piece or is getting it from upstream; near ones before far ones."""
        per_peer = self.settings.per_peer
        flying = self._flights.get(piece, ())
        best: _Member | None = None
        best_key = (per_peer, True, 0)
        for group in (self._holders.get(piece, ()), self._seeds):
            for member in group:
                if member.load >= per_peer or member.quiet_until > now or member in flying:
                    continue
                key = (member.load, not member.near, weight(member.seed ^ self._seed, piece))
                if best is None or key < best_key:
                    best, best_key = member, key
        return best

    def _has_source(self, piece: int) -> bool:
        return bool(self._seeds) or piece in self._holders

    # -- claims on upstream --

    def _claim(self, now: float) -> None:
        upstream = self._upstream
        if upstream.final or upstream.quiet_until > now:
            return
        while len(upstream.runs) < self.settings.upstream_flights and self._may_claim_more(now):
            run = self._next_run(now)
            if not run:
                return
            upstream.flights.update(run)
            upstream.runs.append(set(run))
            self._out.append(ev.Tell(claim=run))
            self._out.append(ev.AskUpstream(run))

    def _may_claim_more(self, now: float) -> bool:
        for piece, spread in list(self._unspread.items()):
            if now - spread.since > self.settings.spread_patience:
                del self._unspread[piece]
        return len(self._unspread) + len(self._upstream.runs) < self.settings.backlog

    def _next_run(self, now: float) -> tuple[int, ...]:
        """One piece among others; alone, a run that doubles each time, so that few requests cover the blob."""
        first = self._next_unclaimed(now)
        if first is None:
            return ()
        if self._members:
            self._upstream.run = 1
            return (first,)
        length = self._upstream.run
        self._upstream.run = min(length * 2, max(1, self.settings.longest_run // self.geometry.piece))
        run = [first]
        while len(run) < length and self._unclaimed(run[-1] + 1):
            run.append(run[-1] + 1)
        return tuple(run)

    def _unclaimed(self, piece: int) -> bool:
        return (
            piece < self.geometry.count
            and piece not in self.held
            and piece not in self._flights
            and piece not in self._upstream.flights
            and not self._has_source(piece)
        )

    def _next_unclaimed(self, now: float) -> int | None:
        """The first piece that is this host's to claim: it comes first in its order, or those before it were slow."""
        looked = 0
        if self._seeds:
            return None
        for piece in self._missing():
            if piece in self._holders:
                continue
            looked += 1
            opened = self._open_since.setdefault(piece, now)
            if now - opened >= self.settings.rank_delay * self._rank(piece):
                return piece
            if looked > 4 * (len(self._members) + 1):
                return None
        return None

    def _rank(self, piece: int) -> int:
        known = self._ranks.get(piece)
        if known is None:
            others = (member.seed for member in self._members.values() if not member.complete)
            known = self._ranks[piece] = rank(self._seed, others, piece)
        return known

    def _end_upstream(self, piece: int) -> None:
        self._upstream.flights.discard(piece)
        for run in self._upstream.runs:
            run.discard(piece)
        self._upstream.runs = [run for run in self._upstream.runs if run]

    def _upstream_failed(self, event: ev.UpstreamFailed, now: float) -> None:
        lost = tuple(p for p in event.pieces if p in self._upstream.flights)
        for piece in lost:
            self._end_upstream(piece)
            self._open_since[piece] = now
        if lost:
            self._out.append(ev.Tell(release=lost))
        self._upstream.failures += 1
        self._upstream.quiet_until = now + event.retry_after
        self._upstream.final = event.final or self._upstream.failures >= self.settings.upstream_failures

    # -- time --

    def _tick(self, event: ev.Ticked, now: float) -> None:
        for piece, flights in list(self._flights.items()):
            for member, flight in list(flights.items()):
                if now - flight.progressed > self.settings.stall:
                    self._land(piece, member)
                    self._out.append(ev.Drop(piece, member.peer))
                    self._unlearn(member, piece, now)
                    self._strike(member, now)
        for piece, claim in list(self._claims.items()):
            if now - max(claim.since, claim.member.progressed) > self.settings.claim_stale:
                self._open(piece, now)
        self._finish_fast(now)

    def _finish_fast(self, now: float) -> None:
        """Endgame: ask a second source for the last pieces when the first takes long."""
        if self.geometry.count - len(self.held) > self.settings.endgame:
            return
        for piece, flights in list(self._flights.items()):
            since = min(flight.since for flight in flights.values())
            if len(flights) == 1 and now - since > self.settings.endgame_after:
                member = self._best_source(piece, now)
                if member is not None:
                    self._ask(member, piece, now)

    def _give_up_if_stuck(self, now: float) -> None:
        if self._gave_up or not self._upstream.final or self._flights or self._upstream.flights:
            return
        if any(not self._has_source(piece) for piece in self._missing()):
            self._gave_up = True
            self._out.append(ev.GiveUp())
