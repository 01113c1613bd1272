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
        _clean_up(work, known)
        _carry_out(work.place, known, [step for step in steps if not step.problem])
    return steps


def _plan(work: Work, known: State, *, remove: bool, force: bool) -> list[Step]:
    names = {target.name for target in work.targets}
    steps = []
    owners: dict[Path, str] = {}
    for target in work.targets:
        found = _find(work.place, known, target.name)
        owner = owners.setdefault(files.real(work.place.path(target.name)), target.name)
        if owner != target.name:
            steps.append(_shares(target.name, found, owner))
            continue
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


def _shares(name: str, found: Found, owner: str) -> Step:
    """Left alone: by a link it is a file that holds what another one is to hold."""
    problem = f"is one file with {owner}, by a link: give each a directory of its own"
    return Step(name, found.content, found.content, found.entry, problem=problem)


def _clean_up(work: Work, known: State) -> None:
    """Remove what a run that was killed in the middle of a write has left."""
    names = [target.name for target in work.targets] + list(known.files)
    for directory in {work.place.here, *(work.place.path(name).parent for name in names)}:
        files.remove_temporary(directory)


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
    wanted = _directories(place, changing)
    made = _with_missing(place, known, wanted)
    files.make_directories(place.here)
    _save(place, State(_while_writing(known.files, changing), made))
    for directory in wanted:
        files.make_directories(directory)
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


def _directories(place: Place, changing: Sequence[Step]) -> list[Path]:
    return [place.here, *(place.path(step.name).parent for step in changing if step.after is not None)]


def _with_missing(place: Place, known: State, wanted: Sequence[Path]) -> tuple[str, ...]:
    """What setup made, and is about to make: remembered before, so that no run that is cut off leaves a directory."""
    missing = [path for each in wanted for path in files.missing_directories(each)]
    return tuple(dict.fromkeys((*known.made, *(os.path.relpath(path, place.here) for path in missing))))


def _remove_empty(place: Place, made: Sequence[str]) -> tuple[str, ...]:
    """Remove what setup made and nothing is in any more; returns what stays."""
    stay = [
        name for name in reversed(made) if not files.remove_empty(Path(os.path.normpath(place.here / name)))
    ]
    return tuple(reversed(stay))


def _save(place: Place, content: State) -> None:
    files.write(place.state_file, state.render(content, place.runtime), 0o600)
