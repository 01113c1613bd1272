"""Which files of a foreign content store were checked already: a small text file in the agent's own directory.

A line a blob: ``ALGORITHM:HEX INODE SIZE MTIME_NS``. Rules: a mark counts only for a file with the same inode, size and
time of change, so whatever replaces a file is checked again; what does not parse is worth nothing, and then is checked.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest

logger = logging.getLogger(__name__)

MAX_BLOBS = 100_000
_MAX_BYTES = MAX_BLOBS * 220


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one file from another that took its name: inode, size in bytes, time of change in nanoseconds."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


def read_marks(path: Path) -> dict[Digest, Stamp]:
    """In a thread: the marks of an earlier process; {} when there are none that can be read."""
    try:
        with path.open("rb") as file:
            lines = file.read(_MAX_BYTES).decode("ascii", "replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        logger.warning("%s cannot be read (%s): every blob is checked again", path, error)
        return {}
    return dict(mark for line in lines[:MAX_BLOBS] if (mark := _parse(line)) is not None)


def _parse(line: str) -> tuple[Digest, Stamp] | None:
    try:
        digest, inode, size, mtime = line.split(" ")
        return Digest.parse(digest), Stamp(int(inode), int(size), int(mtime))
    except (InvalidInputError, ValueError):
        return None


def write_marks(path: Path, marks: Mapping[Digest, Stamp]) -> None:
    """In a thread: replace the file; a failure is logged, since it only costs another check."""
    fresh = path.with_name(f"{path.name}.new")
    lines = [f"{digest} {s.inode} {s.size} {s.mtime_ns}\n" for digest, s in marks.items()]
    try:
        fresh.unlink(missing_ok=True)
        with os.fdopen(
            os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w"
        ) as file:
            file.writelines(lines)
        fresh.replace(path)
    except OSError as error:
        logger.warning("%s was not written (%s): blobs will be checked again after a restart", path, error)
