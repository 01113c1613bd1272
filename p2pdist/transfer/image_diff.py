"""What two images share, and what an update from one to the other moves."""

from __future__ import annotations

from dataclasses import dataclass

from p2pdist.oci.descriptor import Descriptor, Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference
from p2pdist.store.port import Store
from p2pdist.transfer.held_images import HeldImage, held_image


@dataclass(frozen=True, slots=True)
class ImageDiff:
    """Layers base first. ``moved`` is all of ``new`` that ``old`` has not: manifests, config and layers, with sizes in
    bytes; ``missing`` is what of it this store does not hold either."""

    old: HeldImage
    new: HeldImage
    shared: tuple[Descriptor, ...]
    added: tuple[Descriptor, ...]
    dropped: tuple[Descriptor, ...]
    moved: dict[Digest, int]
    missing: dict[Digest, int]


async def image_diff(store: Store, old: Reference, new: Reference, platform: Platform) -> ImageDiff:
    """Compare two images of one platform whose manifests are held; raises as ``held_image``."""
    before = await held_image(store, old, platform)
    after = await held_image(store, new, platform)
    here, there = _layers(before), _layers(after)
    known = before.sizes()
    moved = {digest: size for digest, size in after.sizes().items() if digest not in known}
    return ImageDiff(
        before,
        after,
        shared=tuple(layer for digest, layer in there.items() if digest in here),
        added=tuple(layer for digest, layer in there.items() if digest not in here),
        dropped=tuple(layer for digest, layer in here.items() if digest not in there),
        moved=moved,
        missing={digest: size for digest, size in moved.items() if await store.stat(digest) is None},
    )


def _layers(image: HeldImage) -> dict[Digest, Descriptor]:
    """Each layer once; foreign ones are not the registry's to move."""
    manifest = image.own.manifest
    blobs = {blob.digest for blob in manifest.blobs()}
    return {layer.digest: layer for layer in manifest.layers if layer.digest in blobs}
