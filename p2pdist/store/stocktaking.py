"""Opening a store: bring the catalog in line with what is on disk. Runs in the catalog's thread.

Rules: the directory is right about which blobs there are, the catalog about what is known of them.
- A row whose file is gone goes. A file whose size is not its row's is damaged, and goes.
- A file without a row is adopted: a digest's name, its file's size, mode and time. It got there by rename after its
  digest was checked, or somebody put it there: so it is checked again before it is first used.
- Parts whose held ranges can be trusted stay, all others go.
- When the catalog was lost, the tags come back from index.json.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from p2pdist.errors import InvalidInputError
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST, sniff_media_type
from p2pdist.store.accounts import Accounts, Entry
from p2pdist.store.catalog import BlobRow, Catalog
from p2pdist.store.index import MAX_INDEX, parse_index
from p2pdist.store.layout import FoundBlob, Layout, translate
from p2pdist.store.part import read_held
from p2pdist.store.tags import TagBook

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stock:
    """An opened data directory."""

    layout: Layout
    catalog: Catalog
    accounts: Accounts
    tags: TagBook


def open_stock(layout: Layout, quota: int) -> Stock:
    """Take stock of a claimed directory. Raises StoreError, StoreFullError."""
    catalog = Catalog(layout.catalog)
    try:
        if catalog.fresh:
            _recover_tags(layout, catalog)
        accounts, tags = Accounts(quota), TagBook(catalog.newest_tags())
        for row in sorted(_reconcile(layout, catalog, tags), key=lambda row: row.used_at):
            entry = Entry(row.size, row.media_type, row.committed_at, row.used_at, row.shared, row.verified)
            accounts.load(row.digest, entry)
        _load_parts(layout, accounts)
        for reference, digests in catalog.pins().items():
            accounts.pin(reference, digests)
        _fit(layout, catalog, accounts)
    except OSError as error:
        catalog.close()
        raise translate(error, "opening the store in", layout.data) from error
    except BaseException:
        catalog.close()
        raise
    return Stock(layout, catalog, accounts, tags)


def _recover_tags(layout: Layout, catalog: Catalog) -> None:
    with layout.index.open("rb") as file:
        for entry in parse_index(file.read(MAX_INDEX)):
            catalog.append_tag(entry)


def _reconcile(layout: Layout, catalog: Catalog, tags: TagBook) -> list[BlobRow]:
    rows = {row.digest: row for row in catalog.blobs()}
    kept: list[BlobRow] = []
    adopted: list[BlobRow] = []
    for found in layout.blobs():
        row = rows.pop(found.digest, None)
        if row is None:
            adopted.append(_adopt(layout, found, tags))
        elif row.size == found.size:
            kept.append(row)
        else:
            logger.warning("blob %s has %d bytes instead of %d: dropped", found.digest, found.size, row.size)
            layout.remove_blob(found.digest)
            rows[found.digest] = row
    if rows:
        logger.warning("%d blobs of the catalog are not on disk: forgotten", len(rows))
        catalog.remove_blobs(rows)
    if adopted:
        logger.info("%d blobs on disk were not in the catalog: adopted", len(adopted))
        catalog.put_blobs(adopted)
    return kept + adopted


def _adopt(layout: Layout, found: FoundBlob, tags: TagBook) -> BlobRow:
    time = found.modified_at
    media_type = _media_type(layout, found.digest) if found.size <= MAX_MANIFEST else ""
    return BlobRow(found.digest, found.size, media_type, time, time, found.shared, verified=False)


def _media_type(layout: Layout, digest: Digest) -> str:
    """The type that a manifest has, which clients must be told; "" for anything else."""
    try:
        with layout.blob(digest).open("rb") as file:
            body = file.read(1)
            if body != b"{":
                return ""
            media_type = sniff_media_type(body + file.read(MAX_MANIFEST))
    except (OSError, InvalidInputError):
        return ""
    return media_type if media_type in media_types.MANIFESTS else ""


def _load_parts(layout: Layout, accounts: Accounts) -> None:
    for digest, changed_at in layout.parts():
        held = read_held(layout, digest)
        if held is not None and held.bounds and accounts.get(digest) is None:
            accounts.load_partial(digest, held.total, changed_at)
        else:
            layout.remove_part(digest)


def _fit(layout: Layout, catalog: Catalog, accounts: Accounts) -> None:
    """Come down to a quota that was lowered since."""
    victims = accounts.trim()
    layout.remove(victims)
    if victims:
        logger.info("%d blobs and partial blobs were dropped to fit store.max_size", len(victims))
        catalog.remove_blobs(victim.digest for victim in victims if not victim.partial)
    usage = accounts.usage()
    if usage.committed + usage.reserved > usage.quota:
        logger.warning(
            "pinned content of %d bytes is over store.max_size (%d): nothing is admitted until images are unpinned",
            usage.committed,
            usage.quota,
        )


def open_directory(data: Path, quota: int) -> Stock:
    """Claim a data directory and take stock of it. Raises StoreError, StoreFullError."""
    layout = Layout.claim(data)
    try:
        return open_stock(layout, quota)
    except BaseException:
        layout.release()
        raise
