"""index.json of the OCI image layout: the tags, by full name, whose manifest is held (image-spec, image-layout.md).

It is made from the catalog. When the catalog is lost it is read back, so that tags survive too: when each was resolved
stands in an annotation of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from p2pdist.errors import InvalidInputError
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference, Repository, parse_tag
from p2pdist.store.port import BlobInfo, TagEntry
from p2pdist.store.tags import MAX_TAGS

MAX_INDEX = 16 * 1024 * 1024
_NAME = "org.opencontainers.image.ref.name"
_RESOLVED = "io.p2pdist.resolved-at"


def build_index(tags: Iterable[tuple[TagEntry, BlobInfo]]) -> bytes:
    """index.json for ``tags``, each with the blob of its manifest."""
    manifests = [
        {
            "mediaType": entry.media_type or info.media_type or media_types.OCI_MANIFEST,
            "digest": str(entry.digest),
            "size": info.size,
            "annotations": {
                _NAME: f"{entry.repository}:{entry.tag}",
                _RESOLVED: f"{entry.resolved_at:.3f}",
            },
        }
        for entry, info in tags
    ]
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": manifests}
    return json.dumps(document, separators=(",", ":")).encode()


def parse_index(body: bytes) -> list[TagEntry]:
    """The tags that ``build_index`` wrote, oldest first; what does not parse is left out."""
    try:
        manifests = json.loads(body[:MAX_INDEX])["manifests"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    if not isinstance(manifests, list):
        return []
    entries = [entry for item in manifests[:MAX_TAGS] if (entry := _entry(item)) is not None]
    return sorted(entries, key=lambda entry: entry.resolved_at)


def _entry(item: Any) -> TagEntry | None:
    try:
        name, _, tag = str(item["annotations"][_NAME]).rpartition(":")
        registry, _, path = name.partition("/")
        resolved_at = float(item["annotations"].get(_RESOLVED, 0.0))
        return TagEntry(
            repository=Repository.of(registry, path),
            tag=parse_tag(tag),
            digest=Digest.parse(str(item["digest"])),
            media_type=str(item["mediaType"])[:256],
            size=int(item["size"]),
            first_seen=resolved_at,
            resolved_at=resolved_at,
        )
    except (InvalidInputError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def reference_key(reference: Reference) -> str:
    """A reference as text that reads back the same; ``str`` does not, for registries that look like a path."""
    digest = str(reference.digest) if reference.digest else None
    return json.dumps([reference.repository.registry, reference.repository.path, reference.tag, digest])


def parse_reference_key(text: str) -> Reference:
    """What ``reference_key`` wrote; raises ValueError or InvalidInputError."""
    registry, path, tag, digest = json.loads(text)
    return Reference(
        Repository.of(registry, path),
        None if tag is None else parse_tag(tag),
        None if digest is None else Digest.parse(digest),
    )
