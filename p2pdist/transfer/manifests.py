"""Manifests by tag, and by digest (manifest_fetch.py).

Rules:
- A tag is resolved once per ``tag_ttl`` for the whole cluster: by what this host knows, by what another host asked upstream
  lately, else by upstream. Hosts that ask in the same moment take turns (lease.py), so that one of them asks. With a
  ``tag_ttl`` of 0 every host asks upstream each time, and what is known serves in an outage only.
- In an outage the youngest resolution that is not older than ``tag_stale`` is served. A registry that did not answer is
  tried by one request in ``DOWN_FOR`` seconds; the others do not wait for it if they can be served without.
- A host that was waited for in vain is not waited for again for ``IN_VAIN_FOR`` seconds: it may have died.
- What upstream refuses (not found, denied) is refused; only its absence makes old knowledge good enough.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from p2pdist.errors import (
    DeniedError,
    DigestMismatchError,
    NotFoundError,
    P2PDistError,
    SourceError,
    StoreError,
    StoreFullError,
)
from p2pdist.oci.digest import Digest
from p2pdist.oci.media_types import acceptable
from p2pdist.oci.reference import Repository
from p2pdist.records import PeerId, Provider, TagRecord
from p2pdist.store.port import TagEntry
from p2pdist.transfer.content import ServedManifest, Source
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.fetch import Committed
from p2pdist.transfer.lease import looks
from p2pdist.transfer.manifest_fetch import ManifestFetcher
from p2pdist.transfer.single_flight import SingleFlight

logger = logging.getLogger(__name__)

DOWN_FOR = 10.0
IN_VAIN_FOR = 60.0
RECORDS_TRIED = 3
_SELF = PeerId(bytes(20))


def tag_wish(repository: Repository, tag: str) -> Digest:
    """What stands for the wish to have a tag resolved, where only digests can be announced; nothing has this digest."""
    return Digest.of(f"the wish to resolve {repository}:{tag}".encode())


class ManifestService:
    """See the module's rules. ``tasks`` owns what goes on after a client has its answer."""

    def __init__(self, context: TransferContext, tasks: asyncio.TaskGroup, on_commit: Committed) -> None:
        self._context = context
        self._tasks = tasks
        self._fetcher = ManifestFetcher(context, tasks, on_commit)
        self._by_tag: SingleFlight[ServedManifest] = SingleFlight(tasks)
        self._by_type: SingleFlight[ServedManifest] = SingleFlight(tasks)
        self._down_until: dict[str, float] = {}
        self._in_vain: dict[PeerId, float] = {}

    async def get(
        self, repository: Repository, target: str | Digest, accept: tuple[str, ...] = ()
    ) -> ServedManifest:
        """Raises as Mirror.manifest."""
        if isinstance(target, Digest):
            return await self._fetcher.get(repository, target)
        held = await self._fresh_here(repository, target)
        if held is None:
            held = await self._by_tag.run((repository, target), lambda: self._resolve(repository, target))
        if accept and not acceptable(held.media_type, accept):
            key = (repository, target, accept)
            return await self._by_type.run(key, lambda: self._of_other_type(repository, target, accept))
        return held

    # -- what is known --

    async def _fresh_here(self, repository: Repository, tag: str) -> ServedManifest | None:
        entry = await self._context.store.tag(repository, tag)
        if entry is None or not self._is_fresh(self._age(entry)):
            return None
        return await self._fetcher.held(entry.digest)

    def _age(self, entry: TagEntry) -> float:
        return self._context.clock.wall() - entry.resolved_at

    def _is_fresh(self, age: float) -> bool:
        ttl = self._context.policy.tag_ttl
        return ttl > 0 and 0 <= age <= ttl

    async def _records(self, repository: Repository, tag: str) -> tuple[TagRecord, ...]:
        if not self._fetcher.shares(repository):
            return ()
        return await self._context.discovery.find_tag(repository, tag)

    async def _by_records(
        self, repository: Repository, tag: str, near: tuple[Provider, ...] = ()
    ) -> ServedManifest | None:
        """By what another host was told by upstream within the ttl."""
        for record in (await self._records(repository, tag))[:RECORDS_TRIED]:
            if not self._is_fresh(record.age):
                return None
            told = tuple(each for each in near if each.peer == record.peer)
            served = await self._try_digest(repository, record.digest, told)
            if served is not None:
                await self._record(repository, tag, served, record.age)
                return served
        return None

    async def _try_digest(
        self, repository: Repository, digest: Digest, near: tuple[Provider, ...] = ()
    ) -> ServedManifest | None:
        try:
            return await self._fetcher.get(repository, digest, near)
        except P2PDistError as error:
            logger.info("a tag's manifest %s cannot be had: %s", digest, error)
            return None

    # -- finding out --

    async def _resolve(self, repository: Repository, tag: str) -> ServedManifest:
        served = await self._by_records(repository, tag)
        if served is None and self._is_down(repository):
            served = await self._stale(repository, tag)
        if served is not None:
            return served
        self._begin_trial(repository)
        return await self._take_turns(repository, tag)

    async def _take_turns(self, repository: Repository, tag: str) -> ServedManifest:
        """Ask upstream, unless another host of the cluster is at it; then wait a little for what it finds."""
        if not self._fetcher.shares(repository):
            return await self._by_upstream(repository, tag)
        discovery, wish = self._context.discovery, tag_wish(repository, tag)
        served: ServedManifest | None = None
        try:
            if self._context.policy.tag_ttl > 0:  # else what others are told does not count
                announcement = await discovery.announce(wish, complete=False)
                served = await self._by_those_ahead(repository, tag, announcement.providers)
            if served is None:
                served = await self._by_upstream(repository, tag)
        except BaseException:
            await asyncio.shield(discovery.withdraw(wish))
            raise
        self._tasks.create_task(self._tell(repository, tag, served, wish))
        return served

    async def _by_those_ahead(
        self, repository: Repository, tag: str, providers: tuple[Provider, ...]
    ) -> ServedManifest | None:
        """What those who announced the same wish before are told; the last look, when nobody did, is for who is done."""
        if not self._context.discovery.contacts():
            return None
        now = self._context.clock.now()
        ahead = [each for each in providers if self._in_vain.get(each.peer, 0.0) <= now]
        if not ahead:
            return await self._by_records(repository, tag, providers)
        async for _ in looks(self._context.clock, len(ahead)):
            still = {each.peer for each in await self._context.discovery.find(tag_wish(repository, tag))}
            served = await self._by_records(repository, tag, providers)
            if served is not None or not still.intersection(each.peer for each in ahead):
                return served  # or those ahead were told nothing good, and took their wishes back
        self._in_vain = {peer: until for peer, until in self._in_vain.items() if until > now}
        self._in_vain.update((each.peer, now + IN_VAIN_FOR) for each in ahead)
        return None

    async def _by_upstream(self, repository: Repository, tag: str) -> ServedManifest:
        try:
            served = await self._ask_upstream(repository, tag)
        except (NotFoundError, DeniedError):
            self._down_until.pop(repository.registry, None)
            raise
        except SourceError as error:
            self._down_until[repository.registry] = self._context.clock.now() + DOWN_FOR
            served_stale = await self._stale(repository, tag)
            if served_stale is None:
                raise error
            return served_stale
        self._down_until.pop(repository.registry, None)
        await self._record(repository, tag, served, 0.0)
        return served

    async def _ask_upstream(self, repository: Repository, tag: str) -> ServedManifest:
        """Upstream's answer; where an older one is held, a HEAD first, which costs no pull at a rate-limited registry."""
        if await self._context.store.tag(repository, tag) is not None:
            head = await self._context.upstream.manifest(repository, tag, head=True)
            return await self._fetcher.get(repository, head.digest)
        return await self._get(repository, tag)

    async def _get(self, repository: Repository, tag: str, accept: tuple[str, ...] = ()) -> ServedManifest:
        started = self._context.clock.now()
        answer = await self._context.upstream.manifest(repository, tag, accept=accept)
        return await self._fetcher.keep(repository, answer, Source.UPSTREAM, started)

    async def _of_other_type(
        self, repository: Repository, tag: str, accept: tuple[str, ...]
    ) -> ServedManifest:
        """What upstream answers to a client that does not take the usual type; not remembered for the tag."""
        try:
            served = await self._get(repository, tag, accept)
        except DigestMismatchError as error:
            raise NotFoundError(f"{repository}:{tag} has no manifest of the accepted types") from error
        if not acceptable(served.media_type, accept):
            raise NotFoundError(
                f"{repository}:{tag} is a {served.media_type}, which the client does not accept"
            )
        return served

    # -- outages --

    def _is_down(self, repository: Repository) -> bool:
        return self._context.clock.now() < self._down_until.get(repository.registry, 0.0)

    def _begin_trial(self, repository: Repository) -> None:
        """A registry that was down is tried by this request; until it has an answer, others count it as down."""
        if repository.registry in self._down_until:
            self._down_until[repository.registry] = self._context.clock.now() + DOWN_FOR

    async def _stale(self, repository: Repository, tag: str) -> ServedManifest | None:
        """The youngest resolution that is not too old, and whose manifest can be had.

        One that is younger than what is known here is remembered, with its age: what is pulled so has its name here too.
        """
        known: list[tuple[float, Digest]] = []
        entry = await self._context.store.tag(repository, tag)
        if entry is not None:
            known.append((max(0.0, self._age(entry)), entry.digest))
        records = await self._records(repository, tag)
        known += [(record.age, record.digest) for record in records[:RECORDS_TRIED]]
        for age, digest in sorted(known, key=lambda each: each[0]):
            if age > self._context.policy.tag_stale:
                continue
            served = await self._try_digest(repository, digest)
            if served is not None:
                if entry is None or age < self._age(entry):
                    await self._record(repository, tag, served, age)
                logger.warning(
                    "upstream is down; %s:%s is served as resolved %.0f s ago", repository, tag, age
                )
                return replace(served, stale=True)
        return None

    # -- remembering, and telling --

    async def _record(self, repository: Repository, tag: str, served: ServedManifest, age: float) -> None:
        at = self._context.clock.wall() - age
        entry = TagEntry(repository, tag, served.digest, served.media_type, served.size, at, at)
        try:
            await self._context.store.record_tag(entry)
        except (StoreFullError, StoreError) as error:  # the disk's fault is no reason to fail a pull
            logger.warning("that %s:%s is %s is not remembered: %s", repository, tag, served.digest, error)

    async def _tell(self, repository: Repository, tag: str, served: ServedManifest, wish: Digest) -> None:
        """Share a resolution; first that the manifest is here, so that who hears of the one finds the other."""
        discovery = self._context.discovery
        try:
            if not served.stale:
                if await self._context.store.stat(served.digest) is not None:
                    await discovery.announce(served.digest)
                record = TagRecord(_SELF, served.digest, served.media_type, served.size, 0.0)
                await discovery.announce_tag(repository, tag, record)
            await discovery.withdraw(wish)
        except Exception:
            logger.exception("telling the cluster of %s:%s failed", repository, tag)
