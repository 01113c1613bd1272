"""The files of an archive: a directory, or a tar that is read where it lies and never unpacked (a compressed one is
decompressed first, compressed.py).

Always true here: nothing is changed, and nothing is read but regular files below the directory, or members of the tar. A
tar is indexed before anything of it is used: names, members and headers are bounded; a name that leaves the archive, or
that comes twice, condemns it. Links lead only to other members. Every fault is InvalidInputError and names the file.
"""

from __future__ import annotations

import io
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, Self

from p2pdist.cli.archives.compressed import decompressed, kind_of
from p2pdist.errors import InvalidInputError

MAX_MEMBERS = 100_000
MAX_NAME = 4096
# A header that says how long a name is may say anything: what tarfile would read for it at once is bounded here.
MAX_HEADER = 1024 * 1024
_MAX_LINKS = 8
_CHUNK = 1024 * 1024


class Files(Protocol):
    """An archive's files by name, ``/`` between the parts. Use as a context manager."""

    @property
    def where(self) -> str:
        """What to call the archive in messages."""

    def size(self, name: str) -> int | None:
        """A file's bytes; None when there is no such file."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's content; raises InvalidInputError when it is not there, or ends early."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def open_files(path: Path) -> Files:
    """A directory or a tar; raises InvalidInputError for anything else, OSError when it cannot be read."""
    return DirectoryFiles(path) if path.is_dir() else TarFiles(path)


def read_file(files: Files, name: str, limit: int) -> bytes:
    """A whole small file; raises InvalidInputError when it is absent or over ``limit`` bytes."""
    size = files.size(name)
    if size is None:
        raise InvalidInputError(f"{files.where} has no {name}")
    if size > limit:
        raise InvalidInputError(f"{name} in {files.where} has {size} bytes, and at most {limit} are read")
    return b"".join(files.chunks(name))


class DirectoryFiles:
    """A directory; only regular files below it, whatever its manifests or its symbolic links name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root = path.resolve()

    @property
    def where(self) -> str:
        return str(self._path)

    def size(self, name: str) -> int | None:
        try:
            status = os.lstat(self._place(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInputError(f"{name[:200]} in {self.where} is no regular file")
        return status.st_size

    def chunks(self, name: str) -> Iterator[bytes]:
        size = self.size(name)
        if size is None:
            raise InvalidInputError(f"{self.where} has no {name[:200]}")
        descriptor = os.open(self._place(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            yield from _exactly(file, 0, size, f"{name} in {self.where}")

    def _place(self, name: str) -> Path:
        """Where a file lies. Who imports may be root, and who made the archive is not to choose what root reads."""
        inner = _inner_name(name, self.where)
        parent = (self._root / inner).parent.resolve()
        if not parent.is_relative_to(self._root):
            raise InvalidInputError(f"{name[:200]} in {self.where} is behind a link that leads out of it")
        return parent / posixpath.basename(inner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a member's bytes lie; ``link`` is the name that it stands for instead."""

    offset: int
    size: int
    link: str = ""


class _BoundedReads(io.RawIOBase):
    """The file as tarfile sees it: no single read is longer than a header may be."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


class TarFiles:
    """A tar, compressed or not; see the module's rules."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A pipe without a writer would not open otherwise, and be waited for.
        self._file: IO[bytes] = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        try:
            self._decompress()
            self._length = os.fstat(self._file.fileno()).st_size
            self._members = self._index()
        except BaseException:
            self._file.close()
            raise

    @property
    def where(self) -> str:
        return str(self._path)

    def size(self, name: str) -> int | None:
        member = self._find(name)
        return member.size if member else None

    def chunks(self, name: str) -> Iterator[bytes]:
        member = self._find(name)
        if member is None:
            raise InvalidInputError(f"{self.where} has no {name}")
        yield from _exactly(self._file, member.offset, member.size, f"{name} in {self.where}")

    def _decompress(self) -> None:
        """From here on the file is a plain one. Raises InvalidInputError."""
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise InvalidInputError(f"{self.where} is neither a directory nor a file")
        outer = kind_of(self._head())
        if outer is None:
            return
        with self._file as packed:
            self._file = decompressed(packed, outer, self.where)
        if inner := kind_of(self._head()):
            raise InvalidInputError(
                f"{self.where} is compressed with {inner.name} inside of {outer.name}: decompress it first"
            )

    def _head(self) -> bytes:
        self._file.seek(0)
        head = self._file.read(8)
        self._file.seek(0)
        return head

    def _find(self, name: str) -> _Member | None:
        wanted = posixpath.normpath(name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(wanted)
            if member is None or not member.link:
                return member
            wanted = member.link
        raise InvalidInputError(f"{name} in {self.where} is a link to a link, and so on")

    def _index(self) -> dict[str, _Member]:
        members: dict[str, _Member] = {}
        try:
            with tarfile.open(fileobj=_BoundedReads(self._file), mode="r:") as archive:
                for count, entry in enumerate(archive, 1):
                    if count > MAX_MEMBERS:
                        raise InvalidInputError(f"{self.where} has more than {MAX_MEMBERS} members")
                    self._add(members, entry)
                    archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
        except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError(f"{self.where} is not a tar, or a damaged one: {error}") from error
        if not members:
            raise InvalidInputError(f"{self.where} holds no files")
        return members

    def _add(self, members: dict[str, _Member], entry: tarfile.TarInfo) -> None:
        name = self._name(entry.name)
        if entry.isdir():
            return
        if entry.issym():
            member = _Member(0, 0, self._name(posixpath.join(posixpath.dirname(name), entry.linkname)))
        elif entry.islnk():
            member = _Member(0, 0, self._name(entry.linkname))
        elif entry.isreg() and not entry.issparse():
            member = _Member(entry.offset_data, entry.size)
            if member.offset + member.size > self._length:
                raise InvalidInputError(f"{self.where} ends in the middle of {name}: it is cut off")
        else:
            raise InvalidInputError(f"{name[:200]} in {self.where} is no regular file")
        if name in members:
            raise InvalidInputError(f"{self.where} holds {name[:200]} twice")
        members[name] = member

    def _name(self, raw: str) -> str:
        return _inner_name(raw, self.where)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _inner_name(raw: str, where: str) -> str:
    """A name in its plain form; raises InvalidInputError for one that leaves the archive."""
    name = posixpath.normpath(raw)
    if len(raw) > MAX_NAME or "\0" in raw or name.startswith(("/", "../")) or name == "..":
        raise InvalidInputError(f"{where} names {raw[:200]!r}, which is outside of the archive")
    return name


def _exactly(file: IO[bytes], offset: int, size: int, what: str) -> Iterator[bytes]:
    """``size`` bytes from ``offset``, whatever else reads the file meanwhile."""
    position, stop = offset, offset + size
    while position < stop:
        file.seek(position)
        data = file.read(min(_CHUNK, stop - position))
        if not data:
            raise InvalidInputError(f"{what} ended after {position - offset} of {size} bytes")
        position += len(data)
        yield data
