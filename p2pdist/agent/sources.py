"""What the admin listener asks about sources that hold content already: imports (api/admin_import.py);
and to have the whole cluster hold some (api/admin_warm.py)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from p2pdist.oci.descriptor import Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference
from p2pdist.records import PeerId
from p2pdist.transfer.importing import ImageImporter
from p2pdist.transfer.warm_everywhere import ClusterWarmer, HostProgress
from p2pdist.wire.warm import WarmState


class ImportCommands:
    """Implements api.admin_import.ImportBackend."""

    def __init__(self, importer: ImageImporter) -> None:
        self._importer = importer

    async def missing(self, reference: Reference, digests: list[Digest]) -> list[Digest]:
        return await self._importer.missing(reference.repository, digests)

    async def add(
        self, reference: Reference, digest: Digest, size: int, chunks: AsyncIterator[bytes | bytearray]
    ) -> None:
        await self._importer.add(reference.repository, digest, size, chunks)

    async def name(self, reference: Reference, digest: Digest) -> dict[str, Any]:
        imported = await self._importer.name(reference, digest)
        return {
            "reference": str(reference),
            "digest": str(digest),
            "size": sum(imported.sizes.values()),
            "blobs": len(imported.sizes),
            "left_out": list(imported.left_out),
        }


class WarmCommands:
    """Implements api.admin_warm.WarmBackend."""

    def __init__(self, warmer: ClusterWarmer) -> None:
        self._warmer = warmer

    async def warm(
        self, reference: Reference, platform: Platform | None, zone: str | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        states: dict[PeerId, WarmState] = {}
        async with aclosing(self._warmer.warm(reference, str(platform or ""), zone)) as hosts:
            async for host in hosts:
                if host is None:
                    yield {"event": "waiting"}
                    continue
                if host.asked:
                    states[host.peer] = host.status.state
                yield _event(host)
        failed = sum(state is not WarmState.DONE for state in states.values())
        yield {"event": "done", "hosts": len(states), "failed": failed}


def _event(host: HostProgress) -> dict[str, Any]:
    status = host.status
    return {
        "event": "host" if host.asked else "unknown",
        "peer": host.peer.hex,
        "name": host.name,
        "zone": host.zone,
        "where": host.where,
        "state": status.state.value,
        "size": status.size,
        "received": status.received,
        "bytes": status.moved,
        "digest": status.digest,
        "message": status.message,
    }
