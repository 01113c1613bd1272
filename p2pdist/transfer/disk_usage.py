"""What the store's bytes are for: each image's total, shared and unique bytes, and what could be freed.

Rules: an image is a manifest or index that the store holds and that no held index names; its bytes are those blobs of it
that are held. Two tags of one digest are one image. A blob belongs to every image that names it, and is stored once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.sharing import Share, separate, shares, union
from p2pdist.store.port import BlobInfo, Store, TagEntry, Usage
from p2pdist.transfer.held_images import HeldManifest, held_manifest
from p2pdist.transfer.inventory import Contents, Inventory


@dataclass(frozen=True, slots=True)
class ImageUse:
    """One image. ``tags`` name it now, ``past_tags`` did once; ``layers`` counts layers only, as runtimes do."""

    digest: Digest
    tags: tuple[TagEntry, ...]
    past_tags: tuple[TagEntry, ...]
    contents: Contents
    share: Share
    layers: Share
    pulled_at: float


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Sizes in bytes. ``separate`` is what the images would take if each were stored as one piece, ``layered`` what
    they take; ``other`` is held and belongs to no image here. ``reclaimable`` is what ``gc`` frees: reached by no tag
    and no pin; ``unpinned`` what may go when room is needed."""

    usage: Usage
    images: tuple[ImageUse, ...] = ()
    separate: int = 0
    layered: int = 0
    reclaimable: int = 0
    unpinned: int = 0

    @property
    def saved(self) -> int:
        return self.separate - self.layered

    @property
    def other(self) -> int:
        return max(0, self.usage.committed - self.layered)


@dataclass(slots=True)
class _Names:
    now: list[TagEntry] = field(default_factory=list)
    past: list[TagEntry] = field(default_factory=list)


async def disk_usage(store: Store) -> DiskUsage:
    """See the module's rules; reads every manifest that is held."""
    blobs = {info.digest: info for info in await store.blobs()}
    manifests = await _manifests(store, blobs)
    names = await _names(store)
    inner = {child.digest for each in manifests.values() for child in each.manifest.children()}
    found = await _contents(store, [each for each in manifests if each not in inner or each in names])
    held = {digest: contents.held for digest, contents in found.items()}
    share, layers = shares(held), shares(_layers_only(held, manifests))

    def use(digest: Digest) -> ImageUse:
        named = names.get(digest, _Names())
        pulled_at = blobs[digest].committed_at
        tags = tuple(named.now), tuple(named.past)
        return ImageUse(digest, *tags, found[digest], share[digest], layers[digest], pulled_at)

    return DiskUsage(
        usage=await store.usage(),
        images=tuple(use(digest) for digest in found),
        separate=separate(held.values()),
        layered=sum(union(held.values()).values()),
        reclaimable=sum(info.size for info in _unreached(blobs, manifests, names)),
        unpinned=sum(info.size for info in blobs.values() if not info.pinned),
    )


async def _contents(store: Store, images: Iterable[Digest]) -> dict[Digest, Contents]:
    inventory = Inventory(store)
    found = [(digest, await inventory.contents(digest)) for digest in images]
    return {digest: contents for digest, contents in found if contents is not None}


async def _manifests(store: Store, blobs: dict[Digest, BlobInfo]) -> dict[Digest, HeldManifest]:
    found = {}
    for info in blobs.values():
        if media_types.essence(info.media_type) in media_types.MANIFESTS:
            held = await held_manifest(store, info.digest)
            if held is not None:
                found[info.digest] = held
    return found


async def _names(store: Store) -> dict[Digest, _Names]:
    """By digest, the tags that point at it now, and those that did."""
    names: dict[Digest, _Names] = {}
    now = await store.tags()
    for entry in now:
        names.setdefault(entry.digest, _Names()).now.append(entry)
    current = {(entry.repository, entry.tag): entry.digest for entry in now}
    for entry in await store.tags(history=True):
        known = names.setdefault(entry.digest, _Names())
        tag = (entry.repository, entry.tag)
        if current.get(tag) != entry.digest and tag not in {(e.repository, e.tag) for e in known.past}:
            known.past.append(entry)
    return names


def _layers_only(
    held: dict[Digest, dict[Digest, int]], manifests: dict[Digest, HeldManifest]
) -> dict[Digest, dict[Digest, int]]:
    no_layers = set(manifests)
    no_layers |= {each.manifest.config.digest for each in manifests.values() if each.manifest.config}
    return {
        image: {digest: size for digest, size in blobs.items() if digest not in no_layers}
        for image, blobs in held.items()
    }


def _unreached(
    blobs: dict[Digest, BlobInfo], manifests: dict[Digest, HeldManifest], names: dict[Digest, _Names]
) -> list[BlobInfo]:
    """Blobs that neither a tag nor a pin reaches; the store's ``collect`` decides by the same rule."""
    reached: set[Digest] = set()
    todo = [digest for digest, known in names.items() if known.now]
    todo += [info.digest for info in blobs.values() if info.pinned]
    while todo:
        digest = todo.pop()
        if digest in reached:
            continue
        reached.add(digest)
        if digest in manifests:
            manifest = manifests[digest].manifest
            reached.update(blob.digest for blob in manifest.blobs())
            todo += [child.digest for child in manifest.children()]
    return [info for digest, info in blobs.items() if digest not in reached]
