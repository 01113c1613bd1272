"""Reading and replacing the runtimes' files: whole or not at all, bounded, through links, with their mode and owner kept.

Every failure is a CommandError that names the file and says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from p2pdist.cli.errors import CommandError

MAX_FILE_BYTES = 2**20
FILE_MODE, DIRECTORY_MODE = 0o644, 0o755
_TEMPORARY = (".p2pdist-setup.", ".tmp")  # before and after the name of the file that is to be replaced
_AS_ROOT = "run it as root (sudo)"
_ROOT = f"{_AS_ROOT}; --dry-run needs no right to write"
_READ_ONLY = "this file system is mounted read-only"
_HINTS = {
    errno.EBUSY: "it is mounted on its own, and cannot be replaced: change it where the mount comes from",
    errno.EROFS: _READ_ONLY,
}


def read(path: Path, limit: int = MAX_FILE_BYTES) -> bytes | None:
    """A regular file's content; None when there is none."""
    try:
        # Non-blocking, so that a FIFO put here is refused rather than waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CommandError(f"{path} is not a regular file", "move it away, or name another file")
            data = file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed("read", path, error) from error
    if len(data) > limit:
        raise CommandError(
            f"{path} is larger than {limit} bytes", "that is no configuration of this runtime; look at it"
        )
    return data


def mode_of(path: Path) -> int:
    """The file's permissions; those of a new file where there is none."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return FILE_MODE


def names_in(directory: Path) -> list[str]:
    """What a directory holds, sorted; nothing where there is none."""
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _failed("read", directory, error) from error


def check_writable(path: Path) -> None:
    """Raise before anything is written, when this file could not be."""
    at = real(path).parent
    while not at.exists() and at != at.parent:
        at = at.parent
    if not os.access(at, os.W_OK | os.X_OK):
        read_only = bool(os.statvfs(at).f_flag & os.ST_RDONLY)
        raise CommandError(
            f"cannot write {path}: {os.strerror(errno.EROFS if read_only else errno.EACCES)} ({at})",
            _READ_ONLY if read_only else _hint("write", PermissionError()),
        )


def real(path: Path) -> Path:
    """Where a file's content is: what a link leads to, there or not."""
    return Path(os.path.realpath(path))


def write(path: Path, content: bytes, mode: int) -> None:
    """Replace or make a file: whoever reads it sees the old content or the new; durable when this returns."""
    target = real(path)
    try:
        before, after = _TEMPORARY
        descriptor, name = tempfile.mkstemp(after, f"{before}{target.name}.", target.parent)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                _look_like(target, file.fileno(), mode)
                os.fsync(file.fileno())
            os.rename(name, target)
        except BaseException:
            os.unlink(name)
            raise
        _sync(target.parent)
    except OSError as error:
        raise _failed("write", path, error) from error


def remove(path: Path) -> None:
    """Remove a file (what a link leads to; the link stays)."""
    target = real(path)
    try:
        target.unlink(missing_ok=True)
        _sync(target.parent)
    except OSError as error:
        raise _failed("remove", path, error) from error


def remove_temporary(directory: Path) -> None:
    """Remove what a write that was killed has left; nothing where that cannot be."""
    with contextlib.suppress(OSError):
        for entry in list(directory.iterdir()):
            if entry.name.startswith(_TEMPORARY[0]) and entry.name.endswith(_TEMPORARY[1]):
                entry.unlink()


def missing_directories(path: Path) -> list[Path]:
    """What ``make_directories`` would make, outermost first."""
    missing: list[Path] = []
    at = path
    while not at.exists():
        missing.insert(0, at)
        at = at.parent
    return missing


def make_directories(path: Path) -> list[Path]:
    """Make what is missing of a directory's path; returns what was made, outermost first."""
    missing = missing_directories(path)
    for each in missing:
        if each.is_symlink():
            raise CommandError(
                f"cannot make {each}: it is a link to {real(each)}, which is not there",
                "make that directory, or remove the link",
            )
        try:
            each.mkdir()
            each.chmod(DIRECTORY_MODE)  # whatever the umask: runtimes of other users read these, too
        except OSError as error:
            raise _failed("make", each, error) from error
    return missing


def remove_empty(directory: Path) -> bool:
    """Remove a directory unless it holds something; whether it is gone."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other runs of setup out of a directory, where it exists."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    except OSError as error:
        raise _failed("open", directory, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CommandError(
            f"another p2pdist setup works in {directory}", "run it again when that has ended"
        ) from None
    finally:
        os.close(descriptor)


def _look_like(old: Path, descriptor: int, mode: int) -> None:
    """Give a new file the old one's owner and labels (SELinux, ACL), then the mode, which a change of owner may clear."""
    with contextlib.suppress(FileNotFoundError):
        status = old.stat()
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, status.st_uid, status.st_gid)
        with contextlib.suppress(OSError):  # file systems without labels
            for name in os.listxattr(old):
                os.setxattr(descriptor, name, os.getxattr(old, name))
    os.fchmod(descriptor, mode)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(what: str, path: Path, error: OSError) -> CommandError:
    return CommandError(f"cannot {what} {path}: {error.strerror}", _hint(what, error))


def _hint(what: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        if os.geteuid() == 0:
            return "root may not either: look at lsattr (chattr -i), SELinux and AppArmor, and who manages this file"
        return _AS_ROOT if what in ("read", "open") else _ROOT
    return _HINTS.get(error.errno or 0, "")
