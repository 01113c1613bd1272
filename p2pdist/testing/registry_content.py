"""What a fake registry holds: repositories of manifests, tags and blobs, in memory or in files.

Always true here: a manifest or blob is reachable only through the repositories it was put in, as in real registries;
a manifest's digest is that of its bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from p2pdist.errors import InvalidInputError
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import Manifest, parse_manifest

REF_NAME = "org.opencontainers.image.ref.name"

BlobSource = bytes | Path


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest's bytes and the media type it is served with."""

    digest: Digest
    body: bytes
    media_type: str

    def parsed(self) -> Manifest:
        """Its fields."""
        return parse_manifest(self.body, self.media_type)


@dataclass(slots=True)
class RepositoryContent:
    """One repository."""

    tags: dict[str, Digest] = field(default_factory=dict)
    manifests: dict[Digest, StoredManifest] = field(default_factory=dict)
    blobs: dict[Digest, BlobSource] = field(default_factory=dict)

    def find_manifest(self, target: str | Digest) -> StoredManifest | None:
        """By tag or digest."""
        digest = self.tags.get(target) if isinstance(target, str) else target
        return self.manifests.get(digest) if digest is not None else None

    def referrers(self, subject: Digest, artifact_type: str = "") -> bytes:
        """The referrers index (distribution-spec, "Listing Referrers"), filtered when a type is given."""
        found = [item for item in (_as_referrer(m, subject) for m in self.manifests.values()) if item]
        if artifact_type:
            found = [item for item in found if item["artifactType"] == artifact_type]
        return encode({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": found})


def _as_referrer(manifest: StoredManifest, subject: Digest) -> dict[str, object] | None:
    parsed = manifest.parsed()
    if parsed.subject is None or parsed.subject.digest != subject:
        return None
    return {
        "mediaType": manifest.media_type,
        "digest": str(manifest.digest),
        "size": len(manifest.body),
        "artifactType": parsed.artifact_type or (parsed.config.media_type if parsed.config else ""),
        "annotations": dict(parsed.annotations),
    }


class RegistryContent:
    """All repositories of a registry, by path (``library/nginx``)."""

    def __init__(self) -> None:
        self.repositories: dict[str, RepositoryContent] = {}

    def repository(self, name: str) -> RepositoryContent:
        """The repository, made when it is new."""
        return self.repositories.setdefault(name, RepositoryContent())

    def put_blob(self, name: str, data: BlobSource, digest: Digest | None = None) -> Digest:
        """Add a blob; bytes get their digest computed unless one is given (a wrong one makes a corrupt blob)."""
        if digest is None:
            digest = Digest.of(data if isinstance(data, bytes) else data.read_bytes())
        self.repository(name).blobs[digest] = data
        return digest

    def put_manifest(
        self, name: str, body: bytes, media_type: str, tag: str = "", algorithm: str = "sha256"
    ) -> Digest:
        """Add a manifest, and point ``tag`` at it."""
        digest = Digest.of(body, algorithm)
        repository = self.repository(name)
        repository.manifests[digest] = StoredManifest(digest, body, media_type)
        if tag:
            repository.tags[tag] = digest
        return digest

    def set_tag(self, name: str, tag: str, digest: Digest) -> None:
        """Point a tag at a manifest that is here; KeyError if it is not."""
        repository = self.repository(name)
        repository.tags[tag] = repository.manifests[digest].digest

    def load_layout(self, directory: Path) -> None:
        """Add what an OCI image layout holds; ``ref.name`` NAME:TAG names it, a bare TAG takes the directory's name."""
        index = json.loads((directory / "index.json").read_bytes())
        for item in index["manifests"]:
            reference = item.get("annotations", {}).get(REF_NAME, "latest")
            name, colon, tag = reference.rpartition(":")
            media_type = item.get("mediaType", "")
            self._load_tree(
                directory, name if colon else directory.name, Digest.parse(item["digest"]), media_type, tag
            )

    def _load_tree(self, directory: Path, name: str, digest: Digest, media_type: str, tag: str = "") -> None:
        body = blob_path(directory, digest).read_bytes()
        manifest = parse_manifest(body, media_type)
        self.put_manifest(name, body, media_type or manifest.media_type, tag, digest.algorithm)
        for child in manifest.children():
            if blob_path(directory, child.digest).exists():
                self._load_tree(directory, name, child.digest, child.media_type)
        for blob in manifest.blobs():
            path = blob_path(directory, blob.digest)
            if not path.exists():
                raise InvalidInputError(f"{directory} is no whole OCI layout: blob {blob.digest} is missing")
            self.repository(name).blobs[blob.digest] = path


def blob_path(directory: Path, digest: Digest) -> Path:
    """Where an OCI image layout keeps a blob."""
    return directory / "blobs" / digest.algorithm / digest.hex


def encode(document: Mapping[str, object]) -> bytes:
    """JSON as manifests are written here: compact, in the order given, so that a digest is stable."""
    return json.dumps(document, separators=(",", ":")).encode()


def blob_size(source: BlobSource) -> int:
    """In bytes."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def read_chunks(source: BlobSource, start: int, stop: int, chunk: int) -> Iterator[bytes | memoryview]:
    """The bytes [start, stop) in pieces of at most ``chunk``; reads block, which a test's registry may."""
    if isinstance(source, bytes):
        view = memoryview(source)
        for offset in range(start, stop, chunk):
            yield view[offset : min(offset + chunk, stop)]
        return
    with source.open("rb", buffering=0) as file:
        for offset in range(start, stop, chunk):
            yield os.pread(file.fileno(), min(chunk, stop - offset), offset)
