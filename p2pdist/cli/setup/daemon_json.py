"""Docker's ``daemon.json``: the mirror put first in ``registry-mirrors``, and taken out again. Pure.

Always true here: every other key keeps its bytes and its place; a text that Docker would not read is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from p2pdist.errors import InvalidInputError

KEY = "registry-mirrors"
_SPACE = re.compile(r"[ \t\n\r]*")
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class _Member:
    """One member of the outermost object: where its key and its value stand in the text."""

    key: str
    start: int
    value_start: int
    end: int


def merge(data: bytes | None, mirror: str) -> bytes:
    """The file with ``mirror`` first; the same bytes where it is first already. InvalidInputError for a malformed file."""
    text, mark = _decode(data)
    if not text.strip():
        return (mark + "{\n  " + f'"{KEY}": [{json.dumps(mirror)}]' + "\n}\n").encode()
    found = _mirrors(text)
    if found and _same(found[0], mirror):
        return data or b""
    return (
        mark + _with_mirrors(text, [mirror, *(each for each in found if not _same(each, mirror))])
    ).encode()


def remove(data: bytes, mirror: str) -> bytes:
    """The file without ``mirror``; the key goes with the last of its mirrors. InvalidInputError for a malformed file."""
    text, mark = _decode(data)
    if not text.strip():
        return data
    found = _mirrors(text)
    rest = [each for each in found if not _same(each, mirror)]
    if len(rest) == len(found):
        return data
    return (mark + (_with_mirrors(text, rest) if rest else _without_key(text))).encode()


def points_at(data: bytes, mirror: str) -> bool:
    """Whether Docker asks this mirror first; InvalidInputError for a malformed file."""
    text, _ = _decode(data)
    found = _mirrors(text) if text.strip() else []
    return bool(found) and _same(found[0], mirror)


def _same(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _decode(data: bytes | None) -> tuple[str, str]:
    """The text, and the byte order mark before it, if any."""
    try:
        text = (data or b"").decode()
    except UnicodeDecodeError:
        raise InvalidInputError("it is not UTF-8 text") from None
    return (text.removeprefix(_BOM), _BOM) if text.startswith(_BOM) else (text, "")


def _mirrors(text: str) -> list[str]:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidInputError("it is nested too deeply") from None
    except ValueError as error:
        raise InvalidInputError(f"it is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInputError("it is not a JSON object")
    found = value.get(KEY)
    if found is None:  # null is an empty list to Docker
        return []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidInputError(f'its "{KEY}" is not a list of texts')
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object"
        )
    return result


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON value")


def _members(text: str) -> Iterator[_Member]:
    """The outermost object's members in their order; the text is known to be valid."""
    decoder = json.JSONDecoder()
    at = _skip(text, text.index("{") + 1)
    while text[at] == '"':
        start = at
        key, at = decoder.raw_decode(text, at)
        value_start = _skip(text, _skip(text, at) + 1)
        _, end = decoder.raw_decode(text, value_start)
        yield _Member(key, start, value_start, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _with_mirrors(text: str, mirrors: Sequence[str]) -> str:
    members = list(_members(text))
    for member in members:
        if member.key == KEY:
            old = text[member.value_start : member.end]
            return text[: member.value_start] + _list_like(old, mirrors) + text[member.end :]
    shown = f'"{KEY}": [' + ", ".join(json.dumps(each) for each in mirrors) + "]"
    if not members:
        opening = text.index("{") + 1
        return text[:opening] + "\n  " + shown + "\n" + text[_skip(text, opening) :]
    first, last = members[0], members[-1]
    lead = text[text.index("{") + 1 : first.start]
    return text[: last.end] + "," + (lead if "\n" in lead else " ") + shown + text[last.end :]


def _list_like(old: str, mirrors: Sequence[str]) -> str:
    """A list laid out as the old one: on one line, or an element a line."""
    shown = [json.dumps(each) for each in mirrors]
    indent = re.match(r"\[(\s*\n\s*)(?=[^\s\]])", old)
    closing = re.search(r"\s*\Z", old[:-1])
    if indent is None or closing is None:
        return "[" + ", ".join(shown) + "]"
    return "[" + indent[1] + f",{indent[1]}".join(shown) + closing[0] + "]"


def _without_key(text: str) -> str:
    members = list(_members(text))
    at = next(at for at, member in enumerate(members) if member.key == KEY)
    if at:  # with the comma before it
        return text[: members[at - 1].end] + text[members[at].end :]
    if len(members) > 1:  # with the comma after it
        return text[: members[0].start] + text[members[1].start :]
    opening, closing = text.index("{"), text.rindex("}")
    return text[: opening + 1] + text[closing:]
