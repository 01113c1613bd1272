"""What this store holds, as images: tags, what their manifests reach, and how much of it is here."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_NESTED, Manifest
from p2pdist.oci.media_types import IMAGE_CONFIGS, essence
from p2pdist.oci.reference import Reference
from p2pdist.store.port import Store, TagEntry
from p2pdist.transfer.held_images import HeldManifest, digest_of, held_manifest, not_held, platform_of

MAX_PLATFORMS = 10_000


@dataclass(frozen=True, slots=True)
class Contents:
    """What a manifest reaches: every digest with its size, and which of them are held. ``platforms`` are those held
    whole, or in part; ``bare`` is an index none of whose manifests is here."""

    sizes: dict[Digest, int]
    held: dict[Digest, int]
    platforms: tuple[str, ...]
    bare: bool = False

    @property
    def complete(self) -> bool:
        return not self.bare and self.sizes.keys() == self.held.keys()


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One tag, with what it reaches here. A platform of an index that was never pulled counts for nothing.
    ``pulled_at`` is when its manifest came into the store, wall-clock seconds."""

    tag: TagEntry
    contents: Contents
    pulled_at: float


@dataclass(slots=True)
class _Found:
    sizes: dict[Digest, int] = field(default_factory=dict)
    held: dict[Digest, int] = field(default_factory=dict)
    platforms: set[str] = field(default_factory=set)


class Inventory:
    """Reads the store; see the module. Platforms of configs are remembered, since they are asked for at each look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._platforms: dict[Digest, str] = {}

    async def images(self, most: int | None = None) -> list[ImageEntry]:
        """Every tag whose manifest is held, newest resolution first; with ``most`` no more than so many."""
        found: list[ImageEntry] = []
        for entry in await self._store.tags():
            if len(found) == most:
                break
            contents, info = await self.contents(entry.digest), await self._store.stat(entry.digest)
            if contents is not None and info is not None:
                found.append(ImageEntry(entry, contents, info.committed_at))
        return found

    async def contents(self, digest: Digest) -> Contents | None:
        """What a manifest or index reaches; None when it is not held."""
        top = await held_manifest(self._store, digest)
        if top is None:
            return None
        found = _Found()
        any_image = await self._add(top, found, MAX_NESTED)
        if not top.manifest.children():
            found.platforms.add(await self._platform(top.manifest))
        return Contents(found.sizes, found.held, tuple(sorted(found.platforms - {""})), not any_image)

    async def _add(self, each: HeldManifest, found: _Found, levels: int) -> bool:
        """Add what a manifest reaches, through ``levels`` of indexes; whether an image of it is here, or part of one."""
        found.sizes[each.digest] = found.held[each.digest] = each.size
        await self._add_blobs(each.manifest, found.sizes, found.held)
        any_image = not each.manifest.children()
        for child in each.manifest.children():
            if child.digest in found.sizes:
                continue
            inner = await held_manifest(self._store, child.digest) if levels else None
            if inner is not None and await self._add(inner, found, levels - 1):
                any_image = True
                found.platforms.add(str(child.platform) if child.platform else "")
        return any_image

    async def held_of(self, reference: Reference) -> Contents:
        """What a reference reaches here; raises NotFoundError when this store knows nothing of it."""
        digest = await digest_of(self._store, reference)
        contents = await self.contents(digest) if digest else None
        if contents is None:
            raise not_held(reference)
        return contents

    async def _platform(self, manifest: Manifest) -> str:
        config = manifest.config
        if config is None or essence(config.media_type) not in IMAGE_CONFIGS:
            return ""
        known = self._platforms.get(config.digest)
        if known is None:
            known = await platform_of(self._store, config)
            if len(self._platforms) >= MAX_PLATFORMS:
                self._platforms.clear()
            if known:
                self._platforms[config.digest] = known
        return known

    async def _add_blobs(self, manifest: Manifest, sizes: dict[Digest, int], held: dict[Digest, int]) -> None:
        for blob in manifest.blobs():
            sizes[blob.digest] = blob.size
            if await self._store.stat(blob.digest) is not None:
                held[blob.digest] = blob.size
