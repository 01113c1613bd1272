"""kademlia's Server with this package's parts: sealed protocol, merging storage, own table and crawl.

It owns the socket: ``listen`` opens it, ``stop`` closes it, ``stopped`` returns when it is closed.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from kademlia.network import Server
from kademlia.node import Node

from p2pdist.clock import Clock
from p2pdist.discovery import addresses
from p2pdist.discovery.addresses import Family
from p2pdist.discovery.crawl import Crawl, Found
from p2pdist.discovery.hedge import Hedge
from p2pdist.discovery.protocol import DhtProtocol
from p2pdist.discovery.records import RecordStore
from p2pdist.discovery.routing import ContactTable, Neighbour
from p2pdist.discovery.service import NOTHING, Body
from p2pdist.discovery.settings import DiscoverySettings
from p2pdist.records import ContentKey
from p2pdist.wire.datagram import SESSION_BYTES, Sealer
from p2pdist.wire.dht_messages import Method

_HANDED_OVER = 15.0
_INTRODUCED = 32


class DhtServer(Server):  # type: ignore[misc]  # kademlia has no type information
    """One node's sockets, contacts and records; asks the network, decides nothing."""

    protocol_class = DhtProtocol
    protocol: DhtProtocol

    def __init__(self, settings: DiscoverySettings, clock: Clock, dice: random.Random) -> None:
        tuning = settings.tuning
        self.records = RecordStore(dice)
        super().__init__(tuning.bucket, tuning.alpha, settings.peer.raw, self.records)
        self.settings = settings
        self.clock = clock
        self.dice = dice
        self.table = ContactTable(settings.peer, tuning.bucket)
        self.family = Family(settings.listen_host)
        self.protocol = self._create_protocol()

    def _create_protocol(self) -> DhtProtocol:
        sealer = Sealer(
            self.settings.key,
            secrets.token_bytes(SESSION_BYTES),
            wall=self.clock.wall(),
            now=self.clock.now(),
        )
        return self.protocol_class(
            self.settings.peer,
            sealer,
            self.table,
            self.records,
            self.clock,
            family=self.family,
            tuning=self.settings.tuning,
            dice=self.dice,
        )

    async def listen(self, port: int, interface: str = "0.0.0.0") -> None:  # noqa: S104  (kademlia's signature)
        """Open the socket; raises OSError."""
        sock = addresses.bind(interface, port)
        try:
            loop = asyncio.get_running_loop()
            self.transport, _ = await loop.create_datagram_endpoint(lambda: self.protocol, sock=sock)
        except BaseException:
            sock.close()
            raise

    def stop(self) -> None:
        """Close the socket; whoever waits for an answer gets None."""
        self.protocol.close()
        super().stop()

    async def stopped(self) -> None:
        """Return when the socket is closed."""
        if self.transport is not None:
            await self.protocol.lost.wait()

    @property
    def port(self) -> int:
        """The UDP port listened on."""
        port = self.transport.get_extra_info("sockname")[1]
        assert isinstance(port, int)
        return port

    async def crawl(self, key: ContentKey, wanted: int = NOTHING, *, enough: int | None = None) -> Found:
        """Find the live nodes nearest to ``key``, and the records met on the way."""
        start, began = self.near(key, self.settings.tuning.bucket), self.clock.now()
        if not start:
            return Found([], [], {}, [])
        width, sparing = self._width(key, enough), self.settled(key)
        crawl = Crawl(self.protocol, key, wanted=wanted, width=width, enough=enough, sparing=sparing)
        found = await crawl.run(start)
        self.table.searched(key, began, news=bool(found.strangers))
        return found

    def near(self, key: ContentKey, most: int) -> list[Neighbour]:
        """The contacts nearest to ``key``."""
        return self.table.find_neighbors(Node(key.raw), most)

    def settled(self, key: ContentKey) -> bool:
        """Whether this node knows those nearest to ``key``, as far as one can know: they need not be searched for then."""
        return self.table.settled(key, self.settings.tuning.replicas)

    async def introduce(self, strangers: list[Neighbour]) -> bool:
        """Say a word to those that others named, that this node has still not heard from, and that would be contacts; to
        some of them, if many. Whether there were any."""
        named = [self.table.hearsay(each.peer, each.endpoint) for each in strangers]
        unheard = [
            each for each in named if each is not None and each.heard is None and self.table.has_room(each)
        ]
        await self.ask_all(unheard[:_INTRODUCED], Method.PING, ())
        return bool(unheard)

    def _width(self, key: ContentKey, enough: int | None) -> int:
        """Of how many of the nearest to hear. Where everyone is known, and nobody came so lately that he may not have
        been handed yet what belongs to him, a few that hold nothing are proof enough that there is nothing."""
        replicas = self.settings.tuning.replicas
        if enough is None or not self.settled(key) or self.clock.now() - self.table.changed < _HANDED_OVER:
            return replicas
        return min(replicas, enough + 1)

    async def ask_all(
        self,
        targets: list[Neighbour],
        method: Method,
        body: Body,
        *,
        insist: Neighbour | None = None,
        bodies: Mapping[Neighbour, Body] = MappingProxyType({}),
    ) -> dict[Neighbour, Body]:
        """Ask many at once: the answers that came before it made no sense to wait longer.

        ``insist`` is waited for with all the patience there is, the others as a lookup waits. Those in ``bodies`` are
        asked that instead.
        """
        if not targets:
            return {}
        return await _Round(self.protocol, targets, insist).run(method, body, bodies)


class _Round:
    """One request to many; see ``ask_all``."""

    def __init__(self, protocol: DhtProtocol, targets: list[Neighbour], insist: Neighbour | None) -> None:
        self._protocol = protocol
        self._insist = insist
        self._targets = targets
        self._waited_for = set(targets)
        self._answers: dict[Neighbour, Body] = {}
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hedges: dict[Neighbour, Hedge] = {}

    async def run(
        self, method: Method, body: Body, bodies: Mapping[Neighbour, Body]
    ) -> dict[Neighbour, Body]:
        for target in self._targets:
            self._protocol.call(target, method, bodies.get(target, body), partial(self._answered, target))
            if target is not self._insist:
                self._hedges[target] = Hedge(self._protocol, target, self._settle)
        try:
            await self._over
        finally:
            for hedge in self._hedges.values():
                hedge.cancel()
        return dict(self._answers)

    def _answered(self, target: Neighbour, answer: Body | None) -> None:
        if answer is not None:
            self._answers[target] = answer
        self._settle(target)

    def _settle(self, target: Neighbour) -> None:
        self._waited_for.discard(target)
        if target in self._hedges:
            self._hedges[target].cancel()
        if not self._waited_for and not self._over.done():
            self._over.set_result(None)
