"""The state file beside what setup wrote: what was there before, so that ``--remove`` can bring it back. Pure.

JSON, mode 0600, since the originals may hold secrets: ``{"format": 1, "made": [DIRECTORY...], "files": {NAME: {"original":
BASE64 or null, "mode": MODE, "written": [SHA-256...], "added": TEXT}}}``. Names are relative to its own directory, so
that it may be written through a mount of another host's root.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from p2pdist.cli.setup.plan import Entry
from p2pdist.errors import InvalidInputError

MAX_STATE_BYTES = 64 * 2**20
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class State:
    """Files by name, and the directories that setup made, outermost first."""

    files: dict[str, Entry] = field(default_factory=dict)
    made: tuple[str, ...] = ()


def file_name(runtime: str) -> str:
    return f".p2pdist-setup-{runtime}.json"


def render(state: State, runtime: str) -> bytes:
    value = {
        "format": _FORMAT,
        "about": f"What was here before p2pdist setup {runtime} wrote; needed by p2pdist setup {runtime} --remove.",
        "made": list(state.made),
        "files": {name: _entry(entry) for name, entry in sorted(state.files.items())},
    }
    return (json.dumps(value, indent=2) + "\n").encode()


def parse(data: bytes) -> State:
    """Raises InvalidInputError for anything that ``render`` does not write."""
    try:
        value = json.loads(data)
        if value["format"] != _FORMAT:
            raise InvalidInputError(
                f"it is of format {str(value['format'])[:20]}, made by another version of p2pdist"
            )
        files = {_inside(name): _read_entry(entry) for name, entry in value["files"].items()}
        return State(files, tuple(_path(each) for each in value["made"]))
    except InvalidInputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInputError(f"it is not what setup wrote ({type(error).__name__})") from None


def _entry(entry: Entry) -> dict[str, Any]:
    original = None if entry.original is None else base64.b64encode(entry.original).decode()
    return {"original": original, "mode": entry.mode, "written": list(entry.written), "added": entry.added}


def _read_entry(value: dict[str, Any]) -> Entry:
    original = value["original"]
    content = None if original is None else base64.b64decode(original, validate=True)
    written = tuple(_text(each) for each in value["written"])
    mode = value["mode"]
    if not isinstance(mode, int) or not 0 <= mode <= 0o7777:
        raise ValueError("mode")
    return Entry(content, mode, written, _text(value["added"]))


def _inside(name: str) -> str:
    """A name that stays below the directory: what is read here is written to as root."""
    path = PurePosixPath(_path(name))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("name")
    return name


def _path(value: object) -> str:
    text = _text(value)
    if not text or "\0" in text:
        raise ValueError("path")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value
