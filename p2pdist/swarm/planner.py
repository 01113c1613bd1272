"""The swarm's planner for one blob on one host: who is asked for which piece, and which pieces this host fetches
from upstream for everybody.

Sans-IO: ``handle(event, now) -> commands``; the daemon and the simulator run this same code.

How it works: a host *claims* a piece before it fetches it from upstream and tells its neighbours. They request it along
the ring (ring.py), each from the member before it, and receive it while it is still arriving there (cut-through). Whose
turn it is to claim a piece is agreed on without words, by the order of the ring; a member that is slow to claim is
overtaken by the next (division.py has these rules, members.py who holds and claims what).

Always true here:
- A piece is in flight from one source at a time, but for the endgame, when it may be from two.
- Upstream is asked for a piece only after claiming it, and no piece is claimed that a usable neighbour holds or claims,
  unless nothing at all has arrived for ``starved`` seconds.
- Two claims of one piece end as one: the member that comes first in the piece's order keeps it and says so again,
  the other releases it. A claim that does not progress yields, whatever its order.
- While any source is left, some request is in flight or a time is known at which one will be made (ticks suffice).
- Memory is bounded by pieces x neighbours.

Nothing is asked for before the first tick, so that the members met at the start are all known when it comes.

What the executor provides: a tick every quarter of a second; ``Announced`` before the first tick, when it is known
how many incomplete members came before; before each tick, whether many members are yet to be heard from (``meet``);
every member connected with all of its arc of the ring, and with some twenty of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from p2pdist.records import PeerId
from p2pdist.swarm import events as ev
from p2pdist.swarm.choice import Choice
from p2pdist.swarm.division import Division
from p2pdist.swarm.duty import Duty
from p2pdist.swarm.flights import Flights
from p2pdist.swarm.geometry import Geometry
from p2pdist.swarm.laggards import Laggards
from p2pdist.swarm.members import Member, Members
from p2pdist.swarm.rendezvous import seed_of, weight
from p2pdist.swarm.ring import Ring
from p2pdist.swarm.settings import PlannerSettings as PlannerSettings

LONGEST_PATIENCE = 3.0
_SHORTLY = 2.0  # as long as a busy member asks for, at most


class Planner:
    """See the module's rules. ``me`` orders this host among the members; ``held`` are pieces here from before."""

    def __init__(
        self,
        geometry: Geometry,
        me: PeerId,
        held: Iterable[int],
        now: float,
        settings: PlannerSettings | None = None,
        zone: str = "",
    ) -> None:
        self.geometry = geometry
        self.settings = settings or PlannerSettings()
        self.held: set[int] = {piece for piece in held if 0 <= piece < geometry.count}
        self.me = me
        self._seed = seed_of(me)
        self._members = Members(geometry.count, self.held)
        self._flights = Flights(self.settings.flights)
        self._division = Division(self._seed, self.settings, now)
        parts = self._members, self._flights, self._division
        self._ring = Ring((zone, self._seed), self.settings.arc)
        self._laggards = Laggards(geometry, self._members, self._flights, self._ring, self.settings)
        self._choice = Choice(
            geometry.count, self._seed, self.held, *parts, self._ring, self._laggards, self.settings
        )
        self._duty = Duty(geometry, self._choice, *parts, self._ring, self._laggards, self.settings)
        self._bits = 0
        self._started = False
        self._arrived = now
        self._gave_up = False
        self._out: list[ev.Command] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.MemberJoined: self._joined,
            ev.MemberLeft: self._left,
            ev.MemberHas: self._member_has,
            ev.MemberClaims: self._member_claims,
            ev.MemberReleases: self._member_releases,
            ev.MembersLag: self._members_lag,
            ev.ArcHalved: self._arc_halved,
            ev.Announced: self._announced,
            ev.Progressed: self._progressed,
            ev.PieceHeld: self._piece_held,
            ev.RequestFailed: self._request_failed,
            ev.PassedOnWrong: self._passed_on_wrong,
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
        """The pieces this host is fetching for all, for a neighbour that joins."""
        return tuple(sorted(self._division.flights))

    @property
    def members(self) -> frozenset[PeerId]:
        return frozenset(self._members.table)

    def give_way(self, others: bool) -> None:
        """Whether other blobs that were begun here before this one ask upstream for pieces: they come first."""
        self._duty.gives_way = others

    def meet(self, others: bool) -> None:
        """Whether there are members that this host has yet to hear from: it leaves it to those that know all to fetch, for
        whose turn it is it cannot tell. The first of all does not wait."""
        self._division.meets = others

    @property
    def claiming(self) -> bool:
        """Whether there are pieces that nobody is known to hold or fetch."""
        return any(piece not in self._members.holders for piece in self._choice.missing())

    def has_rivals(self, now: float) -> bool:
        """Whether others may claim what this host claims: not as long as it is ahead of all."""
        return bool(self._members.table) and not self._division.ahead(now)

    def is_complete(self, peer: PeerId) -> bool:
        """Whether a neighbour holds every piece (and so need not be told of any)."""
        member = self._members.table.get(peer)
        return member is not None and member.complete

    def fetches(self, peer: PeerId, piece: int) -> bool:
        """Whether a neighbour said that it fetches this piece for all."""
        member = self._members.table.get(peer)
        return member is not None and self._members.origin.get(piece) is member

    @property
    def arc(self) -> int:
        """This host's arc is 2 ** -``arc`` of the ring."""
        return self._ring.bits

    @property
    def patience(self) -> float:
        """How many times as long as in a small swarm it may take until anything comes: pieces have a longer way round."""
        return min(LONGEST_PATIENCE, max(1.0, len(self._ring) / 16))

    def has_room(self, peer: PeerId) -> bool:
        """Whether one more neighbour is wanted: all of the same arc are, and some of the others."""
        table = self._members.table
        if self._ring.is_near(seed_of(peer)):
            return len(table) < 2 * self.settings.arc
        return sum(member.outside for member in table.values()) < self.settings.outsiders

    def in_flight(self, piece: int) -> int:
        """From how many sources a piece is on its way."""
        return len(self._flights.of(piece)) + self._division.from_upstream(piece)

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Take one event in; what to do about it, in order."""
        self._out = []
        self._handlers[type(event)](event, now)
        return self._out

    def _replan(self, now: float) -> None:
        if self._started and not self.complete:
            self._request(self._choice.obtainable(), now)
            self._claim(now)

    # -- members --

    def _joined(self, event: ev.MemberJoined, now: float) -> None:
        """A join states all that the member holds and claims, also when it was known before."""
        if event.peer == self.me:
            return
        member = self._members.table.get(event.peer)
        if member is None:
            member = self._members.add(event.peer, event.near, event.zone, now)
        complete = event.complete or len(event.have) == self.geometry.count
        member.founder = complete
        for piece in self._members.restate(member, event.have, complete=complete):
            self._division.reopen(piece, now)
        if not complete:
            self._division.spread.reported(member.have, now)
        self._close_ranks(now)
        for piece in self._division.tails(now):
            self._cut(piece)
        self._note_claims(member, event.claims, now, joining=True)
        self._replan(now)

    def _close_ranks(self, now: float) -> None:
        """Who held everything from the start stands outside of the ring: its uplink is divided like upstream's."""
        bits = self._bits
        arc = set(self._ring.stand(self._standing()))
        self._bits = self._ring.bits
        if self._bits > bits:
            self._out.append(ev.Tell(arc=self._bits))
            self._division.share_with_arcs()
        if not bits and not self._bits:
            return
        for member in self._members.table.values():
            if member in arc or member.founder:
                member.outside = False
            elif not member.outside:
                if not member.complete:
                    self._division.spread.left(member.have, now)
                for piece in self._members.put_outside(member):
                    self._division.reopen(piece, now)

    def _standing(self) -> list[Member]:
        return [member for member in self._members.table.values() if not member.founder]

    def _arc_halved(self, event: ev.ArcHalved, now: float) -> None:
        member = self._members.table.get(event.peer)
        if member is not None and not self.complete:
            while self._ring.halve(member.seed, event.bits, self._standing()):
                self._close_ranks(now)
            self._replan(now)

    def _left(self, event: ev.MemberLeft, now: float) -> None:
        member = self._members.table.get(event.peer)
        if member is None:
            return
        if not member.complete:
            self._division.spread.left(member.have, now)
        for piece in self._members.forget(member):
            self._division.reopen(piece, now)
            self._drop_relays(piece)
        self._close_ranks(now)
        for piece in self._flights.from_member(member):
            if self._division.givers.get(piece) is member:
                self._cut(piece)
            else:
                self._drop(piece, member)
        self._replan(now)

    def _member_has(self, event: ev.MemberHas, now: float) -> None:
        member = self._members.table.get(event.peer)
        if member is None:
            return
        member.progressed = now
        fresh = self._members.learn(member, event.pieces)
        if member.complete:
            self._replan(now)
        if self.complete or not fresh or not self._started:
            return
        for piece in fresh:
            if self._division.idle(piece) and not (member.outside and piece in self._division.givers):
                self._cut(piece)
        self._leave_laggards(fresh, member, now)
        missing = [piece for piece in fresh if self._choice.lacks(piece)]
        if missing and member.outside:
            self._come_within_reach(missing, now)
        elif missing:
            self._request(sorted(missing), now)
        spread = not member.outside and self._division.spread.reported(fresh, now)
        if spread or (member.outside and missing):
            self._claim(now)

    def _member_claims(self, event: ev.MemberClaims, now: float) -> None:
        member = self._members.table.get(event.peer)
        if member is not None and not self.complete:
            stand = self._note_claims(member, event.pieces, now)
            if self._started:
                self._request(stand, now)
                if member.outside:
                    self._claim(now)

    def _note_claims(
        self, member: Member, pieces: Iterable[int], now: float, *, joining: bool = False
    ) -> list[int]:
        """Book a member's claims; returns the pieces that can now be asked of it. Claims of members that meet are
        as good as simultaneous, however old they are."""
        if member.outside:
            fresh = [piece for piece in self._members.coming(member, pieces) if self._choice.lacks(piece)]
            self._come_within_reach(fresh, now)
            return []
        race = math.inf if joining else self.settings.race
        stand = []
        for piece in pieces:
            if not 0 <= piece < self.geometry.count or piece in self.held or self._members.has(member, piece):
                continue
            if self._is_empty_word(piece, member, now):
                continue
            known = self._members.claims.get(piece)
            again = known is not None and known.member is member
            if not again and not joining:
                self._division.claimed(contested=self._is_contested(piece, now))
            if piece in self._division.flights:
                if self._division.wins(piece, member, race, now):
                    self._out.append(ev.Tell(claim=(piece,)))
                    continue
                self._cut(piece)
            if not self._members.claim(member, piece, race, now):
                continue
            if known is not None and known.member is not member:
                self._leave_loser(piece, known.member)
                self._drop_relays(piece)
            if not again:
                self._division.note_claim(piece, self._members.table.values(), now, mine=False)
            self._leave_laggards((piece,), member, now)
            if self._choice.lacks(piece):
                stand.append(piece)
        return stand

    def _leave_laggards(self, pieces: Iterable[int], member: Member, now: float) -> None:
        """A member has, or fetches, what this host waits for at one that cannot keep up."""
        if member.lags_until <= now and self._laggards.any(now):
            for piece in pieces:
                for source in self._flights.of(piece):
                    if source.lags_until > now:
                        self._drop(piece, source)

    def _is_empty_word(self, piece: int, member: Member, now: float) -> bool:
        """Whether the member said so before, and has delivered nothing since."""
        owes = 0 < member.owes_since < now - self.settings.starved
        return owes and self._members.refused(member, piece)

    def _is_contested(self, piece: int, now: float) -> bool:
        """Whether this host or another member has just claimed it too."""
        known = self._members.claims.get(piece)
        since = max(self._division.since.get(piece, -math.inf), known.since if known else -math.inf)
        return now - since <= self.settings.race

    def _drop_relays(self, piece: int) -> None:
        """Its fetcher is another, or none: whoever does not have the piece yet is no longer the one to get it from."""
        for member in self._flights.of(piece):
            if not self._members.has(member, piece):
                self._drop(piece, member)

    def _leave_loser(self, piece: int, member: Member) -> None:
        """The member's claim ended: it would only pass on what the winner has, so ask the winner."""
        if member in self._flights.of(piece):
            self._drop(piece, member)

    def _member_releases(self, event: ev.MemberReleases, now: float) -> None:
        member = self._members.table.get(event.peer)
        if member is None:
            return
        for piece in event.pieces:
            if member.outside:
                self._no_more(member, piece, now)
            elif self._members.release(member, piece):
                self._division.reopen(piece, now)
                self._division.lost_for_arc(piece)
                self._division.spread.forget(piece)
                self._leave_loser(piece, member)
                self._drop_relays(piece)
        self._replan(now)

    def _come_within_reach(self, pieces: list[int], now: float) -> None:
        """Members outside of the arc have these, or are getting them."""
        for piece in pieces:
            if len(self._members.holders.get(piece, ())) == 1:
                self._division.reopen(piece, now)

    def _no_more(self, member: Member, piece: int, now: float) -> None:
        """A member outside of the arc does not get the piece after all."""
        self._members.gone(member, piece)
        if self._division.givers.get(piece) is member:
            self._cut(piece)
            self._division.reopen(piece, now)
        else:
            self._leave_loser(piece, member)

    def _members_lag(self, event: ev.MembersLag, now: float) -> None:
        """Word of a neighbour; or of this host, which found it out in the swarm of another blob, and passes it on."""
        reporter = self._members.table.get(event.peer)
        if reporter is None and event.peer != self.me:
            return
        for peer in event.lagging:
            member = self._members.table.get(peer)
            known = member is not None or peer == self.me
            if known and self._go_past(member, now, said_by=reporter) and reporter is None:
                self._out.append(ev.Tell(lagging=(peer,)))
        self._replan(now)

    def _announced(self, event: ev.Announced, now: float) -> None:
        self._division.announced(event.ahead, now)

    # -- pieces --

    def _progressed(self, event: ev.Progressed, now: float) -> None:
        self._arrived = now
        if event.source is None or event.piece in self._division.givers:
            self._division.progressed(event.piece, now)
        if event.source is None:
            self._laggards.progressed(event.piece, None, event.size)
            return
        member = self._members.table.get(event.source)
        if member is not None and self._flights.progressed(event.piece, member, now):
            self._laggards.progressed(event.piece, member, event.size)
            member.progressed = now
            member.strikes = 0
            member.owes_since = self._members.delivered = now

    def _piece_held(self, event: ev.PieceHeld, now: float) -> None:
        piece = event.piece
        if piece in self.held or not 0 <= piece < self.geometry.count:
            return
        self.held.add(piece)
        self._arrived = now
        self._choice.wanted.pop(piece, None)
        self._members.arrived(piece)
        self._division.arrived(piece)
        if self._division.from_upstream(piece) and self._flights.of(piece):
            self._out.append(ev.Drop(piece, None))
        self._division.came(piece, now)
        self._flights.widen(self.settings.flights)
        for member in self._flights.of(piece):
            self._drop(piece, member)
        self._out.append(ev.Tell(have=(piece,)))
        self._replan(now)

    def _drop(self, piece: int, member: Member) -> None:
        self._flights.land(piece, member)
        if not member.load:
            member.owes_since = 0.0
        self._out.append(ev.Drop(piece, member.peer))

    def _cut(self, piece: int) -> None:
        """Give up an own claim."""
        giver = self._division.givers.get(piece)
        if giver is not None and giver.outside:
            self._division.lost_for_arc(piece)
        self._division.yielded(piece)
        if giver is None:
            self._out.append(ev.Drop(piece, None))
        elif giver in self._flights.of(piece):
            self._drop(piece, giver)
        self._out.append(ev.Tell(release=(piece,)))

    def _request_failed(self, event: ev.RequestFailed, now: float) -> None:
        member = self._members.table.get(event.source)
        if member is None or not self._flights.land(event.piece, member):
            return
        if event.failure is ev.Failure.BUSY:
            if self._division.givers.get(event.piece) is member:
                self._cut(event.piece)
            member.quiet_until = max(member.quiet_until, now + event.retry_after)
        else:
            self._lost(member, event.piece, now)
            if event.failure is not ev.Failure.MISSING:
                self._strike(member, now)
        self._replan(now)

    def _lost(self, member: Member, piece: int, now: float) -> bool:
        """The member did not deliver; whether it had only claimed the piece."""
        if self._division.givers.get(piece) is member:
            self._cut(piece)
        claimed = self._members.unlearn(member, piece)
        if claimed:
            self._division.reopen(piece, now)
        return claimed

    def _passed_on_wrong(self, event: ev.PassedOnWrong, now: float) -> None:
        member = self._members.table.get(event.peer)
        if member is None:
            return
        member.wrong = min(6, member.wrong + 1)
        member.quiet_until = now + 2.0**member.wrong
        for piece in self._flights.from_member(member):
            self._drop(piece, member)
        self._replan(now)

    def _strike(self, member: Member, now: float) -> None:
        member.strikes = min(6, member.strikes + 1)
        member.quiet_until = now + min(30.0, 0.5 * 2**member.strikes)

    def _want(self, event: ev.Wanted, now: float) -> None:
        for piece in event.pieces:
            if 0 <= piece < self.geometry.count and piece not in self.held:
                self._choice.wanted[piece] = None
        self._replan(now)

    # -- requests to neighbours --

    def _request(self, pieces: Iterable[int], now: float) -> None:
        """Ask for as many of the pieces as there is room for. What the neighbour waits for itself takes none of it until it
        comes: else the pieces that wait would keep out those that need not."""
        most = min(self.settings.flights, int(self._flights.limit))
        coming = most - self._flights.coming(self._members.has)
        room = self.settings.waiting * most - len(self._flights.pieces)
        width = max(2 * self.settings.relayed, self.settings.per_peer * len(self._members.table))
        room = min(room, width - self._flights.total)
        late, old = self._choice.late, room
        if late:
            pieces = sorted(pieces, key=self._choice.is_old)
            flying = sum(map(self._choice.is_old, self._flights.pieces))
            if flying < len(self._flights.pieces) or (pieces and not self._choice.is_old(pieces[0])):
                old = min(room, self.settings.old_pieces - flying)
        for piece in pieces:
            if room <= 0:
                return
            if late and self._choice.is_old(piece) and piece not in self._choice.wanted:
                if old <= 0:
                    continue
                old -= 1
            if not self.settings.eager and piece not in self._choice.wanted:
                continue
            member = self._choice.best_source(piece, now)
            if member is None:
                continue
            if self._members.has(member, piece):
                if coming <= 0:
                    continue
                coming -= 1
            self._ask(member, piece, now)
            room -= 1

    def _ask(self, member: Member, piece: int, now: float) -> None:
        self._flights.take_off(piece, member, now)
        member.owes_since = member.owes_since or now
        self._out.append(ev.AskPeer(member.peer, piece))

    # -- claims: what this host fetches for all --

    def _claim(self, now: float) -> None:
        if not self._started or self.complete or self._division.waits():
            return
        claims = self._members.claims
        while self._division.may_claim(len(claims), self._members.table.values(), now):
            if self._ring.bits and self._claim_for_arc(now):
                continue
            if self._seeds_give(now) and not self._starved(now):
                if self._choice.direct or not self._claim_from_seed(now):
                    return
            elif not self._claim_from_upstream(now):
                return

    def _seeds_give(self, now: float) -> bool:
        """Whether complete members that keep up can be asked, now or shortly, and some have not owed for so long that they
        may never give anything."""
        since = now - self.settings.starved
        seeds = self._seeds_to_ask(now, now + _SHORTLY)
        return bool(seeds) and (
            self._members.delivered >= since or any(not 0 < seed.owes_since < since for seed in seeds)
        )

    def _seeds_to_ask(self, now: float, until: float) -> list[Member]:
        """The complete members that may be asked by then, and, as long as there is upstream instead, keep up."""
        choosy = len(self._ring) <= self.settings.close and not self._division.over
        slow = now if choosy else math.inf
        return [seed for seed in self._members.seeds if seed.quiet_until <= until and seed.lags_until <= slow]

    def _starved(self, now: float) -> bool:
        """Whether nothing comes although there are sources, so that more sources are in order."""
        return now - self._arrived > self._patience(self.settings.starved) and not self._division.flights

    def _claim_from_seed(self, now: float) -> bool:
        """Few hold everything: what they send out is divided as upstream is."""
        members, per_peer = self._members, self.settings.per_peer
        usable = [seed for seed in self._seeds_to_ask(now, now) if seed.load < per_peer]
        piece = self._duty.next_piece(starved=False, now=now) if usable else None
        if piece is None:
            return False
        seed = min(usable, key=lambda m: (m.load, not m.near, weight(m.seed ^ self._seed, piece)))
        self._division.begin((piece,), seed, members.table.values(), now)
        self._out.append(ev.Tell(claim=(piece,)))
        self._ask(seed, piece, now)
        return True

    def _claim_for_arc(self, now: float) -> bool:
        """What other arcs have comes into this one once."""
        piece = self._duty.next_for_arc(now)
        if piece is None:
            return False
        usable = self._duty.givers(piece, now)
        giver = min(usable, key=lambda m: (m.load, not m.near, weight(m.seed ^ self._seed, piece)))
        self._division.begin((piece,), giver, self._members.table.values(), now)
        self._out.append(ev.Tell(claim=(piece,)))
        self._ask(giver, piece, now)
        return True

    def _claim_from_upstream(self, now: float) -> bool:
        run = self._duty.run(self._starved(now), now) if self._division.upstream_open(now) else ()
        if run:
            self._division.begin(run, None, self._members.table.values(), now)
            self._out.append(ev.Tell(claim=run))
            self._out.append(ev.AskUpstream(run))
        return bool(run)

    def _upstream_failed(self, event: ev.UpstreamFailed, now: float) -> None:
        lost = tuple(piece for piece in event.pieces if self._division.yielded(piece))
        for piece in lost:
            self._division.reopen(piece, now)
        if lost:
            self._out.append(ev.Tell(release=lost))
        self._division.failed(event.retry_after, now, final=event.final)
        self._replan(now)
        self._give_up_if_stuck(now)

    # -- time --

    def _tick(self, event: ev.Ticked, now: float) -> None:
        self._started = True
        if self.complete:
            return
        self._choice.look_whether_late(now)
        self._leave_what_stalls(now)
        self._find_laggards(now)
        self._division.spread.expire(now)
        again = self._division.to_tell_again(now)
        if again:
            self._out.append(ev.Tell(claim=again))
        self._finish_fast(now)
        self._replan(now)
        self._give_up_if_stuck(now)

    def _leave_what_stalls(self, now: float) -> None:
        stalled = [
            (piece, member)
            for piece, member in self._flights.stalled(now - self._patience(self.settings.stall))
            if self._has_waited(piece, member, now)
        ]
        overloaded = len({member for _, member in stalled}) > 1
        if overloaded:
            self._flights.narrow()
        for piece, member in stalled:
            owes_since = member.owes_since
            self._drop(piece, member)
            member.owes_since = owes_since
            own_fault = (
                overloaded and piece not in self._division.givers and piece not in self._members.claims
            )
            if (
                not own_fault
                and not self._lost(member, piece, now)
                and now - member.progressed > self._patience(self.settings.stall)
            ):
                self._strike(member, now)
        for piece in self._division.stalled(now):
            self._cut(piece)
            self._division.reopen(piece, now)
        # In a larger swarm members share upstream with more others, and tell less often what they hold.
        stale = self.settings.claim_stale * min(3.0, max(1.0, len(self._members.table) / 16))
        for piece, claim in list(self._members.claims.items()):
            if now - max(claim.since, claim.member.progressed) > stale:
                self._members.release(claim.member, piece)
                self._division.reopen(piece, now)

    def _has_waited(self, piece: int, member: Member, now: float) -> bool:
        """Whether nothing is to be expected: a member that is alive otherwise may have much else to send, or wait itself."""
        if now - member.progressed > self._patience(self.settings.stall):
            return True
        return not self._flights.lately(piece, member, now - self._patience(self.settings.relay_stall))

    def _patience(self, seconds: float) -> float:
        """So long in a small swarm."""
        return seconds * self.patience

    def _find_laggards(self, now: float) -> None:
        verdict = self._laggards.judge(now)
        if verdict is not None and self._go_past(verdict.member, now, said_by=None):
            peer = self.me if verdict.member is None else verdict.member.peer
            self._out.append(ev.Tell(lagging=(peer,)))
        trial = self._laggards.look(now)
        if trial is not None:
            for piece in trial.pieces:
                self._drop(piece, trial.member)
                self._ask(trial.other, piece, now)

    def _go_past(self, member: Member | None, now: float, *, said_by: Member | None) -> bool:
        """Pieces are not to come by a member (None: this host) any more; whether that counts."""
        if not self._laggards.note(member, now, said_by=said_by):
            return False
        if member is not None:
            for piece in self._flights.from_member(member):
                if self._division.givers.get(piece) is member:
                    self._cut(piece)
                    self._division.reopen(piece, now)
                elif not self._members.has(member, piece) or len(self._members.holders.get(piece, ())) > 1:
                    self._drop(piece, member)
        return True

    def _finish_fast(self, now: float) -> None:
        """Endgame: ask a second source for the last pieces when the first takes long."""
        if self.geometry.count - len(self.held) > self.settings.endgame:
            return
        for piece in self._flights.alone_since(now - self.settings.endgame_after):
            member = self._choice.best_source(piece, now)
            if member is not None:
                self._ask(member, piece, now)

    def _give_up_if_stuck(self, now: float) -> None:
        """No source is left: upstream is over, nothing is on its way, and no member has what is missing or, for a
        while now, fetched anything that it might pass on."""
        if self._gave_up or not self._division.over or self._flights.pieces or self._division.flights:
            return
        if (
            not any(piece not in self._members.holders for piece in self._choice.missing())
            or self._members.seeds
        ):
            return
        patience = self.settings.give_up_after if self._members.table else 0.0
        if now - self._arrived >= patience:
            self._gave_up = True
            self._out.append(ev.GiveUp())
