"""Every kind of image that registries serve passes through: once from upstream, then from host to host."""

from __future__ import annotations

import pytest

from tests.e2e.images import Builder
from tests.e2e.lab import Lab, runtimes

KINDS: dict[str, Builder] = {
    "docker-schema2": lambda shop: shop.image((2, 1), flavour="docker"),
    "index": lambda shop: shop.multi_platform(),
    "empty-layer": lambda shop: shop.image((2, 0, 1)),
    "many-layers": lambda shop: shop.image((2, *[0.05] * 20)),
    "uncompressed": lambda shop: shop.image((2, 1), compression="none"),
    "zstd": lambda shop: shop.image((2, 1), compression="zstd"),
}


def passes(lab: Lab, runtime: str, kind: str) -> None:
    image = KINDS[kind](lab.images)
    with lab.watch() as first:
        lab.pull(runtime, 1, image)
    assert first.served.blob_bytes == image.size
    with lab.watch() as later:
        lab.pull(runtime, 2, image)
    assert later.served.blob_bytes == 0
    lab.run(runtime, 2, image)


@pytest.mark.parametrize("kind", ["docker-schema2", "index", "empty-layer", "many-layers"])
@runtimes("containerd", "docker", "podman")
def test_an_image_of_this_kind_is_shared(lab: Lab, runtime: str, kind: str) -> None:
    passes(lab, runtime, kind)


@pytest.mark.parametrize("kind", ["uncompressed", "zstd"])
@runtimes("containerd", "podman")  # Debian 12's dockerd (20.10) knows neither
def test_layers_in_another_compression_are_shared(lab: Lab, runtime: str, kind: str) -> None:
    passes(lab, runtime, kind)


@runtimes("containerd", "podman", "skopeo")
def test_an_image_is_pulled_by_digest(lab: Lab, runtime: str) -> None:
    image = lab.images.image((2, 1)).by_digest()
    lab.pull(runtime, 1, image)
    with lab.watch() as later:
        lab.pull(runtime, 2, image)
    assert not later.served.requests_for(image.repository)
