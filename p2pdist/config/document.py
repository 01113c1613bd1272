"""The tables of docs/configuration.md, written from the schema: ``python -m p2pdist.config.document [FILE]``.

Rule: what stands between the markers is generated, all else in the file is written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

from p2pdist.config import schema
from p2pdist.config.schema import Key, Section

BEGIN = "<!-- The tables below are generated: python -m p2pdist.config.document -->"
END = "<!-- End of the generated tables. -->"
DEFAULT_FILE = Path("docs/configuration.md")


def tables() -> str:
    """All sections as Markdown."""
    parts = [_section(section, f"[{section.name}]") for section in schema.SECTIONS]
    names = ", ".join(schema.DEFAULT_REGISTRIES)
    parts.append(
        _section(schema.REGISTRY, '[registries."NAME"]')
        + f"\nMirrored without being written: {names}. Tables add to these; `enabled = false` takes one away.\n"
    )
    return "\n".join(parts)


def replaced(text: str) -> str:
    """``text`` with fresh tables between its markers; raises ValueError when they are missing."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the markers are missing: {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{tables()}\n{END}{tail}"


def _section(section: Section, title: str) -> str:
    rows = "".join(_row(section, key) for key in section.keys)
    return f"### `{title}`\n\n{section.doc}\n\n| key | kind | default | example | meaning |\n|---|---|---|---|---|\n{rows}"


def _row(section: Section, key: Key) -> str:
    default = key.default_note or f"`{_default(section, key)}`"
    variable = "" if section is schema.REGISTRY else f"<br>`{section.env_name(key)}`"
    return f"| `{key.name}`{variable} | {key.kind.name} | {default} | `{key.example}` | {key.doc} |\n"


def _default(section: Section, key: Key) -> str:
    return str(key.kind.show(section.default(key)))


def main(arguments: list[str]) -> int:
    """Rewrite the file in place."""
    file = Path(arguments[0]) if arguments else DEFAULT_FILE
    file.write_text(replaced(file.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
