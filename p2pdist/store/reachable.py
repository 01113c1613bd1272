"""Which blobs the images that somebody still names are made of. Reads manifests, in a thread."""

from __future__ import annotations

from collections.abc import Iterable

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST, parse_manifest
from p2pdist.retention.policy import reachable
from p2pdist.store.layout import Layout


def reachable_blobs(layout: Layout, roots: Iterable[Digest]) -> set[Digest]:
    """``roots``, the manifests that those which are indexes name, and the configs and layers of them all.

    A manifest that is not held, or cannot be read, reaches nothing.
    """
    blobs: set[Digest] = set()

    def children(digest: Digest) -> Iterable[Digest]:
        try:
            with layout.blob(digest).open("rb") as file:
                manifest = parse_manifest(file.read(MAX_MANIFEST + 1))
        except (OSError, InvalidInputError):
            return ()
        blobs.update(item.digest for item in manifest.blobs())
        return [item.digest for item in manifest.children()]

    return reachable(roots, children) | blobs
