"""Which layers an image has, and how many hosts hold each: for people to look at."""

from __future__ import annotations

from dataclasses import dataclass

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST, Manifest, parse_manifest
from p2pdist.oci.reference import Reference
from p2pdist.store.port import Store
from p2pdist.transfer.host_counts import HostCounts
from p2pdist.transfer.inventory import Inventory

MAX_LAYERS = 512


@dataclass(frozen=True, slots=True)
class LayerView:
    """A layer; ``hosts`` hold it whole, this one included (None: not known). For content that many hosts hold it is a
    lower bound, since the DHT keeps a sample. ``platform`` is that of the index's image it is of, or ""."""

    digest: Digest
    size: int
    held: bool
    hosts: int | None
    platform: str


class Holders:
    """Reads the store, and has the cluster asked."""

    def __init__(self, store: Store, counts: HostCounts) -> None:
        self._store = store
        self._counts = counts
        self._inventory = Inventory(store)

    async def layers(self, reference: Reference) -> tuple[Digest, list[LayerView]]:
        """The image's digest and its layers, each once, base first; at most MAX_LAYERS.

        Of an index, those of the images that are held. Raises NotFoundError when this store does not hold the manifest.
        """
        digest = next(iter((await self._inventory.held_of(reference)).sizes))
        found: dict[Digest, tuple[int, str]] = {}
        for manifest, platform in await self._images(digest):
            for layer in manifest.layers:
                found.setdefault(layer.digest, (layer.size, platform))
        chosen = list(found.items())[:MAX_LAYERS]
        held = {each for each, _ in chosen if await self._store.stat(each) is not None}
        others = await self._counts.others(reference.repository, [each for each, _ in chosen])
        return digest, [
            LayerView(each, size, each in held, _sum(others.get(each), each in held), platform)
            for each, (size, platform) in chosen
        ]

    async def _images(self, digest: Digest) -> list[tuple[Manifest, str]]:
        top = await self._manifest(digest)
        if top is None:
            return []
        if top.kind != "index":
            return [(top, "")]
        children = [(await self._manifest(each.digest), str(each.platform or "")) for each in top.children()]
        return [(manifest, platform) for manifest, platform in children if manifest is not None]

    async def _manifest(self, digest: Digest) -> Manifest | None:
        try:
            body = await self._store.read(digest, MAX_MANIFEST)
            return None if body is None else parse_manifest(body)
        except InvalidInputError:
            return None


def _sum(others: int | None, held: bool) -> int | None:
    return None if others is None else others + held
