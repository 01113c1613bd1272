"""The swarm's planners on a virtual clock and modelled links: what the daemon's code does with 10 hosts or 10,000.

The model of bytes and links is in swarm_traffic.py. Messages take ``latency`` seconds; what is newly held is told in
batches, as the daemon does it. Each blob is a swarm of its own. Membership: who announces is told of those there before
that are of its arc of the ring, and of a sample of the others that still have room for a neighbour. Deterministic by
seed: all randomness comes from it.
"""

from __future__ import annotations

import random

from p2pdist.swarm import events as ev
from p2pdist.swarm.planner import Planner
from p2pdist.swarm.rendezvous import seed_of
from p2pdist.testing.swarm_scenario import Outcome, Scenario
from p2pdist.testing.swarm_traffic import Host, Part, Traffic
from p2pdist.testing.virtual_time import VirtualTime

TICK = 0.25
FLUSH_DELAY = 0.02
START = 6


class Simulation:
    """Run a scenario with ``run``."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._random = random.Random(scenario.seed)
        self._time = VirtualTime()
        self._traffic = Traffic(scenario, self._time, self._deliver, self._piece_came)
        self._hosts = self._traffic.hosts
        self._by_peer = {host.peer: host for host in self._hosts}
        self._present: list[list[Part]] = [[] for _ in scenario.blobs]
        self._requests = 0
        self._messages = 0
        self._gave_up = 0
        self._open = len(self._hosts)
        self._arcs: dict[tuple[int, int, int], list[Part]] = {}

    def run(self) -> Outcome:
        """Simulate until every host is done or gone, or the deadline."""
        for host in self._hosts:
            self._time.at(host.link.arrives, self._arrive, host)
            if host.link.leaves is not None:
                self._time.at(host.link.leaves, self._leave, host)
        while self._open and self._time.now < self._scenario.deadline and self._time.step():
            pass
        return self._outcome()

    def _outcome(self) -> Outcome:
        finished = tuple(
            None if host.finished is None else host.finished - host.link.arrives for host in self._hosts
        )
        makespan = max((host.finished for host in self._hosts if host.finished is not None), default=0.0)
        sent = self._traffic.upstream_bytes
        return Outcome(
            finished,
            makespan,
            sent,
            sent / max(1, self._scenario.size),
            self._traffic.far_bytes,
            self._requests,
            self._messages,
            self._gave_up,
        )

    # -- what planners are told --

    def _send(self, sender: Part, to: Part, *events: ev.Event) -> None:
        self._messages += 1
        when = self._time.now + self._traffic.latency(sender.host, to.host)
        self._time.at(when, self._deliver, to, *events)

    def _deliver(self, part: Part, *events: ev.Event) -> None:
        planner = part.planner
        if planner is None or part.host.gone or part.stopped:
            return
        for event in events:
            for command in planner.handle(event, self._time.now):
                self._obey(part, command)

    def _piece_came(self, part: Part, piece: int) -> None:
        self._deliver(part, ev.PieceHeld(piece))
        if part.planner is not None and part.planner.complete:
            self._note_finished(part.host)

    # -- membership --

    def _arrive(self, host: Host) -> None:
        for part in host.parts:
            self._announce(part)
        self._note_finished(host)

    def _announce(self, part: Part) -> None:
        cut = self._traffic.geometry[part.blob]
        held = range(cut.count) if part.host.link.holds else ()
        zone = part.host.link.zone
        planner = part.planner = Planner(
            cut, part.host.peer, held, self._time.now, self._scenario.settings, zone
        )
        present = self._present[part.blob]
        ahead = sum(1 for other in present if other.planner is not None and not other.planner.complete)
        for other in self._sample(part, present):
            part.neighbours[other] = None
            other.neighbours[part] = None
            self._greet(other, part)
            self._greet(part, other)
        present.append(part)
        for bits in range(1, 12):
            arc = part.blob, bits, seed_of(part.host.peer) >> (64 - bits)
            self._arcs.setdefault(arc, []).append(part)
        self._deliver(part, ev.Announced(ahead))
        if not planner.complete:
            self._time.at(self._time.now + START * self._scenario.far_latency, self._tick, part)

    def _sample(self, part: Part, present: list[Part]) -> list[Part]:
        """Whom an announcing member meets: at random among the members that have room, whoever is full redirects."""
        wanted, most = self._scenario.neighbours, self._scenario.most
        if len(present) < self._scenario.settings.arc:
            return [other for other in present if not other.host.gone]
        bits, mates, seed = 0, present, seed_of(part.host.peer)
        while len(mates) >= self._scenario.settings.arc:
            bits += 1
            mates = self._arcs.setdefault((part.blob, bits, seed >> (64 - bits)), [])
        found: dict[Part, None] = {other: None for other in mates if not other.host.gone}
        wanted += len(found)
        for _ in range(8 * wanted):
            other = present[self._random.randrange(len(present))]
            if not other.host.gone and len(other.neighbours) < most:
                found[other] = None
                if len(found) == wanted:
                    break
        return list(found)

    def _greet(self, to: Part, about: Part) -> None:
        planner = about.planner
        assert planner is not None
        near = to.host.link.zone == about.host.link.zone
        have = frozenset(planner.held)
        joined = ev.MemberJoined(
            about.host.peer, have, planner.claims, planner.complete, near, about.host.link.zone
        )
        self._send(about, to, joined, ev.ArcHalved(about.host.peer, planner.arc))

    def _leave(self, host: Host) -> None:
        if host.gone:
            return
        host.gone = True
        self._open -= host.finished is None
        host.queue.clear()
        for part in host.parts:
            for transfer in part.incoming.values():
                transfer.cancelled = True
            for other in part.neighbours:
                other.neighbours.pop(part, None)
                self._send(part, other, ev.MemberLeft(host.peer))
                self._traffic.sever(part, other)

    def _tick(self, part: Part) -> None:
        planner = part.planner
        if part.host.gone or part.stopped or planner is None or planner.complete:
            return
        self._deliver(part, ev.Ticked())
        self._time.at(self._time.now + TICK, self._tick, part)

    def _note_finished(self, host: Host) -> None:
        if (
            host.finished is None
            and not host.gone
            and all(p.planner and p.planner.complete for p in host.parts)
        ):
            host.finished = self._time.now
            self._open -= 1

    # -- what planners ask for --

    def _obey(self, part: Part, command: ev.Command) -> None:
        if isinstance(command, ev.AskPeer):
            self._requests += 1
            self._traffic.ask_peer(part, self._by_peer[command.peer], command.piece)
        elif isinstance(command, ev.AskUpstream):
            self._requests += 1
            self._traffic.ask_upstream(part, command.pieces)
        elif isinstance(command, ev.Drop):
            source = None if command.source is None else self._by_peer[command.source]
            self._traffic.drop(part, source, command.piece)
        elif isinstance(command, ev.Tell):
            self._tell(part, command)
        else:
            self._gave_up += 1
            part.stopped = True

    def _tell(self, part: Part, command: ev.Tell) -> None:
        part.outbox.extend(command.have)
        part.claimed.update(command.claim)
        if command.claim or command.release or not part.claimed.isdisjoint(command.have):
            self._flush(part, command.claim, command.release)
        elif command.lagging:
            lag = ev.MembersLag(part.host.peer, command.lagging)
            for other in part.neighbours:
                self._send(part, other, lag)
            for own in part.host.parts:
                if own is not part:
                    self._deliver(own, lag)
        elif command.arc:
            for other in part.neighbours:
                self._send(part, other, ev.ArcHalved(part.host.peer, command.arc))
        elif not part.flushing:
            part.flushing = True
            delay = FLUSH_DELAY * max(1.0, len(part.neighbours) / 8)
            self._time.at(self._time.now + delay, self._flush, part)

    def _flush(self, part: Part, claim: tuple[int, ...] = (), release: tuple[int, ...] = ()) -> None:
        if not claim and not release:
            part.flushing = False
        have, part.outbox = tuple(part.outbox), []
        peer = part.host.peer
        told: list[ev.Event] = [ev.MemberClaims(peer, claim)] if claim else []
        if have:
            told.append(ev.MemberHas(peer, have))
        if release:
            told.append(ev.MemberReleases(peer, release))
        if not told or part.host.gone:
            return
        for other in part.neighbours:
            planner = other.planner
            if planner is not None and not planner.complete:
                self._send(part, other, *told)


def simulate(scenario: Scenario) -> Outcome:
    """Run one scenario."""
    return Simulation(scenario).run()
