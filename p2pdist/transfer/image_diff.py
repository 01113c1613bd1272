"""What two images share, and what an update from one to the other moves."""

from __future__ import annotations

from dataclasses import dataclass

from p2pdist.oci.descriptor import Descriptor, Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.media_types import IMAGE_CONFIGS, essence
from p2pdist.oci.reference import Reference
from p2pdist.store.port import Store
from p2pdist.transfer.held_images import HeldImage, check_platform, held_image, image_config


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


async def image_diff(
    store: Store, old: Reference, new: Reference, platform: Platform | None, own: Platform
) -> ImageDiff:
    """Compare two images whose manifests are held, for ``platform`` (None: for ``own``, where they are indexes).

    Raises as ``held_image``; NotFoundError also for one that is known to be for another platform than was asked for.
    """
    before = await _image(store, old, platform, own)
    after = await _image(store, new, platform, own)
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


async def _image(store: Store, reference: Reference, platform: Platform | None, own: Platform) -> HeldImage:
    image = await held_image(store, reference, platform or own)
    config = image.own.manifest.config
    if platform is None or len(image.chain) > 1 or config is None:
        return image
    if essence(config.media_type) in IMAGE_CONFIGS and await store.stat(config.digest) is not None:
        check_platform(reference, await image_config(store, image), platform)
    return image


def _layers(image: HeldImage) -> dict[Digest, Descriptor]:
    """Each layer once; foreign ones are not the registry's to move."""
    manifest = image.own.manifest
    blobs = {blob.digest for blob in manifest.blobs()}
    return {layer.digest: layer for layer in manifest.layers if layer.digest in blobs}
