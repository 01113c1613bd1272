"""Images as this store holds them: from a reference to a manifest, with errors that say what is missing.

Rule: nothing here asks another host or upstream; what is not held is said to be not held, with the command that fetches it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from p2pdist.errors import InvalidInputError, NotFoundError
from p2pdist.oci import media_types
from p2pdist.oci.descriptor import Descriptor, Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import (
    MAX_CONFIG,
    MAX_MANIFEST,
    MAX_NESTED,
    ImageConfig,
    Manifest,
    nested_too_deep,
    parse_config,
    parse_manifest,
    select_platform,
)
from p2pdist.oci.platforms import fitness, listing
from p2pdist.oci.reference import Reference
from p2pdist.store.port import Store

# Lists read a config only for its platform: a few kilobytes, as a rule.
MAX_LISTED_CONFIG = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HeldManifest:
    """A manifest or index that the store holds; ``size`` is its own, in bytes."""

    digest: Digest
    size: int
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class HeldImage:
    """One image of one platform. ``chain`` is what the reference names, and what leads from there to the image's own
    manifest: one, or an index and more. Its config and layers need not be held."""

    reference: Reference
    chain: tuple[HeldManifest, ...]

    @property
    def top(self) -> HeldManifest:
        """What the reference names."""
        return self.chain[0]

    @property
    def own(self) -> HeldManifest:
        """The image's manifest."""
        return self.chain[-1]

    def sizes(self) -> dict[Digest, int]:
        """Every manifest, config and layer, with its size in bytes."""
        manifests = {each.digest: each.size for each in self.chain}
        return manifests | {blob.digest: blob.size for blob in self.own.manifest.blobs()}


async def held_manifest(store: Store, digest: Digest) -> HeldManifest | None:
    """None when it is not held, or is no manifest."""
    info = await store.stat(digest)
    if info is None or info.size > MAX_MANIFEST:
        return None
    body = await store.read(digest, MAX_MANIFEST)
    if body is None:
        return None
    try:
        return HeldManifest(digest, info.size, parse_manifest(body, info.media_type))
    except InvalidInputError:
        return None


async def held_image(store: Store, reference: Reference, platform: Platform) -> HeldImage:
    """What ``reference`` names here, of an index the image for ``platform``.

    Raises NotFoundError (not held, or not for this platform), InvalidInputError (no image, or indexes too deep).
    """
    digest = await digest_of(store, reference)
    top = await held_manifest(store, digest) if digest else None
    if top is None:
        raise not_held(reference)
    if top.manifest.kind == "other":
        raise InvalidInputError(f"{reference} is no image: its manifest is {top.manifest.media_type}")
    chain = [top]
    while (index := chain[-1].manifest).kind == "index":
        if len(chain) > MAX_NESTED:
            raise nested_too_deep(reference)
        own = await held_manifest(store, _child(reference, index, platform).digest)
        if own is None:
            raise await _other_platforms(store, reference, index, platform)
        chain.append(own)
    return HeldImage(reference, tuple(chain))


async def digest_of(store: Store, reference: Reference) -> Digest | None:
    """The digest that a reference names, by what this store knows of its tag."""
    if reference.digest is not None:
        return reference.digest
    assert reference.tag is not None
    entry = await store.tag(reference.repository, reference.tag)
    return entry.digest if entry else None


def not_held(reference: Reference) -> NotFoundError:
    return NotFoundError(f"this store does not hold {reference}; 'p2pdist pull {reference}' fetches it")


async def image_config(store: Store, image: HeldImage) -> ImageConfig:
    """An image's config. Raises InvalidInputError for an artifact, NotFoundError when the config is not held."""
    config, reference = image.own.manifest.config, image.reference
    kind = media_types.essence(config.media_type) if config else ""
    if config is None or kind not in media_types.IMAGE_CONFIGS:
        what = image.own.manifest.artifact_type or kind or image.own.manifest.media_type
        raise InvalidInputError(f"{reference} is an artifact ({what}), not an image: it has no history")
    if config.size > MAX_CONFIG:
        raise InvalidInputError(f"{reference}: its config has {config.size} bytes, of {MAX_CONFIG} at most")
    body = await store.read(config.digest, MAX_CONFIG)
    if body is None:
        raise NotFoundError(
            f"{reference} is incomplete here: its config {config.digest} is not held; 'p2pdist pull {reference}' "
            "fetches what is missing"
        )
    try:
        return parse_config(body)
    except InvalidInputError as error:
        raise InvalidInputError(f"{reference}: its config {config.digest} is malformed: {error}") from error


async def platform_of(store: Store, config: Descriptor) -> str:
    """The platform that a config of at most ``MAX_LISTED_CONFIG`` bytes names; "" where it is not held or names none."""
    info = await store.stat(config.digest)
    if info is None or info.size > MAX_LISTED_CONFIG:
        return ""
    try:
        return str(parse_config(await store.read(config.digest, MAX_LISTED_CONFIG) or b"").platform)
    except InvalidInputError:
        return ""


def check_platform(reference: Reference, config: ImageConfig, platform: Platform) -> None:
    """Raises NotFoundError when an image that is no index is not for the platform that was asked for."""
    if not fitness(config.platform, platform):
        raise NotFoundError(f"{reference} has nothing for {platform}; it is for {config.platform} only")


def _child(reference: Reference, index: Manifest, platform: Platform) -> Descriptor:
    try:
        return select_platform(index, platform)
    except NotFoundError as error:
        raise NotFoundError(f"{reference}: {error}; name one with --platform") from error


async def _other_platforms(
    store: Store, reference: Reference, index: Manifest, platform: Platform
) -> NotFoundError:
    held = [child for child in index.children() if await store.stat(child.digest) is not None]
    return NotFoundError(
        f"{reference} is not held here for {platform} (held: {_names(held)}); 'p2pdist pull {reference} "
        f"--platform {platform}' fetches it, or name one that is held with --platform"
    )


def _names(children: Iterable[Descriptor]) -> str:
    return listing(child.platform for child in children)
