"""containerd's content store beside the agent's own, where the configuration names it."""

from __future__ import annotations

import logging
from typing import Any

from p2pdist.clock import Clock
from p2pdist.config.model import Config
from p2pdist.oci.digest import Digest
from p2pdist.store.containerd import ContainerdContent
from p2pdist.store.port import Store
from p2pdist.store.seeding import SeedingStore
from p2pdist.telemetry.metrics import Metrics
from p2pdist.transfer.announce import Announcer

logger = logging.getLogger("p2pdist.agent")

MARKS = "containerd.checked"


class Seeding:
    """Keeps up with containerd's content store, and has the cluster told."""

    def __init__(self, store: SeedingStore, content: ContainerdContent) -> None:
        self._store = store
        self._content = content

    async def run(self, announcer: Announcer) -> None:
        """Until cancelled; in the agent's task group."""

        def held(digest: Digest, shared: bool) -> None:
            announcer.committed(digest, shared=shared)

        await self._store.run(held, announcer.evictions)

    def measure(self, metrics: Metrics) -> None:
        """Set what ``metrics`` tells of it."""
        blobs, size = self._content.offered()
        metrics.set_seeded(blobs=blobs, size=size, pending=self._content.usage()[2])

    def status(self) -> dict[str, Any]:
        blobs, size, unchecked = self._content.usage()
        found = {"path": str(self._content.root), "blobs": blobs, "size": size, "unchecked": unchecked}
        return {**found, "trouble": self._content.complaint}


async def beside_containerd(config: Config, own: Store, clock: Clock) -> tuple[Store, Seeding | None]:
    """The store to use, which is ``own`` where no content store is configured."""
    root = config.store.containerd_content
    if root is None:
        return own, None
    kept = sorted(name for name, registry in config.registries.items() if not registry.share)
    shared = {name for name, registry in config.registries.items() if registry.share}
    content = ContainerdContent(root, config.agent.data_dir / MARKS, clock)
    store = await SeedingStore.open_beside(own, content, shared.__contains__, guarded=bool(kept))
    if kept:
        logger.info(
            "of containerd's content only what is known to be of a shared registry goes to other hosts: not all "
            "registries are shared (%s)",
            ", ".join(kept),
        )
    else:
        logger.info("all of containerd's content in %s is shared with the cluster", root)
    return store, Seeding(store, content)
