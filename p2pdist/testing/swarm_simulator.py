"""The swarm's planners on a virtual clock and modelled links: what the daemon's code does with 10 hosts or 10,000.

The model: every host (and the registry) has an uplink and a downlink, each a server of a fixed rate. Bytes move in
chunks: a source's uplink serves its active transfers round robin, one chunk at a time; the chunk then queues at the
receiver's downlink. A transfer keeps at most ``WINDOW`` chunks between the two (TCP's window). A piece that is still
arriving at its source is sent on chunk by chunk as it arrives (cut-through). Messages take ``latency`` seconds.
Deterministic by seed: all randomness comes from it.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from p2pdist.swarm import events as ev
from p2pdist.swarm.geometry import Geometry
from p2pdist.swarm.planner import Planner, PlannerSettings
from p2pdist.wire.records import PeerId

WINDOW = 4
TICK = 0.25


@dataclass(frozen=True, slots=True)
class HostLink:
    """Rates in bytes per second; ``arrives`` and ``leaves`` in seconds."""

    up: float
    down: float
    arrives: float = 0.0
    leaves: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated. ``upstream`` is the registry's uplink in bytes per second; sizes in bytes."""

    size: int
    hosts: tuple[HostLink, ...]
    upstream: float
    latency: float = 0.0005
    neighbours: int = 32
    seed: int = 1
    chunks_per_piece: int = 8
    settings: PlannerSettings = field(default_factory=PlannerSettings)
    deadline: float = 3600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: seconds from each host's arrival to its last byte (None: never), bytes that left upstream."""

    finished: tuple[float | None, ...]
    makespan: float
    upstream_bytes: float
    upstream_copies: float
    requests: int
    messages: int

    def ideal(self, scenario: Scenario) -> float:
        """T* of Mundinger, Weber and Weiss for equal links."""
        return best_makespan(scenario)


def best_makespan(scenario: Scenario) -> float:
    """(S/u)(1 + floor(log2 N)/M) with u the slowest link, N hosts, M pieces."""
    rate = min([scenario.upstream, *(min(host.up, host.down) for host in scenario.hosts)])
    pieces = Geometry.of(scenario.size).count
    return scenario.size / rate * (1 + (len(scenario.hosts).bit_length() - 1) / pieces)


class _Transfer:
    """One piece from one source to one host."""

    __slots__ = ("active", "at", "cancelled", "in_transit", "piece", "received", "sent", "to", "total")

    def __init__(self, at: _Host, to: _Host, piece: int, total: int) -> None:
        self.at = at
        self.to = to
        self.piece = piece
        self.total = total
        self.sent = 0
        self.received = 0
        self.in_transit = 0
        self.active = False
        self.cancelled = False


class _Host:
    def __init__(self, index: int, link: HostLink, pieces: int) -> None:
        self.index = index
        self.link = link
        self.peer = PeerId(random.Random(f"host {index}").randbytes(20))
        self.planner: Planner | None = None
        self.neighbours: set[_Host] = set()
        self.progress = [0] * pieces
        self.queue: deque[_Transfer] = deque()
        self.sending = False
        self.downlink_free = 0.0
        self.incoming: dict[tuple[int, int], _Transfer] = {}
        self.waiting: dict[int, list[_Transfer]] = {}
        self.finished: float | None = None
        self.gone = False


