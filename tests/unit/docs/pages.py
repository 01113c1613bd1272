"""The documents as data: their code blocks, inline code, links and headings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


class Block(NamedTuple):
    page: str
    language: str
    text: str


def pages() -> list[Path]:
    """README, CHANGELOG and everything under docs."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(*languages: str) -> list[Block]:
    """Fenced blocks in these languages, without the indent of a list."""
    found = []
    for page in pages():
        for indent, language, text in _FENCE.findall(page.read_text()):
            if language in languages:
                plain = "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
                found.append(Block(name_of(page), language, plain))
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def inline_code() -> list[tuple[str, str]]:
    """(page, text) of everything in single backticks."""
    return [(name_of(page), text) for page in pages() for text in re.findall(r"`([^`\n]+)`", prose(page))]


def links(page: Path) -> list[str]:
    """Targets of the page's links that stay within the project."""
    return [target for target in _LINK.findall(prose(page)) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The names that a page's headings are linked by, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(prose(page))
    }


def put_between(text: str, begin: str, end: str, new: str) -> str:
    """``text`` with ``new`` between two markers of a generated part; raises ValueError when they are missing."""
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the markers are missing: {begin} and {end}")
    return f"{head}{begin}\n\n{new}\n\n{end}{tail}"
