"""The swarm's planners on a virtual clock and modelled links: what the daemon's code does with 10 hosts or 10,000.

The model: every host (and the registry) has an uplink and a downlink, each a server of a fixed rate, shared by all of
its blobs. Bytes move in chunks: a source's uplink serves its active transfers round robin, one chunk at a time; the
chunk then queues at the receiver's downlink. A transfer keeps at most ``WINDOW`` chunks between the two (TCP's window).
A piece that is still arriving at its source is sent on chunk by chunk as it arrives (cut-through). Messages take
``latency`` seconds; what is newly held is told in batches, as the daemon does it. Each blob is a swarm of its own.
Membership: who announces is told of those there before that are of its arc of the ring, and of a sample of the others that
still have room for a neighbour.
Deterministic by seed: all randomness comes from it.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from p2pdist.swarm import events as ev
from p2pdist.swarm.geometry import Geometry
from p2pdist.swarm.planner import Planner, PlannerSettings
from p2pdist.swarm.rendezvous import seed_of
from p2pdist.wire.records import PeerId

WINDOW = 4
TICK = 0.25
PIECE_WAIT = 12.0
FLUSH_DELAY = 0.02
START = 6
_EVENT, _PAIR, _ORIGIN = 0, 1, -1


@dataclass(frozen=True, slots=True)
class HostLink:
    """Rates in bytes per second; ``arrives`` and ``leaves`` in seconds. ``holds``: everything, from the start."""

    up: float
    down: float
    arrives: float = 0.0
    leaves: float | None = None
    zone: str = ""
    holds: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated. ``upstream`` is the registry's uplink in bytes per second; sizes in bytes.

    ``upstream_ends``: from that second on, upstream refuses. ``piece``: cut blobs coarser than the daemon does, for
    large swarms. Beside all of its arc a host looks for ``neighbours``; ``most`` are accepted.
    """

    blobs: tuple[int, ...]
    hosts: tuple[HostLink, ...]
    upstream: float
    latency: float = 0.0005
    far_latency: float = 0.0005
    upstream_ends: float | None = None
    neighbours: int = 32
    most: int = 192
    seed: int = 1
    chunks_per_piece: int = 8
    piece: int | None = None
    settings: PlannerSettings = field(default_factory=PlannerSettings)
    deadline: float = 3600.0

    @property
    def size(self) -> int:
        return sum(self.blobs)

    def geometry(self, blob: int) -> Geometry:
        """How the blob is cut in this scenario."""
        size = self.blobs[blob]
        return Geometry.of(size) if self.piece is None else Geometry(size, self.piece, -(-size // self.piece))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: seconds from each host's arrival to its last byte (None: never), bytes that left upstream,
    bytes that crossed between zones, requests for pieces and messages of all hosts."""

    finished: tuple[float | None, ...]
    makespan: float
    upstream_bytes: float
    upstream_copies: float
    far_bytes: float
    requests: int
    messages: int
    gave_up: int


def best_makespan(scenario: Scenario) -> float:
    """T* of Mundinger, Weber and Weiss: (S/u)(1 + floor(log2 N)/M), u the slowest link, N hosts, M pieces of all
    blobs together."""
    rate = min([scenario.upstream, *(min(host.up, host.down) for host in scenario.hosts)])
    pieces = sum(scenario.geometry(blob).count for blob in range(len(scenario.blobs)))
    return scenario.size / rate * (1 + (len(scenario.hosts).bit_length() - 1) / max(1, pieces))


class _Host:
    """A host's links, and its part in each blob's swarm."""

    def __init__(self, index: int, link: HostLink) -> None:
        self.index = index
        self.link = link
        self.peer = PeerId(random.Random(f"host {index}").randbytes(20))
        self.parts: list[_Part] = []
        self.queue: deque[_Transfer] = deque()
        self.sending = False
        self.downlink_free = 0.0
        self.finished: float | None = None
        self.gone = False


class _Part:
    """One blob on one host."""

    __slots__ = (
        "blob",
        "claimed",
        "flushing",
        "host",
        "incoming",
        "neighbours",
        "outbox",
        "planner",
        "progress",
        "runs",
        "stopped",
        "waiting",
    )

    def __init__(self, host: _Host, blob: int, pieces: int) -> None:
        self.host = host
        self.blob = blob
        self.planner: Planner | None = None
        self.neighbours: dict[_Part, None] = {}
        self.progress = [0] * pieces
        self.incoming: dict[tuple[int, int], _Transfer] = {}
        self.waiting: dict[int, list[_Transfer]] = {}
        self.outbox: list[int] = []
        self.claimed: set[int] = set()
        self.runs: list[deque[int]] = []
        self.flushing = False
        self.stopped = False


class _Transfer:
    """One piece from one source to one host."""

    __slots__ = ("active", "at", "cancelled", "in_transit", "piece", "received", "sent", "to", "total")

    def __init__(self, at: _Part, to: _Part, piece: int, total: int) -> None:
        self.at = at
        self.to = to
        self.piece = piece
        self.total = total
        self.sent = 0
        self.received = 0
        self.in_transit = 0
        self.active = False
        self.cancelled = False


class Simulation:
    """Run a scenario with ``run``."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._random = random.Random(scenario.seed)
        self._geometry = [scenario.geometry(blob) for blob in range(len(scenario.blobs))]
        self._chunk = [max(1, cut.piece // scenario.chunks_per_piece) for cut in self._geometry]
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0
        self._now = 0.0
        self._requests = 0
        self._messages = 0
        self._gave_up = 0
        self._upstream_bytes = 0.0
        self._far_bytes = 0.0
        self._origin = self._make(_ORIGIN, HostLink(scenario.upstream, scenario.upstream, holds=True))
        self._hosts = [self._make(index, link) for index, link in enumerate(scenario.hosts)]
        self._by_peer = {host.peer: host for host in self._hosts}
        self._present: list[list[_Part]] = [[] for _ in scenario.blobs]
        self._open = len(self._hosts)
        self._arcs: dict[tuple[int, int, int], list[_Part]] = {}

    def _make(self, index: int, link: HostLink) -> _Host:
        host = _Host(index, link)
        for blob, cut in enumerate(self._geometry):
            part = _Part(host, blob, cut.count)
            if link.holds:
                part.progress = [self._chunks(blob, piece) for piece in range(cut.count)]
            host.parts.append(part)
        return host

    def run(self) -> Outcome:
        """Simulate until every host is done or gone, or the deadline."""
        for host in self._hosts:
            self._at(host.link.arrives, self._arrive, host)
            if host.link.leaves is not None:
                self._at(host.link.leaves, self._leave, host)
        while self._heap and self._open and self._now < self._scenario.deadline:
            self._now, _, action, arguments = heapq.heappop(self._heap)
            action(*arguments)
        return self._outcome()

    def _outcome(self) -> Outcome:
        finished = tuple(
            None if host.finished is None else host.finished - host.link.arrives for host in self._hosts
        )
        makespan = max((host.finished for host in self._hosts if host.finished is not None), default=0.0)
        sent = self._upstream_bytes
        return Outcome(
            finished,
            makespan,
            sent,
            sent / max(1, self._scenario.size),
            self._far_bytes,
            self._requests,
            self._messages,
            self._gave_up,
        )

    # -- time and messages --

    def _at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, action, arguments))

    def _latency(self, one: _Host, other: _Host) -> float:
        near = one.link.zone == other.link.zone
        return self._scenario.latency if near else self._scenario.far_latency

    def _send(self, sender: _Part, to: _Part, *events: ev.Event) -> None:
        self._messages += 1
        self._at(self._now + self._latency(sender.host, to.host), self._deliver, to, *events)

    def _deliver(self, part: _Part, *events: ev.Event) -> None:
        planner = part.planner
        if planner is None or part.host.gone or part.stopped:
            return
        for event in events:
            for command in planner.handle(event, self._now):
                self._obey(part, command)

    # -- membership --

    def _arrive(self, host: _Host) -> None:
        for part in host.parts:
            self._announce(part)
        self._note_finished(host)

    def _announce(self, part: _Part) -> None:
        cut = self._geometry[part.blob]
        held = range(cut.count) if part.host.link.holds else ()
        zone = part.host.link.zone
        planner = part.planner = Planner(cut, part.host.peer, held, self._now, self._scenario.settings, zone)
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
            self._at(self._now + START * self._scenario.far_latency, self._tick, part)

    def _sample(self, part: _Part, present: list[_Part]) -> list[_Part]:
        """Whom an announcing member meets: at random among the members that have room, whoever is full redirects."""
        wanted, most = self._scenario.neighbours, self._scenario.most
        if len(present) < self._scenario.settings.arc:
            return [other for other in present if not other.host.gone]
        bits, mates, seed = 0, present, seed_of(part.host.peer)
        while len(mates) >= self._scenario.settings.arc:
            bits += 1
            mates = self._arcs.setdefault((part.blob, bits, seed >> (64 - bits)), [])
        found: dict[_Part, None] = {other: None for other in mates if not other.host.gone}
        wanted += len(found)
        for _ in range(8 * wanted):
            other = present[self._random.randrange(len(present))]
            if not other.host.gone and len(other.neighbours) < most:
                found[other] = None
                if len(found) == wanted:
                    break
        return list(found)

    def _greet(self, to: _Part, about: _Part) -> None:
        planner = about.planner
        assert planner is not None
        near = to.host.link.zone == about.host.link.zone
        have = frozenset(planner.held)
        joined = ev.MemberJoined(
            about.host.peer, have, planner.claims, planner.complete, near, about.host.link.zone
        )
        self._send(about, to, joined, ev.ArcHalved(about.host.peer, planner.arc))

    def _leave(self, host: _Host) -> None:
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
                self._abort(part, other)

    def _abort(self, source: _Part, receiver: _Part) -> None:
        for key in [key for key, transfer in receiver.incoming.items() if transfer.at is source]:
            receiver.incoming.pop(key).cancelled = True

    def _tick(self, part: _Part) -> None:
        planner = part.planner
        if part.host.gone or part.stopped or planner is None or planner.complete:
            return
        self._deliver(part, ev.Ticked())
        self._at(self._now + TICK, self._tick, part)

    def _note_finished(self, host: _Host) -> None:
        if (
            host.finished is None
            and not host.gone
            and all(p.planner and p.planner.complete for p in host.parts)
        ):
            host.finished = self._now
            self._open -= 1

    # -- what planners ask for --

    def _obey(self, part: _Part, command: ev.Command) -> None:
        if isinstance(command, ev.AskPeer):
            self._requests += 1
            source = self._by_peer[command.peer]
            transfer = self._prepare(source.parts[part.blob], part, command.piece)
            self._at(self._now + self._latency(part.host, source), self._start, transfer)
        elif isinstance(command, ev.AskUpstream):
            self._requests += 1
            self._ask_upstream(part, command.pieces)
        elif isinstance(command, ev.Drop):
            index = _ORIGIN if command.source is None else self._by_peer[command.source].index
            dropped = part.incoming.pop((index, command.piece), None)
            if dropped is not None:
                dropped.cancelled = True
            if command.source is None:
                self._left_run(part, command.piece)
        elif isinstance(command, ev.Tell):
            self._tell(part, command)
        else:
            self._gave_up += 1
            part.stopped = True

    def _ask_upstream(self, part: _Part, pieces: tuple[int, ...]) -> None:
        ends = self._scenario.upstream_ends
        if ends is not None and self._now >= ends:
            failed = ev.UpstreamFailed(pieces, final=False, retry_after=0.5)
            self._at(self._now + self._scenario.latency, self._deliver, part, failed)
            return
        part.runs.append(deque(pieces))
        self._next_of_run(part, part.runs[-1])

    def _next_of_run(self, part: _Part, run: deque[int]) -> None:
        """A run is one response: its pieces come one after the other."""
        if run:
            self._activate(self._prepare(self._origin.parts[part.blob], part, run[0]))
        else:
            part.runs.remove(run)

    def _left_run(self, part: _Part, piece: int) -> None:
        """The piece has come, or is no more wanted of upstream."""
        for run in list(part.runs):
            if run and run[0] == piece:
                run.popleft()
                self._next_of_run(part, run)
            elif piece in run:
                run.remove(piece)

    def _tell(self, part: _Part, command: ev.Tell) -> None:
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
            self._at(self._now + delay, self._flush, part)

    def _flush(self, part: _Part, claim: tuple[int, ...] = (), release: tuple[int, ...] = ()) -> None:
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

    # -- bytes --

    def _chunks(self, blob: int, piece: int) -> int:
        start, stop = self._geometry[blob].span(piece)
        return -(-(stop - start) // self._chunk[blob])

    def _prepare(self, source: _Part, part: _Part, piece: int) -> _Transfer:
        transfer = _Transfer(source, part, piece, self._chunks(part.blob, piece))
        if source.host is not self._origin:  # what came of the piece from another peer is not sent again
            transfer.sent = transfer.received = part.progress[piece]
        part.incoming[(source.host.index, piece)] = transfer
        return transfer

    def _start(self, transfer: _Transfer) -> None:
        """A request reaches its source."""
        source, part, piece = transfer.at, transfer.to, transfer.piece
        if transfer.cancelled or part.host.gone:
            return
        failure = None
        if source.host.gone or source.stopped:
            failure = ev.Failure.UNREACHABLE
        elif not self._can_serve(source, piece):
            self._at(self._now + PIECE_WAIT, self._miss, transfer)
        if failure is None:
            self._activate(transfer)
            return
        self._fail(transfer, failure)

    def _miss(self, transfer: _Transfer) -> None:
        """A source that has none of a piece says so after a while."""
        part = transfer.to
        if part.incoming.get((transfer.at.host.index, transfer.piece)) is transfer and not transfer.sent:
            transfer.cancelled = True
            self._fail(transfer, ev.Failure.MISSING)

    def _fail(self, transfer: _Transfer, failure: ev.Failure) -> None:
        source, part, piece = transfer.at, transfer.to, transfer.piece
        part.incoming.pop((source.host.index, piece), None)
        failed = ev.RequestFailed(piece, source.host.peer, failure)
        self._at(self._now + self._latency(source.host, part.host), self._deliver, part, failed)

    def _can_serve(self, source: _Part, piece: int) -> bool:
        planner = source.planner
        return planner is not None and (piece in planner.held or planner.in_flight(piece) > 0)

    def _activate(self, transfer: _Transfer) -> None:
        """Queue the transfer at its source's uplink if there is something to send."""
        source = transfer.at
        if transfer.active or transfer.cancelled or source.host.gone or transfer.sent >= transfer.total:
            return
        if transfer.in_transit >= WINDOW:
            return
        if source.progress[transfer.piece] <= transfer.sent:
            source.waiting.setdefault(transfer.piece, []).append(transfer)
            return
        transfer.active = True
        host = source.host
        host.queue.append(transfer)
        if not host.sending:
            self._serve(host)

    def _serve(self, host: _Host) -> None:
        queue = host.queue
        while queue:
            transfer = queue.popleft()
            if not transfer.cancelled and not transfer.to.host.gone:
                host.sending = True
                took = self._chunk[transfer.at.blob] / host.link.up
                self._at(self._now + took, self._chunk_sent, host, transfer)
                return
        host.sending = False

    def _chunk_sent(self, host: _Host, transfer: _Transfer) -> None:
        transfer.active = False
        transfer.sent += 1
        transfer.in_transit += 1
        receiver = transfer.to.host
        chunk = self._chunk[transfer.at.blob]
        if host is self._origin:
            self._upstream_bytes += chunk
            if transfer.sent == transfer.total:
                self._left_run(transfer.to, transfer.piece)
        elif host.link.zone != receiver.link.zone:
            self._far_bytes += chunk
        arrival = max(self._now, receiver.downlink_free) + chunk / receiver.link.down
        receiver.downlink_free = arrival
        self._at(arrival, self._chunk_arrived, transfer)
        self._activate(transfer)
        self._serve(host)

    def _chunk_arrived(self, transfer: _Transfer) -> None:
        transfer.in_transit -= 1
        transfer.received += 1
        part = transfer.to
        if transfer.cancelled or part.host.gone or part.planner is None:
            return
        source = None if transfer.at.host is self._origin else transfer.at.host.peer
        piece = transfer.piece
        if transfer.received > part.progress[piece]:
            part.progress[piece] = transfer.received
            for waiting in part.waiting.pop(piece, ()):
                self._activate(waiting)
        self._deliver(part, ev.Progressed(piece, source, self._chunk[part.blob]))
        self._activate(transfer)
        if transfer.received == transfer.total:
            part.incoming.pop((transfer.at.host.index, piece), None)
            self._deliver(part, ev.PieceHeld(piece))
            if part.planner.complete:
                self._note_finished(part.host)


def simulate(scenario: Scenario) -> Outcome:
    """Run one scenario."""
    return Simulation(scenario).run()
