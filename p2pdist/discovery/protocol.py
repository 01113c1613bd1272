"""The DHT's datagrams: kademlia's protocol with sealed, bounded framing and waits that follow the round-trip time.

Rules:
- A datagram that does not authenticate is counted and dropped: no answer, no memory of it.
- Any authentic datagram is a word from its sender: it is taken into the routing table, or cleared of suspicion.
- A request is answered in the same turn of the loop; nothing is queued and no task is made for a datagram.
- An answer counts when its id and its sender are those of the request. When it is not there within the contact's
  patience the contact is suspected (a late one still tells how long that contact takes). A wait that ends late
  because this process was held up is granted a little more first.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from kademlia.protocol import KademliaProtocol
from rpcudp.protocol import RPCProtocol

from p2pdist.clock import Clock
from p2pdist.discovery.addresses import Family, observed, reached_at
from p2pdist.discovery.limits import Seldom
from p2pdist.discovery.records import RecordStore
from p2pdist.discovery.routing import ContactTable, Neighbour, RoundTrip
from p2pdist.discovery.service import Body, Service
from p2pdist.discovery.settings import Tuning
from p2pdist.errors import InvalidInputError
from p2pdist.records import Endpoint, PeerId
from p2pdist.wire.datagram import MAX_PAYLOAD, Reason, Refused, Sealer
from p2pdist.wire.dht_messages import Message, Method, decode_message, encode_message

logger = logging.getLogger(__name__)

Done = Callable[[Body | None], None]
T = TypeVar("T")
MAX_OUTSTANDING = 8192
MAX_GIVEN_UP = 256
LATE = 0.005
MAX_STRETCH = 20.0
MAX_EXTENSIONS = 3
_STRANGER_WAIT = 1.0


class _Outstanding:
    """A request that waits for its answer. ``target`` is None when only an address is known."""

    __slots__ = ("asked_at", "done", "endpoint", "extensions", "target", "timer", "wait")

    def __init__(
        self, target: Neighbour | None, endpoint: Endpoint, done: Done, asked_at: float, wait: float
    ) -> None:
        self.target = target
        self.endpoint = endpoint
        self.done = done
        self.asked_at = asked_at
        self.wait = wait
        self.extensions = 0
        self.timer: asyncio.TimerHandle | None = None


class DhtProtocol(KademliaProtocol):  # type: ignore[misc]  # kademlia has no type information
    """One node's end of the DHT. ``on_news`` is told of each contact that is new, back, or restarted."""

    def __init__(
        self,
        me: PeerId,
        sealer: Sealer,
        table: ContactTable,
        records: RecordStore,
        clock: Clock,
        *,
        family: Family,
        tuning: Tuning,
        dice: random.Random,
    ) -> None:
        RPCProtocol.__init__(self, wait_timeout=tuning.patience_cap)
        self.source_node = table.node
        self.router: ContactTable = table
        self.storage = records
        self.me = me
        self.advertised: Endpoint | None = None
        self.on_news: Callable[[Neighbour], None] = lambda neighbour: None
        self.counts: Counter[str] = Counter()
        self.rtt = RoundTrip()
        self.own: set[Endpoint] = set()
        self.lost = asyncio.Event()
        self.clock = clock
        self.family = family
        self.tuning = tuning
        self._sealer = sealer
        self._service = Service(records, table, clock)
        self._seldom = Seldom()
        self._waiting: dict[int, _Outstanding] = {}
        self._given_up: OrderedDict[int, _Outstanding] = OrderedDict()
        self._next_id = dice.getrandbits(32)
        self._lately: deque[float] = deque(maxlen=7)
        self._stretch = 1.0

    # -- what comes in

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        self.counts["in"] += 1
        now = self.clock.now()
        source = observed(addr)
        opened = self._sealer.open(data, now)
        if isinstance(opened, Refused) or source is None:
            self._refuse(opened, source, now)
            return
        try:
            message = decode_message(opened.payload, MAX_PAYLOAD)
            self._take(message, source, opened.session, now)
        except InvalidInputError as error:
            self.counts["malformed"] += 1
            if self._seldom.due("malformed", now):
                logger.warning("a member's datagram from %s is not understood: %s", source, error)

    def _take(self, message: Message, source: Endpoint, session: bytes, now: float) -> None:
        if message.sender == self.me:
            self._complain("twin", _TWIN, source, now)
            return
        if message.to is not None and message.to != self.me:
            self.counts["misdirected"] += 1
            return
        said = reached_at(message.endpoint, source)
        endpoint = said if self.family.reaches(said) else source
        neighbour, news = self.router.heard(message.sender, endpoint, session, now)
        if message.method is None:
            self._answered(message, neighbour)
        else:
            body = self._service.answer(message, source)
            if body is None:
                self.counts["limited"] += 1
            else:
                self._send(Message(message.id, self.me, message.sender, self.advertised, None, body), source)
        if news:
            self.on_news(neighbour)

    def _answered(self, message: Message, sender: Neighbour) -> None:
        waiting = self._waiting.get(message.id) or self._given_up.get(message.id)
        if waiting is None or (waiting.target is not None and waiting.target.peer != sender.peer):
            self.counts["unasked"] += 1
            return
        took = asyncio.get_running_loop().time() - waiting.asked_at
        self._feel(took, sender)
        sender.rtt.sample(took)
        if self._given_up.pop(message.id, None) is not None:
            self.counts["late"] += 1
            return
        self.rtt.sample(took)
        del self._waiting[message.id]
        if waiting.timer is not None:
            waiting.timer.cancel()
        waiting.done(message.body)

    def _feel(self, took: float, sender: Neighbour) -> None:
        usual = sender.rtt.smoothed or self.rtt.smoothed
        if usual:
            self._lately.append(took / usual)
            self._stretch = min(max(sorted(self._lately)[len(self._lately) // 2], 1.0), MAX_STRETCH)

    def _refuse(self, opened: object, source: Endpoint | None, now: float) -> None:
        if not isinstance(opened, Refused):
            self.counts["noise"] += 1
            return
        self.counts[opened.reason.value] += 1
        if opened.reason is Reason.OWN and source is not None:
            self._met_myself(source)
        elif opened.reason is Reason.WRONG_KEY:
            self._complain("wrong key", _WRONG_KEY, source, now)
        elif opened.reason is Reason.SKEWED and self._seldom.due("skew", now):
            logger.warning(_SKEWED, source, abs(opened.skew), "ahead of" if opened.skew > 0 else "behind")

    def _met_myself(self, source: Endpoint) -> None:
        """We wrote to an address of our own: remember it, and end the wait for its answer."""
        if len(self.own) < 16:
            self.own.add(source)
        for name, waiting in list(self._waiting.items()):
            if waiting.target is None and waiting.endpoint == source:
                del self._waiting[name]
                if waiting.timer is not None:
                    waiting.timer.cancel()
                waiting.done(None)

    def _complain(self, kind: str, text: str, source: Endpoint | None, now: float) -> None:
        if self._seldom.due(kind, now):
            logger.warning(text, source)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def error_received(self, exc: Exception) -> None:
        self.counts["send_failed"] += 1

    # -- what goes out

    def hedge(self, target: Neighbour) -> float:
        """Seconds after which a lookup goes on without the target's answer, as things are now. One never heard from is
        given little: should it live, its late answer is measured, and the next lookup knows better."""
        tuning = self.tuning
        cap = tuning.stranger_hedge if target.rtt.smoothed is None else tuning.patience_cap / 2
        return self._wait(target, 2, tuning.hedge_floor, cap)

    def patience(self, target: Neighbour) -> float:
        """Seconds after which the target is suspected, as things are now."""
        return self._wait(target, 4, self.tuning.patience_floor, self.tuning.patience_cap)

    def _wait(self, target: Neighbour, variations: float, floor: float, cap: float) -> float:
        """By the target's round-trip time, stretched as far as answers come later than usual just now: then it is this
        host, or all of them, that is busy."""
        rtt = target.rtt if target.rtt.smoothed is not None else self.rtt
        return min(max(rtt.bound(variations, 0.0, cap) * self._stretch, floor), cap)

    def call(self, target: Neighbour, method: Method, body: Body, done: Done) -> None:
        """Ask ``target``; ``done`` gets the answer's body, or None when none came in time. Called once, and never
        before this returns, unless the protocol is closed."""
        self._call(target, target.endpoint, method, body, done, self.patience(target))

    async def ask(self, target: Neighbour, method: Method, body: Body) -> Body | None:
        """The answer's body, None when none came in time."""
        future: asyncio.Future[Body | None] = asyncio.get_running_loop().create_future()
        self.call(target, method, body, lambda answer: _settle(future, answer))
        return await future

    async def greet(self, endpoints: Iterable[Endpoint]) -> bool:
        """Ping addresses of which nothing else is known. True as soon as a member answers (those that answer later are
        taken in all the same), False when none has within a second."""
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        silent = set(endpoints)

        def done(endpoint: Endpoint, answer: Body | None) -> None:
            silent.discard(endpoint)
            if answer is not None or not silent:
                _settle(answered, answer is not None)

        for endpoint in tuple(silent):
            self._call(None, endpoint, Method.PING, (), partial(done, endpoint), _STRANGER_WAIT)
        return await answered if silent else False

    def tell(self, target: Neighbour, method: Method, body: Body) -> None:
        """Send a request whose answer nobody waits for."""
        self._send(
            Message(self._new_id(), self.me, target.peer, self.advertised, method, body), target.endpoint
        )

    def close(self) -> None:
        """Answer every waiting caller with None; nothing is sent from here on."""
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            if one.timer is not None:
                one.timer.cancel()
            one.done(None)

    def _call(
        self,
        target: Neighbour | None,
        endpoint: Endpoint,
        method: Method,
        body: Body,
        done: Done,
        wait: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        name = self._new_id()
        waiting = _Outstanding(target, endpoint, done, loop.time(), wait)
        if len(self._waiting) >= MAX_OUTSTANDING or self.transport is None or self.transport.is_closing():
            loop.call_soon(done, None)
            return
        self._waiting[name] = waiting
        waiting.timer = loop.call_later(wait, self._overdue, name)
        to = target.peer if target is not None else None
        self._send(Message(name, self.me, to, self.advertised, method, body), endpoint)

    def _overdue(self, name: int) -> None:
        waiting = self._waiting[name]
        loop = asyncio.get_running_loop()
        waited = loop.time() - waiting.asked_at
        more = self.patience(waiting.target) - waited if waiting.target is not None else 0.0
        if waited - waiting.wait > LATE:
            more = max(more, self.tuning.patience_floor)
        if more > 0 and waiting.extensions < MAX_EXTENSIONS:
            waiting.extensions += 1
            waiting.wait = waited + more
            waiting.timer = loop.call_later(more, self._overdue, name)
            return
        del self._waiting[name]
        self._given_up[name] = waiting
        if len(self._given_up) > MAX_GIVEN_UP:
            self._given_up.popitem(last=False)
        self.counts["unanswered"] += 1
        if waiting.target is not None:
            self.router.suspect(waiting.target, self.clock.now())
        waiting.done(None)

    def _send(self, message: Message, endpoint: Endpoint) -> None:
        if not self.family.reaches(endpoint) or self.transport is None or self.transport.is_closing():
            self.counts["unreachable"] += 1
            return
        datagram = self._sealer.seal(encode_message(message), self.clock.now())
        self.counts["out"] += 1
        try:
            self.transport.sendto(datagram, self.family.sockaddr(endpoint))
        except (OSError, ValueError):
            self.counts["send_failed"] += 1

    def _new_id(self) -> int:
        self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        return self._next_id


def _settle(future: asyncio.Future[T], value: T) -> None:
    """Set the result, unless the one who waited for it was cancelled."""
    if not future.done():
        future.set_result(value)


_WRONG_KEY = "a datagram from %s was sealed with another cluster key: give that host and this one the same cluster_key_file"
_TWIN = (
    "the agent at %s has this agent's peer id: its data directory is a copy of this one's; "
    "remove the peer id file from one of them and restart that agent"
)
_SKEWED = (
    "the agent at %s is refused: its clock is %.0f s %s this host's; "
    "set both hosts' clocks (NTP), then restart the agent whose clock was wrong"
)