class Simulation:
    """Run a scenario with ``run``."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._random = random.Random(scenario.seed)
        self._geometry = Geometry.of(scenario.size)
        self._chunk = max(1, self._geometry.piece // scenario.chunks_per_piece)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._now = 0.0
        self._requests = 0
        self._messages = 0
        self._upstream_chunks = 0.0
        count = self._geometry.count
        self._origin = _Host(-1, HostLink(scenario.upstream, scenario.upstream), count)
        self._origin.progress = [self._chunks(piece) for piece in range(count)]
        self._hosts = [_Host(i, link, count) for i, link in enumerate(scenario.hosts)]
        self._by_peer = {host.peer: host for host in self._hosts}
        self._present: list[_Host] = []

    def run(self) -> Outcome:
        """Simulate until every host is done or gone, or the deadline."""
        for host in self._hosts:
            self._at(host.link.arrives, lambda host=host: self._arrive(host))  # type: ignore[misc]
        open_hosts = len(self._hosts)
        while self._heap and open_hosts and self._now < self._scenario.deadline:
            self._now, _, action = heapq.heappop(self._heap)
            action()
            open_hosts = sum(host.finished is None and not host.gone for host in self._hosts)
        return self._outcome()

    def _outcome(self) -> Outcome:
        finished = tuple(
            None if host.finished is None else host.finished - host.link.arrives for host in self._hosts
        )
        makespan = max((host.finished for host in self._hosts if host.finished is not None), default=0.0)
        sent = self._upstream_chunks
        return Outcome(finished, makespan, sent, sent / self._scenario.size, self._requests, self._messages)

    # -- time and messages --

    def _at(self, when: float, action: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, action))

    def _send(self, to: _Host, event: ev.Event) -> None:
        self._messages += 1
        self._at(self._now + self._scenario.latency, lambda: self._deliver(to, event))

    def _deliver(self, host: _Host, event: ev.Event) -> None:
        if host.planner is None or host.gone:
            return
        for command in host.planner.handle(event, self._now):
            self._obey(host, command)

    # -- membership --

    def _arrive(self, host: _Host) -> None:
        host.planner = Planner(self._geometry, host.peer, (), self._now, self._scenario.settings)
        others = [other for other in self._present if not other.gone]
        if len(others) > self._scenario.neighbours:
            others = self._random.sample(others, self._scenario.neighbours)
        self._present.append(host)
        for other in others:
            host.neighbours.add(other)
            other.neighbours.add(host)
            self._greet(other, host)
            self._greet(host, other)
        self._at(self._now + 2 * self._scenario.latency, lambda: self._tick(host))
        if host.link.leaves is not None:
            self._at(host.link.leaves, lambda: self._leave(host))

    def _greet(self, host: _Host, about: _Host) -> None:
        assert about.planner is not None
        have = frozenset(about.planner.held)
        complete = len(have) == self._geometry.count
        self._send(host, ev.MemberJoined(about.peer, have, about.planner.claims, complete))

    def _leave(self, host: _Host) -> None:
        host.gone = True
        host.queue.clear()
        for transfer in list(host.incoming.values()):
            transfer.cancelled = True
        for other in host.neighbours:
            other.neighbours.discard(host)
            self._send(other, ev.MemberLeft(host.peer))

    def _tick(self, host: _Host) -> None:
        if host.gone or host.finished is not None:
            return
        self._deliver(host, ev.Ticked())
        self._at(self._now + TICK, lambda: self._tick(host))

    # -- what planners ask for --

    def _obey(self, host: _Host, command: ev.Command) -> None:
        if isinstance(command, ev.AskPeer):
            self._requests += 1
            source = self._by_peer[command.peer]
            self._at(self._now + self._scenario.latency, lambda: self._start(source, host, command.piece))
        elif isinstance(command, ev.AskUpstream):
            self._requests += 1
            for piece in command.pieces:
                self._start(self._origin, host, piece)
        elif isinstance(command, ev.Drop):
            source = self._origin if command.source is None else self._by_peer[command.source]
            transfer = host.incoming.pop((source.index, command.piece), None)
            if transfer is not None:
                transfer.cancelled = True
        elif isinstance(command, ev.Tell):
            self._tell(host, command)

    def _tell(self, host: _Host, command: ev.Tell) -> None:
        for other in host.neighbours:
            if other.finished is not None:
                continue
            if command.claim:
                self._send(other, ev.MemberClaims(host.peer, command.claim))
            if command.have:
                self._send(other, ev.MemberHas(host.peer, command.have))
            if command.release:
                self._send(other, ev.MemberReleases(host.peer, command.release))

    # -- bytes --

    def _chunks(self, piece: int) -> int:
        start, stop = self._geometry.span(piece)
        return -(-(stop - start) // self._chunk)

    def _start(self, source: _Host, host: _Host, piece: int) -> None:
        if host.gone:
            return
        if source.gone:
            failure = ev.RequestFailed(piece, source.peer, ev.Failure.UNREACHABLE)
            self._deliver(host, failure)
            return
        transfer = _Transfer(source, host, piece, self._chunks(piece))
        host.incoming[(source.index, piece)] = transfer
        self._activate(transfer)

    def _activate(self, transfer: _Transfer) -> None:
        """Queue the transfer at its source's uplink if there is something to send."""
        source = transfer.at
        if transfer.active or transfer.cancelled or source.gone or transfer.sent >= transfer.total:
            return
        if transfer.in_transit >= WINDOW:
            return
        if source.progress[transfer.piece] <= transfer.sent:
            source.waiting.setdefault(transfer.piece, []).append(transfer)
            return
        transfer.active = True
        source.queue.append(transfer)
        if not source.sending:
            self._serve(source)

    def _serve(self, source: _Host) -> None:
        while source.queue:
            transfer = source.queue.popleft()
            if not transfer.cancelled and not transfer.to.gone:
                source.sending = True
                sent = partial(self._chunk_sent, source, transfer)
                self._at(self._now + self._chunk / source.link.up, sent)
                return
        source.sending = False

    def _chunk_sent(self, source: _Host, transfer: _Transfer) -> None:
        transfer.active = False
        transfer.sent += 1
        transfer.in_transit += 1
        if source is self._origin:
            self._upstream_chunks += self._chunk
        receiver = transfer.to
        arrival = max(self._now, receiver.downlink_free) + self._chunk / receiver.link.down
        receiver.downlink_free = arrival
        self._at(arrival, lambda: self._chunk_arrived(transfer))
        self._activate(transfer)
        self._serve(source)

    def _chunk_arrived(self, transfer: _Transfer) -> None:
        transfer.in_transit -= 1
        transfer.received += 1
        host = transfer.to
        if transfer.cancelled or host.gone or host.planner is None:
            return
        source = None if transfer.at is self._origin else transfer.at.peer
        piece = transfer.piece
        if transfer.received > host.progress[piece]:
            host.progress[piece] = transfer.received
            for waiting in host.waiting.pop(piece, []):
                self._activate(waiting)
        self._deliver(host, ev.Progressed(piece, source))
        self._activate(transfer)
        if transfer.received == transfer.total:
            host.incoming.pop((transfer.at.index, piece), None)
            self._deliver(host, ev.PieceHeld(piece))
            if host.planner.complete and host.finished is None:
                host.finished = self._now


def simulate(scenario: Scenario) -> Outcome:
    """Run one scenario."""
    return Simulation(scenario).run()
