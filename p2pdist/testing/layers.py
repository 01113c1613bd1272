"""Image layers made of noise: a tar archive, stored in a gzip or zstd frame without effort to compress it.

Always true here: a layer is written in one pass, with one chunk in memory; times, owners and order are fixed, so that
its digest depends on the arguments only.
"""

from __future__ import annotations

import hashlib
import io
import random
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol, cast

from p2pdist.oci.digest import Digest
from p2pdist.testing.registry_content import BlobSource, blob_path

Compression = Literal["gzip", "zstd", "none"]
FileContent = bytes | Path

_CHUNK = 1024 * 1024
_FILE_SIZE = 16 * 1024 * 1024
_MTIME = 1_704_067_200
_APPLETS = ("cat", "echo", "env", "ls", "sh", "sha256sum", "sleep", "true", "uname", "wc")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: the digest and size of its blob, the digest of the tar in it, and where the bytes are."""

    digest: Digest
    size: int
    diff_id: Digest
    source: BlobSource
    created_by: str
    compression: Compression = "gzip"


def build_layer(
    name: str,
    size: int,
    *,
    seed: int = 1,
    files: Mapping[str, FileContent] | None = None,
    directory: Path | None = None,
    compression: Compression = "gzip",
    created_by: str = "",
) -> Layer:
    """A layer of ``size`` bytes (and what tar adds): ``files``, then noise under ``opt/NAME/``.

    A Path as a file's content is a symbolic link's target. Kept in memory, or written to
    ``directory``/blobs/ where one is given.
    """
    with ExitStack() as stack:
        sink: IO[bytes] = io.BytesIO()
        if directory is not None:
            blobs = directory / "blobs" / "sha256"
            blobs.mkdir(parents=True, exist_ok=True)
            sink = stack.enter_context(tempfile.NamedTemporaryFile(dir=blobs, delete=False))
        writer = _LayerWriter(sink, compression)
        # tarfile only writes to it in this mode, which its annotations do not tell.
        target = cast("IO[bytes]", writer)
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=_CHUNK) as archive:
            _add_files(archive, files or {})
            taken = sum(len(content) for content in (files or {}).values() if isinstance(content, bytes))
            _add_noise(archive, name, max(0, size - taken), seed)
        diff_id, digest, written = writer.finish()
        source = (
            sink.getvalue() if isinstance(sink, io.BytesIO) else _keep(Path(sink.name), directory, digest)
        )
    return Layer(digest, written, diff_id, source, created_by or f"COPY {name} /", compression)


def noise(size: int, seed: int | str = 1) -> bytes:
    """``size`` bytes that do not compress, the same for the same seed."""
    return random.Random(str(seed)).randbytes(size)


def busybox_files(busybox: Path) -> dict[str, FileContent]:
    """A static busybox as /bin/busybox, and symbolic links for a few of its commands."""
    links: dict[str, FileContent] = {f"bin/{applet}": Path("busybox") for applet in _APPLETS}
    return {"bin/busybox": busybox.read_bytes(), "etc/passwd": b"root:x:0:0:root:/:/bin/sh\n", **links}


def _keep(path: Path, directory: Path | None, digest: Digest) -> Path:
    assert directory is not None
    path.chmod(0o644)
    return path.rename(blob_path(directory, digest))


def _add_files(archive: tarfile.TarFile, files: Mapping[str, FileContent]) -> None:
    parents = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    for parent in sorted(parents):
        archive.addfile(_entry(parent, tarfile.DIRTYPE, 0o755))
    for name, content in files.items():
        if isinstance(content, Path):
            link = _entry(name, tarfile.SYMTYPE, 0o777)
            link.linkname = str(content)
            archive.addfile(link)
        else:
            archive.addfile(_entry(name, tarfile.REGTYPE, 0o755, len(content)), io.BytesIO(content))


def _add_noise(archive: tarfile.TarFile, name: str, size: int, seed: int) -> None:
    """Several files, as real layers have, all from one stream of noise."""
    stream = _NoiseReader(f"{seed}/{name}")
    archive.addfile(_entry("opt", tarfile.DIRTYPE, 0o755))
    archive.addfile(_entry(f"opt/{name}", tarfile.DIRTYPE, 0o755))
    for number, start in enumerate(range(0, size, _FILE_SIZE)):
        length = min(_FILE_SIZE, size - start)
        archive.addfile(_entry(f"opt/{name}/{number:03}.bin", tarfile.REGTYPE, 0o644, length), stream)


def _entry(name: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.mtime = kind, mode, size, _MTIME
    return entry


class _NoiseReader(io.RawIOBase):
    """Endless noise, read as a file."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def read(self, size: int = -1) -> bytes:
        return self._random.randbytes(size)


class _Encoder(Protocol):
    def encode(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


class _Plain:
    def encode(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class _Gzip:
    """Level 0, and no time or name in the header."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(0, wbits=31)

    def encode(self, data: bytes) -> bytes:
        return self._deflate.compress(data)

    def finish(self) -> bytes:
        return self._deflate.flush()


class _Zstd:
    """A frame of raw blocks (RFC 8878 sections 3.1.1.1 and 3.1.1.2): every decoder takes it, and no library is needed."""

    _MAX_BLOCK = 128 * 1024
    # Magic; a descriptor without checksum, dictionary or content size; a window of 128 KiB.
    _HEADER = struct.pack("<IBB", 0xFD2FB528, 0, 7 << 3)

    def __init__(self) -> None:
        self._lead = self._HEADER

    def encode(self, data: bytes) -> bytes:
        blocks = [data[at : at + self._MAX_BLOCK] for at in range(0, len(data), self._MAX_BLOCK)]
        encoded = b"".join((len(block) << 3).to_bytes(3, "little") + block for block in blocks)
        lead, self._lead = self._lead, b""
        return lead + encoded

    def finish(self) -> bytes:
        return self._lead + (1).to_bytes(3, "little")  # the last block, raw and empty


class _LayerWriter:
    """What tarfile writes to: hashes the tar, encodes it, hashes and writes the blob."""

    def __init__(self, sink: IO[bytes], compression: Compression) -> None:
        encoders: dict[Compression, type[_Encoder]] = {"gzip": _Gzip, "zstd": _Zstd, "none": _Plain}
        self._encoder = encoders[compression]()
        self._sink = sink
        self._plain, self._blob = hashlib.sha256(), hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        self._plain.update(data)
        self._emit(self._encoder.encode(bytes(data)))
        return len(data)

    def finish(self) -> tuple[Digest, Digest, int]:
        """The tar's digest, the blob's digest, and the blob's size."""
        self._emit(self._encoder.finish())
        self._sink.flush()
        return Digest("sha256", self._plain.hexdigest()), Digest("sha256", self._blob.hexdigest()), self._size

    def _emit(self, data: bytes) -> None:
        self._blob.update(data)
        self._sink.write(data)
        self._size += len(data)
