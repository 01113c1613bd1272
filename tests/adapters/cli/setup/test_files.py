"""Replacing files on a real disk."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from p2pdist.cli.errors import CommandError
from p2pdist.cli.setup import files
from tests.adapters.cli.setup.tree import tree


def test_a_new_file_is_readable_by_all_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        made = files.make_directories(tmp_path / "a" / "b")
        files.write(tmp_path / "a" / "b" / "f", b"x", files.FILE_MODE)
    finally:
        os.umask(before)
    assert made == [tmp_path / "a", tmp_path / "a" / "b"]
    assert tree(tmp_path) == {"a": (0o755, None), "a/b": (0o755, None), "a/b/f": (0o644, b"x")}
    assert files.make_directories(tmp_path / "a" / "b") == []


def test_a_replaced_file_is_a_new_one_with_the_mode_and_owner_of_the_old(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"old")
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 4321)
    with file.open("rb") as reader:
        before = file.stat()
        files.write(file, b"new", files.mode_of(file))
        assert reader.read() == b"old"
    after = file.stat()
    assert file.read_bytes() == b"new"
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (before.st_uid, before.st_gid, 0o640)
    assert after.st_ino != before.st_ino
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_labels_of_the_old_file_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"old")
    os.setxattr(file, "user.p2pdist", b"label")
    files.write(file, b"new", 0o644)
    assert os.getxattr(file, "user.p2pdist") == b"label"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path, there: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "f"
    link.symlink_to("elsewhere/real")
    if there:
        (elsewhere / "real").write_bytes(b"old")
    before = tree(tmp_path)
    files.write(link, b"new", 0o644)
    assert link.is_symlink()
    assert (elsewhere / "real").read_bytes() == b"new"
    if there:
        files.write(link, b"old", 0o644)
    else:
        files.remove(link)
    assert tree(tmp_path) == before


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CommandError, match=r"cannot write .*/f: No space left"):
        files.write(file, b"new", 0o644)
    assert tree(tmp_path) == {"f": (0o644, b"old")}


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large").write_bytes(b"x" * 11)
    for name, why in (
        ("pipe", "not a regular file"),
        ("directory", "Is a directory"),
        ("loop", "cannot read"),
    ):
        with pytest.raises(CommandError, match=why):
            files.read(tmp_path / name)
    with pytest.raises(CommandError, match="larger than 10 bytes"):
        files.read(tmp_path / "large", 10)
    assert files.read(tmp_path / "large", 11) == b"x" * 11
    assert files.read(tmp_path / "none") is None
    with pytest.raises(CommandError, match="cannot read"):
        files.names_in(tmp_path / "large")
    assert files.names_in(tmp_path / "none") == []


def test_what_cannot_be_written_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.check_writable(tmp_path / "a" / "b" / "f")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for user, hint in ((1000, "run it as root"), (0, "lsattr")):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        with pytest.raises(CommandError, match="Permission denied") as caught:
            files.check_writable(tmp_path / "a" / "b" / "f")
        assert hint in caught.value.hint


def test_two_runs_at_once(tmp_path: Path) -> None:
    with files.locked(tmp_path):
        with pytest.raises(CommandError, match="another p2pdist setup works in"), files.locked(tmp_path):
            pass
    with files.locked(tmp_path):
        pass
    with files.locked(tmp_path / "none"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="cannot open"), files.locked(tmp_path / "file"):
        pass


def test_only_empty_directories_are_removed(tmp_path: Path) -> None:
    (tmp_path / "full" / "of").mkdir(parents=True)
    assert not files.remove_empty(tmp_path / "full")
    assert files.remove_empty(tmp_path / "full" / "of")
    assert files.remove_empty(tmp_path / "full" / "of")


@pytest.mark.parametrize(
    ("number", "root", "hint"),
    [
        (errno.EPERM, 0, "lsattr"),
        (errno.EACCES, 1000, "run it as root"),
        (errno.EBUSY, 0, "mounted on its own"),
        (errno.EROFS, 0, "mounted read-only"),
    ],
)
def test_a_failure_says_what_to_do(
    tmp_path: Path, number: int, root: int, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*names: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", fails)
    monkeypatch.setattr(os, "geteuid", lambda: root)
    with pytest.raises(CommandError, match="cannot write") as caught:
        files.write(tmp_path / "f", b"x", 0o644)
    assert hint in caught.value.hint
