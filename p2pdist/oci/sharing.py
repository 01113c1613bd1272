"""What images share, and what sharing saves: sums over their blobs. Pure.

Always true here: an image is a mapping of digests to sizes in bytes, so each blob counts once within it; a digest has
the same size in all of them. For each image, total = shared + unique.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from p2pdist.oci.digest import Digest

Blobs = Mapping[Digest, int]
Name = TypeVar("Name")


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes of one image: ``shared`` is in other images as well, ``unique`` in none."""

    total: int
    shared: int
    unique: int


@dataclass(frozen=True, slots=True)
class Savings:
    """Bytes for a set of images that each of ``hosts`` stores.

    ``storage_separate`` and ``storage_layered`` are per host: each image as one piece, or each layer once.
    ``pulled_separate``, ``pulled_layered`` and ``pulled_shared`` leave the registry in all: each host pulls whole images;
    each host pulls each layer once; the cluster pulls each layer once.
    """

    hosts: int
    storage_separate: int
    storage_layered: int

    @property
    def pulled_separate(self) -> int:
        return self.hosts * self.storage_separate

    @property
    def pulled_layered(self) -> int:
        return self.hosts * self.storage_layered

    @property
    def pulled_shared(self) -> int:
        return self.storage_layered if self.hosts else 0


def shares(images: Mapping[Name, Blobs]) -> dict[Name, Share]:
    """How much of each image the others have too."""
    users = Counter(digest for blobs in images.values() for digest in blobs)
    result = {}
    for name, blobs in images.items():
        total = sum(blobs.values())
        unique = sum(size for digest, size in blobs.items() if users[digest] == 1)
        result[name] = Share(total, total - unique, unique)
    return result


def separate(images: Iterable[Blobs]) -> int:
    """Bytes when each image is stored as one piece."""
    return sum(sum(blobs.values()) for blobs in images)


def union(images: Iterable[Blobs]) -> dict[Digest, int]:
    """Every blob once."""
    return {digest: size for blobs in images for digest, size in blobs.items()}


def savings(images: Sequence[Blobs], hosts: int) -> Savings:
    """What layers save one host, and what sharing them saves ``hosts`` of them."""
    return Savings(hosts, separate(images), sum(union(images).values()))
