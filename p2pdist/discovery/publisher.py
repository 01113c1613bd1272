"""What this agent has announced: where each record lies, and its renewal until it is withdrawn.

Rules:
- A record lies on the ``replicas`` live nodes nearest to its key, this node among them when it is that near. Where this
  node knows everyone near, one of content that is only being fetched lies on half as many: it is of use for a short time.
- Who the nearest are takes a search, unless it was placed lately, or this node knows everyone near (``DhtServer.settled``).
  Should one of those know a nearer node that this one does not, or one not answer, there is a search after all.
- Whether an announcement is the first is decided at one node: the nearest that answered. It took the records in some
  order, and the one before which there was none is the first. A record elsewhere that is older than any race could
  make it (a node near the key that was just started knows none) overrules that.
- Renewal sends each storing node the list of the keys it should hold. Where a node has lost one (it was restarted),
  or too few answer, the record is placed anew. A node newly met that is near to a key is handed the record.
- All this is paced by one bucket, so that ten thousand blobs make no burst.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from p2pdist.clock import Clock
from p2pdist.discovery.crawl import merge, read_records, told_of
from p2pdist.discovery.limits import Bucket
from p2pdist.discovery.port import Announcement
from p2pdist.discovery.records import Placed, Record
from p2pdist.discovery.routing import Neighbour
from p2pdist.discovery.server import DhtServer
from p2pdist.discovery.service import KEYS_PER_MESSAGE, PROVIDERS, TAGS, Body
from p2pdist.errors import InvalidInputError
from p2pdist.records import ContentKey, PeerId, Provider, TagRecord
from p2pdist.wire import codec
from p2pdist.wire.dht_messages import Method

MAX_TAGS = 2048
MAX_HERE = 32
SETTLE = 5.0
_STORERS_KNOWN_FOR = 300.0
_CHUNK_PAUSE = 0.02


@dataclass(slots=True)
class Published:
    """One announcement of ours. ``tag`` is set for tag records, whose age was true at ``since``; ``unsure`` are those of
    the ``storers`` that have not said that they have it."""

    complete: bool = True
    tag: TagRecord | None = None
    since: float = 0.0
    storers: tuple[Neighbour, ...] = ()
    unsure: tuple[Neighbour, ...] = ()
    placed_at: float | None = None


@dataclass(slots=True)
class _Verdict:
    """What the storing nodes said: each one's placing, by its distance to the key; the others' records; and whether
    any named a nearer node that is not known here."""

    placed: dict[int, Placed] = field(default_factory=dict)
    others: dict[PeerId, Record] = field(default_factory=dict)
    stranger: bool = False

    @property
    def complete(self) -> bool:
        """Whether the nearest known are the nearest, and have told what records there are."""
        return not self.stranger and (bool(self.others) or not any(p.earlier for p in self.placed.values()))

    def announcement(self) -> Announcement:
        nearest = min(self.placed, default=None)
        first = nearest is None or self.placed[nearest].earlier == 0
        established = any(placed.established for placed in self.placed.values())
        providers = tuple(record for record in self.others.values() if isinstance(record, Provider))
        if not providers or (first and not established):
            return Announcement((), first=True)
        return Announcement(providers, first=False)


class Publisher:
    """Places, renews and withdraws the records of one node."""

    def __init__(self, server: DhtServer, clock: Clock, dice: random.Random) -> None:
        self._server = server
        self._clock = clock
        self._dice = dice
        self._tuning = server.settings.tuning
        self._me = server.settings.peer
        self._bucket = Bucket(self._tuning.announce_rate, self._tuning.announce_burst, clock.now())
        self._mine: dict[ContentKey, Published] = {}
        self._tags: dict[ContentKey, None] = {}
        self._news: set[Neighbour] = set()

    def __len__(self) -> int:
        return len(self._mine)

    def met(self, neighbour: Neighbour) -> None:
        """A contact is new, back, or has been restarted: it may be missing records of ours."""
        if self._mine and len(self._news) < 1024:
            self._news.add(neighbour)

    async def pace(self) -> None:
        """Wait for the turn of one more announcement that nobody is waiting for."""
        wait = self._bucket.reserve(self._clock.now())
        if wait > 0:
            await self._clock.sleep(wait)

    async def announce(self, key: ContentKey, *, complete: bool) -> Announcement:
        """Place a provider record; what it found there."""
        published = self._mine.setdefault(key, Published())
        published.complete = complete
        return await self._place(key, published)

    async def announce_tag(self, key: ContentKey, tag: TagRecord) -> None:
        """Place a tag record; of too many, the one placed first is no longer renewed. Raises InvalidInputError when the
        record is beyond its bounds."""
        codec.encode_tag_record(tag)
        published = self._mine.setdefault(key, Published())
        published.tag, published.since = tag, self._clock.now()
        self._tags.pop(key, None)
        self._tags[key] = None
        if len(self._tags) > MAX_TAGS:
            oldest = next(iter(self._tags))
            del self._tags[oldest]
            del self._mine[oldest]
        await self._place(key, published)

    async def withdraw(self, key: ContentKey) -> None:
        """Take a record back from where it lies."""
        published = self._mine.pop(key, None)
        if published is not None:
            self._server.records.withdraw(self._me, [key])
            await self._server.ask_all(list(published.storers), Method.WITHDRAW, (key.raw,))

    async def leave(self) -> None:
        """Take all records back, and tell the contacts that this node is going."""
        storers = {storer for published in self._mine.values() for storer in published.storers}
        self._mine.clear()
        self._server.records.leave(self._me)
        await self._server.ask_all(list(storers | set(self._server.table.contacts())), Method.LEAVE, ())

    async def run(self) -> None:
        """Renew and hand over until cancelled."""
        due = self._clock.now() + self._interval()
        while True:
            await self._clock.sleep(SETTLE)
            if self._news:
                await self.hand_over()
            if self._clock.now() >= due:
                await self.renew()
                due = self._clock.now() + self._interval()

    async def renew(self) -> None:
        """Renew everything once; place anew what has too few holders."""
        self._server.records.renew(self._me, list(self._mine), self._tuning.ttl, self._clock.now())
        lost: dict[ContentKey, set[Neighbour]] = {key: set() for key in self._mine}
        for storer, keys in self._by_storer().items():
            for start in range(0, len(keys), KEYS_PER_MESSAGE):
                chunk = keys[start : start + KEYS_PER_MESSAGE]
                for key in await self._renew_at(storer, chunk):
                    lost.setdefault(key, set()).add(storer)
                await self._clock.sleep(_CHUNK_PAUSE)
        for key, without in lost.items():
            published = self._mine.get(key)
            if published is not None and (without or self._thin(key, published)):
                await self.pace()
                published.placed_at = None
                await self._place(key, published)

    async def hand_over(self) -> None:
        """Give those newly met the records that are near to them."""
        news, self._news = self._news, set()
        for number, (key, published) in enumerate(list(self._mine.items())):
            if number % 200 == 199:
                await self._clock.sleep(_CHUNK_PAUSE)
            for neighbour in news:
                if key in self._mine and self._belongs(key, published, neighbour):
                    await self.pace()
                    answers = await self._server.ask_all([neighbour], *self._request(key, published))
                    published.storers = (*_without(published.storers, neighbour), neighbour)
                    unsure = _without(published.unsure, neighbour)
                    published.unsure = unsure if answers else (*unsure, neighbour)

    async def _place(self, key: ContentKey, published: Published) -> Announcement:
        wanted = TAGS if published.tag is not None else PROVIDERS
        verdict = _Verdict()
        now = self._clock.now()
        merge(verdict.others, self._server.records.providers(key, MAX_HERE, now, but=self._me))
        targets = self._known_storers(key, published)
        if targets is None or not await self._place_at(targets, key, published, verdict):
            found = await self._server.crawl(key, wanted)
            merge(verdict.others, found.records.values())
            for straggler in found.stragglers:
                self._server.protocol.tell(straggler, *self._request(key, published))
            await self._place_at(found.nearest, key, published, verdict)
        if self._mine.get(key) is not published:
            await self._take_back(key, list(published.storers))
        verdict.others.pop(self._me, None)
        return verdict.announcement()

    def _known_storers(self, key: ContentKey, published: Published) -> list[Neighbour] | None:
        """Where to place it without a search: where it was lately, as long as all of those live; or at the nearest of
        all, when all are known."""
        placed_at, most = published.placed_at, self._copies(key, published)
        lately = placed_at is not None and self._clock.now() - placed_at < _STORERS_KNOWN_FOR
        alive = bool(published.storers) and all(map(self._server.table.alive, published.storers))
        if lately and alive and not self._thin(key, published):
            distance = int.from_bytes(key.raw, "big")
            return sorted(published.storers, key=lambda storer: storer.long_id ^ distance)[:most]
        return self._server.near(key, most) if self._server.settled(key) else None

    def _copies(self, key: ContentKey, published: Published) -> int:
        """On how many nodes it should lie."""
        brief = published.tag is None and not published.complete and self._server.settled(key)
        return (self._tuning.replicas + 1) // 2 if brief else self._tuning.replicas

    async def _place_at(
        self, targets: list[Neighbour], key: ContentKey, published: Published, verdict: _Verdict
    ) -> bool:
        """Place it at these (nearest first) where it was not placed a moment ago; whether that is enough."""
        distance = int.from_bytes(key.raw, "big")
        mine = self._server.node.long_id ^ distance
        copies = self._copies(key, published)
        targets = targets[:copies]
        if len(targets) < copies or mine < targets[-1].long_id ^ distance:
            verdict.placed[mine] = self._place_here(key, published)
            targets = targets[: copies - 1]
        missing = [target for target in targets if target.long_id ^ distance not in verdict.placed]
        answers = await self._ask_to_keep(missing, key, published)
        for storer, answer in answers.items():
            if published.tag is None:
                self._read(verdict, storer, storer.long_id ^ distance, answer)
        published.storers, published.placed_at = tuple(targets), self._clock.now()
        published.unsure = tuple(target for target in missing if target not in answers)
        enough = published.tag is not None or verdict.complete
        return enough and all(map(self._server.table.alive, targets))

    async def _ask_to_keep(
        self, targets: list[Neighbour], key: ContentKey, published: Published
    ) -> dict[Neighbour, Body]:
        """A few of the nearest are asked for the records there; all have the same, as a rule."""
        method, body = self._request(key, published)
        few = self._tuning.enough if method is Method.ANNOUNCE else len(targets)
        brief = dict.fromkeys(targets[few:], (*body, False))
        nearest = targets[0] if targets else None
        return await self._server.ask_all(targets, method, body, insist=nearest, bodies=brief)

    def _place_here(self, key: ContentKey, published: Published) -> Placed:
        now = self._clock.now()
        record = self._record(published)
        return self._server.records.put(key, record, self._tuning.ttl, now)

    def _record(self, published: Published) -> Record:
        tag = published.tag
        if tag is not None:
            age = tag.age + self._clock.now() - published.since
            return TagRecord(self._me, tag.digest, tag.media_type, tag.size, age)
        advertised = self._server.protocol.advertised
        endpoints = (advertised,) if advertised is not None else ()
        return Provider(self._me, endpoints, self._server.settings.zone, published.complete)

    def _request(self, key: ContentKey, published: Published) -> tuple[Method, Body]:
        ttl = codec.to_ms(self._tuning.ttl)
        record = self._record(published)
        if isinstance(record, TagRecord):
            return Method.PUT_TAG, (key.raw, ttl, codec.encode_tag_record(record))
        return Method.ANNOUNCE, (key.raw, ttl, record.complete, record.zone)

    async def _take_back(self, key: ContentKey, targets: list[Neighbour]) -> None:
        """It was withdrawn while it was being placed."""
        if key not in self._mine:
            self._server.records.withdraw(self._me, [key])
            await self._server.ask_all(targets, Method.WITHDRAW, (key.raw,))

    async def _renew_at(self, storer: Neighbour, keys: list[ContentKey]) -> Iterable[ContentKey]:
        """The keys that ``storer`` does not hold; all of them when it does not answer."""
        ttl = codec.to_ms(self._tuning.ttl)
        body = (ttl, codec.join_keys(keys))
        answer = await self._server.protocol.ask(storer, Method.RENEW, body)
        if answer is None:  # one lost datagram is cheaper asked again than 48 records placed anew
            answer = await self._server.protocol.ask(storer, Method.RENEW, body)
        try:
            return keys if answer is None else codec.split_keys(codec.as_tuple(answer, 1)[0], len(keys))
        except InvalidInputError:
            return keys

    def _by_storer(self) -> dict[Neighbour, list[ContentKey]]:
        storers: dict[Neighbour, list[ContentKey]] = {}
        for key, published in self._mine.items():
            for storer in published.storers:
                storers.setdefault(storer, []).append(key)
        return storers

    def _thin(self, key: ContentKey, published: Published) -> bool:
        """Whether more nodes could hold it than do."""
        return len(published.storers) < min(self._copies(key, published) - 1, len(self._server.table))

    def _belongs(self, key: ContentKey, published: Published, neighbour: Neighbour) -> bool:
        """Whether it held the record and was restarted, or lacks it and is nearer to the key than one that holds it."""
        storers = published.storers
        if neighbour in storers and neighbour not in published.unsure:
            return published.placed_at is None or neighbour.since >= published.placed_at
        if len(storers) < self._copies(key, published) - 1:
            return True
        distance = int.from_bytes(key.raw, "big")
        furthest = max(storer.long_id ^ distance for storer in storers)
        return neighbour.long_id ^ distance <= furthest

    def _read(self, verdict: _Verdict, storer: Neighbour, distance: int, answer: Body) -> None:
        """Take one storing node's answer in; a malformed one counts for nothing."""
        try:
            kept, earlier, established, records, *nearer = codec.as_tuple(answer, 4)[:5]
            read = read_records(codec.as_tuple(records, 0), PROVIDERS, storer)
            verdict.placed[distance] = Placed(
                codec.as_bool(kept), codec.as_int(earlier, 0, 1 << 20), codec.as_bool(established)
            )
        except InvalidInputError:
            return
        merge(verdict.others, read)
        named = [told_of(contact, self._server.protocol) for contact in nearer]
        verdict.stranger |= any(each is not None and each.heard is None for each in named)

    def _interval(self) -> float:
        return self._tuning.renew_every * self._dice.uniform(0.9, 1.1)


def _without(storers: tuple[Neighbour, ...], neighbour: Neighbour) -> tuple[Neighbour, ...]:
    return tuple(storer for storer in storers if storer.peer != neighbour.peer)
