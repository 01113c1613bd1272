"""A store whose blobs are its own and those of a content store beside it, which it only reads.

Rules: what is written, evicted, pinned and counted is the own store's alone. A blob that both have is the own one, with
what the own store knows of it; when it is evicted there, it is still held. What the other one loses is among ``evicted``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference, Repository
from p2pdist.store.containerd import ContainerdContent, OnHeld
from p2pdist.store.port import BlobInfo, BlobReader, Ingest, Store, TagEntry, Usage


class SeedingStore:
    """See store/port.py, Store, and the module's rules. Made by ``open_beside``."""

    def __init__(self, own: Store, content: ContainerdContent) -> None:
        self._own = own
        self._content = content

    @classmethod
    async def open_beside(
        cls, own: Store, content: ContainerdContent, shares: Callable[[str], bool], *, guarded: bool
    ) -> SeedingStore:
        """Both, as one store, which closes both.

        ``shares`` says whether a registry's content may go to other hosts. ``guarded``: some registry's may not, so a blob
        is shared only when it is known to be of one whose content may; else all blobs are.
        """

        async def may_share(digest: Digest) -> bool:
            if not guarded:
                return True
            return any(shares(each.registry) for each in await own.repositories(digest))

        await content.load(may_share)
        return cls(own, content)

    async def run(self, on_held: OnHeld, on_gone: Callable[[], None]) -> None:
        """Keep up with the other store until cancelled."""
        await self._content.run(on_held, on_gone)

    # -- reading --

    async def stat(self, digest: Digest) -> BlobInfo | None:
        return await self._own.stat(digest) or self._content.info(digest)

    async def open(self, digest: Digest) -> BlobReader | None:
        return await self._own.open(digest) or await self._content.open(digest)

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        body = await self._own.read(digest, limit)
        if body is not None:
            return body
        info = self._content.info(digest)
        if info is not None and info.size > limit:
            raise InvalidInputError(
                f"blob {digest} has {info.size} bytes, and at most {limit} are read at once"
            )
        reader = await self._content.open(digest)
        if reader is None:
            return None
        try:
            return await reader.read(0, reader.info.size)
        finally:
            reader.close()

    async def blobs(self) -> list[BlobInfo]:
        own = await self._own.blobs()
        known = {info.digest for info in own}
        return own + [info for info in self._content.infos() if info.digest not in known]

    def evicted(self) -> list[Digest]:
        return list(dict.fromkeys([*self._own.evicted(), *self._content.gone()]))

    async def known_size(self, digest: Digest) -> int | None:
        size = await self._own.known_size(digest)
        if size is not None:
            return size
        info = self._content.info(digest)
        return info.size if info else None

    # -- what the own store does alone --

    async def ingest(self, digest: Digest, size: int) -> Ingest:
        return await self._own.ingest(digest, size)

    async def put(
        self, digest: Digest, data: bytes, media_type: str = "", *, shared: bool = True
    ) -> BlobInfo:
        return await self._own.put(digest, data, media_type, shared=shared)

    async def delete(self, digest: Digest) -> bool:
        return await self._own.delete(digest)

    async def usage(self) -> Usage:
        return await self._own.usage()

    async def collect(self, target: int | None = None) -> list[BlobInfo]:
        return await self._own.collect(target)

    async def link(
        self, repository: Repository, digests: Iterable[Digest], *, sizes: dict[Digest, int]
    ) -> None:
        named = list(digests)
        await self._own.link(repository, named, sizes=sizes)
        await self._content.reconsider({*named, *sizes})

    async def repositories(self, digest: Digest) -> list[Repository]:
        return await self._own.repositories(digest)

    async def record_tag(self, entry: TagEntry) -> None:
        await self._own.record_tag(entry)

    async def tag(self, repository: Repository, tag: str) -> TagEntry | None:
        return await self._own.tag(repository, tag)

    async def tags(self, repository: Repository | None = None, *, history: bool = False) -> list[TagEntry]:
        return await self._own.tags(repository, history=history)

    async def tag_history(self, repository: Repository, tag: str) -> list[TagEntry]:
        return await self._own.tag_history(repository, tag)

    async def pin(self, reference: Reference, digests: Iterable[Digest]) -> None:
        await self._own.pin(reference, digests)

    async def unpin(self, reference: Reference) -> bool:
        return await self._own.unpin(reference)

    async def pins(self) -> list[Reference]:
        return await self._own.pins()

    async def close(self) -> None:
        await self._content.close()
        await self._own.close()
