"""The demo's images: three services over shared layers, as an OCI layout on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pdist.testing.images import build_service_set, write_layout

_REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class ImageSet:
    """``names``: (repository, tag) of each image; sizes in bytes, manifests included."""

    layout: Path
    names: list[tuple[str, str]]
    unique_bytes: int
    image_bytes: int


def build(layout: Path, scale: float) -> ImageSet:
    """Write the three services (base 120 MB, node 40, libs 15, apps 2, 3 and 1, times ``scale``) to ``layout``."""
    write_layout(build_service_set(scale, directory=layout), layout)
    return measure(layout)


def measure(layout: Path) -> ImageSet:
    """Read a layout's index and manifests."""
    names, sizes, image_bytes = [], {}, 0
    for entry in json.loads((layout / "index.json").read_bytes())["manifests"]:
        name, _, tag = entry["annotations"][_REF_NAME].rpartition(":")
        names.append((name, tag))
        parts = {entry["digest"]: entry["size"]} | _blobs(layout, entry["digest"])
        sizes.update(parts)
        image_bytes += sum(parts.values())
    return ImageSet(layout, names, sum(sizes.values()), image_bytes)


def _blobs(layout: Path, digest: str) -> dict[str, int]:
    algorithm, _, hex_part = digest.partition(":")
    manifest: dict[str, Any] = json.loads((layout / "blobs" / algorithm / hex_part).read_bytes())
    return {each["digest"]: each["size"] for each in (manifest["config"], *manifest["layers"])}
