"""Which layers an image has, and how many hosts hold each: for people to look at.

Always true here: the cluster is asked about a digest at most once in ``FRESH`` seconds, about at most ``AT_ONCE`` digests
at a time, and an answer takes at most ``PATIENCE`` seconds: what is not known by then is told as not known. Content of a
registry that is not shared is never asked about.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import dataclass

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST, Manifest, parse_manifest
from p2pdist.oci.reference import Reference
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.inventory import Inventory

FRESH = 10.0
PATIENCE = 3.0
AT_ONCE = 8
REMEMBERED = 4096
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
    """See the module's rules."""

    def __init__(self, context: TransferContext) -> None:
        self._context = context
        self._inventory = Inventory(context.store)
        self._known: OrderedDict[Digest, tuple[float, int]] = OrderedDict()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._asking = asyncio.Lock()

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
        held = {each for each, _ in chosen if await self._context.store.stat(each) is not None}
        shared = self._context.policy.shares(reference.repository.registry)
        others = await self._others([each for each, _ in chosen]) if shared else dict.fromkeys(found, 0)
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
            body = await self._context.store.read(digest, MAX_MANIFEST)
            return None if body is None else parse_manifest(body)
        except InvalidInputError:
            return None

    async def _others(self, digests: list[Digest]) -> dict[Digest, int]:
        """How many other hosts hold each, as far as that is known in time."""
        async with self._asking:
            now = self._context.clock.now()
            known = {each: self._known[each][1] for each in digests if self._is_fresh(each, now)}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
                    for each in digests:
                        if each not in known:
                            tasks.create_task(self._ask(each))
            return known | {each: self._known[each][1] for each in digests if self._is_fresh(each, now)}

    async def _ask(self, digest: Digest) -> None:
        async with self._room:
            found = await self._context.discovery.find(digest)
        self._known[digest] = (self._context.clock.now(), sum(each.complete for each in found))
        self._known.move_to_end(digest)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _is_fresh(self, digest: Digest, now: float) -> bool:
        return digest in self._known and now - self._known[digest][0] < FRESH


def _sum(others: int | None, held: bool) -> int | None:
    return None if others is None else others + held
