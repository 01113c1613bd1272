"""Runs a lookup over the network: asks whom ``Lookup`` names, hands it what comes back, gathers the records met.

One object for one lookup; it makes no tasks, only callbacks and timers that end with it. It takes the place of
kademlia's SpiderCrawl.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace

from p2pdist.discovery.hedge import Hedge
from p2pdist.discovery.lookup import Lookup
from p2pdist.discovery.protocol import DhtProtocol
from p2pdist.discovery.records import Record
from p2pdist.discovery.routing import Neighbour
from p2pdist.discovery.service import NOTHING, PROVIDERS, TAGS, Body, as_contact
from p2pdist.errors import InvalidInputError
from p2pdist.records import MAX_RECORD_BYTES, ContentKey, PeerId, Provider, TagRecord
from p2pdist.wire import codec
from p2pdist.wire.dht_messages import Method

_MOST_CONTACTS = 32
_MOST_RECORDS = 64
_MOST_STRANGERS = 64


@dataclass(frozen=True, slots=True)
class Found:
    """Where a key's records belong, nearest first; who may belong there too but has not answered yet; the records met
    on the way, one for each peer; whom the answers named and this node had not heard from then."""

    nearest: list[Neighbour]
    stragglers: list[Neighbour]
    records: dict[PeerId, Record]
    strangers: list[Neighbour]


class Crawl:
    """``wanted`` says which records to ask for; with ``enough`` the crawl ends when so many nodes hold some."""

    def __init__(
        self,
        protocol: DhtProtocol,
        key: ContentKey,
        *,
        wanted: int = NOTHING,
        width: int,
        enough: int | None = None,
        sparing: bool = False,
    ) -> None:
        self._protocol = protocol
        self._key = key
        self._wanted = wanted
        target = int.from_bytes(key.raw, "big")
        self._lookup: Lookup[Neighbour] = Lookup(
            target, width=width, alpha=protocol.tuning.alpha, enough=enough, sparing=sparing
        )
        self._records: dict[PeerId, Record] = {}
        self._strangers: dict[PeerId, Neighbour] = {}
        self._hedges: set[Hedge] = set()
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()

    async def run(self, start: Iterable[Neighbour]) -> Found:
        """Search from ``start`` on; ends at the deadline at the latest, with what there is."""
        self._lookup.learn(start)
        deadline = self._loop.call_later(self._protocol.tuning.deadline, self._end)
        self._go_on()
        try:
            await self._over
        finally:
            self._end()
            deadline.cancel()
            for hedge in self._hedges:
                hedge.cancel()
        return Found(
            self._lookup.nearest(), self._lookup.stragglers(), self._records, [*self._strangers.values()]
        )

    def _go_on(self) -> None:
        if self._over.done():
            return
        if self._lookup.over:
            self._end()
            return
        for node in self._lookup.next():
            self._ask(node)

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _ask(self, node: Neighbour) -> None:
        watch = Hedge(self._protocol, node, self._slow)
        self._hedges.add(watch)

        def done(answer: Body | None) -> None:
            watch.cancel()
            self._hedges.discard(watch)
            self._answered(node, answer)

        self._protocol.call(node, Method.FIND, (self._key.raw, self._wanted), done)

    def _slow(self, node: Neighbour) -> None:
        self._lookup.slow(node)
        self._go_on()

    def _answered(self, node: Neighbour, answer: Body | None) -> None:
        if self._over.done():
            return
        if answer is None:
            self._lookup.missed(node)
        else:
            try:
                holds = self._take(node, answer)
            except InvalidInputError:
                self._lookup.missed(node)
            else:
                self._lookup.answered(node, holds=holds)
        self._go_on()

    def _take(self, node: Neighbour, answer: Body) -> bool:
        contacts, records = (codec.as_tuple(part, 0) for part in codec.as_tuple(answer, 2)[:2])
        candidates = [told_of(contact, self._protocol) for contact in contacts[:_MOST_CONTACTS]]
        known = [candidate for candidate in candidates if candidate is not None]
        for candidate in known:
            if candidate.heard is None and len(self._strangers) < _MOST_STRANGERS:
                self._strangers[candidate.peer] = candidate
        self._lookup.learn(known)
        read = read_records(records, self._wanted, node)
        merge(self._records, read)
        return bool(read)


def told_of(contact: object, protocol: DhtProtocol) -> Neighbour | None:
    """The node that an answer names; None for one of no use, a suspect, or this node itself."""
    read = as_contact(contact)
    if read is None or not protocol.family.reaches(read[1]):
        return None
    return protocol.router.hearsay(*read)


def read_records(values: tuple[object, ...], wanted: int, teller: Neighbour) -> list[Record]:
    """The records of an answer by ``teller``, of at most 64; one that is not understood (a later version's) is left out.

    A node that knows no address of its own puts none in its record: it is where it answers from.
    """
    raw = values[:_MOST_RECORDS]
    if wanted == TAGS:
        return codec.understood(_read_tag_record, raw)
    if wanted == PROVIDERS:
        providers = codec.understood(_read_provider, raw)
        told = (
            replace(p, endpoints=(teller.endpoint,)) if p.peer == teller.peer and not p.endpoints else p
            for p in providers
        )
        return [provider for provider in told if provider.endpoints]
    return []


def _read_tag_record(value: object) -> TagRecord:
    return codec.decode_tag_record(codec.as_bytes(value, MAX_RECORD_BYTES))


def _read_provider(value: object) -> Provider:
    return codec.decode_provider(codec.as_bytes(value, MAX_RECORD_BYTES))


def merge(into: dict[PeerId, Record], records: Iterable[Record]) -> None:
    """Take records in: of two of one peer, a complete provider beats a partial one, a younger tag an older one."""
    for record in records:
        known = into.get(record.peer)
        if known is None or _better(record, known):
            into[record.peer] = record


def _better(record: Record, known: Record) -> bool:
    if isinstance(record, TagRecord):
        return isinstance(known, TagRecord) and record.age < known.age
    return isinstance(known, Provider) and record.complete and not known.complete
