"""Manifests by digest and by tag.

Rules:
- A manifest is small: it is fetched whole, verified, stored, and only then served.
- A tag is resolved once per ``tag_ttl`` for the whole cluster: by what this host knows, by what another host asked upstream
  lately, else by upstream. In an outage the youngest resolution that is not older than ``tag_stale`` is served.
- What upstream refuses (not found, denied) is refused; only its absence makes old knowledge good enough.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from p2pdist.errors import (
    DigestMismatchError,
    InvalidInputError,
    NotFoundError,
    P2PDistError,
    SourceError,
    StoreFullError,
)
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST, parse_manifest, sniff_media_type
from p2pdist.oci.media_types import acceptable
from p2pdist.oci.reference import Repository
from p2pdist.records import PeerId, Provider, TagRecord
from p2pdist.store.port import TagEntry
from p2pdist.transfer.content import ServedManifest, Source
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.fetch import Committed
from p2pdist.transfer.single_flight import SingleFlight
from p2pdist.transfer.source_plan import note_failure
from p2pdist.upstream.port import UpstreamManifest

logger = logging.getLogger(__name__)

PEERS_ASKED = 4
_SELF = PeerId(bytes(20))


class ManifestService:
    """See the module's rules."""

    def __init__(self, context: TransferContext, tasks: asyncio.TaskGroup, on_commit: Committed) -> None:
        self._context = context
        self._on_commit = on_commit
        self._by_digest: SingleFlight[ServedManifest] = SingleFlight(tasks)
        self._by_tag: SingleFlight[ServedManifest] = SingleFlight(tasks)

    async def get(
        self, repository: Repository, target: str | Digest, accept: tuple[str, ...] = ()
    ) -> ServedManifest:
        """Raises as Mirror.manifest."""
        if isinstance(target, Digest):
            return await self._get_by_digest(repository, target)
        held = await self._fresh_here(repository, target)
        if held is None:
            held = await self._by_tag.run((repository, target), lambda: self._resolve(repository, target))
        if accept and not acceptable(held.media_type, accept):
            return await self._get_other_type(repository, target, accept)
        return held

    # -- by digest --

    async def _get_by_digest(self, repository: Repository, digest: Digest) -> ServedManifest:
        held = await self._held(digest)
        if held is not None:
            return held
        return await self._by_digest.run(digest, lambda: self._fetch(repository, digest))

    async def _held(self, digest: Digest) -> ServedManifest | None:
        info = await self._context.store.stat(digest)
        if info is None or info.size > MAX_MANIFEST:
            return None
        body = await self._context.store.read(digest, MAX_MANIFEST)
        if body is None:
            return None
        return ServedManifest(
            digest, info.media_type or sniff_media_type(body), len(body), body, Source.STORE
        )

    async def _fetch(self, repository: Repository, digest: Digest) -> ServedManifest:
        started = self._context.clock.now()
        served = await self._from_peers(repository, digest)
        if served is None:
            served = await self._from_upstream(repository, digest)
        self._context.hooks.fetched(
            repository,
            digest,
            "manifest",
            self._context.clock.now() - started,
            {served.source.value: served.size},
        )
        return served

    async def _from_upstream(
        self, repository: Repository, target: str | Digest, accept: tuple[str, ...] = ()
    ) -> ServedManifest:
        answer = await self._context.upstream.manifest(repository, target, accept=accept)
        return await self._keep(repository, answer, Source.UPSTREAM)

    async def _from_peers(self, repository: Repository, digest: Digest) -> ServedManifest | None:
        context = self._context
        if not context.policy.shares(repository.registry):
            return None
        found = await context.discovery.find(digest)
        ordered = context.health.order(list(found), context.clock.now(), context.policy.zone)
        for provider in ordered[:PEERS_ASKED]:
            answer = await self._ask_peer(provider, digest)
            if answer is not None:
                return await self._keep(repository, answer, Source.PEER)
        return None

    async def _ask_peer(self, provider: Provider, digest: Digest) -> UpstreamManifest | None:
        context = self._context
        try:
            async with context.peers.blob(provider, digest) as stream:
                if stream.size > MAX_MANIFEST:
                    return None
                body = b"".join([chunk async for chunk in stream.chunks()])
                media_type = stream.media_type
        except P2PDistError as error:
            logger.debug("peer %s gave no manifest %s: %s", provider.peer.short, digest, error)
            note_failure(context, provider.peer, error, progressed=False)
            return None
        if Digest.of(body, digest.algorithm) != digest:
            context.hooks.verify_failed("peer", digest, provider.peer)
            context.health.banned(provider.peer, context.clock.now())
            context.hooks.banned(provider.peer, f"sent a wrong manifest for {digest}")
            return None
        return UpstreamManifest(digest, media_type or sniff_media_type(body), len(body), body)

    async def _keep(self, repository: Repository, answer: UpstreamManifest, source: Source) -> ServedManifest:
        assert answer.body is not None
        shared = self._context.policy.shares(repository.registry)
        await self._learn(repository, answer)
        try:
            await self._context.store.put(answer.digest, answer.body, answer.media_type, shared=shared)
        except StoreFullError as error:
            logger.warning("manifest %s is served but not kept: %s", answer.digest, error)
        else:
            self._on_commit(answer.digest, shared=shared)
        return ServedManifest(answer.digest, answer.media_type, answer.size, answer.body, source)

    async def _learn(self, repository: Repository, answer: UpstreamManifest) -> None:
        """Remember what the manifest names, so that sizes are known before the blobs are asked for."""
        assert answer.body is not None
        try:
            manifest = parse_manifest(answer.body, answer.media_type)
        except InvalidInputError as error:
            logger.info("manifest %s is passed on unread: %s", answer.digest, error)
            return
        named = [*manifest.blobs(), *manifest.children()]
        sizes = {each.digest: each.size for each in named}
        await self._context.store.link(repository, [answer.digest, *sizes], sizes=sizes)

    # -- by tag --

    async def _fresh_here(self, repository: Repository, tag: str) -> ServedManifest | None:
        entry = await self._context.store.tag(repository, tag)
        if entry is None or not 0 <= self._age(entry) <= self._context.policy.tag_ttl:
            return None
        return await self._held(entry.digest)

    def _age(self, entry: TagEntry) -> float:
        return self._context.clock.wall() - entry.resolved_at

    async def _resolve(self, repository: Repository, tag: str) -> ServedManifest:
        records = await self._records(repository, tag)
        youngest = records[0] if records else None
        if youngest is not None and youngest.age <= self._context.policy.tag_ttl:
            served = await self._try_digest(repository, youngest.digest)
            if served is not None:
                await self._record(repository, tag, served, youngest.age)
                return served
        try:
            served = await self._ask_upstream(repository, tag)
        except SourceError as error:
            return await self._stale(repository, tag, youngest, error)
        await self._record(repository, tag, served, 0.0)
        await self._tell(repository, tag, served)
        return served

    async def _records(self, repository: Repository, tag: str) -> tuple[TagRecord, ...]:
        if not self._context.policy.shares(repository.registry):
            return ()
        return await self._context.discovery.find_tag(repository, tag)

    async def _try_digest(self, repository: Repository, digest: Digest) -> ServedManifest | None:
        try:
            return await self._get_by_digest(repository, digest)
        except P2PDistError as error:
            logger.info("a tag's manifest %s cannot be had: %s", digest, error)
            return None

    async def _ask_upstream(self, repository: Repository, tag: str) -> ServedManifest:
        """Upstream's answer; where an older one is held, a HEAD first, which costs no pull at a rate-limited registry."""
        entry = await self._context.store.tag(repository, tag)
        if entry is not None:
            head = await self._context.upstream.manifest(repository, tag, head=True)
            held = await self._held(head.digest)
            return held or await self._get_by_digest(repository, head.digest)
        started = self._context.clock.now()
        served = await self._from_upstream(repository, tag)
        seconds = self._context.clock.now() - started
        self._context.hooks.fetched(
            repository, served.digest, "manifest", seconds, {served.source.value: served.size}
        )
        return served

    async def _stale(
        self, repository: Repository, tag: str, youngest: TagRecord | None, error: SourceError
    ) -> ServedManifest:
        """The youngest resolution that is not too old, when upstream cannot be asked."""
        limit = self._context.policy.tag_stale
        known: list[tuple[float, Digest]] = []
        entry = await self._context.store.tag(repository, tag)
        if entry is not None:
            known.append((max(0.0, self._age(entry)), entry.digest))
        if youngest is not None:
            known.append((youngest.age, youngest.digest))
        for age, digest in sorted(known):
            if age > limit:
                continue
            served = await self._try_digest(repository, digest)
            if served is not None:
                logger.warning(
                    "upstream is down; %s:%s is served as resolved %.0f s ago", repository, tag, age
                )
                return replace(served, stale=True)
        raise error

    async def _record(self, repository: Repository, tag: str, served: ServedManifest, age: float) -> None:
        wall = self._context.clock.wall()
        entry = TagEntry(
            repository, tag, served.digest, served.media_type, served.size, wall - age, wall - age
        )
        await self._context.store.record_tag(entry)

    async def _tell(self, repository: Repository, tag: str, served: ServedManifest) -> None:
        if self._context.policy.shares(repository.registry):
            record = TagRecord(_SELF, served.digest, served.media_type, served.size, 0.0)
            await self._context.discovery.announce_tag(repository, tag, record)

    async def _get_other_type(
        self, repository: Repository, tag: str, accept: tuple[str, ...]
    ) -> ServedManifest:
        """What upstream answers to a client that does not take the usual type; not remembered for the tag."""
        try:
            served = await self._from_upstream(repository, tag, accept)
        except DigestMismatchError as error:
            raise NotFoundError(f"{repository}:{tag} has no manifest of the accepted types") from error
        if not acceptable(served.media_type, accept):
            raise NotFoundError(
                f"{repository}:{tag} is a {served.media_type}, which the client does not accept"
            )
        return served
