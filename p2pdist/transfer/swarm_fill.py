"""Fills a blob as a member of its swarm: the planner decides (swarm/planner.py), this carries it out.

The way of one fill: announce (which tells who is there already), join those neighbours, wait briefly for their answers,
then let the planner work until every piece is held.
Always true here: the planner is called from one place, with the clock's time; each command's task belongs to the fill's
task group; when the fill ends, for whatever reason, no task and no session is left. Should a swarm come to a standstill
with nothing under way, the fetch goes on without it, from one source at a time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from functools import partial

from p2pdist.errors import (
    BusyError,
    DeniedError,
    NotFoundError,
    P2PDistError,
    StoreError,
    StoreFullError,
    UnreachableError,
)
from p2pdist.records import PeerId, Provider
from p2pdist.swarm import events as ev
from p2pdist.swarm.geometry import Geometry
from p2pdist.swarm.peer_health import Standing
from p2pdist.swarm.planner import Planner
from p2pdist.swarm.rendezvous import seed_of
from p2pdist.swarm.ring import SEED_BITS
from p2pdist.swarm.settings import PlannerSettings
from p2pdist.transfer.attestation import Attestations
from p2pdist.transfer.content import Source
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.fill import Target
from p2pdist.transfer.sequential_fill import SequentialFill, WrongSizeError, check_upstream_size
from p2pdist.transfer.source_plan import note_failure
from p2pdist.transfer.swarm_hub import SwarmHub
from p2pdist.transfer.swarm_pieces import Inflow, Inflows, Run
from p2pdist.transfer.swarm_proof import Proof
from p2pdist.transfer.swarm_words import Words
from p2pdist.wire.swarm_messages import (
    MAX_MEMBERS,
    Join,
    Leave,
    SwarmMessage,
    Update,
    encode,
)

logger = logging.getLogger(__name__)

JOIN_WAIT = 1.0
STRANGERS = 0.2  # so many of the members known may not have answered yet when this host claims pieces
MEETING = 0.1  # seconds for each member known: so long this host waits for their answers at most,
LONGEST_MEETING = 5.0  # and so long, however many they are
SETTLE = 0.03  # those who came in the same instant learn of each other; then all divide the pieces alike
TICK = 0.25
LOOK_AGAIN = (0.5, 1.5, 4.0, 10.0)
LOOK_EVERY = 20.0
MOST_PARTED = 1024
PARTED = 20.0  # who had no room for this host is not asked again for so long
STEP_SECONDS = 0.2
FAILURES = 3  # in a row: the peer is left to itself, until it is found again
FAILURES_APART = 0.5  # what fails at once with others on one connection counts once
IN_FLIGHT = 24 * 1024 * 1024  # bytes of piece buffers for one blob
LAST_WORDS = 0.5
MOST_NEIGHBOURS = 192
MAX_EARLY = 4096
ATTESTED_AT_ONCE = 2048  # fit into a frame
LAST_PEER = PeerId(b"\xff" * 20)
IDLE = 9.0  # the planner tries all it can in less: settings.starved, and the turns after that
STANDSTILL = 45.0
UPSTREAM_TRIES = 2
GRACE = 0.02  # so long a claim may meet another before upstream is asked: then nothing is sent in vain


class StandstillError(UnreachableError):
    """The swarm has nothing under way, or nothing has come of it for long."""


class NoRangeError(UnreachableError):
    """Upstream sends blobs from their start only."""


class SwarmFill:
    """One use per blob; ``run`` it."""

    def __init__(self, context: TransferContext, hub: SwarmHub) -> None:
        self._context = context
        self._hub = hub

    async def run(self, target: Target) -> None:
        """As Fill.run."""
        try:
            await _Session(self._context, self._hub, target).run()
        except StandstillError as error:
            logger.warning("%s; going on from one source at a time", error)
            await SequentialFill(self._context).run(target)


class _Session:
    def __init__(self, context: TransferContext, hub: SwarmHub, target: Target) -> None:
        self._context = context
        self._hub = hub
        self._target = target
        self._geometry = Geometry.of(target.size)
        held = [p for p in range(self._geometry.count) if self._is_held(p)]
        now = context.clock.now()
        flights = max(6, min(64, IN_FLIGHT // self._geometry.piece))
        settings = PlannerSettings(flights=flights)
        self._planner = Planner(self._geometry, hub.own.peer, held, now, settings, context.policy.zone)
        self._neighbours: dict[PeerId, Provider] = {}
        self._unanswered: set[PeerId] = set()
        self._answered = asyncio.Event()
        self._early: list[ev.Event] | None = []
        self._requests: dict[tuple[int, PeerId | None], asyncio.Task[None]] = {}
        self._runs: list[Run] = []
        self._open: set[asyncio.Task[None]] = set()
        self._begun = self._moved = self._met = now
        self._upstream_in_vain = 0
        self._streaming = False
        self._inflows = Inflows(min(self._geometry.piece, target.size), flights)
        self._attested = Attestations()
        self._words = Words(target.digest, self._attested, self._broadcast, lambda: len(self._neighbours))
        self._proof = Proof(context, target, self._geometry, self._attested, self._words, self)
        self._parted: dict[PeerId, float] = {}
        self._failures: dict[PeerId, tuple[int, float]] = {}
        self._done = asyncio.Event()
        self._error: P2PDistError | None = None
        self._last_error: P2PDistError | None = None
        self._upstream_error: P2PDistError | None = None
        self._tasks: asyncio.TaskGroup | None = None

    def _is_held(self, piece: int) -> bool:
        start, stop = self._geometry.span(piece)
        return self._target.held.held_from(start) >= stop

    # -- the life of a session --

    async def run(self) -> None:
        if self._planner.complete:
            return
        digest = self._target.digest
        self._hub.open(digest, self)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                helpers = [tasks.create_task(self._meet()), tasks.create_task(self._tick())]
                await self._done.wait()
                await self._end(helpers)
        finally:
            self._close()
        if self._error is not None:
            raise self._error

    async def _end(self, helpers: list[asyncio.Task[None]]) -> None:
        """Stop everything; what upstream is sending already is taken in first, for the account of bytes to be exact."""
        peers = {task for (_, source), task in self._requests.items() if source is not None}
        for task in (*helpers, *peers):
            task.cancel()
        upstream = self._open - peers
        if upstream and self._error is None:
            await asyncio.wait(upstream, timeout=LAST_WORDS)
        for task in upstream:
            task.cancel()

    def _close(self) -> None:
        self._words.flush()
        self._hub.close(self._target.digest)
        if not self._planner.complete:
            self._broadcast(encode(Leave(self._target.digest)))

    async def _meet(self) -> None:
        """Announce, join who is there, start; then look again now and then, for who came at the same moment."""
        digest, discovery, clock = self._target.digest, self._context.discovery, self._context.clock
        announcement = await discovery.announce(digest, complete=False)
        self._join(announcement.providers)
        if self._unanswered:
            try:
                async with asyncio.timeout(JOIN_WAIT):
                    await self._answered.wait()
            except TimeoutError:
                pass
            await clock.sleep(SETTLE)
        self._begin(sum(not each.complete for each in announcement.providers))
        waits = list(LOOK_AGAIN)
        while True:
            await clock.sleep(waits.pop(0) if waits else LOOK_EVERY)
            self._join(await discovery.find(digest))

    def _begin(self, ahead: int) -> None:
        early, self._early = self._early or [], None
        self._prepare()
        self.handle(ev.Announced(ahead))
        for event in early:
            self.handle(event)
        self.handle(ev.Ticked())

    async def _tick(self) -> None:
        clock = self._context.clock
        while True:
            due = clock.now() + TICK
            await clock.sleep(TICK)
            self._inflows.hurry.was_late(clock.now() - due)
            self._prepare()
            self.handle(ev.Ticked())
            self._words.tell_unattested(clock.now())
            self._notice_standstill()

    def _prepare(self) -> None:
        """Tell the planner what it cannot know."""
        self._planner.give_way(self._hub.gives_way(self._target.digest))
        known = len(self._neighbours)
        lately = self._context.clock.now() - self._begun <= min(LONGEST_MEETING, MEETING * known)
        self._planner.meet(lately and len(self._unanswered) > STRANGERS * known)

    def _notice_standstill(self) -> None:
        """Nothing comes; while members are still coming together, this may have many reasons."""
        now, idle = self._context.clock.now(), IDLE * self._planner.patience
        still, met_lately = now - self._moved, now - self._met <= idle
        if still > (STANDSTILL if self._open or met_lately else idle):
            self._fail(StandstillError(f"the swarm of {self._target.digest} is at a standstill"))

    # -- neighbours --

    def _join(self, providers: Iterable[Provider]) -> None:
        health, now = self._context.health, self._context.clock.now()
        fresh = [p for p in providers if p.peer not in self._neighbours and p.peer != self._hub.own.peer]
        usable = [each for each in fresh if health.usable(each.peer, now)]
        for provider in sorted(usable, key=self._distance):
            if not self._has_room(provider.peer):
                continue
            if not provider.complete and now - self._parted.get(provider.peer, -PARTED) < PARTED:
                continue
            self._neighbours[provider.peer] = provider
            if provider.complete:  # it takes no part any more, and needs no greeting
                self._proof.holds_whole(provider.peer)
                near = provider.zone == self._context.policy.zone
                joined = ev.MemberJoined(
                    provider.peer, frozenset(), complete=True, near=near, zone=provider.zone
                )
                self.handle(joined)
            else:
                self._unanswered.add(provider.peer)
                self._greet(provider, answer=True)

    def _distance(self, provider: Provider) -> tuple[bool, bool, int]:
        """Who is asked first: who holds everything, then in the order of the ring, so that of two hosts that learn of each
        other at once one asks first, and the other has its answer over the same link."""
        forward = (seed_of(provider.peer) - seed_of(self._hub.own.peer)) % (1 << SEED_BITS)
        return not provider.complete, provider.zone != self._context.policy.zone, forward

    def _greet(self, provider: Provider, *, answer: bool) -> None:
        """Join, and attest what was fetched from upstream so far."""
        self._hub.send(provider, self._own_join(provider.peer, answer=answer))
        known = self._attested.known
        for low in range(0, len(known), ATTESTED_AT_ONCE):
            update = Update(self._target.digest, known[low : low + ATTESTED_AT_ONCE])
            self._hub.send(provider, encode(update))

    def _own_join(self, to: PeerId, *, answer: bool) -> bytes:
        return encode(
            Join(
                self._target.digest,
                self._target.size,
                replace(self._hub.own, complete=False),
                frozenset(self._planner.held),
                self._planner.claims,
                self._introduced(to),
                answer,
                self._planner.arc,
            )
        )

    def _introduced(self, to: PeerId) -> tuple[Provider, ...]:
        """Members whom a member should know: those next to it in the ring, and, each time, some of the others."""
        others = [provider for peer, provider in self._neighbours.items() if peer != to]
        if len(others) <= MAX_MEMBERS:
            return tuple(others)
        place = seed_of(to)
        others.sort(key=lambda each: abs(seed_of(each.peer) - place))
        nearest, rest = others[: MAX_MEMBERS // 2], others[MAX_MEMBERS // 2 :]
        return (*nearest, *random.sample(rest, min(len(rest), MAX_MEMBERS - len(nearest))))

    def message(self, sender: PeerId, message: SwarmMessage) -> None:
        """As Session.message."""
        if isinstance(message, Join):
            self._joined(message)
        elif isinstance(message, Update):
            if message.claim:
                self.handle(ev.MemberClaims(sender, message.claim))
            if message.have and sender in self._neighbours:
                self.handle(ev.MemberHas(sender, tuple(piece for piece, _ in message.have)))
                self._proof.hear(sender, message.have)
            if message.release:
                self.handle(ev.MemberReleases(sender, message.release))
            if message.lagging and sender in self._neighbours and sender != self._hub.own.peer:
                self.handle(ev.MembersLag(sender, message.lagging))
            if message.arc and sender in self._neighbours:
                self.handle(ev.ArcHalved(sender, message.arc))
        else:
            if len(self._parted) < MOST_PARTED:
                self._parted[sender] = self._context.clock.now()
            self._gone(sender)

    def _joined(self, join: Join) -> None:
        peer = join.sender.peer
        if join.size != self._target.size or self._is_banned(peer):
            self._neighbours.setdefault(peer, join.sender)
            self.dismiss(peer)
            return
        if peer not in self._neighbours and not self._has_room(peer):
            self._turn_away(join)
            return
        if peer not in self._neighbours or peer in self._unanswered:
            self._met = self._context.clock.now()
        self._neighbours[peer] = join.sender
        near = join.sender.zone == self._context.policy.zone
        complete = len(join.have) == self._geometry.count
        if complete and join.sender.complete:
            self._proof.holds_whole(peer)
        self.handle(ev.MemberJoined(peer, join.have, join.claims, complete, near, join.sender.zone))
        if join.arc:
            self.handle(ev.ArcHalved(peer, join.arc))
        if join.answer:
            self._greet(join.sender, answer=False)
        self._join(join.members)
        self._answer_came(peer)

    def _turn_away(self, join: Join) -> None:
        """There is no room for it; but it may look at those that this host knows."""
        if join.answer:
            self._hub.send(join.sender, self._own_join(join.sender.peer, answer=False))
            self._hub.send(join.sender, encode(Leave(self._target.digest)))
        self._join(join.members)

    def _has_room(self, peer: PeerId) -> bool:
        return len(self._neighbours) < MOST_NEIGHBOURS and self._planner.has_room(peer)

    def _is_banned(self, peer: PeerId) -> bool:
        return self._context.health.standing(peer, self._context.clock.now()) is Standing.BANNED

    def provider(self, peer: PeerId) -> Provider | None:
        """As swarm_proof.Session."""
        return self._neighbours.get(peer)

    def dismiss(self, peer: PeerId) -> None:
        """Have nothing more to do with it, and say so, that it may look elsewhere."""
        provider = self._neighbours.get(peer)
        if provider is not None:
            self._hub.send(provider, encode(Leave(self._target.digest)))
        self._gone(peer)

    def _answer_came(self, peer: PeerId) -> None:
        self._unanswered.discard(peer)
        if not self._unanswered:
            self._answered.set()

    def _gone(self, peer: PeerId) -> None:
        self._neighbours.pop(peer, None)
        self._proof.gone(peer)
        self._answer_came(peer)
        self.handle(ev.MemberLeft(peer))

    @property
    def claiming(self) -> bool:
        """As Session.claiming."""
        return self._planner.claiming

    def lagging(self, peers: tuple[PeerId, ...]) -> None:
        """As Session.lagging."""
        self.handle(ev.MembersLag(self._hub.own.peer, peers))

    def lost(self, peer: PeerId) -> None:
        """As Session.lost."""
        if peer in self._neighbours:
            # Others may go on naming it, who is perhaps none of the cluster: it is not dialled again at each word of them.
            self._context.health.unreachable(peer, self._context.clock.now())
            self._gone(peer)

    # -- the planner, and what it asks for --

    @property
    def over(self) -> bool:
        """As swarm_proof.Session."""
        return self._done.is_set()

    def settle(self, piece: int, work: Coroutine[None, None, None]) -> None:
        """As swarm_proof.Session."""
        self._start((-1 - piece, None), work)

    def handle(self, event: ev.Event) -> None:
        """Tell the planner, and do what it asks for."""
        if isinstance(event, ev.Progressed):
            self._moved = self._context.clock.now()
        if self._early is not None:
            if len(self._early) < MAX_EARLY:
                self._early.append(event)
            return
        if self._done.is_set():
            return
        for command in self._planner.handle(event, self._context.clock.now()):
            self._obey(command)
        if self._planner.complete:
            self._done.set()

    def _obey(self, command: ev.Command) -> None:
        if isinstance(command, ev.AskPeer):
            provider = self._neighbours.get(command.peer)
            if provider is None:  # gone, and the planner is about to hear of it
                self.handle(ev.RequestFailed(command.piece, command.peer, ev.Failure.UNREACHABLE))
                return
            self._start((command.piece, command.peer), self._from_peer(provider, command.piece))
        elif isinstance(command, ev.AskUpstream):
            self._start((command.pieces[0], None), self._from_upstream(command.pieces))
        elif isinstance(command, ev.Drop):
            if command.source is None:
                for run in self._runs:
                    run.dropped.add(command.piece)
                return
            task = self._requests.pop((command.piece, command.source), None)
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        elif isinstance(command, ev.Tell):
            self._tell(command)
        elif not self._streaming or not self._open:
            none = NotFoundError(f"no source has {self._target.digest}")
            self._fail(self._upstream_error or self._last_error or none)

    def _start(self, key: tuple[int, PeerId | None], work: Coroutine[None, None, None]) -> None:
        assert self._tasks is not None
        task = self._tasks.create_task(work)
        self._requests[key] = task
        self._open.add(task)
        task.add_done_callback(lambda done: self._forget(key, done))

    def _forget(self, key: tuple[int, PeerId | None], task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        if self._requests.get(key) is task:
            del self._requests[key]

    def _fail(self, error: P2PDistError) -> None:
        self._error = self._error or error
        self._done.set()

    # -- bytes --

    async def _from_peer(self, provider: Provider, piece: int) -> None:
        context, target, peer = self._context, self._target, provider.peer
        start, stop = self._geometry.span(piece)
        begun = context.clock.now()
        assert self._tasks is not None
        inflow = self._inflows.take(piece, stop - start, partial(self._take_step, piece), self._tasks)
        before = inflow.filled
        whole, fetches = self._proof.is_whole(peer), self._planner.fetches(peer, piece)
        try:
            moved, rest = inflow.advance(provider), inflow.rest
            if rest:
                await context.peers.piece(provider, target.digest, start + before, target.size, rest, moved)
            await inflow.finish()
            await context.download.take(stop - start - before)
        except (StoreFullError, StoreError) as error:
            self._fail(error)
        except P2PDistError as error:
            self._keep(piece, inflow)
            self._peer_failed(provider, piece, error)
        except asyncio.CancelledError:
            self._keep(piece, inflow)
            raise
        else:
            now = context.clock.now()
            context.health.received(peer, stop - start - before, now - begun, now)
            context.health.succeeded(peer, now)
            self._failures.pop(peer, None)
            held = self._proof.came(piece, inflow.senders, inflow.digest(), whole=whole, fetched=fetches)
            self._got(piece, held=held)
            self._inflows.done(inflow)

    def _keep(self, piece: int, inflow: Inflow) -> None:
        if piece not in self._planner.held:
            self._inflows.keep(piece, inflow)

    async def _take_step(self, piece: int, at: int, part: memoryview, provider: Provider) -> None:
        start, _ = self._geometry.span(piece)
        self._attested.begun(piece)
        await self._target.receive(start + at, part, Source.PEER, provider)
        self.handle(ev.Progressed(piece, provider.peer, len(part)))

    def _peer_failed(self, provider: Provider, piece: int, error: P2PDistError) -> None:
        self._last_error = error
        note_failure(self._context, provider.peer, error, progressed=False)
        failure, retry_after = ev.Failure.UNREACHABLE, 0.25
        if isinstance(error, BusyError):
            failure, retry_after = ev.Failure.BUSY, min(2.0, error.retry_after or 0.25)
        elif isinstance(error, NotFoundError):
            failure = ev.Failure.MISSING
        self.handle(ev.RequestFailed(piece, provider.peer, failure, retry_after))
        count, last = self._failures.get(provider.peer, (0, float("-inf")))
        now = self._context.clock.now()
        if failure is ev.Failure.UNREACHABLE and now - last >= FAILURES_APART:
            self._failures[provider.peer] = count, last = count + 1, now
        refuses = failure is ev.Failure.MISSING and provider.complete
        if refuses or isinstance(error, DeniedError) or count >= FAILURES:
            self._failures.pop(provider.peer, None)
            self._gone(provider.peer)

    async def _from_upstream(self, pieces: tuple[int, ...], *, to_the_end: bool = False) -> None:
        context, target = self._context, self._target
        start, stop = self._geometry.span(pieces[0])[0], self._geometry.span(pieces[-1])[1]
        length = None if to_the_end else stop - start
        run = Run(self._geometry, pieces)
        self._runs.append(run)
        try:
            if not to_the_end and self._planner.has_rivals(context.clock.now()):
                await context.clock.sleep(GRACE)
                if run.dropped.issuperset(run.left):
                    return
            async with context.upstream.blob(target.repository, target.digest, start, length) as stream:
                check_upstream_size(target, stream.size)
                if not stream.ranged and not to_the_end:
                    raise NoRangeError("upstream sends blobs from their start only")
                async for chunk in stream.chunks():
                    await context.upstream_limit.take(len(chunk))
                    await context.download.take(len(chunk))
                    await self._take_run(run, chunk)
                    if run.is_over():
                        break
        except (StoreFullError, StoreError, WrongSizeError) as error:
            self._fail(error)
        except NoRangeError:
            self._without_ranges(run)
        except P2PDistError as error:
            self._upstream_failed(run, error, progressed=run.offset > start)
        else:
            self._upstream_in_vain = 0
        finally:
            self._runs.remove(run)

    def _without_ranges(self, run: Run) -> None:
        """Upstream cannot be divided: the first of the members streams the blob for all, the others take it from there."""
        missing = [piece for piece in range(self._geometry.count) if piece not in self._planner.held]
        if not self._streaming and self._hub.own.peer < min(self._planner.members, default=LAST_PEER):
            self._streaming = True
            onwards = tuple(range(missing[0], self._geometry.count))
            self._start((missing[0], None), self._from_upstream(onwards, to_the_end=True))
        self.handle(ev.UpstreamFailed(tuple(run.left), final=True))

    def _upstream_failed(self, run: Run, error: P2PDistError, *, progressed: bool) -> None:
        """The adapter has tried for its part; so a few failures in a row without a byte are final."""
        self._upstream_error = error
        self._upstream_in_vain = 0 if progressed else self._upstream_in_vain + 1
        final = isinstance(error, NotFoundError | DeniedError) or self._upstream_in_vain >= UPSTREAM_TRIES
        pause = (error.retry_after if isinstance(error, BusyError) else None) or 1.0
        self.handle(ev.UpstreamFailed(tuple(run.left), final, min(10.0, pause)))

    async def _take_run(self, run: Run, chunk: bytes) -> None:
        """Write a chunk step by step, so that each piece is told of, and sent on, as it grows."""
        view = memoryview(chunk)
        while view and not run.is_over():
            room = run.room()
            run.gather(view[:room])
            view = view[room:]
            if run.is_due() or self._context.clock.now() - run.written >= STEP_SECONDS:
                await self._write_step(run)

    async def _write_step(self, run: Run) -> None:
        run.written = self._context.clock.now()
        piece, offset, part = run.left[0], run.offset, run.step()
        await self._target.receive(offset, part, Source.UPSTREAM, None)
        digest = run.took(part)
        self.handle(ev.Progressed(piece, None, len(part)))
        if digest is not None:
            self._got(piece, held=self._proof.arrived(piece, digest, from_upstream=True))

    def _got(self, piece: int, *, held: bool) -> None:
        """A piece is whole here, and counts as held unless it is to be settled first."""
        self._moved = self._context.clock.now()
        self._inflows.forget(piece)
        if held:
            self.handle(ev.PieceHeld(piece))

    # -- telling the neighbours --

    def _tell(self, command: ev.Tell) -> None:
        for peer in command.lagging:
            who = "this host" if peer == self._hub.own.peer else f"peer {peer.short}"
            logger.info("%s cannot keep up with the swarm of %s: pieces go past it", who, self._target.digest)
        if command.lagging:
            self._hub.lagging(self._target.digest, command.lagging)
        self._words.tell(command)

    def _broadcast(self, frame: bytes) -> None:
        for peer, provider in list(self._neighbours.items()):  # of whom sending may show that they are gone
            if not self._planner.is_complete(peer):
                self._hub.send(provider, frame)
