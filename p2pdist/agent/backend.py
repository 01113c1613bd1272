"""What the admin listener asks of the agent (api.admin.AdminBackend)."""

from __future__ import annotations

import platform as host_platform
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from typing import Any

from p2pdist import __version__
from p2pdist.agent.cluster import Cluster
from p2pdist.agent.seeding import Seeding
from p2pdist.config.model import Config
from p2pdist.errors import NotFoundError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.platforms import parse_platform
from p2pdist.oci.reference import Reference
from p2pdist.records import PeerId
from p2pdist.store.port import BlobInfo
from p2pdist.swarm.peer_health import Standing
from p2pdist.telemetry.metrics import Metrics
from p2pdist.transfer.announce import Announcer
from p2pdist.transfer.blobs import BlobService
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.inventory import ImageEntry, Inventory
from p2pdist.transfer.manifests import ManifestService
from p2pdist.transfer.piece_map import PieceMap
from p2pdist.transfer.pull import BlobProgress, ImageDone, ImagePuller


@dataclass(frozen=True, slots=True)
class UseCases:
    """The transfer layer, put together."""

    context: TransferContext
    blobs: BlobService
    manifests: ManifestService
    puller: ImagePuller
    announcer: Announcer


class Backend:
    """Answers with plain JSON values, shaped as api/admin.py says."""

    def __init__(
        self, config: Config, peer: PeerId, cluster: Cluster, cases: UseCases, metrics: Metrics
    ) -> None:
        self._config = config
        self._peer = peer
        self._cluster = cluster
        self._cases = cases
        self._metrics = metrics
        self._context = cases.context
        self._inventory = Inventory(cases.context.store)
        self._started = cases.context.clock.now()
        self._reasons = ["starting"]
        self._listeners: dict[str, str] = {}
        self.seeding: Seeding | None = None

    # -- the agent's own word on itself --

    def ready(self, listeners: dict[str, str]) -> None:
        """Everything is up."""
        self._listeners = listeners
        self._reasons = []

    def draining(self) -> None:
        """The agent is about to stop."""
        self._reasons = ["draining"]

    # -- api.admin.AdminBackend --

    def not_ready(self) -> list[str]:
        return list(self._reasons)

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        usage = await self._context.store.usage()
        self._metrics.set_store(
            committed=usage.committed, reserved=usage.reserved, quota=usage.quota, blobs=usage.blobs
        )
        self._metrics.set_peers(len(self._cluster.discovery.contacts()), len(self._banned()))
        self._metrics.set_fetches(len(self._cases.blobs.fetches()))
        if self.seeding is not None:
            self.seeding.measure(self._metrics)
        if self._cluster.node is not None:
            self._metrics.set_dht(self._cluster.node.counters(), self._cluster.node.state())
        return self._metrics.render(accept)

    def _banned(self) -> set[PeerId]:
        views = self._context.health.view(self._context.clock.now())
        return {view.peer for view in views if view.standing is Standing.BANNED}

    async def status(self) -> dict[str, Any]:
        usage = await self._context.store.usage()
        return {
            "name": self._config.agent.name,
            "peer": self._peer.hex,
            "version": __version__,
            "zone": self._config.agent.zone,
            "uptime": round(self._context.clock.now() - self._started, 1),
            "ready": not self._reasons,
            "reasons": self._reasons,
            "cluster": self._cluster.node is not None,
            "peers": len(self._cluster.discovery.contacts()),
            "transfers": len(self._cases.blobs.fetches()),
            "store": {
                "path": str(self._config.agent.data_dir),
                "committed": usage.committed,
                "reserved": usage.reserved,
                "quota": usage.quota,
                "blobs": usage.blobs,
                "pinned": usage.pinned,
            },
            **({"containerd": self.seeding.status()} if self.seeding else {}),
            **self._metrics.totals(),
            "listeners": self._listeners,
            "warnings": list(self._config.warnings),
        }

    async def peers(self) -> list[dict[str, Any]]:
        now = self._context.clock.now()
        views = {view.peer: view for view in self._context.health.view(now)}
        rows = []
        for contact in self._cluster.discovery.contacts():
            view = views.get(contact.peer)
            rows.append(
                {
                    "peer": contact.peer.hex,
                    "endpoint": str(contact.endpoint),
                    "rtt": contact.rtt,
                    "seen": round(contact.seen, 3),
                    "state": view.standing.value if view else Standing.OK.value,
                    "rate": view.rate if view else None,
                }
            )
        return rows

    async def images(self, most: int | None = None) -> list[dict[str, Any]]:
        pinned = {str(reference) for reference in await self._context.store.pins()}
        return [self._image(entry, pinned) for entry in await self._inventory.images(most)]

    def _image(self, image: ImageEntry, pinned: set[str]) -> dict[str, Any]:
        reference = f"{image.tag.repository}:{image.tag.tag}"
        return {
            "reference": reference,
            "digest": str(image.tag.digest),
            "size": sum(image.contents.sizes.values()),
            "held": sum(image.contents.held.values()),
            "complete": image.contents.complete,
            "platforms": list(image.contents.platforms),
            "pulled_at": image.pulled_at,
            "resolved_at": image.tag.resolved_at,
            "age": round(max(0.0, self._context.clock.wall() - image.tag.resolved_at), 1),
            "pinned": reference in pinned,
        }

    async def transfers(self) -> list[dict[str, Any]]:
        now = self._context.clock.now()
        return [
            {
                "digest": str(fetch.digest),
                "repository": str(fetch.repository),
                "size": fetch.size,
                "received": fetch.received,
                "seconds": round(now - fetch.started, 3),
                "users": fetch.users,
                "bytes": {source.value: count for source, count in fetch.by_source.items()},
                "pieces": asdict(PieceMap.of(fetch.held, fetch.size)),
            }
            for fetch in self._cases.blobs.fetches()
        ]

    async def pins(self) -> list[str]:
        return [str(reference) for reference in await self._context.store.pins()]

    async def pin(self, reference: Reference) -> dict[str, Any]:
        contents = await self._inventory.held_of(reference)
        await self._context.store.pin(reference, contents.held)
        return {"reference": str(reference), "blobs": len(contents.held), "size": sum(contents.held.values())}

    async def unpin(self, reference: Reference) -> dict[str, Any]:
        if not await self._context.store.unpin(reference):
            raise NotFoundError(f"{reference} is not pinned")
        return {"reference": str(reference)}

    async def collect(self, target: int | None) -> dict[str, Any]:
        dropped: list[BlobInfo] = await self._context.store.collect(target)
        self._cases.announcer.evictions()
        return {"dropped": len(dropped), "freed": sum(info.size for info in dropped)}

    async def pull(
        self, reference: Reference, platform: Platform | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        wanted, strict = platform or own_platform(), platform is not None
        async for event in self._cases.puller.pull(reference, wanted, strict=strict):
            if isinstance(event, BlobProgress):
                source = max(event.moved, key=lambda each: event.moved[each], default="store")
                yield {
                    "event": "layer",
                    "digest": str(event.digest),
                    "size": event.size,
                    "received": event.received,
                    "source": source,
                }
            elif isinstance(event, ImageDone):
                yield {
                    "event": "done",
                    "digest": str(event.digest),
                    "size": event.size,
                    "bytes": event.moved,
                }


def own_platform() -> Platform:
    """This host's, as images name it."""
    return parse_platform(f"linux/{host_platform.machine() or 'amd64'}")
