"""The images of a run: built once into a directory, and pushed to a registry by its HTTP API."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pdist.oci.digest import Digest
from p2pdist.swarm.geometry import Geometry
from p2pdist.testing.images import Image, build_image, build_service_set, total_size
from p2pdist.testing.layers import build_layer
from p2pdist.testing.registry_content import BlobSource
from tests.e2e.netlab import Host
from tests.lab.scenario import ImageSpec

CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Bundle:
    """The images that each client pulls, in this order."""

    images: tuple[Image, ...]

    @property
    def size(self) -> int:
        """S: bytes of configs and layers, each once."""
        return total_size(self.images)

    @property
    def pieces(self) -> int:
        """M: pieces that the agents cut these blobs into."""
        sizes = {digest: blob_size(source) for image in self.images for digest, source in image.blobs.items()}
        return sum(Geometry.of(size).count for size in sizes.values())

    @property
    def blobs(self) -> set[Digest]:
        return {digest for image in self.images for digest in image.blobs}

    def references(self) -> list[dict[str, str]]:
        """As the clients' plan names them."""
        return [{"repository": image.name, "tag": image.tag} for image in self.images]


def blob_size(source: BlobSource) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def build(spec: ImageSpec, directory: Path, seed: int = 1) -> Bundle:
    """Build what a scenario asks for; another ``seed`` gives other digests, cold everywhere."""
    if spec.services:
        return Bundle(tuple(build_service_set(spec.scale, seed, directory=directory)))
    # Without compression: a layer's size in the registry is then the size that was asked for, and tar's few blocks.
    layers = [
        build_layer(f"layer{n}", size, seed=seed, directory=directory, compression="none")
        for n, size in enumerate(spec.layers)
    ]
    return Bundle((build_image("bench/app", f"v{seed}", layers),))


def push(bundle: Bundle, host: Host, port: int) -> None:
    """Push over the host's own interface; the registry must run on it."""
    connection = http.client.HTTPConnection(host.address, port)
    connection.sock = host.connect(port, host.address)
    try:
        for image in bundle.images:
            for digest, source in image.blobs.items():
                _push_blob(connection, image.name, digest, source)
            headers = {"Content-Type": image.media_type}
            _ask(connection, "PUT", f"/v2/{image.name}/manifests/{image.tag}", image.manifest, headers)
    finally:
        connection.close()


def _push_blob(connection: http.client.HTTPConnection, name: str, digest: Digest, source: BlobSource) -> None:
    answer = _ask(connection, "POST", f"/v2/{name}/blobs/uploads/", b"", {})
    location = answer.getheader("Location") or ""
    where = location[location.index("/v2/") :] + ("&" if "?" in location else "?") + f"digest={digest}"
    length = {"Content-Length": str(blob_size(source)), "Content-Type": "application/octet-stream"}
    _ask(connection, "PUT", where, _chunks(source), length)


def _chunks(source: BlobSource) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | Iterator[bytes], headers: dict[str, str]
) -> http.client.HTTPResponse:  # fmt: skip
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status not in (201, 202):
        raise RuntimeError(f"push: {method} {path}: {answer.status} {text[:300]!r}")
    return answer
