"""Keeps a node in touch: finds the first contacts, asks the quiet ones and the suspects, keeps the table whole.

Rules: nothing here is fatal. While the node is alone it tries every configured and remembered address again, with
growing pauses; when it is not, it still looks up the configured names now and then, so that two halves of a cluster
that lost each other meet again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable

from p2pdist.clock import Clock
from p2pdist.discovery import snapshot
from p2pdist.discovery.addresses import HostPort, parse_host_port, resolve
from p2pdist.discovery.routing import Neighbour
from p2pdist.discovery.server import DhtServer
from p2pdist.errors import InvalidInputError
from p2pdist.records import ContentKey, Endpoint
from p2pdist.wire.dht_messages import Method

logger = logging.getLogger(__name__)

_GREETINGS = 32
_GREET_AGAIN = 3
_PROBES = 4
_QUIET_PINGS = 6
_SWEEP_EVERY = 60.0
_LOOKS = (0.3, 0.7, 1.5, 3.0, 6.0, 15.0, 30.0, 60.0, 120.0)

_LOOKS_WIDE = 3
_LOOKS_AGAIN = 2
_LOOKS_IN_VAIN = 3
_LOOK_AGAIN_AFTER = 30.0
_QUARTERS = (0, 2, 3, 1)


class Maintenance:
    """The upkeep of one node; ``run`` in the node's task group."""

    def __init__(self, server: DhtServer, clock: Clock, dice: random.Random) -> None:
        self._server = server
        self._clock = clock
        self._dice = dice
        self._tuning = server.settings.tuning
        self._configured = list(_parsed(server.settings.bootstrap))
        self._remembered: list[HostPort] = []
        self._unresolved: set[HostPort] = set()
        self._greeted = asyncio.Event()
        self._probed_at = clock.now()
        self._turn = dice.randrange(3)

    async def run(self) -> None:
        """Work until cancelled."""
        path = self._server.settings.snapshot
        if path is not None:
            self._remembered = await asyncio.to_thread(snapshot.load, path)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._bootstrap())
            tasks.create_task(self._settle_in())
            tasks.create_task(self._probe())
            tasks.create_task(self._refresh())

    async def find_advertised(self) -> None:
        """Learn the address to tell others from the settings (again: a name's address may change)."""
        if self._server.settings.advertise:
            target = parse_host_port(self._server.settings.advertise)
            endpoints = await resolve(target, self._server.family)
            self._report(target, endpoints)
            if endpoints:
                self._server.protocol.advertised = endpoints[0]

    async def greeted(self) -> None:
        """Return when the first round of greetings is over."""
        await self._greeted.wait()

    async def keep_contacts(self) -> None:
        """Write the contacts' addresses to the snapshot file, those heard from last first; an empty table is not
        worth forgetting the last one for."""
        path = self._server.settings.snapshot
        contacts = sorted(self._server.table.contacts(), key=lambda n: -(n.heard or 0.0))
        if path is not None and contacts:
            await asyncio.to_thread(snapshot.save, path, [contact.endpoint for contact in contacts])

    async def _bootstrap(self) -> None:
        retry = self._tuning.lonely_retry
        while True:
            alone = not len(self._server.table)
            if alone:
                await self._greet_all()
            else:
                await self._greet_some()
            self._greeted.set()
            if len(self._server.table):
                retry = self._tuning.lonely_retry
                await self._rest(self._tuning.refresh_every)
            else:
                await self._clock.sleep(retry * self._dice.uniform(0.8, 1.2))
                retry = min(retry * 2, self._tuning.lonely_retry_cap)

    async def _rest(self, seconds: float) -> None:
        """Sleep, but wake soon after the last contact is lost."""
        until = self._clock.now() + seconds * self._dice.uniform(0.8, 1.2)
        while len(self._server.table) and self._clock.now() < until:
            await self._clock.sleep(1.0)

    async def _greet_all(self) -> None:
        targets = [*self._configured, *self._remembered]
        for start in range(0, len(targets), _GREETINGS):
            await self._greet(targets[start : start + _GREETINGS])
            if len(self._server.table):
                break
        if len(self._server.table):
            await self.look_around()

    async def _greet_some(self) -> None:
        """Greet a few configured addresses that are no contacts."""
        if self._configured:
            await self._greet(
                self._dice.sample(self._configured, min(_GREET_AGAIN, len(self._configured))), _GREET_AGAIN
            )

    async def _greet(self, targets: list[HostPort], most: int = 64) -> None:
        family = self._server.family
        resolved = await asyncio.gather(*(resolve(target, family) for target in targets))
        for target, endpoints in zip(targets, resolved, strict=True):
            self._report(target, endpoints)
        known = {contact.endpoint for contact in self._server.table.contacts()} | self._server.protocol.own
        strangers = list(dict.fromkeys(e for endpoints in resolved for e in endpoints if e not in known))
        self._dice.shuffle(strangers)
        await self._server.protocol.greet(strangers[:most])

    def _report(self, target: HostPort, endpoints: list[Endpoint]) -> None:
        if endpoints:
            self._unresolved.discard(target)
        elif target not in self._unresolved:
            self._unresolved.add(target)
            logger.warning(
                "%s (peer.bootstrap or advertise) has no address this host reaches; trying again", target
            )

    async def look_around(self) -> None:
        """Meet the nodes nearest to this one, and some far away: their answers fill the table. Three times, and it has
        looked everywhere."""
        self._turn += 1
        await self._look(0)
        await self._look(1 + self._turn % 3)

    async def _look(self, quarter: int) -> bool:
        """Meet those near to this node (0), or to some place in another quarter of the space; whether that was news."""
        before = self._server.table.changed
        raw = self._server.settings.peer.raw
        if quarter:
            raw = bytes([(raw[0] & 0xC0 ^ quarter << 6) | self._dice.getrandbits(6)]) + self._dice.randbytes(
                19
            )
        found = await self._server.crawl(ContentKey(raw))
        strangers = await self._server.introduce(found.strangers)
        return strangers or self._server.table.changed != before

    async def _settle_in(self) -> None:
        """Where many nodes start at once, whom one meets first knows few others yet: look again, ever less often. So too
        when someone new is heard from later: two halves of a cluster that lost each other may have met again there."""
        await self._greeted.wait()
        await self._look_on(0)
        while True:
            await self.look_around()
            await self._look_on(_LOOKS_AGAIN)

    async def _look_on(self, number: int) -> None:
        """Look after each pause, at first in two directions. After three looks in different directions without news there
        are no more; then this returns when someone new is heard from, but not too soon after it began."""
        in_vain, began = 0, self._clock.now()
        while True:
            before, quiet = self._server.table.changed, in_vain >= _LOOKS_IN_VAIN
            pause = _LOOKS[number] if number < len(_LOOKS) else self._tuning.refresh_every
            if not quiet:
                await self._clock.sleep(pause * self._dice.uniform(0.8, 1.2))
            elif await self._wait_for_news(pause, before, began + _LOOK_AGAIN_AFTER):
                return
            await self._greet_some()
            if self._server.table.changed != before:
                in_vain = 0
            if len(self._server.table) and number < _LOOKS_WIDE:
                await self.look_around()
            elif len(self._server.table) and in_vain < _LOOKS_IN_VAIN:
                quarter = _QUARTERS[number % len(_QUARTERS)]
                in_vain = 0 if await self._look(quarter) else in_vain + 1
            number += 1

    async def _wait_for_news(self, seconds: float, before: float, earliest: float) -> bool:
        """Sleep; True as soon as someone new has been heard from since ``before``, though not before ``earliest``."""
        until = self._clock.now() + seconds * self._dice.uniform(0.8, 1.2)
        while self._clock.now() < until:
            await self._clock.sleep(self._dice.uniform(0.5, 1.5))
            if self._server.table.changed != before and self._clock.now() >= earliest:
                return True
        return False

    async def _probe(self) -> None:
        """Ask suspects when they are due, and now and then those quiet for long, before a pull has to find out."""
        while True:
            await self._clock.sleep(1.0)
            now = self._clock.now()
            due = self._server.table.due_suspects(now, _PROBES)
            if now - self._probed_at >= self._tuning.probe_every:
                self._probed_at = now
                due += self._server.table.quiet(now - 4 * self._tuning.probe_every, _QUIET_PINGS)
            await asyncio.gather(*(self._ping(neighbour) for neighbour in due))

    async def _ping(self, neighbour: Neighbour) -> None:
        await self._server.protocol.ask(neighbour, Method.PING, ())

    async def _refresh(self) -> None:
        refreshed_at = self._clock.now()
        while True:
            await self._clock.sleep(_SWEEP_EVERY * self._dice.uniform(0.8, 1.2))
            self._server.records.sweep(self._clock.now())
            if self._clock.now() - refreshed_at >= self._tuning.refresh_every:
                refreshed_at = self._clock.now()
                await self.find_advertised()
                await self.look_around()
                await self.keep_contacts()


def _parsed(texts: Iterable[str]) -> Iterable[HostPort]:
    for text in texts:
        try:
            yield parse_host_port(text)
        except InvalidInputError as error:
            logger.warning("a bootstrap address is left out: %s", error)
