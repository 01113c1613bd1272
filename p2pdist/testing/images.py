"""Layered images for tests, the demo and the benchmarks: real tar layers that runtimes unpack, the same each time.

Always true here: the same arguments give the same digests on every machine (unless a busybox is put in); content does
not compress, so a layer's size on the wire is its size; big layers are written to a directory and never held whole.

    images = build_service_set(scale=0.01)                          # base <- node <- libs <- svc-a, svc-b, svc-c
    registry.put_image(images[0].name, images[0].tag, images[0])
    write_layout(images, directory)                                 # for skopeo, or testing.registry's command line
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from p2pdist.oci import media_types
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.digest import Digest
from p2pdist.testing.layers import Compression, FileContent, Layer, build_layer, busybox_files
from p2pdist.testing.registry_content import REF_NAME, BlobSource, blob_path, encode

Flavour = Literal["oci", "docker"]

CREATED = "2024-01-01T00:00:00Z"
MB = 1_000_000
AMD64 = Platform("linux", "amd64")
_MANIFEST_TYPE = {"oci": media_types.OCI_MANIFEST, "docker": media_types.DOCKER_MANIFEST}
_CONFIG_TYPE = {"oci": media_types.OCI_CONFIG, "docker": media_types.DOCKER_CONFIG}
_INDEX_TYPE = {"oci": media_types.OCI_INDEX, "docker": media_types.DOCKER_LIST}
_LAYER_TYPE: dict[tuple[Flavour, Compression], str] = {
    ("oci", "gzip"): media_types.OCI_LAYER_GZIP,
    ("oci", "zstd"): media_types.OCI_LAYER_ZSTD,
    ("oci", "none"): media_types.OCI_LAYER,
    ("docker", "gzip"): media_types.DOCKER_LAYER_GZIP,
    ("docker", "zstd"): media_types.DOCKER_LAYER_ZSTD,
    ("docker", "none"): media_types.DOCKER_LAYER,
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image or an index; ``blobs`` are the config and layers, ``children`` an index's images."""

    name: str
    tag: str
    media_type: str
    manifest: bytes
    platform: Platform | None = None
    layers: tuple[Layer, ...] = ()
    blobs: dict[Digest, BlobSource] = field(default_factory=dict, hash=False)
    children: tuple[Image, ...] = ()

    @property
    def digest(self) -> Digest:
        """Of the manifest."""
        return Digest.of(self.manifest)

    @property
    def size(self) -> int:
        """Of config and layers (and children), in bytes, each blob once."""
        return total_size([self])

    def named(self, name: str, tag: str) -> Image:
        """The same image under another name."""
        return dataclasses.replace(self, name=name, tag=tag)


def total_size(images: Sequence[Image]) -> int:
    """What a store that shares layers holds for these images, in bytes of blobs."""
    return sum(_sizes(images).values())


def _sizes(images: Sequence[Image]) -> dict[Digest, int]:
    sizes: dict[Digest, int] = {}
    for image in images:
        sizes.update(_sizes(image.children))
        sizes.update({layer.digest: layer.size for layer in image.layers})
        sizes.update({digest: len(data) for digest, data in image.blobs.items() if isinstance(data, bytes)})
    return sizes


def build_service_set(
    scale: float = 1.0,
    seed: int = 1,
    *,
    directory: Path | None = None,
    flavour: Flavour = "oci",
    busybox: Path | None = None,
    compression: Compression = "gzip",
) -> list[Image]:
    """The worked example: base 120 MB <- node 40 <- libs 15, and three services with 2, 3 and 1 MB of their own.

    Layers are kept in memory, or written to ``directory`` (as an OCI layout's blobs/) when one is given. With a static
    ``busybox`` the base holds a shell and each service prints its name when it is run.
    """

    def layer(name: str, megabytes: float, files: Mapping[str, FileContent] | None = None) -> Layer:
        size = round(megabytes * MB * scale)
        return build_layer(
            name,
            size,
            seed=seed,
            files=files,
            directory=directory,
            compression=compression,
            created_by=f"COPY {name} /",
        )

    base = layer("base", 120, busybox_files(busybox) if busybox else None)
    shared = [base, layer("node", 40), layer("libs", 15)]
    services = []
    for letter, megabytes in (("a", 2), ("b", 3), ("c", 1)):
        name = f"svc-{letter}"
        app = layer(name, megabytes, {"app/name": f"{name}\n".encode()})
        services.append(
            build_image(name, "1.0", [*shared, app], flavour=flavour, command=("/bin/cat", "/app/name"))
        )
    return services


