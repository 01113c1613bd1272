"""The Discovery port over the cluster's DHT.

    node = DiscoveryNode(DiscoverySettings(peer=..., key=cluster_key.derive("dht"), ...), clock)
    await node.start()       # opens the socket; raises OSError when it cannot
    ...
    await node.close()       # takes the announcements back, within two seconds or so

Always true here: the node owns one task, which owns all others and is awaited by ``close``. Without contacts every
question is answered at once from what is here.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping

from p2pdist.clock import Clock
from p2pdist.discovery.crawl import merge
from p2pdist.discovery.maintenance import Maintenance
from p2pdist.discovery.port import Announcement, Contact
from p2pdist.discovery.publisher import MAX_HERE, Publisher
from p2pdist.discovery.records import Record
from p2pdist.discovery.server import DhtServer
from p2pdist.discovery.service import PROVIDERS, TAGS
from p2pdist.discovery.settings import DiscoverySettings
from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import ContentKey, PeerId, Provider, TagRecord

logger = logging.getLogger(__name__)


class DiscoveryNode:
    """One member of the DHT; see the module's rules."""

    def __init__(self, settings: DiscoverySettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._dice = random.Random(settings.seed)  # noqa: S311  (samples and jitter, no secrets)
        self._server = DhtServer(settings, clock, self._dice)
        self._publisher = Publisher(self._server, clock, self._dice)
        self._maintenance = Maintenance(self._server, clock, self._dice)
        self._server.protocol.on_news = self._publisher.met
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, and greet the bootstrap addresses for at most ``start_within`` seconds; raises OSError."""
        await self._server.listen(self._settings.listen_port, self._settings.listen_host)
        await self._maintenance.find_advertised()
        self._task = asyncio.create_task(self._run(), name="discovery")
        if self._settings.bootstrap or self._settings.snapshot:
            try:
                async with asyncio.timeout(self._settings.tuning.start_within):
                    await self._maintenance.greeted()
            except TimeoutError:
                logger.info("no member of the cluster has answered yet; discovery goes on trying")

    async def close(self) -> None:
        """Keep the contacts, take the announcements back, stop; never raises for what others do."""
        if self._task is None:
            await self.abort()
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._maintenance.keep_contacts()
        try:
            async with asyncio.timeout(self._settings.tuning.close_within):
                await self._publisher.leave()
        except TimeoutError:
            logger.info("not all members answered the farewell; our records there expire by themselves")
        await self.abort()

    async def abort(self) -> None:
        """Stop at once without a word to the others, as a crash would."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._server.stop()
        await self._server.stopped()

    async def find(self, digest: Digest) -> tuple[Provider, ...]:
        key = ContentKey.of_blob(digest)
        records = await self._met(key, PROVIDERS)
        return self._ranked(record for record in records.values() if isinstance(record, Provider))

    async def announce(self, digest: Digest, *, complete: bool = True) -> Announcement:
        if complete:
            await self._publisher.pace()
        announcement = await self._publisher.announce(ContentKey.of_blob(digest), complete=complete)
        return Announcement(self._ranked(announcement.providers), announcement.first)

    async def withdraw(self, digest: Digest) -> None:
        await self._publisher.withdraw(ContentKey.of_blob(digest))

    async def find_tag(self, repository: Repository, tag: str) -> tuple[TagRecord, ...]:
        records = await self._met(ContentKey.of_tag(repository, tag), TAGS)
        tags = (record for record in records.values() if isinstance(record, TagRecord))
        return tuple(sorted(tags, key=lambda record: record.age))

    async def announce_tag(self, repository: Repository, tag: str, record: TagRecord) -> None:
        mine = TagRecord(self._settings.peer, record.digest, record.media_type, record.size, record.age)
        try:
            await self._publisher.announce_tag(ContentKey.of_tag(repository, tag), mine)
        except InvalidInputError as error:
            logger.info("the resolution of %s:%s is not shared: %s", repository, tag, error)

    def contacts(self) -> tuple[Contact, ...]:
        now = self._clock.now()
        return tuple(
            Contact(n.peer, n.endpoint, n.rtt.smoothed, now - n.heard)
            for n in self._server.table.contacts()
            if n.heard is not None
        )

    def suspect(self, peer: PeerId) -> None:
        neighbour = self._server.table.known(peer)
        if neighbour is not None:
            self._server.table.suspect(neighbour, self._clock.now())

    @property
    def port(self) -> int:
        """The UDP port listened on."""
        return self._server.port

    def counters(self) -> Mapping[str, int]:
        """Since the start: datagrams ``in`` and ``out``, those refused by reason, requests ``unanswered``."""
        return dict(self._server.protocol.counts)

    def state(self) -> Mapping[str, int]:
        """As of now: ``contacts``; ``records`` and ``keys`` held for others; keys ``announced`` by this agent."""
        held = self._server.records
        return {
            "contacts": len(self._server.table),
            "records": len(held),
            "keys": held.keys,
            "announced": len(self._publisher),
        }

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._forever(self._maintenance))
            tasks.create_task(self._forever(self._publisher))

    async def _forever(self, part: Maintenance | Publisher) -> None:
        """A fault in the upkeep must not end it: log it, wait, go on."""
        while True:
            try:
                await part.run()
            except Exception:
                logger.exception("discovery's upkeep failed; it goes on in %.0f s", _AFTER_FAULT)
                await self._clock.sleep(_AFTER_FAULT)

    async def _met(self, key: ContentKey, wanted: int) -> dict[PeerId, Record]:
        me, now = self._settings.peer, self._clock.now()
        records: dict[PeerId, Record] = {}
        if wanted == PROVIDERS:
            merge(records, self._server.records.providers(key, MAX_HERE, now, but=me))
        else:
            merge(records, self._server.records.tags(key, now, but=me))
        enough = self._settings.tuning.enough - bool(records)
        found = await self._server.crawl(key, wanted, enough=enough)
        merge(records, found.records.values())
        records.pop(me, None)
        return records

    def _ranked(self, providers: Iterable[Provider]) -> tuple[Provider, ...]:
        """Complete before partial, our zone before others, suspects last; else in random order, to spread the load."""
        shuffled = list(providers)
        self._dice.shuffle(shuffled)
        table, zone = self._server.table, self._settings.zone
        return tuple(
            sorted(shuffled, key=lambda p: (table.is_suspect(p.peer), not p.complete, p.zone != zone))
        )


_AFTER_FAULT = 5.0
