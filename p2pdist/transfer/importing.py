"""Images that come from files: blobs into the store, then a name for what they make up.

Rules:
- A blob is kept only if its bytes have its digest; a name is given only to an image whose blobs are all held. Of an index
  the platforms that are held whole are enough, since archives rarely hold all of them; the others are told.
- A name that is given counts as an answer of upstream, given now: trusted for ``tags.ttl``, told to the cluster, and good
  in an outage for ``tags.stale_if_upstream_down``. With a registry that is not shared, all of it stays on this host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from p2pdist.errors import BusyError, DeniedError, DigestMismatchError, InvalidInputError, NotFoundError
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST, Manifest, Nesting, parse_manifest
from p2pdist.oci.reference import Reference, Repository
from p2pdist.records import PeerId, TagRecord
from p2pdist.store.port import Store, TagEntry
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.fetch import Committed

_SELF = PeerId(bytes(20))


@dataclass(frozen=True, slots=True)
class Imported:
    """An image that has a name now; ``left_out`` are platforms of an index that are not held whole."""

    digest: Digest
    sizes: dict[Digest, int]
    left_out: tuple[str, ...]


class ImageImporter:
    """See the module's rules. ``on_commit`` is told of each blob that became visible.

    ``keeper`` is the store whose blobs need not be sent; what only another program holds beside it may go at any time.
    """

    def __init__(self, context: TransferContext, on_commit: Committed, keeper: Store | None = None) -> None:
        self._context = context
        self._on_commit = on_commit
        self._keeper = keeper or context.store

    def _shared(self, repository: Repository) -> bool:
        """Whether its content may leave this host; raises DeniedError for a registry that is not configured."""
        if not self._context.upstream.allows(repository.registry):
            raise DeniedError(
                f"registry {repository.registry} is not configured here, so nothing could be pulled by that name: "
                f'add [registries."{repository.registry}"] to the agent\'s configuration, or import under another name'
            )
        return self._context.policy.shares(repository.registry)

    async def missing(self, repository: Repository, digests: Iterable[Digest]) -> list[Digest]:
        """Which of these have to be sent: not held, or held for this host only while they may be shared now."""
        shared, found = self._shared(repository), []
        for digest in digests:
            info = await self._keeper.stat(digest)
            if info is None or (shared and not info.shared):
                found.append(digest)
        return found

    async def add(
        self, repository: Repository, digest: Digest, size: int, chunks: AsyncIterator[bytes | bytearray]
    ) -> None:
        """Keep one blob. Raises InvalidInputError (other bytes), BusyError (being fetched now), StoreFullError."""
        shared = self._shared(repository)
        try:
            ingest = await self._context.store.ingest(digest, size)
        except ValueError as error:
            raise BusyError(
                f"{digest} is being fetched at this moment; try again when it is here", 2.0
            ) from error
        try:
            if ingest.resumed:
                await ingest.reset()
            offset = 0
            async for chunk in chunks:
                await ingest.write(offset, chunk)
                offset += len(chunk)
            await ingest.commit(shared=shared)
        except DigestMismatchError as error:
            raise InvalidInputError(f"what was sent as {digest} is not that: {error}") from error
        finally:
            await ingest.discard()
        self._on_commit(digest, shared=shared)

    async def name(self, reference: Reference, digest: Digest) -> Imported:
        """Give the held image ``digest`` its name. Raises NotFoundError naming what is not held."""
        repository = reference.repository
        shared = self._shared(repository)
        if reference.digest not in (None, digest):
            raise InvalidInputError(f"the image has the digest {digest}, not that of {reference}")
        manifest, size = await self._manifest(digest, shared)
        sizes, left_out = {digest: size}, list[str]()
        if manifest.kind == "index":
            left_out = await self._add_children(manifest, sizes, shared, Nesting())
        elif manifest.kind == "image":
            await self._add_blobs(manifest, sizes)
        else:
            raise InvalidInputError(f"{digest} is no image and no index, but {manifest.media_type}")
        await self._context.store.link(repository, sizes, sizes=sizes)
        if reference.tag is not None:
            await self._tell(repository, reference.tag, digest, manifest.media_type, size, shared=shared)
        return Imported(digest, sizes, tuple(left_out))

    async def _manifest(self, digest: Digest, shared: bool) -> tuple[Manifest, int]:
        """A held manifest, its type noted with it."""
        body = await self._context.store.read(digest, MAX_MANIFEST)
        if body is None:
            raise NotFoundError(f"the manifest {digest} is not held: it was not sent, or had to make room")
        manifest = parse_manifest(body)
        await self._context.store.put(digest, body, manifest.media_type, shared=shared)
        return manifest, len(body)

    async def _add_children(
        self, index: Manifest, sizes: dict[Digest, int], shared: bool, nesting: Nesting
    ) -> list[str]:
        """Those that are held whole, through further indexes; the others' platforms."""
        whole, left_out = 0, list[str]()
        for child in {each.digest: each for each in index.children()}.values():
            inner_sizes: dict[Digest, int] = {}
            try:
                inner, size = await self._manifest(child.digest, shared)
                if inner.kind == "index":
                    deeper = nesting.into(child.digest)
                    if deeper is None:
                        continue
                    left_out += await self._add_children(inner, inner_sizes, shared, deeper)
                else:
                    await self._add_blobs(inner, inner_sizes)
            except NotFoundError:
                left_out.append(str(child.platform or child.digest))
                continue
            whole += 1
            sizes |= {child.digest: size, **inner_sizes}
        if not whole:
            raise NotFoundError(
                f"no platform of the index is held whole: {', '.join(left_out)[:300] or 'it names none'}"
            )
        return left_out

    async def _add_blobs(self, manifest: Manifest, sizes: dict[Digest, int]) -> None:
        for blob in manifest.blobs():
            info = await self._context.store.stat(blob.digest)
            if info is None:
                raise NotFoundError(
                    f"blob {blob.digest} of the image is not held: it was not sent, or had to make room "
                    "(raise store.max_size)"
                )
            if info.size != blob.size:
                raise InvalidInputError(
                    f"blob {blob.digest} has {info.size} bytes, and the manifest says {blob.size}"
                )
            sizes[blob.digest] = blob.size

    async def _tell(
        self, repository: Repository, tag: str, digest: Digest, media_type: str, size: int, *, shared: bool
    ) -> None:
        now = self._context.clock.wall()
        await self._context.store.record_tag(TagEntry(repository, tag, digest, media_type, size, now, now))
        if shared:
            await self._context.discovery.announce(digest)
            record = TagRecord(_SELF, digest, media_type, size, 0.0)
            await self._context.discovery.announce_tag(repository, tag, record)
