"""The images that the documents name, in the lab's registries, which all have the same storage."""

from __future__ import annotations

from p2pdist.oci.descriptor import Platform
from p2pdist.testing.images import AMD64, MB, Image, build_image, build_index
from p2pdist.testing.layers import Layer, build_layer
from tests.e2e.images import ImageShop, Pushed

ARM64 = Platform("linux", "arm64", "v8")
PLATFORMS = (AMD64, ARM64)


def layer(name: str, megabytes: float, created_by: str) -> Layer:
    return build_layer(name, round(megabytes * MB), seed=11, created_by=created_by)


def platform_image(layers: list[Layer], platform: Platform) -> Image:
    return build_image("", "", layers, platform=platform, command=("/bin/sh",))


def push_web_server(shop: ImageShop) -> dict[str, Pushed]:
    """nginx in three versions on one base, by tag: each adds 2 MB to the 28 MB of the base (and is small for arm64)."""
    scale = {AMD64: 1.0, ARM64: 0.01}
    base = {
        each: [
            layer(f"base-{each.architecture}", 22 * scale[each], "ADD rootfs.tar /"),
            layer(f"libs-{each.architecture}", 6 * scale[each], "RUN apt-get install -y libssl3"),
        ]
        for each in PLATFORMS
    }
    pushed = {}
    for tag in ("1.26", "1.27", "1.28"):
        layers = {
            each: [
                *base[each],
                layer(f"nginx-{tag}-{each.architecture}", 2 * scale[each], f"COPY nginx-{tag} /usr"),
            ]
            for each in PLATFORMS
        }
        pushed[tag] = push(shop, "library/nginx", tag, layers)
    pushed["latest"] = push(shop, "library/nginx", "latest", layers)  # of 1.28
    return pushed


def push_others(shop: ImageShop) -> dict[str, Pushed]:
    """The other images that the documents name, small ones, by NAME:TAG."""
    base = [layer("org-base", 0.5, "ADD rootfs.tar /")]
    pushed = {}
    for name, tag in (
        ("org/app", "v3"),
        ("org/app", "v4"),
        ("team/app", "v3"),
        ("app", "v3"),
        ("pause", "3.9"),
    ):
        own = [layer(f"{name}-{tag}", 0.2, f"COPY {name} /")]
        pushed[f"{name}:{tag}"] = push(shop, name, tag, dict.fromkeys(PLATFORMS, base + own))
    return pushed


def push(shop: ImageShop, name: str, tag: str, layers: dict[Platform, list[Layer]]) -> Pushed:
    images = [platform_image(layers[each], each) for each in PLATFORMS]
    label = f"docs-{name}-{tag}".replace("/", "-")
    return shop._push(build_index(name, tag, images), label, images[0]).at_hub()
