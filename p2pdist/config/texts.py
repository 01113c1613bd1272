"""Texts in the configuration, and lists of them: read with a bound, and written the way TOML reads them again."""

from __future__ import annotations

MAX_TEXT = 4096
MAX_LIST = 256


def quote(text: str) -> str:
    """``text`` as a TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else _escaped(c) for c in escaped) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def parse_text(value: object, maximum: int = MAX_TEXT) -> str:
    """Printable text of at most ``maximum`` characters; raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("is not a text in quotes")
    if len(value) > maximum:
        raise ValueError(f"is longer than {maximum} characters")
    if not value.isprintable():
        raise ValueError("holds control characters")
    return value


def parse_list(value: object) -> tuple[str, ...]:
    """Texts from a list, or from one text with commas; empty ones dropped; raises ValueError."""
    parts = parse_text(value, MAX_LIST * 300).split(",") if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise ValueError("is not a list of texts")
    if len(parts) > MAX_LIST:
        raise ValueError(f"has more than {MAX_LIST} entries")
    return tuple(text for part in parts if (text := parse_text(part, 300).strip()))
