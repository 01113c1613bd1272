"""OCI image layouts, as a directory or a tar (image-spec, image-layout.md); also what ``docker save`` writes since 25."""

from __future__ import annotations

import json

from p2pdist.cli.archives.files import Files, read_file
from p2pdist.cli.archives.images import MAX_IMAGES, ArchivedImage, BlobList, references_in
from p2pdist.errors import InvalidInputError
from p2pdist.oci.descriptor import Descriptor
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST, Manifest, Nesting, parse_manifest
from p2pdist.oci.reference import Reference

INDEX = "index.json"
_LAYOUT = "oci-layout"
_REF_NAME = "org.opencontainers.image.ref.name"
_FULL_NAMES = ("io.containerd.image.name", _REF_NAME)


class _AbsentError(InvalidInputError):
    """A blob that a manifest names is not in the layout."""


def read_layout(files: Files) -> list[ArchivedImage]:
    """The images that index.json names, one per digest; raises InvalidInputError."""
    _check_version(files)
    try:
        index = parse_manifest(read_file(files, INDEX, MAX_MANIFEST))
    except InvalidInputError as error:
        raise InvalidInputError(f"{INDEX} in {files.where} cannot be used: {error}") from error
    if index.kind != "index" or len(index.manifests) > MAX_IMAGES:
        raise InvalidInputError(f"{INDEX} in {files.where} is no index of at most {MAX_IMAGES} images")
    by_digest: dict[Digest, list[Descriptor]] = {}
    for entry in index.manifests:
        by_digest.setdefault(entry.digest, []).append(entry)
    return [_image(files, entries) for entries in by_digest.values()]


def _check_version(files: Files) -> None:
    try:
        version = json.loads(read_file(files, _LAYOUT, 64 * 1024))["imageLayoutVersion"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{_LAYOUT} in {files.where} does not tell a version") from error
    if not str(version).startswith("1."):
        raise InvalidInputError(f"{files.where} is an OCI layout of version {str(version)[:20]}, not 1")


def _image(files: Files, entries: list[Descriptor]) -> ArchivedImage:
    digest = entries[0].digest
    names = [entry.annotations.get(key) for entry in entries for key in _FULL_NAMES]
    label = next((name for name in names if name), str(digest))
    try:
        return _whole(files, entries[0], label, references_in(*names))
    except InvalidInputError as error:  # the others may still be wanted
        return ArchivedImage(digest, label, references_in(*names), (), fault=str(error))


def _whole(files: Files, top: Descriptor, label: str, names: tuple[Reference, ...]) -> ArchivedImage:
    blobs, left_out = BlobList(files), list[str]()
    body, manifest = _manifest(files, top)
    if manifest.kind == "index":
        left_out = _add_children(files, manifest, blobs, Nesting())
    else:
        _add_blobs(files, manifest, blobs)
    blobs.add_bytes(top.digest, body)
    found = tuple(blobs.found.values())
    return ArchivedImage(
        top.digest, label, names, found, tuple(left_out), attached=manifest.subject is not None
    )


def _add_children(files: Files, index: Manifest, blobs: BlobList, nesting: Nesting) -> list[str]:
    """Platforms that the layout holds whole; an archive of one platform often comes with the index of all."""
    left_out: list[str] = []
    for child in {each.digest: each for each in index.children()}.values():
        own = BlobList(files)
        try:
            body, manifest = _manifest(files, child)
            if manifest.kind == "index":
                deeper = nesting.into(child.digest)
                if deeper is None:
                    continue
                left_out += _add_children(files, manifest, own, deeper)
            else:
                _add_blobs(files, manifest, own)
        except _AbsentError:
            left_out.append(str(child.platform or child.digest))
            continue
        own.add_bytes(child.digest, body)
        for digest, blob in own.found.items():
            blobs.found.setdefault(digest, blob)
    if not blobs.found:
        raise _AbsentError(f"{files.where} holds no platform of it whole")
    return left_out


def _manifest(files: Files, entry: Descriptor) -> tuple[bytes, Manifest]:
    name = _place(entry.digest)
    if files.size(name) is None:
        raise _AbsentError(f"{files.where} lacks the manifest {entry.digest}")
    body = read_file(files, name, MAX_MANIFEST)
    if Digest.of(body, entry.digest.algorithm) != entry.digest:
        raise InvalidInputError(
            f"{name} in {files.where} does not have the digest of its name: it is damaged"
        )
    try:
        return body, parse_manifest(body, entry.media_type)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name} in {files.where} cannot be used: {error}") from error


def _add_blobs(files: Files, manifest: Manifest, blobs: BlobList) -> None:
    for blob in manifest.blobs():
        name = _place(blob.digest)
        size = files.size(name)
        if size is None:
            raise _AbsentError(f"{files.where} lacks the blob {blob.digest} of an image that it names")
        if size != blob.size:
            raise InvalidInputError(f"{name} in {files.where} has {size} bytes instead of {blob.size}")
        blobs.add_file(blob.digest, name, size)


def _place(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
