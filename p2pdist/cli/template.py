"""``--format``: the part of Go's templates that people use with ``docker history`` and its like.

Understood: text, ``{{.Field}}``, ``{{json .Field}}``, ``{{json .}}``, ``{{upper .Field}}``, ``{{lower .Field}}``, and the
escapes ``\\t`` and ``\\n``. Everything else is an error that says what is understood; nothing is printed as if it were.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

MAX_TEMPLATE = 4096
# As Docker's: a column is at least 10 wide, and ends with 3 blanks at least.
_MIN_COLUMN = 10
_PADDING = 3
_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_CALL = re.compile(r"(?:(?P<function>[a-z]+)\s+)?\.(?P<field>[A-Za-z]*)\Z")


def _json(value: object) -> str:
    """As Go's encoder writes it: keys sorted, no blanks, and nothing that HTML would take for markup."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return "".join(f"\\u{ord(char):04x}" if char in "<>&\u2028\u2029" else char for char in text)


_FUNCTIONS: dict[str, Callable[[object], str]] = {
    "": str,
    "json": _json,
    "upper": lambda value: str(value).upper(),
    "lower": lambda value: str(value).lower(),
}


@dataclass(frozen=True, slots=True)
class Action:
    """One ``{{...}}``; ``field`` "" is the whole row."""

    function: str
    field: str


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed format; ``table`` when columns are to be aligned under headings."""

    parts: tuple[str | Action, ...]
    table: bool

    def rows(
        self, rows: Iterable[Mapping[str, str]], headings: Mapping[str, str], whole: Sequence[str]
    ) -> Iterator[str]:
        """A line for each row, after one of headings for a table. ``whole`` are the fields of ``{{json .}}``."""
        lines = [self._render(row, whole) for row in rows]
        if not self.table:
            yield from lines
            return
        heads = "".join(
            part if isinstance(part, str) else headings.get(part.field, "") for part in self.parts
        )
        yield from aligned([heads, *lines])

    def _render(self, row: Mapping[str, str], whole: Sequence[str]) -> str:
        def value(part: str | Action) -> str:
            if isinstance(part, str):
                return part
            found = row[part.field] if part.field else {name: row[name] for name in whole}
            return _FUNCTIONS[part.function](found)

        return "".join(map(value, self.parts))


def parse_template(text: str, fields: Sequence[str]) -> Template:
    """Read ``json``, ``table TEMPLATE`` or ``TEMPLATE``. Raises ValueError that names what is not understood."""
    if len(text) > MAX_TEMPLATE:
        raise ValueError(f"it has {len(text)} characters, and at most {MAX_TEMPLATE} are read")
    if text.strip() == "json":
        return Template((Action("json", ""),), table=False)
    table = text.split(None, 1)[:1] == ["table"]
    if table:
        text = text.split(None, 1)[1] if len(text.split(None, 1)) > 1 else ""
    if not text:
        raise ValueError("it is empty; give a template such as '{{.ID}} {{.Size}}', or leave it out")
    return Template(tuple(_parts(text.replace("\\t", "\t").replace("\\n", "\n"), fields)), table)


def _parts(text: str, fields: Sequence[str]) -> Iterator[str | Action]:
    end = 0
    for match in _ACTION.finditer(text):
        if match.start() > end:
            yield _literal(text[end : match.start()])
        yield _action(match[1].strip(), fields)
        end = match.end()
    if end < len(text):
        yield _literal(text[end:])


def _literal(text: str) -> str:
    if "{{" in text or "}}" in text:
        raise ValueError("a {{ or }} has no partner")
    return text


def _action(text: str, fields: Sequence[str]) -> Action:
    call = _CALL.match(text)
    if call is None or (call["function"] or "") not in _FUNCTIONS:
        raise ValueError(
            f"{{{{{text}}}}} is not understood; {{{{.Field}}}}, and json, upper or lower before it, are"
        )
    field, function = call["field"], call["function"] or ""
    if not field and function != "json":
        raise ValueError("{{.}} stands for the whole row, which only {{json .}} prints")
    if field and field not in fields:
        near = difflib.get_close_matches(field.lower(), [name.lower() for name in fields], 1)
        hint = next((f"; the nearest is .{name}" for name in fields if near and name.lower() == near[0]), "")
        raise ValueError(
            f"there is no field .{field}{hint}; there are: {', '.join('.' + name for name in fields)}"
        )
    return Action(function, field)


def aligned(lines: Sequence[str]) -> Iterator[str]:
    """Cells that tabs end, padded so that columns stand below each other; the last cell of a line stays as it is."""
    cells = [line.split("\t") for line in lines]
    columns = max((len(row) for row in cells), default=1) - 1
    widths = [
        max(_MIN_COLUMN, *(len(row[at]) + _PADDING for row in cells if at < len(row) - 1))
        for at in range(columns)
    ]
    for row in cells:
        yield "".join(cell.ljust(widths[at]) for at, cell in enumerate(row[:-1])) + row[-1]
