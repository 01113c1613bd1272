"""Compressed archives: decompressed once, into a file without a name, since what is in a tar is needed out of order.

Rules:
- Input and output are streamed; memory is bounded whatever the input says (an xz or zstd window of at most MAX_WINDOW).
- The output is bounded by MAX_RATIO times the input, and leaves SPARE bytes of the file system free: a bomb costs
  neither the disk nor the host. The file goes with the process, however that ends.
- Several streams in a row are one, as gzip(1), bzip2(1) and xz(1) have it, and zeros may follow. Anything else after the
  end, and an end that does not come, condemn the archive. Every fault is InvalidInputError.
"""

from __future__ import annotations

import bz2
import contextlib
import importlib
import lzma
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol

from p2pdist.errors import InvalidInputError

MAX_RATIO: Final = 100
MAX_SMALL: Final = 64 * 1024 * 1024
"""What may be made of any input, however small."""
SPARE: Final = 256 * 1024 * 1024
MAX_WINDOW: Final = 256 * 1024 * 1024
_CHUNK: Final = 1024 * 1024
_INPUT: Final = 64 * 1024
_MAGIC: Final = 6
_CHECK_EVERY: Final = 64


class _Stream(Protocol):
    """One compressed stream."""

    def decompress(self, data: bytes, most: int) -> bytes:
        """At most ``most`` bytes; b"" when it ``needs`` more input, or is ``over``."""

    @property
    def needs(self) -> bool: ...

    @property
    def over(self) -> bool: ...

    @property
    def rest(self) -> bytes:
        """What came after the end."""


class _Zlib:
    """gzip; zlib keeps what it has not used apart."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, most: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, most)

    @property
    def needs(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def over(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data


class _Buffered:
    """bz2, lzma and zstd, whose decompressors keep what they have not used."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def decompress(self, data: bytes, most: int) -> bytes:
        out: bytes = self._inner.decompress(data, most)
        return out

    @property
    def needs(self) -> bool:
        return bool(self._inner.needs_input)

    @property
    def over(self) -> bool:
        return bool(self._inner.eof)

    @property
    def rest(self) -> bytes:
        return bytes(self._inner.unused_data)


@dataclass(frozen=True, slots=True)
class Kind:
    """A compression: its name, how a stream begins, and how one is read."""

    name: str
    magic: bytes
    begin: Callable[[], _Stream]


def _zstd() -> _Stream:
    """Only in Python's library from 3.14 on (PEP 784)."""
    library: Any = importlib.import_module("compression.zstd")
    window = {library.DecompressionParameter.window_log_max: MAX_WINDOW.bit_length() - 1}
    return _Buffered(library.ZstdDecompressor(options=window))


KINDS: Final = (
    Kind("gzip", b"\x1f\x8b", _Zlib),
    Kind("bzip2", b"BZh", lambda: _Buffered(bz2.BZ2Decompressor())),
    Kind(
        "xz", b"\xfd7zXZ\x00", lambda: _Buffered(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW))
    ),
    Kind("zstd", b"\x28\xb5\x2f\xfd", _zstd),
)


def kind_of(head: bytes) -> Kind | None:
    """What a file that begins so is compressed with; None when it is not."""
    return next((kind for kind in KINDS if head.startswith(kind.magic)), None)


def decompressed(file: IO[bytes], kind: Kind, where: str) -> IO[bytes]:
    """An unnamed file with what ``file``, called ``where``, holds; raises InvalidInputError."""
    try:
        kind.begin()
    except ImportError as error:
        raise InvalidInputError(
            f"{where} is compressed with {kind.name}, which this Python cannot read: decompress it first"
        ) from error
    try:
        out = tempfile.TemporaryFile(dir=_directory(), prefix="p2pdist-")  # noqa: SIM115  (the caller closes it)
    except OSError as error:
        raise InvalidInputError(_no_room(where, error.strerror or str(error))) from error
    try:
        _decompress(file, kind, where, out)
    except BaseException:
        out.close()
        raise
    return out


def _directory() -> str:
    """Where large files may lie: $TMPDIR, else /var/tmp, since /tmp is often in memory."""
    usual = "/var/tmp"  # noqa: S108  (the file that is made there has no name)
    return os.environ.get("TMPDIR") or (usual if os.access(usual, os.W_OK) else tempfile.gettempdir())


def _decompress(file: IO[bytes], kind: Kind, where: str, out: IO[bytes]) -> None:
    limit = max(MAX_SMALL, MAX_RATIO * os.fstat(file.fileno()).st_size)
    total = 0
    try:
        for count, data in enumerate(_chunks(file, kind, where)):
            total += len(data)
            if total > limit:
                raise InvalidInputError(
                    f"{where} becomes more than {MAX_RATIO} times as large when decompressed, which no image does; "
                    "if it is meant so, decompress it first"
                )
            if count % _CHECK_EVERY == 0:
                _check_room(out, where)
            out.write(data)
        out.flush()
    except OSError as error:
        raise InvalidInputError(_no_room(where, error.strerror or str(error))) from error


def _check_room(out: IO[bytes], where: str) -> None:
    room = os.fstatvfs(out.fileno())
    if room.f_bavail * room.f_frsize < SPARE:
        raise InvalidInputError(_no_room(where, f"less than {SPARE // 2**20} MiB are free"))


def _no_room(where: str, why: str) -> str:
    return f"{where} cannot be decompressed into {_directory()} ({why}): set TMPDIR to a directory with more room"


def _chunks(file: IO[bytes], kind: Kind, where: str) -> Iterator[bytes]:
    """The content of all streams in turn, at most _CHUNK bytes at a time."""
    rest = b""
    first = True
    while first or (rest := _next_stream(file, rest, kind, where)):
        first = False
        stream = kind.begin()
        while not stream.over:
            asked = stream.needs and not rest
            given, rest = rest or (file.read(_INPUT) if asked else b""), b""
            with _faults(kind, where):
                data = stream.decompress(given, _CHUNK)
            if data:
                yield data
            elif asked and not given and not stream.over:
                raise InvalidInputError(
                    f"{where} ends in the middle of its {kind.name} stream: it is cut off"
                )
        rest = stream.rest


def _next_stream(file: IO[bytes], rest: bytes, kind: Kind, where: str) -> bytes:
    """What is read of the next stream so far; b"" at the end of the file. Zeros in between are padding."""
    while True:
        rest = rest.lstrip(b"\0")
        more = file.read(_INPUT) if len(rest) < _MAGIC else b""
        rest += more
        if more and not rest.strip(b"\0"):
            continue
        if not rest or rest.startswith(kind.magic):
            return rest
        if len(rest) >= _MAGIC or not more:
            raise InvalidInputError(
                f"{where} has something after the end of its {kind.name} stream: it is damaged"
            )


@contextlib.contextmanager
def _faults(kind: Kind, where: str) -> Iterator[None]:
    try:
        yield
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError) as error:
        raise InvalidInputError(f"{where} is not readable as {kind.name}, or damaged: {error}") from error
    except Exception as error:
        if type(error).__name__ != "ZstdError":
            raise
        raise InvalidInputError(f"{where} is not readable as {kind.name}, or damaged: {error}") from error
