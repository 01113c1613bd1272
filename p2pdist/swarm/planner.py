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

from collections.abc import Callable, Iterable
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


@dataclass(slots=True)
class _Member:
    seed: int
    have: set[int]
    complete: bool
    near: bool
    load: int = 0
    quiet_until: float = 0.0
    strikes: int = 0
    progressed: float = 0.0

    def holds(self, piece: int) -> bool:
        return self.complete or piece in self.have


@dataclass(slots=True)
class _Flight:
    since: float
    progressed: float


@dataclass(slots=True)
class _Claim:
    peer: PeerId
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
        self._claims: dict[int, _Claim] = {}
        self._flights: dict[int, dict[PeerId, _Flight]] = {}
        self._upstream = _Upstream()
        self._unspread: dict[int, float] = {}
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
        member = _Member(seed_of(event.peer), set(event.have), event.complete, event.near, progressed=now)
        old = self._members.get(event.peer)
        if old is not None:
            member.load = old.load
        self._members[event.peer] = member
        self._ranks.clear()
        self._note_claims(event.peer, event.claims, now)

    def _left(self, event: ev.MemberLeft, now: float) -> None:
        if self._members.pop(event.peer, None) is None:
            return
        self._ranks.clear()
        for piece, claim in list(self._claims.items()):
            if claim.peer == event.peer:
                self._open(piece, now)
        for piece, flights in list(self._flights.items()):
            if event.peer in flights:
                self._land(piece, event.peer)
                self._out.append(ev.Drop(piece, event.peer))

    def _member_has(self, event: ev.MemberHas, now: float) -> None:
        member = self._members.get(event.peer)
        if member is None:
            return
        member.have.update(p for p in event.pieces if 0 <= p < self.geometry.count)
        member.complete = member.complete or len(member.have) == self.geometry.count
        member.progressed = now
        for piece in event.pieces:
            claim = self._claims.get(piece)
            if claim is not None and claim.peer == event.peer:
                del self._claims[piece]

    def _member_claims(self, event: ev.MemberClaims, now: float) -> None:
        if event.peer in self._members:
            self._note_claims(event.peer, event.pieces, now)

    def _note_claims(self, peer: PeerId, pieces: Iterable[int], now: float) -> None:
        for piece in pieces:
            if not 0 <= piece < self.geometry.count or piece in self.held:
                continue
            if piece in self._upstream.flights:
                if self._comes_before(self.me, peer, piece):
                    continue
                self._yield_claim(piece)
            known = self._claims.get(piece)
            if known is None or known.peer == peer or self._comes_before(peer, known.peer, piece):
                self._claims[piece] = _Claim(peer, now)

    def _comes_before(self, one: PeerId, other: PeerId, piece: int) -> bool:
        return weight(seed_of(one), piece) < weight(seed_of(other), piece)

    def _yield_claim(self, piece: int) -> None:
        self._end_upstream(piece)
        self._out.append(ev.Drop(piece, None))
        self._out.append(ev.Tell(release=(piece,)))

    def _member_releases(self, event: ev.MemberReleases, now: float) -> None:
        for piece in event.pieces:
            claim = self._claims.get(piece)
            if claim is not None and claim.peer == event.peer:
                self._open(piece, now)

    def _open(self, piece: int, now: float) -> None:
        """A claim ended without the piece: its order of duty begins anew."""
        self._claims.pop(piece, None)
        self._open_since[piece] = now

    # -- pieces --

    def _progressed(self, event: ev.Progressed, now: float) -> None:
        if event.source is None:
            self._upstream.failures = 0
            return
        flight = self._flights.get(event.piece, {}).get(event.source)
        if flight is not None:
            flight.progressed = now
            self._members[event.source].progressed = now

    def _piece_held(self, event: ev.PieceHeld, now: float) -> None:
        piece = event.piece
        if piece in self.held:
            return
        self.held.add(piece)
        self._claims.pop(piece, None)
        self._open_since.pop(piece, None)
        self._wanted.pop(piece, None)
        if piece in self._upstream.flights:
            self._end_upstream(piece)
            if self._leechers_without(piece):
                self._unspread[piece] = now
        for peer in list(self._flights.get(piece, ())):
            self._land(piece, peer)
            self._out.append(ev.Drop(piece, peer))
        self._out.append(ev.Tell(have=(piece,)))

    def _land(self, piece: int, peer: PeerId) -> None:
        flights = self._flights.get(piece, {})
        if flights.pop(peer, None) is not None and peer in self._members:
            self._members[peer].load -= 1
        if not flights:
            self._flights.pop(piece, None)

    def _request_failed(self, event: ev.RequestFailed, now: float) -> None:
        self._land(event.piece, event.source)
        member = self._members.get(event.source)
        if member is None:
            return
        if event.failure is ev.Failure.BUSY:
            member.quiet_until = now + event.retry_after
            return
        self._unlearn(event.source, member, event.piece, now)
        if event.failure is not ev.Failure.MISSING:
            self._strike(member, now)

    def _unlearn(self, peer: PeerId, member: _Member, piece: int, now: float) -> None:
        """The member did not deliver this piece: do not count on it for it."""
        if member.complete:
            member.complete = False
            member.have = set(range(self.geometry.count))
        member.have.discard(piece)
        claim = self._claims.get(piece)
        if claim is not None and claim.peer == peer:
            self._open(piece, now)

    def _strike(self, member: _Member, now: float) -> None:
        member.strikes += 1
        member.quiet_until = now + min(30.0, 0.5 * 2**member.strikes)

    def _want(self, event: ev.Wanted, now: float) -> None:
        for piece in event.pieces:
            if 0 <= piece < self.geometry.count and piece not in self.held:
                self._wanted[piece] = None

    # -- requests to neighbours --

    def _missing(self, limit: int) -> list[int]:
        """Missing pieces that are not in flight: those clients wait for, then from the front."""
        while self._front in self.held:
            self._front += 1
        stop = min(self.geometry.count, self._front + self.settings.window)
        flying, mine, held = self._flights, self._upstream.flights, self.held
        order = [p for p in self._wanted if p not in flying and p not in mine]
        for piece in range(self._front, stop):
            if len(order) >= limit:
                break
            if piece not in held and piece not in flying and piece not in mine and piece not in self._wanted:
                order.append(piece)
        return order

    def _request(self, now: float) -> None:
        room = self.settings.flights - len(self._flights)
        free = sum(
            max(0, self.settings.per_peer - m.load) for m in self._members.values() if m.quiet_until <= now
        )
        room = min(room, free)
        if room <= 0:
            return
        for piece in self._missing(self.settings.window):
            peer = self._best_source(piece, now)
            if peer is not None:
                self._ask(peer, piece, now)
                room -= 1
                if room <= 0:
                    return

    def _ask(self, peer: PeerId, piece: int, now: float) -> None:
        self._members[peer].load += 1
        self._flights.setdefault(piece, {})[peer] = _Flight(now, now)
        self._out.append(ev.AskPeer(peer, piece))

    def _best_source(self, piece: int, now: float) -> PeerId | None:
        """The least loaded neighbour that has the piece or is getting it from upstream; near ones before far ones."""
        claim = self._claims.get(piece)
        claimer = claim.peer if claim else None
        flying = self._flights.get(piece, {})
        best: tuple[int, bool, int, PeerId] | None = None
        for peer, member in self._members.items():
            if member.load >= self.settings.per_peer or member.quiet_until > now or peer in flying:
                continue
            if peer == claimer or member.holds(piece):
                key = (member.load, not member.near, weight(member.seed ^ self._seed, piece), peer)
                if best is None or key < best:
                    best = key
        return best[3] if best else None

    def _has_source(self, piece: int) -> bool:
        return piece in self._claims or any(member.holds(piece) for member in self._members.values())

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
        for piece, since in list(self._unspread.items()):
            leechers = sum(not member.complete for member in self._members.values())
            if self._leechers_without(piece) * 2 <= leechers or now - since > self.settings.spread_patience:
                del self._unspread[piece]
        return len(self._unspread) + len(self._upstream.runs) < self.settings.backlog

    def _leechers_without(self, piece: int) -> int:
        return sum(not member.holds(piece) for member in self._members.values())

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
        for piece in self._missing(self.settings.window):
            if self._has_source(piece):
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
            for peer, flight in list(flights.items()):
                member = self._members[peer]
                if now - flight.progressed > self.settings.stall:
                    self._land(piece, peer)
                    self._out.append(ev.Drop(piece, peer))
                    self._unlearn(peer, member, piece, now)
                    self._strike(member, now)
        for piece, claim in list(self._claims.items()):
            progressed = max(claim.since, self._members[claim.peer].progressed)
            if now - progressed > self.settings.claim_stale:
                self._open(piece, now)
        self._finish_fast(now)

    def _finish_fast(self, now: float) -> None:
        """Endgame: ask a second source for the last pieces when the first takes long."""
        if self.geometry.count - len(self.held) > self.settings.endgame:
            return
        for piece, flights in list(self._flights.items()):
            since = min(flight.since for flight in flights.values())
            if len(flights) == 1 and now - since > self.settings.endgame_after:
                peer = self._best_source(piece, now)
                if peer is not None:
                    self._ask(peer, piece, now)

    def _give_up_if_stuck(self, now: float) -> None:
        if self._gave_up or not self._upstream.final or self._flights or self._upstream.flights:
            return
        front = self._missing(1)
        if front and not self._has_source(front[0]):
            self._gave_up = True
            self._out.append(ev.GiveUp())