def build_image(
    name: str,
    tag: str,
    layers: Sequence[Layer],
    *,
    platform: Platform = AMD64,
    flavour: Flavour = "oci",
    command: Sequence[str] = (),
    onto: Image | None = None,
) -> Image:
    """An image of these layers, base first; its history names each layer, and one step (the command) without one.

    With ``onto``, an image of the first of these layers, it is as a build that starts from it and adds the others: one
    step more for each of them.
    """
    config = encode(_config(layers, _steps(layers, command, onto), platform, command))
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE[flavour],
            "config": _descriptor(_CONFIG_TYPE[flavour], Digest.of(config), len(config)),
            "layers": [
                _descriptor(_LAYER_TYPE[flavour, item.compression], item.digest, item.size) for item in layers
            ],
        }
    )
    blobs: dict[Digest, BlobSource] = {layer.digest: layer.source for layer in layers}
    blobs[Digest.of(config)] = config
    return Image(name, tag, _MANIFEST_TYPE[flavour], manifest, platform, tuple(layers), blobs)


def _steps(layers: Sequence[Layer], command: Sequence[str], onto: Image | None) -> list[object]:
    steps = _history_of(onto) if onto else []
    own = layers[len(onto.layers) :] if onto else layers
    steps += [{"created": CREATED, "created_by": layer.created_by} for layer in own]
    if onto is None:
        steps.append({"created": CREATED, "created_by": f"CMD {list(command)}", "empty_layer": True})
    return steps


def _config(
    layers: Sequence[Layer], steps: list[object], platform: Platform, command: Sequence[str]
) -> dict[str, object]:
    return {
        "created": CREATED,
        "architecture": platform.architecture,
        "os": platform.os,
        **({"variant": platform.variant} if platform.variant else {}),
        "config": {"Env": ["PATH=/bin:/usr/bin"], "Cmd": list(command) or None},
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        "history": steps,
    }


def _history_of(image: Image) -> list[object]:
    config = image.blobs[Digest.parse(json.loads(image.manifest)["config"]["digest"])]
    assert isinstance(config, bytes)
    return list(json.loads(config)["history"])


def build_index(name: str, tag: str, images: Sequence[Image], *, flavour: Flavour = "oci") -> Image:
    """An index over images of several platforms."""
    children = [
        {
            **_descriptor(image.media_type, image.digest, len(image.manifest)),
            "platform": _platform(image.platform),
        }
        for image in images
    ]
    body = encode({"schemaVersion": 2, "mediaType": _INDEX_TYPE[flavour], "manifests": children})
    return Image(name, tag, _INDEX_TYPE[flavour], body, children=tuple(images))


def build_artifact(name: str, subject: Image, artifact_type: str, payload: bytes) -> Image:
    """An artifact that refers to ``subject`` (a signature, an SBOM): found by the referrers API."""
    empty = b"{}"
    body = encode(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": _descriptor(media_types.OCI_EMPTY, Digest.of(empty), len(empty)),
            "layers": [_descriptor(artifact_type, Digest.of(payload), len(payload))],
            "subject": _descriptor(subject.media_type, subject.digest, len(subject.manifest)),
        }
    )
    blobs: dict[Digest, BlobSource] = {Digest.of(empty): empty, Digest.of(payload): payload}
    return Image(name, "", media_types.OCI_MANIFEST, body, blobs=blobs)


def write_layout(images: Sequence[Image], directory: Path) -> None:
    """Write an OCI image layout that holds these images as ``NAME:TAG``; blobs that are there already are left.

    skopeo finds OCI images in it only; those of Docker's flavour are for testing.registry (or skopeo --format v2s2).
    """
    directory.mkdir(parents=True, exist_ok=True)
    for image in images:
        _write_blobs(image, directory)
    entries = [
        {
            **_descriptor(image.media_type, image.digest, len(image.manifest)),
            "annotations": {REF_NAME: f"{image.name}:{image.tag}"},
        }
        for image in images
    ]
    (directory / "oci-layout").write_bytes(encode({"imageLayoutVersion": "1.0.0"}))
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    (directory / "index.json").write_bytes(encode(index))


def _write_blobs(image: Image, directory: Path) -> None:
    for child in image.children:
        _write_blobs(child, directory)
    for digest, source in [*image.blobs.items(), (image.digest, image.manifest)]:
        path = blob_path(directory, digest)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            path.write_bytes(source)
        else:
            path.hardlink_to(source)


def _descriptor(media_type: str, digest: Digest, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}


def _platform(platform: Platform | None) -> dict[str, str]:
    if platform is None:
        return {}
    fields = {"architecture": platform.architecture, "os": platform.os}
    return {**fields, "variant": platform.variant} if platform.variant else fields
