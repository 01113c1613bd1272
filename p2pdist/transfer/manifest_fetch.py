"""Manifests by digest: from the store, from peers, from upstream.

Rules:
- A manifest is small: it is fetched whole, verified, stored, and only then served. One that the store has no room for is
  served all the same.
- Hosts that ask in the same moment take turns (lease.py): the first goes to upstream, the others get it from there.
- The announcement that takes part in this is taken back when the manifest is not kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from p2pdist.errors import InvalidInputError, NotFoundError, P2PDistError, StoreError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST, parse_manifest
from p2pdist.oci.media_types import OCTET_STREAM
from p2pdist.oci.reference import Repository
from p2pdist.records import Provider
from p2pdist.transfer.content import ServedManifest, Source
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.fetch import Committed
from p2pdist.transfer.lease import looks
from p2pdist.transfer.single_flight import SingleFlight
from p2pdist.transfer.source_plan import note_failure
from p2pdist.upstream.port import UpstreamManifest

logger = logging.getLogger(__name__)

PEERS_ASKED = 4
PEERS_AHEAD_ASKED = 2


class ManifestFetcher:
    """See the module's rules."""

    def __init__(self, context: TransferContext, tasks: asyncio.TaskGroup, on_commit: Committed) -> None:
        self._context = context
        self._on_commit = on_commit
        self._flights: SingleFlight[ServedManifest] = SingleFlight(tasks)

    async def get(
        self, repository: Repository, digest: Digest, near: tuple[Provider, ...] = ()
    ) -> ServedManifest:
        """The manifest; ``near`` are peers that are known to have had it lately. Raises as Mirror.manifest."""
        held = await self.held(digest)
        if held is not None:
            return held
        return await self._flights.run((repository, digest), lambda: self._fetch(repository, digest, near))

    async def held(self, digest: Digest) -> ServedManifest | None:
        """What the store holds under this digest, if that can be a manifest."""
        info = await self._context.store.stat(digest)
        if info is None or info.size > MAX_MANIFEST:
            return None
        body = await self._context.store.read(digest, MAX_MANIFEST)
        if body is None:
            return None
        media_type = info.media_type or _media_type_of(body, "")
        if not media_type:
            return None
        return ServedManifest(digest, media_type, len(body), body, Source.STORE)

    def shares(self, repository: Repository) -> bool:
        return self._context.policy.shares(repository.registry)

    # -- getting it --

    async def _fetch(
        self, repository: Repository, digest: Digest, near: tuple[Provider, ...]
    ) -> ServedManifest:
        started = self._context.clock.now()
        answer, source = await self._from_peers(repository, digest, near), Source.PEER
        if answer is None:
            source = Source.UPSTREAM
            try:
                answer = await self._context.upstream.manifest(repository, digest)
            except BaseException:
                if self.shares(repository):
                    await asyncio.shield(self._context.discovery.withdraw(digest))
                raise
        return await self.keep(repository, answer, source, started)

    async def _from_peers(
        self, repository: Repository, digest: Digest, near: tuple[Provider, ...]
    ) -> UpstreamManifest | None:
        if not self.shares(repository):
            return None
        for provider in near:
            answer, _ = await self._ask_peer(provider, digest)
            if answer is not None:
                return answer
        announcement = await self._context.discovery.announce(digest, complete=False)
        known = self._order(announcement.providers)
        for provider in [each for each in known if each.complete][:PEERS_ASKED]:
            answer, _ = await self._ask_peer(provider, digest)
            if answer is not None:
                return answer
        if announcement.first:
            return None
        return await self._from_those_ahead([each for each in known if not each.complete], digest)

    async def _from_those_ahead(self, ahead: list[Provider], digest: Digest) -> UpstreamManifest | None:
        """Some others began to fetch it just before: they will have it in a moment, or leave the turn to this host."""
        waiting = list(ahead)
        async for _ in looks(self._context.clock, len(ahead)):
            for provider in waiting[:PEERS_AHEAD_ASKED]:
                answer, there = await self._ask_peer(provider, digest)
                if answer is not None:
                    return answer
                if not there:
                    waiting.remove(provider)
            still = {each.peer for each in await self._context.discovery.find(digest)}
            waiting = [each for each in waiting if each.peer in still]
            if not waiting:
                return None
        return None

    def _order(self, providers: Iterable[Provider]) -> list[Provider]:
        context = self._context
        return context.health.order(providers, context.clock.now(), context.policy.zone)

    async def _ask_peer(self, provider: Provider, digest: Digest) -> tuple[UpstreamManifest | None, bool]:
        """Its manifest, if it has one, and whether it may still come to have one."""
        context = self._context
        try:
            async with context.peers.blob(provider, digest) as stream:
                if stream.size > MAX_MANIFEST:
                    return None, False
                body = b"".join([chunk async for chunk in stream.chunks()])
                media_type = stream.media_type
        except NotFoundError:
            return None, True
        except P2PDistError as error:
            logger.debug("peer %s gave no manifest %s: %s", provider.peer.short, digest, error)
            note_failure(context, provider.peer, error, progressed=False)
            return None, False
        if Digest.of(body, digest.algorithm) != digest:
            context.hooks.verify_failed("peer", digest, provider.peer)
            context.health.banned(provider.peer, context.clock.now())
            context.hooks.banned(provider.peer, f"sent a wrong manifest for {digest}")
            return None, False
        found = _media_type_of(body, media_type) or OCTET_STREAM
        return UpstreamManifest(digest, found, len(body), body), True

    # -- keeping it --

    async def keep(
        self, repository: Repository, answer: UpstreamManifest, source: Source, started: float
    ) -> ServedManifest:
        """Store what was fetched since ``started``, and tell of it."""
        assert answer.body is not None
        context, shared = self._context, self.shares(repository)
        await self._learn(repository, answer)
        try:
            await context.store.put(answer.digest, answer.body, answer.media_type, shared=shared)
        except (StoreFullError, StoreError) as error:
            logger.warning("manifest %s is served but not kept: %s", answer.digest, error)
            if shared:
                await context.discovery.withdraw(answer.digest)
        else:
            self._on_commit(answer.digest, shared=shared)
        seconds = context.clock.now() - started
        context.hooks.fetched(repository, answer.digest, "manifest", seconds, {source.value: answer.size})
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
        try:
            await self._context.store.link(repository, [answer.digest, *sizes], sizes=sizes)
        except (StoreFullError, StoreError) as error:
            logger.warning("what manifest %s names is not remembered: %s", answer.digest, error)


def _media_type_of(body: bytes, said: str) -> str:
    """The type that the body has, whatever a peer said; ``said`` for a body that cannot be told."""
    try:
        return parse_manifest(body, said).media_type
    except InvalidInputError:
        return said
