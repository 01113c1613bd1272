"""Where things are in the data directory, and whose it is.

    DATA/p2pdist.json        whose directory this is, and the version of its layout
    DATA/lock                held (flock) by the agent that uses it
    DATA/catalog.sqlite      what is known about blobs and tags: a cache of the truth below, plus tags and pins
    DATA/ingest/             blobs being written: ALG-HEX.part, and ALG-HEX.held with the ranges that are there
    DATA/store/              an OCI image layout (image-spec, image-layout.md): oci-layout, index.json, blobs/ALG/HEX

Rules: nothing is written into a directory that is not ours. A file under blobs/ is whole: it gets there by rename,
after its digest was checked and its bytes were synced. Its mode says whether other hosts may have it (``SHARED_MODE``)
or not (``PRIVATE_MODE``), so that this outlives the catalog. Other users of this host cannot look into a directory that
was made here (``DIRECTORY_MODE``), nor read what names repositories (``RECORD_MODE``) in one that was made by others.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pdist.errors import InvalidInputError, P2PDistError, StoreError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.retention.policy import Candidate

LAYOUT_VERSION = 1
SPARE = 64 * 1024
DIRECTORY_MODE = 0o750
RECORD_MODE = 0o640
SHARED_MODE = 0o644
PRIVATE_MODE = 0o600
_MARKER = "p2pdist.json"
_OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_ALGORITHMS = ("sha256", "sha512")
_MAX_SMALL_FILE = 4096
_OTHER = "set agent.data_dir to a directory of its own, or empty this one"


def translate(error: OSError, what: str, path: Path) -> P2PDistError:
    """What an OSError means to the store's callers."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(
            f"the disk is full: {what} {path} failed ({error.strerror}); free space there or lower store.max_size"
        )
    return StoreError(
        f"{what} {path} failed: {error.strerror or error}; check the disk and the directory's owner"
    )


@dataclass(frozen=True, slots=True)
class FoundBlob:
    """A file under blobs/ whose name is a digest."""

    digest: Digest
    size: int
    modified_at: float
    shared: bool


class Layout:
    """The paths of one data directory that this process holds locked."""

    def __init__(self, data: Path, lock: int) -> None:
        self.data = data
        self.store = data / "store"
        self.ingest = data / "ingest"
        self.catalog = data / "catalog.sqlite"
        self.index = self.store / "index.json"
        self._lock = lock

    @classmethod
    def claim(cls, data: Path) -> Layout:
        """Make or open the data directory and lock it.

        Raises StoreError: not a directory, someone else's, of a newer version, in use, or not writable.
        """
        try:
            data.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
            fresh = _check_owner(data)
            layout = cls(data, _lock(data))
        except FileExistsError as error:
            raise StoreError(f"{data} is not a directory; set agent.data_dir to one") from error
        except OSError as error:
            raise _unusable(data, error) from error
        try:
            layout._prepare(fresh)
        except OSError as error:
            layout.release()
            raise _unusable(data, error) from error
        except StoreError:
            layout.release()
            raise
        return layout

    def _prepare(self, fresh: bool) -> None:
        if fresh:
            marker = {"product": "p2pdist", "layout_version": LAYOUT_VERSION}
            self._replace(self.data / _MARKER, json.dumps(marker).encode(), self.data)
        self.make_directories()
        if os.stat(self.store).st_dev != os.stat(self.ingest).st_dev:
            raise StoreError(
                f"{self.store} and {self.ingest} are on different file systems; mount all of {self.data} instead"
            )
        if not (self.store / "oci-layout").exists():
            self._replace(self.store / "oci-layout", _OCI_LAYOUT, self.ingest)
        if not self.index.exists():
            self._replace(self.index, b'{"schemaVersion":2,"manifests":[]}', self.ingest)

    def release(self) -> None:
        """Let another agent have the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def blob(self, digest: Digest) -> Path:
        return self.store / "blobs" / digest.algorithm / digest.hex

    def part(self, digest: Digest) -> Path:
        return self.ingest / f"{digest.algorithm}-{digest.hex}.part"

    def held(self, digest: Digest) -> Path:
        return self.ingest / f"{digest.algorithm}-{digest.hex}.held"

    def require_room(self, digest: Digest, size: int, promised: int) -> None:
        """Raises StoreFullError where the disk has no room for a blob of ``size`` bytes (what a part of it takes already
        counts), ``promised`` bytes of others, and SPARE for what else is written: so a blob that cannot fit is passed
        through whole, and not cut where the disk is full.

        Directories that someone removed while the store is open are made anew; StoreError when all of it was removed.
        """
        try:
            if not (self.data / _MARKER).exists():
                raise StoreError(f"{self.data} was removed while it was in use; restart the agent")
            self.make_directories()
            disk = os.statvfs(self.ingest)
            need = max(0, size - _allocated(self.part(digest))) + promised
        except OSError as error:
            raise translate(error, "preparing", self.ingest) from error
        free = disk.f_bavail * disk.f_frsize
        if need + SPARE > free:
            raise StoreFullError(
                f"the disk has {free} bytes free where {need} are to be written to {self.ingest}; free space there or lower "
                "store.max_size"
            )

    def make_directories(self) -> None:
        """Those for blobs and parts. Raises OSError."""
        self.ingest.mkdir(exist_ok=True)
        for algorithm in _ALGORITHMS:
            (self.store / "blobs" / algorithm).mkdir(parents=True, exist_ok=True)

    def publish(self, digest: Digest) -> None:
        """Make a synced, checked part a blob; on failure it is a part again. Raises OSError."""
        part, blob = self.part(digest), self.blob(digest)
        os.replace(part, blob)
        try:
            sync_directory(blob.parent)
        except OSError:
            os.replace(blob, part)
            raise
        self.held(digest).unlink(missing_ok=True)

    def remove_blob(self, digest: Digest) -> None:
        self.blob(digest).unlink(missing_ok=True)

    def remove(self, victims: Iterable[Candidate]) -> None:
        """Delete the files of what was chosen to go. Raises OSError."""
        for victim in victims:
            (self.remove_part if victim.partial else self.remove_blob)(victim.digest)

    def remove_part(self, digest: Digest) -> None:
        """The ranges first: a part without them counts as nothing, ranges without their part must not exist."""
        self.held(digest).unlink(missing_ok=True)
        self.part(digest).unlink(missing_ok=True)

    def write_index(self, body: bytes) -> None:
        """Replace index.json in one step. Raises OSError."""
        self._replace(self.index, body, self.ingest)

    def _replace(self, path: Path, body: bytes, workplace: Path) -> None:
        temporary = workplace / f"{path.name}.tmp"
        with open(temporary, "wb", opener=_open_record) as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)

    def blobs(self) -> Iterator[FoundBlob]:
        """Every regular file under blobs/ with a digest's name; others are left alone."""
        for algorithm in _ALGORITHMS:
            with os.scandir(self.store / "blobs" / algorithm) as entries:
                for entry in entries:
                    found = _found_blob(algorithm, entry)
                    if found is not None:
                        yield found

    def parts(self) -> list[tuple[Digest, float]]:
        """Parts on disk with the time of their last change, oldest first; what else lies in ingest/ is removed."""
        found: list[tuple[Digest, float]] = []
        for path in sorted(self.ingest.iterdir()):
            digest = _part_digest(path)
            if digest is None or not self.part(digest).is_file():
                if not path.is_dir():
                    path.unlink()
            elif path.suffix == ".part":
                found.append((digest, path.stat().st_mtime))
        return sorted(found, key=lambda item: item[1])


