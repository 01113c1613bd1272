"""What a dry run shows: a unified diff of a file that is written, made or removed. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator


def unified(path: str, before: bytes | None, after: bytes | None) -> list[str]:
    """Lines without their ends; ``/dev/null`` stands for no file, as patch(1) has it. Nothing when both are the same."""
    if before == after:
        return []
    names = ["/dev/null" if content is None else path for content in (before, after)]
    lines = difflib.unified_diff(_lines(before), _lines(after), names[0], names[1])
    return list(_shown(lines)) or [f"--- {names[0]}", f"+++ {names[1]}"]


def _lines(content: bytes | None) -> list[str]:
    # Not splitlines(): it also splits at characters that end no line in these files.
    text = (content or b"").decode(errors="replace")
    return [line + "\n" for line in text.split("\n")[:-1]] + (
        [text.rpartition("\n")[2]] if text.rpartition("\n")[2] else []
    )


def _shown(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield "".join(
            c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}"
            for c in line.removesuffix("\n")
        )
        if not line.endswith("\n"):
            yield "\\ No newline at end of file"
