"""What the admin listener asks about sources that hold content already: imports (api/admin_import.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference
from p2pdist.transfer.importing import ImageImporter


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