def _allocated(path: Path) -> int:
    """Bytes that a file takes on the disk; 0 when there is none."""
    try:
        return os.stat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


def _open_record(path: str, flags: int) -> int:
    return os.open(path, flags, RECORD_MODE)


def sync_directory(path: Path) -> None:
    """Make renames in a directory outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _found_blob(algorithm: str, entry: os.DirEntry[str]) -> FoundBlob | None:
    try:
        digest = Digest.parse(f"{algorithm}:{entry.name}")
    except InvalidInputError:
        return None
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return None
    return FoundBlob(digest, status.st_size, status.st_mtime, bool(status.st_mode & stat.S_IROTH))


def _part_digest(path: Path) -> Digest | None:
    algorithm, _, hex_part = path.stem.partition("-")
    if path.suffix not in (".part", ".held"):
        return None
    try:
        return Digest.parse(f"{algorithm}:{hex_part}")
    except InvalidInputError:
        return None


def _check_owner(data: Path) -> bool:
    """Whether the directory is still to be set up; raises StoreError when it is not ours to use."""
    try:
        with (data / _MARKER).open("rb") as file:
            body = file.read(_MAX_SMALL_FILE)
    except FileNotFoundError:
        # Files may be there before us (a key, an identity); directories mean that something else lives here.
        foreign = sorted(item.name for item in data.iterdir() if item.is_dir() and item.name != "lost+found")
        if foreign:
            raise StoreError(f"{data} holds {foreign[0]!r} and was not made by p2pdist; {_OTHER}") from None
        return True
    try:
        marker = json.loads(body)
        version = marker["layout_version"] if marker["product"] == "p2pdist" else None
    except (ValueError, KeyError, TypeError, RecursionError):
        version = None
    if not isinstance(version, int):
        raise StoreError(f"{data / _MARKER} is damaged or not p2pdist's; {_OTHER}")
    if version > LAYOUT_VERSION:
        raise StoreError(
            f"{data} was written by a newer p2pdist (layout {version}, this one knows {LAYOUT_VERSION}); "
            f"install that version again, or {_OTHER}"
        )
    return False


def _lock(data: Path) -> int:
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise StoreError(
            f"{data} is in use by another p2pdist agent (process {holder or 'unknown'}); stop it, or give this one "
            "another agent.data_dir"
        ) from error
    except OSError:
        os.close(descriptor)
        raise
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _unusable(data: Path, error: OSError) -> P2PDistError:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(
            f"{data} is not writable by this user ({error.strerror}); make it so (chown), or set agent.data_dir to "
            "another directory"
        )
    if error.errno == errno.ENOTDIR:
        return StoreError(f"{data} is not a directory; set agent.data_dir to one")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"the disk that holds {data} is full ({error.strerror}); free space there")
    return StoreError(
        f"{data} cannot be used: {error.strerror or error}; check the disk, or set agent.data_dir anew"
    )
