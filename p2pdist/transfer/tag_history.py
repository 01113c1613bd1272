"""What tags pointed at, and which of it can still be pulled from here."""

from __future__ import annotations

from dataclasses import dataclass

from p2pdist.errors import InvalidInputError, NotFoundError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference
from p2pdist.store.port import Store, TagEntry
from p2pdist.transfer.inventory import Contents, Inventory


@dataclass(frozen=True, slots=True)
class PastTag:
    """One resolution; ``contents`` is None when its manifest is not held any more. ``current`` is the newest one."""

    entry: TagEntry
    contents: Contents | None
    current: bool

    @property
    def held(self) -> bool:
        """Whether this host can serve all of it by itself."""
        return self.contents is not None and self.contents.complete


async def tag_history(store: Store, reference: Reference | None) -> list[PastTag]:
    """What a tag pointed at, newest first; without a reference what all tags did, at most 10,000 resolutions.

    Raises NotFoundError for a tag that was never resolved here, InvalidInputError for a reference without a tag.
    """
    entries = await _entries(store, reference)
    inventory = Inventory(store)
    newest = {(entry.repository, entry.tag): entry for entry in await store.tags()}
    found: dict[Digest, Contents | None] = {}
    for entry in entries:
        if entry.digest not in found:
            found[entry.digest] = await inventory.contents(entry.digest)
    return [
        PastTag(entry, found[entry.digest], newest.get((entry.repository, entry.tag)) == entry)
        for entry in entries
    ]


async def _entries(store: Store, reference: Reference | None) -> list[TagEntry]:
    if reference is None:
        return await store.tags(history=True)
    if reference.tag is None:
        raise InvalidInputError(
            f"{reference} names a digest, which never moves; name a tag to see its history"
        )
    entries = await store.tag_history(reference.repository, reference.tag)
    if not entries:
        raise NotFoundError(
            f"{reference} was never resolved by this agent; 'p2pdist pull {reference}' does, and its history begins"
        )
    return entries
