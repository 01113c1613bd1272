"""What becomes of one file: written, left alone, refused or restored. Pure.

Always true here:
- the original of a file is what was there before ``setup`` first wrote it; ``--remove`` brings back those very bytes;
- what someone else wrote, or changed after us, is not overwritten without ``force``;
- a second run of the same command changes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

from p2pdist.errors import InvalidInputError


class Target(Protocol):
    """One file that a runtime reads. A content of None is no file. Each may raise InvalidInputError (malformed)."""

    @property
    def name(self) -> str:
        """The file's path below the directory that is set up."""

    @property
    def shared(self) -> bool:
        """Whether it also holds what is not ours, so that setup edits it; else setup owns the whole file."""

    @property
    def added(self) -> str:
        """What ``take_out`` needs to find, in a file that was changed since, what setup put there."""

    def wanted(self, original: bytes | None) -> bytes:
        """The file as it should be, given what it is without us."""

    def satisfied(self, content: bytes) -> bool:
        """Whether a file that setup did not write makes the runtime ask the agent."""

    def take_out(self, content: bytes, added: str) -> bytes:
        """A shared file without what setup added."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is remembered of a file: what was there before, its mode, and the digests of what setup may have left there."""

    original: bytes | None
    mode: int
    written: tuple[str, ...]
    added: str = ""

    def wrote(self, content: bytes | None) -> bool:
        return content is not None and digest(content) in self.written


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it is: its content (None: there is none), its mode, and what is remembered of it (None: nothing)."""

    content: bytes | None
    mode: int
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Step:
    """One file's way: from ``now`` to ``after``, and what is remembered then. ``problem`` says why it is left undone,
    ``remark`` what else is to be known."""

    name: str
    now: bytes | None
    after: bytes | None
    entry: Entry | None
    mode: int = 0o644
    problem: str = ""
    remark: str = ""

    @property
    def changes(self) -> bool:
        return self.now != self.after


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def plan_write(target: Target, found: Found, *, force: bool) -> Step:
    """Make the file what is wanted."""
    now, entry = found.content, found.entry
    if entry is not None and entry.wrote(now):
        return _write(target, found, entry.original, replace(entry, written=()))
    if now is None or entry is None or now == entry.original:
        return _first(target, found, force=force)
    if target.satisfied(now):
        return Step(
            target.name, now, now, entry, remark="changed since it was set up; it still points at the agent"
        )
    if target.shared:
        return _write(target, found, target.take_out(now, entry.added))
    if force:
        return _write(target, found, entry.original, entry)
    return Step(target.name, now, now, entry, problem="was changed since setup wrote it")


def plan_remove(name: str, target: Target | None, found: Found, *, force: bool) -> Step:
    """Bring back what was there; ``target`` where the file may be a shared one."""
    now, entry = found.content, found.entry
    if entry is None:
        return _stranger(name, target, found, force=force)
    if now == entry.original:
        return Step(name, now, now, None)
    if entry.wrote(now):
        return Step(name, now, entry.original, None, mode=found.mode)
    if not force:
        how = "is gone" if now is None else "was changed"
        return Step(name, now, now, entry, problem=f"{how} since setup wrote it")
    if now is not None and target is not None and target.shared:
        return Step(name, now, target.take_out(now, entry.added), None, mode=found.mode)
    return Step(name, now, entry.original, None, mode=found.mode if now is not None else entry.mode)


def _first(target: Target, found: Found, *, force: bool) -> Step:
    now = found.content
    if now is not None and target.satisfied(now):
        return Step(
            target.name, now, now, None, remark="points at the agent already, and was not written by setup"
        )
    if now is not None and not target.shared and not force:
        return Step(target.name, now, now, None, problem="is there already, and was not written by setup")
    return _write(target, found, now)


def _write(target: Target, found: Found, original: bytes | None, entry: Entry | None = None) -> Step:
    after = target.wanted(original)
    entry = entry or Entry(original, found.mode, ())
    entry = replace(entry, written=(digest(after),), added=target.added)
    return Step(target.name, found.content, after, entry, mode=found.mode)


def _stranger(name: str, target: Target | None, found: Found, *, force: bool) -> Step:
    """Nothing is remembered of the file: it is not ours, whatever it says."""
    now = found.content
    if now is None or target is None or not _points_here(target, now):
        return Step(name, now, now, None)
    if force and target.shared:
        return Step(name, now, target.take_out(now, target.added), None, mode=found.mode)
    return Step(
        name, now, now, None, remark="points at the agent, but setup did not write it: edit it by hand"
    )


def _points_here(target: Target, content: bytes) -> bool:
    try:
        return target.satisfied(content)
    except InvalidInputError:
        return False
