"""The images that an archive holds, whatever its form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from p2pdist.cli.archives.files import Files
from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference

MAX_IMAGES = 1000


@dataclass(frozen=True, slots=True)
class ArchivedBlob:
    """A blob of an image: its size in bytes, and how to read it. Whether it has its digest is for the receiver to see."""

    digest: Digest
    size: int
    read: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """An image or index of an archive. ``blobs`` are in the order to send them, manifests last, the top one at the end;
    ``label`` is what the archive calls it, ``names`` those of its names that are references; ``left_out`` the platforms
    of an index that the archive does not hold; ``built`` when the manifest was made here and is not in the archive;
    ``attached`` when it refers to another image, as a signature does. One with a ``fault`` cannot be sent."""

    digest: Digest
    label: str
    names: tuple[Reference, ...]
    blobs: tuple[ArchivedBlob, ...]
    left_out: tuple[str, ...] = ()
    built: bool = False
    attached: bool = False
    fault: str = ""

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.blobs)


def read_images(files: Files) -> list[ArchivedImage]:
    """What is in the archive, images with a fault too; raises InvalidInputError when that cannot be told. Where it is
    both, the OCI layout counts."""
    from p2pdist.cli.archives.docker_archive import MANIFEST, read_docker
    from p2pdist.cli.archives.oci_layout import INDEX, read_layout

    images: list[ArchivedImage] = []
    if files.size(INDEX) is not None:
        images = read_layout(files)
    if not images and files.size(MANIFEST) is not None:
        images = read_docker(files)
    if not images:
        raise InvalidInputError(
            f"{files.where} holds no image: an OCI layout has {INDEX}, what 'docker save' writes has {MANIFEST}"
        )
    return images


@dataclass(slots=True)
class BlobList:
    """Blobs in the order they were first named."""

    files: Files
    found: dict[Digest, ArchivedBlob] = field(default_factory=dict)

    def add_bytes(self, digest: Digest, body: bytes) -> None:
        self.found.setdefault(digest, ArchivedBlob(digest, len(body), lambda: iter((body,))))

    def add_file(self, digest: Digest, name: str, size: int) -> None:
        self.found.setdefault(digest, ArchivedBlob(digest, size, lambda: self._whole(name, size)))

    def _whole(self, name: str, size: int) -> Iterator[bytes]:
        """The file's content, if it still has the size that was found; else who receives it would wait for the rest."""
        total = 0
        for chunk in self.files.chunks(name):
            total += len(chunk)
            if total > size:
                break
            yield chunk
        if total != size:
            raise InvalidInputError(f"{name} in {self.files.where} was changed: it had {size} bytes")


def references_in(*texts: object) -> tuple[Reference, ...]:
    """Those of the texts that name an image in full, each once."""
    found: dict[Reference, None] = {}
    for text in texts:
        if not isinstance(text, str) or not ("/" in text or ":" in text):
            continue
        try:
            found[Reference.parse(text)] = None
        except InvalidInputError:
            continue
    return tuple(found)
