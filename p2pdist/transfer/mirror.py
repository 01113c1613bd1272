"""The pull-through mirror: what the HTTP edge calls, put together from the use cases."""

from __future__ import annotations

from p2pdist.errors import DeniedError
from p2pdist.oci.content import BlobStat
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.transfer.blobs import BlobService
from p2pdist.transfer.content import Delivery, ServedManifest
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.manifests import ManifestService
from p2pdist.upstream.port import UpstreamPage


class PullThroughMirror:
    """Implements transfer.content.Mirror; refuses registries that are not configured, held content included."""

    def __init__(self, context: TransferContext, blobs: BlobService, manifests: ManifestService) -> None:
        self._context = context
        self._blobs = blobs
        self._manifests = manifests

    def allows(self, registry: str) -> bool:
        return self._context.upstream.allows(registry)

    def _check(self, repository: Repository) -> None:
        if not self.allows(repository.registry):
            raise DeniedError(
                f"registry {repository.registry} is not configured here: "
                f'add [registries."{repository.registry}"] to the agent\'s configuration'
            )

    async def manifest(
        self, repository: Repository, target: str | Digest, *, accept: tuple[str, ...] = ()
    ) -> ServedManifest:
        self._check(repository)
        return await self._manifests.get(repository, target, accept)

    async def blob_stat(self, repository: Repository, digest: Digest) -> BlobStat:
        self._check(repository)
        return await self._blobs.stat(repository, digest)

    async def blob(self, repository: Repository, digest: Digest) -> Delivery:
        self._check(repository)
        return await self._blobs.open(repository, digest)

    async def tags(self, repository: Repository, query: dict[str, str]) -> UpstreamPage:
        self._check(repository)
        return await self._context.upstream.tags(repository, query)

    async def referrers(self, repository: Repository, digest: Digest, query: dict[str, str]) -> UpstreamPage:
        self._check(repository)
        return await self._context.upstream.referrers(repository, digest, query)
