"""What this store holds, as images: tags, what their manifests reach, and how much of it is here."""

from __future__ import annotations

from dataclasses import dataclass

from p2pdist.errors import InvalidInputError, NotFoundError
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST, Manifest, parse_manifest
from p2pdist.oci.reference import Reference
from p2pdist.store.port import Store, TagEntry


@dataclass(frozen=True, slots=True)
class Contents:
    """What a manifest reaches: every digest with its size, and which of them are held. ``platforms`` are those held
    whole, or in part."""

    sizes: dict[Digest, int]
    held: dict[Digest, int]
    platforms: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return self.sizes.keys() == self.held.keys()


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One tag, with what it reaches here. A platform of an index that was never pulled counts for nothing."""

    tag: TagEntry
    contents: Contents


class Inventory:
    """Reads the store; see the module."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def images(self, most: int | None = None) -> list[ImageEntry]:
        """Every tag whose manifest is held, newest resolution first; with ``most`` no more than so many."""
        found: list[ImageEntry] = []
        for entry in await self._store.tags():
            if len(found) == most:
                break
            contents = await self.contents(entry.digest)
            if contents is not None:
                found.append(ImageEntry(entry, contents))
        return found

    async def contents(self, digest: Digest) -> Contents | None:
        """What a manifest or index reaches; None when it is not held."""
        manifest, size = await self._manifest(digest)
        if manifest is None:
            return None
        sizes, held, platforms = {digest: size}, {digest: size}, []
        for child in manifest.children():
            inner, inner_size = await self._manifest(child.digest)
            if inner is None:
                continue
            sizes[child.digest] = held[child.digest] = inner_size
            platforms.append(str(child.platform) if child.platform else "")
            await self._add_blobs(inner, sizes, held)
        await self._add_blobs(manifest, sizes, held)
        return Contents(sizes, held, tuple(sorted(filter(None, platforms))))

    async def held_of(self, reference: Reference) -> Contents:
        """What a reference reaches here; raises NotFoundError when this store knows nothing of it."""
        digest = reference.digest
        if digest is None:
            assert reference.tag is not None
            entry = await self._store.tag(reference.repository, reference.tag)
            digest = entry.digest if entry else None
        contents = await self.contents(digest) if digest else None
        if contents is None:
            raise NotFoundError(
                f"this store does not hold {reference}; 'p2pdist pull {reference}' fetches it"
            )
        return contents

    async def _add_blobs(self, manifest: Manifest, sizes: dict[Digest, int], held: dict[Digest, int]) -> None:
        for blob in manifest.blobs():
            sizes[blob.digest] = blob.size
            if await self._store.stat(blob.digest) is not None:
                held[blob.digest] = blob.size

    async def _manifest(self, digest: Digest) -> tuple[Manifest | None, int]:
        info = await self._store.stat(digest)
        if info is None or info.size > MAX_MANIFEST:
            return None, 0
        body = await self._store.read(digest, MAX_MANIFEST)
        if body is None:
            return None, 0
        try:
            return parse_manifest(body, info.media_type), info.size
        except InvalidInputError:
            return None, 0
