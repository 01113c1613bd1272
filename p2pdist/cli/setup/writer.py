"""Carries a plan out: the state file first, then each file, so that a run cut off anywhere can be repeated or undone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from p2pdist.cli.errors import CommandError
from p2pdist.cli.setup import files, state
from p2pdist.cli.setup.plan import Entry, Found, Step, Target, plan_remove, plan_write
from p2pdist.cli.setup.root import HostRoot
from p2pdist.cli.setup.state import State
from p2pdist.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Place:
    """A host's directory that a runtime's files are in, with our state file. Names of files are relative to it."""

    runtime: str
    directory: Path
    root: HostRoot

    @property
    def here(self) -> Path:
        return self.root.here(self.directory)

    @property
    def state_file(self) -> Path:
        return self.path(state.file_name(self.runtime))

    def path(self, name: str) -> Path:
        return self.root.here(self.directory / name)


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done: ``targets`` made so (or undone); with ``others``, every other file setup wrote there is undone."""

    place: Place
    targets: tuple[Target, ...]
    others: bool = False


def run(work: Work, *, remove: bool, force: bool, dry_run: bool) -> list[Step]:
    """Plan, and unless it is a dry run carry out what has no problem; returns all steps."""
    if dry_run:
        return _plan(work, _load(work.place), remove=remove, force=force)
    with files.locked(work.place.here):
        known = _load(work.place)
        steps = _plan(work, known, remove=remove, force=force)
        _carry_out(work.place, known, [step for step in steps if not step.problem])
    return steps


def _plan(work: Work, known: State, *, remove: bool, force: bool) -> list[Step]:
    names = {target.name for target in work.targets}
    steps = []
    for target in work.targets:
        found = _find(work.place, known, target.name)
        try:
            if remove:
                steps.append(plan_remove(target.name, target, found, force=force))
            else:
                steps.append(plan_write(target, found, force=force))
        except InvalidInputError as error:
            raise CommandError(
                f"cannot use {work.place.path(target.name)}: {error}",
                "correct it and run this again; nothing was changed",
            ) from None
    left = sorted(set(known.files) - names) if work.others else []
    return steps + [plan_remove(name, None, _find(work.place, known, name), force=force) for name in left]


def _find(place: Place, known: State, name: str) -> Found:
    path = place.path(name)
    return Found(files.read(path), files.mode_of(path), known.files.get(name))


def _load(place: Place) -> State:
    data = files.read(place.state_file, state.MAX_STATE_BYTES)
    if data is None:
        return State()
    try:
        return state.parse(data)
    except InvalidInputError as error:
        raise CommandError(
            f"cannot use {place.state_file}: {error}",
            "undo by hand what setup wrote there, and remove that file",
        ) from None


def _carry_out(place: Place, known: State, steps: Sequence[Step]) -> None:
    changing = [step for step in steps if step.changes]
    after = _remembered(known.files, steps)
    if not changing and after == known.files:
        return
    for path in [place.state_file, *(place.path(step.name) for step in changing)]:
        files.check_writable(path)
    made = _make_directories(place, known, changing)
    _save(place, State(_while_writing(known.files, changing), made))
    for step in changing:
        if step.after is None:
            files.remove(place.path(step.name))
        else:
            files.write(place.path(step.name), step.after, step.mode)
    if not after:
        files.remove(place.state_file)
    made = _remove_empty(place, made)
    if after:
        _save(place, State(after, made))


def _remembered(known: Mapping[str, Entry], steps: Sequence[Step]) -> dict[str, Entry]:
    result = dict(known)
    for step in steps:
        result.pop(step.name, None)
        if step.entry is not None:
            result[step.name] = step.entry
    return result


def _while_writing(known: Mapping[str, Entry], changing: Sequence[Step]) -> dict[str, Entry]:
    """What to remember while files are written: each may hold the old content or the new, and both are ours."""
    result = dict(known)
    for step in changing:
        if step.entry is not None:
            before = known[step.name].written if step.name in known else ()
            result[step.name] = replace(step.entry, written=(*before, *step.entry.written))
    return result


def _make_directories(place: Place, known: State, changing: Sequence[Step]) -> tuple[str, ...]:
    wanted = [place.here, *(place.path(step.name).parent for step in changing if step.after is not None)]
    made = [os.path.relpath(path, place.here) for each in wanted for path in files.make_directories(each)]
    return (*known.made, *made)


def _remove_empty(place: Place, made: Sequence[str]) -> tuple[str, ...]:
    """Remove what setup made and nothing is in any more; returns what stays."""
    stay = [
        name for name in reversed(made) if not files.remove_empty(Path(os.path.normpath(place.here / name)))
    ]
    return tuple(reversed(stay))


def _save(place: Place, content: State) -> None:
    files.write(place.state_file, state.render(content, place.runtime), 0o600)
