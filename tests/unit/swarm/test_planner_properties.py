"""Several planners on a small message bus with random faults: what must hold whatever happens.

The bus keeps each pair's messages in order and may lose them; requests may fail in every way; hosts die and come; the
clock jumps ahead. After the faults end, every living host must complete within bounded virtual time, or give up if
there is no source of some piece left.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pdist.records import PeerId
from p2pdist.swarm import events as ev
from p2pdist.swarm.geometry import MIN_PIECE, Geometry
from p2pdist.swarm.planner import Planner, PlannerSettings

MOST_HOSTS = 7
FAILURES = (ev.Failure.BUSY, ev.Failure.MISSING, ev.Failure.UNREACHABLE, ev.Failure.WRONG)


@dataclass
class Host:
    peer: PeerId
    planner: Planner
    asks: dict[tuple[int, PeerId | None], None] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    gave_up: bool = False


class Swarm(RuleBasedStateMachine):
    """Hosts, the messages on their way, and an upstream that may refuse."""

    @initialize(
        pieces=st.integers(1, 12),
        hosts=st.integers(1, 4),
        seed=st.integers(0, 1 << 32),
        seeds=st.integers(0, 1),
        arc=st.sampled_from([2, 3, 128]),
    )
    def begin(self, pieces: int, hosts: int, seed: int, seeds: int, arc: int = 128) -> None:
        self.settings = PlannerSettings(arc=arc)
        self.geometry = Geometry(pieces * MIN_PIECE, MIN_PIECE, pieces)
        self.dice = random.Random(seed)
        self.now = 0.0
        self.upstream_works = True
        self.hosts: dict[PeerId, Host] = {}
        self.bus: dict[tuple[PeerId, PeerId], deque[ev.Event]] = {}
        self.upstream_asks = 0
        for index in range(hosts):
            self.arrive(complete=index < seeds)

    # -- the world --

    def arrive(self, *, complete: bool = False) -> None:
        held = range(self.geometry.count) if complete else ()
        peer = PeerId(self.dice.randbytes(20))
        host = Host(peer, Planner(self.geometry, peer, held, self.now, self.settings))
        for other in self.hosts.values():
            self.greet(host, other.peer)
            self.greet(other, peer)
        self.hosts[peer] = host

    def greet(self, host: Host, to: PeerId) -> None:
        planner = host.planner
        self.send(
            host, to, ev.MemberJoined(host.peer, frozenset(planner.held), planner.claims, planner.complete)
        )
        if planner.arc:
            self.send(host, to, ev.ArcHalved(host.peer, planner.arc))

    def send(self, sender: Host, to: PeerId, event: ev.Event) -> None:
        self.bus.setdefault((sender.peer, to), deque()).append(event)

    def handle(self, host: Host, event: ev.Event) -> None:
        if host.gave_up:
            return
        before = dict(host.asks)
        for command in host.planner.handle(event, self.now):
            self.obey(host, command, before)

    def obey(self, host: Host, command: ev.Command, before: dict[tuple[int, PeerId | None], None]) -> None:
        planner = host.planner
        if isinstance(command, ev.AskPeer):
            assert command.peer in planner.members, "a command names a member"
            assert command.piece not in planner.held
            assert (command.piece, command.peer) not in host.asks, "asked twice for the same"
            host.asks[(command.piece, command.peer)] = None
        elif isinstance(command, ev.AskUpstream):
            self.upstream_asks += 1
            for piece in command.pieces:
                assert piece in host.told, "upstream is asked only for what was claimed and told"
                assert piece not in planner.held
                assert (piece, None) not in host.asks
                host.asks[(piece, None)] = None
        elif isinstance(command, ev.Drop):
            host.asks.pop((command.piece, command.source), None)
        elif isinstance(command, ev.Tell):
            host.told.update(command.claim)
            host.told.difference_update(command.release)
            self.broadcast(host, command)
        else:
            host.gave_up = True

    def broadcast(self, host: Host, tell: ev.Tell) -> None:
        for other in self.hosts:
            if other == host.peer:
                continue
            if tell.claim:
                self.send(host, other, ev.MemberClaims(host.peer, tell.claim))
            if tell.have:
                self.send(host, other, ev.MemberHas(host.peer, tell.have))
            if tell.release:
                self.send(host, other, ev.MemberReleases(host.peer, tell.release))
            if tell.lagging:
                self.send(host, other, ev.MembersLag(host.peer, tell.lagging))
            if tell.arc:
                self.send(host, other, ev.ArcHalved(host.peer, tell.arc))

    def finish(self, host: Host, piece: int, source: PeerId | None) -> None:
        """A request comes to its natural end."""
        host.asks.pop((piece, source), None)
        if source is None:
            if self.upstream_works:
                self.handle(host, ev.PieceHeld(piece))
            else:
                self.handle(host, ev.UpstreamFailed((piece,), final=False, retry_after=0.5))
            return
        giver = self.hosts.get(source)
        if giver is None:
            self.handle(host, ev.RequestFailed(piece, source, ev.Failure.UNREACHABLE))
        elif piece in giver.planner.held:
            self.handle(host, ev.PieceHeld(piece))
        elif giver.planner.in_flight(piece):
            host.asks[(piece, source)] = None  # it waits, cut-through
        else:
            self.handle(host, ev.RequestFailed(piece, source, ev.Failure.MISSING))

    def pick(self) -> Host:
        return self.dice.choice(list(self.hosts.values()))

    # -- what may happen --

    @rule(times=st.integers(1, 8))
    def messages_arrive(self, times: int) -> None:
        for _ in range(times):
            waiting = [key for key, queue in self.bus.items() if queue]
            if not waiting:
                return
            key = self.dice.choice(waiting)
            event = self.bus[key].popleft()
            if key[1] in self.hosts:
                self.handle(self.hosts[key[1]], event)

    @rule()
    def a_message_is_lost(self) -> None:
        waiting = [key for key, queue in self.bus.items() if queue]
        if waiting:
            self.bus[self.dice.choice(waiting)].popleft()

    @rule(times=st.integers(1, 6))
    def requests_end(self, times: int) -> None:
        for _ in range(times):
            host = self.pick()
            if host.asks:
                piece, source = self.dice.choice(list(host.asks))
                self.finish(host, piece, source)

    @rule(failure=st.sampled_from(FAILURES))
    def a_request_fails(self, failure: ev.Failure) -> None:
        host = self.pick()
        wanted = [(piece, source) for piece, source in host.asks if source is not None]
        if wanted:
            piece, source = self.dice.choice(wanted)
            host.asks.pop((piece, source))
            self.handle(host, ev.RequestFailed(piece, source, failure))

    @rule()
    def a_run_from_upstream_is_cut(self) -> None:
        host = self.pick()
        pieces = tuple(piece for piece, source in host.asks if source is None)
        for piece in pieces:
            host.asks.pop((piece, None))
        if pieces:
            self.handle(host, ev.UpstreamFailed(pieces, final=False, retry_after=0.5))

    @rule(seconds=st.sampled_from([0.05, 0.25, 1.0, 4.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for host in list(self.hosts.values()):
            self.handle(host, ev.Ticked())

    @precondition(lambda self: len(self.hosts) > 1)
    @rule()
    def a_host_dies(self) -> None:
        gone = self.pick()
        del self.hosts[gone.peer]
        for host in self.hosts.values():
            for key in [key for key in host.asks if key[1] == gone.peer]:
                if self.dice.random() < 0.5:
                    del host.asks[key]
                    self.handle(host, ev.RequestFailed(key[0], gone.peer, ev.Failure.UNREACHABLE))
            self.handle(host, ev.MemberLeft(gone.peer))
            assert not any(source == gone.peer for _, source in host.asks)

    @precondition(lambda self: len(self.hosts) < MOST_HOSTS)
    @rule(complete=st.booleans())
    def a_host_comes(self, complete: bool) -> None:
        self.arrive(complete=complete and self.dice.random() < 0.3)

    @rule()
    def a_client_wants_something(self) -> None:
        self.handle(self.pick(), ev.Wanted((self.dice.randrange(self.geometry.count),)))

    @rule()
    def somebody_says_that_some_lag(self) -> None:
        """True or not: as a slow host says it, or one that lies."""
        liar = self.pick()
        peers = [*self.hosts, PeerId(self.dice.randbytes(20))]
        lagging = tuple(self.dice.sample(peers, self.dice.randint(1, min(4, len(peers)))))
        for other in self.hosts:
            if other != liar.peer:
                self.send(liar, other, ev.MembersLag(liar.peer, lagging))

    @rule(bits=st.integers(1, 16))
    def somebody_says_that_its_arc_is_short(self, bits: int) -> None:
        """True or not."""
        liar = self.pick()
        for other in self.hosts:
            if other != liar.peer:
                self.send(liar, other, ev.ArcHalved(liar.peer, bits))

    @rule(works=st.booleans())
    def upstream_changes(self, works: bool) -> None:
        self.upstream_works = works

    # -- what always holds --

    @invariant()
    def what_is_in_flight_is_what_was_asked(self) -> None:
        for host in getattr(self, "hosts", {}).values():
            planner = host.planner
            for piece in range(self.geometry.count):
                sources = [source for asked, source in host.asks if asked == piece]
                if host.gave_up:
                    continue
                assert planner.in_flight(piece) == len(sources), "the planner and the executor agree"
                lacking = self.geometry.count - len(planner.held)
                most = 1 if lacking > planner.settings.endgame else 3
                assert len(sources) <= most, "one source at a time, but for the endgame"

    @invariant()
    def own_claims_are_told(self) -> None:
        for host in getattr(self, "hosts", {}).values():
            assert set(host.planner.claims) <= host.told

    # -- what must come in the end --

    def teardown(self) -> None:
        """The faults end: upstream works, nothing is lost, everybody introduces itself again."""
        if not hasattr(self, "hosts"):
            return
        self.upstream_works = True
        self.bus.clear()
        for one in self.hosts.values():
            for other in self.hosts.values():
                if one is not other:
                    self.greet(one, other.peer)
        started = self.now
        while any(not host.planner.complete and not host.gave_up for host in self.hosts.values()):
            assert self.now < started + 150.0, [len(host.planner.held) for host in self.hosts.values()]
            self.settle()
        for host in self.hosts.values():
            assert host.planner.complete or host.gave_up
            assert not host.asks or host.gave_up

    def deliver(self) -> None:
        """Everything that was sent, and what is sent in answer."""
        while any(self.bus.values()):
            for (_, to), queue in list(self.bus.items()):
                if queue:
                    event = queue.popleft()
                    if to in self.hosts:
                        self.handle(self.hosts[to], event)

    def settle(self) -> None:
        """A quarter of a second of a world without faults, where messages are faster than ticks are close."""
        self.now += 0.25
        for host in list(self.hosts.values()):
            self.handle(host, ev.Ticked())
            self.deliver()
        for _ in range(4):
            self.deliver()
            for host in list(self.hosts.values()):
                for piece, source in list(host.asks):
                    if (piece, source) in host.asks:
                        self.finish(host, piece, source)
                self.deliver()


Swarm.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSwarm = Swarm.TestCase


def world(hosts: int, pieces: int, seed: int, arc: int = 128) -> Swarm:
    """A swarm without faults."""
    swarm = Swarm()
    swarm.begin(pieces, hosts, seed, 0, arc)
    swarm.deliver()
    return swarm


def test_without_faults_each_piece_is_asked_of_upstream_once() -> None:
    for seed in range(20):
        swarm = world(hosts=5, pieces=40, seed=seed)
        for _ in range(400):
            swarm.settle()
        assert all(host.planner.complete for host in swarm.hosts.values())
        assert swarm.upstream_asks == 40


def test_a_swarm_of_several_arcs_completes_and_asks_little_more_of_upstream() -> None:
    for seed in range(10):
        swarm = world(hosts=16, pieces=40, seed=seed, arc=4)
        for _ in range(400):
            swarm.settle()
        assert all(host.planner.complete for host in swarm.hosts.values())
        assert any(host.planner.arc for host in swarm.hosts.values())
        assert swarm.upstream_asks <= 42


def test_a_host_gives_up_only_when_upstream_failed() -> None:
    swarm = world(hosts=3, pieces=4, seed=1)
    swarm.upstream_works = False
    for _ in range(200):
        swarm.settle()
    assert all(host.gave_up for host in swarm.hosts.values())


def test_hosts_without_upstream_complete_from_one_that_holds_everything() -> None:
    swarm = Swarm()
    swarm.begin(12, 4, 3, 1)
    swarm.upstream_works = False
    for _ in range(200):
        swarm.settle()
    assert all(host.planner.complete for host in swarm.hosts.values())
