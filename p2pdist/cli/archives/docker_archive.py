"""What ``docker save`` writes (docker-archive): layers as they are unpacked, and no manifest.

So the manifest is made here, as Docker would push it if it did not compress: Docker schema 2 over the config as it is and
the layers as they are. Its digest is right for these bytes, and not that of the image in a registry, whose layers are
compressed. (Docker image specification v1.2; distribution spec, "Image Manifest V 2, Schema 2".)
"""

from __future__ import annotations

import json
from typing import Any

from p2pdist.cli.archives.files import Files, read_file
from p2pdist.cli.archives.images import MAX_IMAGES, ArchivedImage, BlobList, references_in
from p2pdist.errors import InvalidInputError
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_CONFIG, MAX_DESCRIPTORS, parse_config
from p2pdist.oci.reference import Reference

MANIFEST = "manifest.json"
_MAX_LIST = 4 * 1024 * 1024
_GZIP = b"\x1f\x8b"


def read_docker(files: Files) -> list[ArchivedImage]:
    """The images that manifest.json lists; raises InvalidInputError."""
    try:
        items = json.loads(read_file(files, MANIFEST, _MAX_LIST))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{MANIFEST} in {files.where} is not JSON") from error
    if isinstance(items, dict) and "schemaVersion" in items:
        raise InvalidInputError(
            f"{files.where} is a copy of an image as skopeo writes it to dir:, which is not read; oci: is"
        )
    if not isinstance(items, list) or len(items) > MAX_IMAGES:
        raise InvalidInputError(f"{MANIFEST} in {files.where} is no list of at most {MAX_IMAGES} images")
    return [_image(files, *_fields(files, item)) for item in items]


def _image(files: Files, config_name: str, layers: list[str], tags: list[str]) -> ArchivedImage:
    label = tags[0] if tags else f"{config_name} (it has no name)"
    names = references_in(*tags)
    try:
        return _whole(files, config_name, layers, label, names)
    except InvalidInputError as error:  # the others may still be wanted
        return ArchivedImage(Digest.of(config_name.encode()), label, names, (), built=True, fault=str(error))


def _whole(
    files: Files, config_name: str, layers: list[str], label: str, names: tuple[Reference, ...]
) -> ArchivedImage:
    config = read_file(files, config_name, MAX_CONFIG)
    try:
        diff_ids = parse_config(config).diff_ids
    except InvalidInputError as error:
        raise InvalidInputError(
            f"{config_name[:200]} in {files.where} is no config of an image: {error}"
        ) from error
    if len(diff_ids) != len(layers):
        raise InvalidInputError(
            f"{files.where}: {MANIFEST} names {len(layers)} layers, and the config of the image has {len(diff_ids)}"
        )
    blobs = BlobList(files)
    descriptors = [
        _layer(files, name, diff_id, blobs) for name, diff_id in zip(layers, diff_ids, strict=True)
    ]
    digest = Digest.of(config)
    blobs.add_bytes(digest, config)
    body = _encode(_descriptor(media_types.DOCKER_CONFIG, digest, len(config)), descriptors)
    top = Digest.of(body)
    blobs.add_bytes(top, body)
    return ArchivedImage(top, label, names, tuple(blobs.found.values()), built=True)


def _fields(files: Files, item: Any) -> tuple[str, list[str], list[str]]:
    fields = item if isinstance(item, dict) else {}
    config = fields.get("Config")
    layers = _texts(fields.get("Layers"), MAX_DESCRIPTORS)
    tags = _texts(fields.get("RepoTags") or [], MAX_IMAGES)
    if not isinstance(config, str) or layers is None or tags is None:
        raise InvalidInputError(
            f"{MANIFEST} in {files.where} has an entry without proper Config, Layers and RepoTags"
        )
    return config, layers, tags


def _texts(value: object, most: int) -> list[str] | None:
    """A list of at most so many texts, or None."""
    if not isinstance(value, list) or len(value) > most:
        return None
    return value if all(isinstance(item, str) for item in value) else None


def _layer(files: Files, name: str, diff_id: Digest, blobs: BlobList) -> dict[str, object]:
    """A plain layer has its diff id for its digest, which the receiver checks; a compressed one has to be hashed."""
    size = files.size(name)
    if size is None:
        raise InvalidInputError(f"{files.where} lacks the layer {name[:200]} that {MANIFEST} names")
    head = next(files.chunks(name), b"")
    digest, media_type = diff_id, media_types.DOCKER_LAYER
    if head.startswith(_GZIP):
        hasher = diff_id.hasher()
        for chunk in files.chunks(name):
            hasher.update(chunk)
        digest, media_type = Digest(diff_id.algorithm, hasher.hexdigest()), media_types.DOCKER_LAYER_GZIP
    blobs.add_file(digest, name, size)
    return _descriptor(media_type, digest, size)


def _descriptor(media_type: str, digest: Digest, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "size": size, "digest": str(digest)}


def _encode(config: dict[str, object], layers: list[dict[str, object]]) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.DOCKER_MANIFEST,
        "config": config,
        "layers": layers,
    }
    return json.dumps(document, indent=3).encode()  # as Docker indents it
