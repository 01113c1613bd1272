"""How bytes move in the swarm's simulator: uplinks, downlinks, transfers, and upstream's answers.

Every host (and the registry) has an uplink and a downlink, each a server of a fixed rate, shared by all of its blobs.
Bytes move in chunks: a source's uplink serves its active transfers round robin, one chunk at a time; the chunk then
queues at the receiver's downlink. A transfer keeps at most ``WINDOW`` chunks between the two (TCP's window). A piece
that is still arriving at its source is sent on chunk by chunk as it arrives (cut-through).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from p2pdist.records import PeerId
from p2pdist.swarm import events as ev
from p2pdist.swarm.planner import Planner
from p2pdist.testing.swarm_scenario import HostLink, Scenario
from p2pdist.testing.virtual_time import VirtualTime

WINDOW = 4
PIECE_WAIT = 32.0
_ORIGIN = -1

Deliver = Callable[["Part", ev.Event], None]
PieceCame = Callable[["Part", int], None]


class Host:
    """A host's links, and its part in each blob's swarm."""

    def __init__(self, index: int, link: HostLink) -> None:
        self.index = index
        self.link = link
        self.peer = PeerId(random.Random(f"host {index}").randbytes(20))
        self.parts: list[Part] = []
        self.queue: deque[Transfer] = deque()
        self.sending = False
        self.downlink_free = 0.0
        self.finished: float | None = None
        self.gone = False


class Part:
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

    def __init__(self, host: Host, blob: int, pieces: int) -> None:
        self.host = host
        self.blob = blob
        self.planner: Planner | None = None
        self.neighbours: dict[Part, None] = {}
        self.progress = [0] * pieces
        self.incoming: dict[tuple[int, int], Transfer] = {}
        self.waiting: dict[int, list[Transfer]] = {}
        self.outbox: list[int] = []
        self.claimed: set[int] = set()
        self.runs: list[deque[int]] = []
        self.flushing = False
        self.stopped = False


class Transfer:
    """One piece from one source to one host."""

    __slots__ = ("active", "at", "cancelled", "in_transit", "piece", "received", "sent", "to", "total")

    def __init__(self, at: Part, to: Part, piece: int, total: int) -> None:
        self.at = at
        self.to = to
        self.piece = piece
        self.total = total
        self.sent = 0
        self.received = 0
        self.in_transit = 0
        self.active = False
        self.cancelled = False


class Traffic:
    """All hosts and their transfers. ``deliver`` takes what a part's planner is to be told; ``piece_came`` whole pieces."""

    def __init__(
        self, scenario: Scenario, time: VirtualTime, deliver: Deliver, piece_came: PieceCame
    ) -> None:
        self.upstream_bytes = 0.0
        self.far_bytes = 0.0
        self.geometry = [scenario.geometry(blob) for blob in range(len(scenario.blobs))]
        self._scenario = scenario
        self._time = time
        self._deliver = deliver
        self._piece_came = piece_came
        self._chunk = [max(1, cut.piece // scenario.chunks_per_piece) for cut in self.geometry]
        self._origin = self._make(_ORIGIN, HostLink(scenario.upstream, scenario.upstream, holds=True))
        self.hosts = [self._make(index, link) for index, link in enumerate(scenario.hosts)]

    def _make(self, index: int, link: HostLink) -> Host:
        host = Host(index, link)
        for blob, cut in enumerate(self.geometry):
            part = Part(host, blob, cut.count)
            if link.holds:
                part.progress = [self._chunks(blob, piece) for piece in range(cut.count)]
            host.parts.append(part)
        return host

    def latency(self, one: Host, other: Host) -> float:
        """Seconds that a message takes between the two."""
        near = one.link.zone == other.link.zone
        return self._scenario.latency if near else self._scenario.far_latency

    # -- what a part asks for --

    def ask_peer(self, part: Part, source: Host, piece: int) -> None:
        """Ask ``source`` for a piece."""
        transfer = self._prepare(source.parts[part.blob], part, piece)
        self._time.at(self._time.now + self.latency(part.host, source), self._start, transfer)

    def ask_upstream(self, part: Part, pieces: tuple[int, ...]) -> None:
        """Ask upstream for pieces in a row: one response, in which they come one after the other."""
        ends = self._scenario.upstream_ends
        if ends is not None and self._time.now >= ends:
            failed = ev.UpstreamFailed(pieces, final=False, retry_after=0.5)
            self._time.at(self._time.now + self._scenario.latency, self._deliver, part, failed)
            return
        part.runs.append(deque(pieces))
        self._next_of_run(part, part.runs[-1])

    def drop(self, part: Part, source: Host | None, piece: int) -> None:
        """Want a piece of ``source`` (None: of upstream) no longer."""
        dropped = part.incoming.pop((_ORIGIN if source is None else source.index, piece), None)
        if dropped is not None:
            dropped.cancelled = True
        if source is None:
            self._leave_run(part, piece)

    def sever(self, source: Part, receiver: Part) -> None:
        """The source is gone: nothing more of it arrives."""
        for key in [key for key, transfer in receiver.incoming.items() if transfer.at is source]:
            receiver.incoming.pop(key).cancelled = True

    # -- upstream's responses --

    def _next_of_run(self, part: Part, run: deque[int]) -> None:
        if run:
            self._activate(self._prepare(self._origin.parts[part.blob], part, run[0]))
        else:
            part.runs.remove(run)

    def _leave_run(self, part: Part, piece: int) -> None:
        """The piece has left upstream, or is no more wanted of it."""
        for run in list(part.runs):
            if run and run[0] == piece:
                run.popleft()
                self._next_of_run(part, run)
            elif piece in run:
                run.remove(piece)

    # -- requests to peers --

    def _start(self, transfer: Transfer) -> None:
        """A request reaches its source."""
        source = transfer.at
        if transfer.cancelled or transfer.to.host.gone:
            return
        if source.host.gone or source.stopped:
            self._fail(transfer, ev.Failure.UNREACHABLE)
            return
        if not _can_serve(source, transfer.piece):
            self._time.at(self._time.now + PIECE_WAIT, self._miss, transfer)
        self._activate(transfer)

    def _miss(self, transfer: Transfer) -> None:
        """A source that has none of a piece says so after a while."""
        part = transfer.to
        if part.incoming.get((transfer.at.host.index, transfer.piece)) is transfer and not transfer.sent:
            transfer.cancelled = True
            self._fail(transfer, ev.Failure.MISSING)

    def _fail(self, transfer: Transfer, failure: ev.Failure) -> None:
        source, part, piece = transfer.at, transfer.to, transfer.piece
        part.incoming.pop((source.host.index, piece), None)
        failed = ev.RequestFailed(piece, source.host.peer, failure)
        self._time.at(self._time.now + self.latency(source.host, part.host), self._deliver, part, failed)

    # -- chunks --

    def _chunks(self, blob: int, piece: int) -> int:
        start, stop = self.geometry[blob].span(piece)
        return -(-(stop - start) // self._chunk[blob])

    def _prepare(self, source: Part, part: Part, piece: int) -> Transfer:
        transfer = Transfer(source, part, piece, self._chunks(part.blob, piece))
        if source.host is not self._origin:  # what came of the piece from another peer is not sent again
            transfer.sent = transfer.received = part.progress[piece]
        part.incoming[(source.host.index, piece)] = transfer
        return transfer

    def _activate(self, transfer: Transfer) -> None:
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

    def _serve(self, host: Host) -> None:
        queue = host.queue
        while queue:
            transfer = queue.popleft()
            if not transfer.cancelled and not transfer.to.host.gone:
                host.sending = True
                took = self._chunk[transfer.at.blob] / host.link.up
                self._time.at(self._time.now + took, self._chunk_sent, host, transfer)
                return
        host.sending = False

    def _chunk_sent(self, host: Host, transfer: Transfer) -> None:
        transfer.active = False
        transfer.sent += 1
        transfer.in_transit += 1
        receiver = transfer.to.host
        chunk = self._chunk[transfer.at.blob]
        if host is self._origin:
            self.upstream_bytes += chunk
            if transfer.sent == transfer.total:
                self._leave_run(transfer.to, transfer.piece)
        elif host.link.zone != receiver.link.zone:
            self.far_bytes += chunk
        arrival = max(self._time.now, receiver.downlink_free) + chunk / receiver.link.down
        receiver.downlink_free = arrival
        self._time.at(arrival, self._chunk_arrived, transfer)
        self._activate(transfer)
        self._serve(host)

    def _chunk_arrived(self, transfer: Transfer) -> None:
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
            self._piece_came(part, piece)


def _can_serve(source: Part, piece: int) -> bool:
    planner = source.planner
    return planner is not None and (piece in planner.held or planner.in_flight(piece) > 0)
