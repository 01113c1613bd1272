"""What becomes of a file: what was there comes back byte for byte, and nobody's work is overwritten unasked."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist.cli.setup.plan import Entry, Found, Step, plan_remove, plan_write

CONTENT = st.none() | st.binary(max_size=3)
WANTED = st.sampled_from([b"ours 1", b"ours 2"])


@dataclass(frozen=True)
class Whole:
    """A file that is ours alone."""

    content: bytes
    name: str = "whole"
    shared: bool = False
    added: str = ""

    def wanted(self, original: bytes | None) -> bytes:
        return self.content

    def satisfied(self, content: bytes) -> bool:
        return content.startswith(b"points here")

    def take_out(self, content: bytes, added: str) -> bytes:
        raise AssertionError("never asked of a file that is ours alone")


@dataclass(frozen=True)
class Shared:
    """A file of lines, the first of which is to be ours."""

    added: str
    name: str = "shared"
    shared: bool = True

    def wanted(self, original: bytes | None) -> bytes:
        return f"{self.added}\n".encode() + (original or b"")

    def satisfied(self, content: bytes) -> bool:
        return content.startswith(f"{self.added}\n".encode())

    def take_out(self, content: bytes, added: str) -> bytes:
        return content.replace(f"{added}\n".encode(), b"")


class Disk:
    """One file, and what is remembered of it, as steps are carried out."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.entry: Entry | None = None

    def write(self, target: Whole | Shared, *, force: bool = False) -> Step:
        return self._do(plan_write(target, self._found(), force=force))

    def remove(self, target: Whole | Shared | None = None, *, force: bool = False) -> Step:
        return self._do(plan_remove("it", target, self._found(), force=force))

    def _found(self) -> Found:
        return Found(self.content, 0o640, self.entry)

    def _do(self, step: Step) -> Step:
        assert step.now == self.content
        if step.problem:
            assert not step.changes
        else:
            self.content, self.entry = step.after, step.entry
        return step


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONTENT, st.lists(WANTED, min_size=1, max_size=4))
def test_whatever_setup_wrote_in_turn_the_original_comes_back(
    content: bytes | None, wanted: list[bytes]
) -> None:
    disk = Disk(content)
    for each in wanted:
        assert not disk.write(Whole(each), force=True).problem
        assert disk.content == each
        assert not disk.write(Whole(each)).changes
    assert not disk.remove().problem
    assert disk.content == content
    assert disk.entry is None
    assert not disk.remove().changes


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONTENT, st.lists(st.sampled_from(["m1", "m2"]), min_size=1, max_size=4))
def test_a_shared_file_has_the_last_mirror_only_and_its_original_comes_back(
    content: bytes | None, mirrors: list[str]
) -> None:
    disk = Disk(content)
    for mirror in mirrors:
        disk.write(Shared(mirror))
        assert disk.content == f"{mirror}\n".encode() + (content or b"")
    disk.remove(Shared(""))
    assert disk.content == content


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONTENT, st.none() | st.binary(max_size=8))
def test_a_change_of_the_owners_is_never_lost_unasked(content: bytes | None, edited: bytes | None) -> None:
    disk = Disk(content)
    disk.write(Whole(b"ours"), force=True)
    disk.content = edited
    step = disk.remove()
    assert step.problem or edited in (b"ours", content)
    if step.problem:
        assert disk.content == edited
        disk.remove(force=True)
    assert disk.content == content


def test_a_file_of_someone_elses_is_overwritten_when_forced_only() -> None:
    disk = Disk(b"theirs")
    assert "not written by setup" in disk.write(Whole(b"ours")).problem
    assert disk.content == b"theirs"
    assert disk.write(Whole(b"ours"), force=True).mode == 0o640
    assert disk.content == b"ours"
    assert disk.entry is not None
    assert disk.entry.original == b"theirs"


def test_a_file_of_someone_elses_that_does_the_same_is_left() -> None:
    disk = Disk(b"points here, by hand")
    step = disk.write(Whole(b"ours"))
    assert "already" in step.remark
    assert not step.changes
    assert disk.entry is None
    assert not disk.remove().changes


def test_our_file_changed_by_someone_is_overwritten_when_forced_only() -> None:
    disk = Disk(None)
    disk.write(Whole(b"ours"))
    disk.content = b"ours, and more"
    assert "changed since" in disk.write(Whole(b"ours")).problem
    disk.write(Whole(b"ours"), force=True)
    assert disk.content == b"ours"
    disk.remove()
    assert disk.content is None


def test_our_file_changed_by_someone_that_still_points_here_is_left() -> None:
    disk = Disk(None)
    disk.write(Whole(b"ours"))
    disk.content = b"points here, with more"
    assert "still points at the agent" in disk.write(Whole(b"ours")).remark
    assert disk.content == b"points here, with more"


def test_our_file_removed_by_someone_is_written_again_and_removed() -> None:
    disk = Disk(b"theirs")
    disk.write(Whole(b"ours"), force=True)
    disk.content = None
    assert "is gone" in disk.remove().problem
    disk.write(Whole(b"ours"))
    assert disk.content == b"ours"
    disk.remove()
    assert disk.content is None


def test_a_shared_file_keeps_what_its_owner_changed_meanwhile() -> None:
    disk = Disk(b"a\n")
    disk.write(Shared("m1"))
    disk.content = b"m1\na\nb\n"
    assert disk.write(Shared("m1")).remark
    disk.write(Shared("m2"))
    assert disk.content == b"m2\na\nb\n"
    disk.remove(Shared(""))
    assert disk.content == b"a\nb\n"


def test_a_changed_shared_file_loses_only_what_was_added_when_forced() -> None:
    disk = Disk(b"a\n")
    disk.write(Shared("m1"))
    disk.content = b"m1\na\nb\n"
    assert "was changed" in disk.remove(Shared("")).problem
    disk.remove(Shared(""), force=True)
    assert disk.content == b"a\nb\n"


def test_undoing_what_was_done_by_hand_is_left_to_hands_unless_forced() -> None:
    disk = Disk(b"m1\na\n")
    assert "by hand" in disk.remove(Shared("m1")).remark
    assert disk.content == b"m1\na\n"
    disk.remove(Shared("m1"), force=True)
    assert disk.content == b"a\n"
    whole = Disk(b"points here")
    whole.remove(Whole(b"ours"), force=True)
    assert whole.content == b"points here"


@pytest.mark.parametrize("content", [None, b"x"])
def test_nothing_known_is_nothing_to_undo(content: bytes | None) -> None:
    disk = Disk(content)
    step = disk.remove(Shared("m1"), force=True)
    assert not step.changes
    assert not step.remark


def test_a_run_cut_off_before_the_file_was_written_is_undone_by_forgetting() -> None:
    disk = Disk(b"a\n")
    disk.entry = plan_write(Shared("m1"), Found(b"a\n", 0o644, None), force=False).entry
    assert not disk.remove().problem
    assert disk.content == b"a\n"
    assert disk.entry is None


def test_a_removed_file_comes_back_with_its_mode() -> None:
    disk = Disk(b"secret")
    disk.write(Whole(b"ours"), force=True)
    step = plan_remove("it", None, Found(None, 0o644, disk.entry), force=True)
    assert (step.after, step.mode) == (b"secret", 0o640)
