"""Fetch a whole image into the store, telling how it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from p2pdist.clock import Clock
from p2pdist.oci.descriptor import Descriptor, Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import (
    MAX_CONFIG,
    MAX_NESTED,
    Manifest,
    nested_too_deep,
    parse_config,
    parse_manifest,
    select_platform,
)
from p2pdist.oci.media_types import IMAGE_CONFIGS, essence
from p2pdist.oci.reference import Reference, Repository
from p2pdist.store.port import Store
from p2pdist.transfer.blobs import BlobService
from p2pdist.transfer.content import ServedManifest, Source
from p2pdist.transfer.fetch import BlobFetch
from p2pdist.transfer.held_images import check_platform
from p2pdist.transfer.manifests import ManifestService

PARALLEL_BLOBS = 4
PROGRESS_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class ImageFound:
    """The image's manifest is here; ``blobs`` are its config and layers, ``digest`` what the reference names."""

    digest: Digest
    platform: str
    blobs: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """``received`` of ``size`` bytes are here; ``moved`` tells by source what crossed the wire (empty when held)."""

    digest: Digest
    size: int
    received: int
    done: bool
    moved: dict[str, int]


@dataclass(frozen=True, slots=True)
class ImageDone:
    """Every blob is committed. ``digests`` are all of the image's, manifests included."""

    digest: Digest
    size: int
    moved: dict[str, int]
    digests: tuple[Digest, ...]


PullEvent = ImageFound | BlobProgress | ImageDone


class ImagePuller:
    """Pulls images as a client of the same use cases as the mirror's."""

    def __init__(self, manifests: ManifestService, blobs: BlobService, store: Store, clock: Clock) -> None:
        self._manifests = manifests
        self._blobs = blobs
        self._store = store
        self._clock = clock

    async def pull(
        self, reference: Reference, platform: Platform, *, strict: bool = False
    ) -> AsyncGenerator[PullEvent, None]:
        """Yield an ImageFound, BlobProgress as it comes, and an ImageDone; raises P2PDistError.

        With ``strict`` an image that is no index has to be for ``platform``, too; else whatever it is for will do.
        """
        repository = reference.repository
        top = await self._manifests.get(repository, reference.target)
        chain, manifest = await self._choose(repository, top, platform)
        moved = {"peer": 0, "upstream": 0}
        if strict and len(chain) == 1:
            await self._check_platform(reference, manifest, platform, moved)
        blobs = tuple({each.digest: each for each in manifest.blobs()}.values())
        yield ImageFound(top.digest, str(platform) if len(chain) > 1 else "", blobs)
        for served in chain:
            if served.source is not Source.STORE:
                moved[served.source.value] += served.size
        async for progress in self._fetch_all(repository, blobs):
            if progress.done:
                for source, count in progress.moved.items():
                    moved[source] += count
            yield progress
        digests = (*(each.digest for each in chain), *(each.digest for each in blobs))
        size = sum(each.size for each in chain) + sum(each.size for each in blobs)
        yield ImageDone(top.digest, size, moved, digests)

    async def _choose(
        self, repository: Repository, top: ServedManifest, platform: Platform
    ) -> tuple[list[ServedManifest], Manifest]:
        chain, manifest = [top], parse_manifest(top.body, top.media_type)
        while manifest.kind == "index":
            if len(chain) > MAX_NESTED:
                raise nested_too_deep(f"{repository}@{top.digest}")
            child = select_platform(manifest, platform)
            served = await self._manifests.get(repository, child.digest)
            chain, manifest = [*chain, served], parse_manifest(served.body, served.media_type)
        return chain, manifest

    async def _check_platform(
        self, reference: Reference, manifest: Manifest, platform: Platform, moved: dict[str, int]
    ) -> None:
        """Of an image that is no index only its config tells what it is for. Raises NotFoundError."""
        config = manifest.config
        if config is None or essence(config.media_type) not in IMAGE_CONFIGS:
            return
        fetch = await self._blobs.fetch(reference.repository, config.digest)
        if fetch is not None:
            await fetch.wait_done()
            for source, count in fetch.by_source.items():
                moved[source.value] += count
        body = await self._store.read(config.digest, MAX_CONFIG)
        if body is not None:
            check_platform(reference, parse_config(body), platform)

    async def _fetch_all(
        self, repository: Repository, blobs: tuple[Descriptor, ...]
    ) -> AsyncGenerator[BlobProgress, None]:
        waiting = list(reversed(blobs))
        running: dict[Digest, BlobFetch] = {}
        while waiting or running:
            while waiting and len(running) < PARALLEL_BLOBS:
                blob = waiting.pop()
                fetch = await self._blobs.fetch(repository, blob.digest)
                if fetch is None:
                    yield BlobProgress(blob.digest, blob.size, blob.size, True, {})
                else:
                    running[blob.digest] = fetch
            for digest, fetch in list(running.items()):
                if fetch.finished:
                    await fetch.wait_done()
                    del running[digest]
                moved = {source.value: count for source, count in fetch.by_source.items() if count}
                yield BlobProgress(digest, fetch.size, fetch.received, fetch.finished, moved)
            if running:
                await self._pause(running)

    async def _pause(self, running: dict[Digest, BlobFetch]) -> None:
        """Until the next progress report, or until one is done."""
        waits = [asyncio.ensure_future(fetch.wait_done()) for fetch in running.values()]
        try:
            await asyncio.wait(waits, timeout=PROGRESS_EVERY, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
