"""What the documents state as facts is what the code says: tables, metrics, log lines, exit codes, layers."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache

import pytest

from p2pdist.cli.errors import ExitCode
from tests.unit.docs import bounds, lifecycles
from tests.unit.docs.pages import ROOT

OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def section(text: str, title: str) -> str:
    return re.split(rf"^## {title}$", text, flags=re.MULTILINE)[1].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a section's table rows, heads left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_diagram_of_peer_standings_is_up_to_date() -> None:
    assert lifecycles.replaced(ARCHITECTURE) == ARCHITECTURE, "run: python -m tests.unit.docs.lifecycles"


def test_the_table_of_bounds_is_up_to_date() -> None:
    text = bounds.DOCUMENT.read_text()
    assert bounds.replaced(text) == text, "run: python -m tests.unit.docs.bounds"


@pytest.mark.parametrize(("value", "unit", "text"), [
    (4 * 2**20, "bytes", "4 MiB"), (1400, "bytes", "1,400 bytes"), (0.5, "s", "0.5 s"), (131_072, "", "131,072"),
])  # fmt: skip
def test_how_bounds_are_shown(value: float, unit: str, text: str) -> None:
    assert bounds.shown(value, unit) == text


def test_a_page_without_markers_is_refused() -> None:
    for module in (bounds, lifecycles):
        with pytest.raises(ValueError, match="markers"):
            module.replaced("nothing here")


def test_layers_are_those_of_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = project["tool"]["importlinter"]["contracts"][0]["layers"]
    enforced = [re.findall(r"p2pdist\.(\w+)", line) for line in contract]
    shown = [re.findall(r"`(\w+)`", cells[1]) for cells in rows(section(ARCHITECTURE, "Layers"))]
    assert shown == enforced


def test_exit_codes_are_those_of_the_command_line() -> None:
    assert [int(cells[0]) for cells in rows(section(OPERATIONS, "Exit codes"))] == sorted(ExitCode)


@cache
def texts_in_the_code() -> tuple[str, ...]:
    def found() -> Iterator[str]:
        for file in (ROOT / "p2pdist").rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
                    yield "".join(str(part) for part in parts)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield re.sub(r"%[-.\d]*[a-z]", "...", node.value)

    return tuple(found())


def test_log_lines_of_the_troubleshooting_table_are_the_codes_own() -> None:
    checked = 0
    for cells in rows(section(OPERATIONS, "When something is wrong").partition("### By log line")[2]):
        for line in re.findall(r"`([^`]+)`", cells[1]):
            if " " in line:
                checked += 1
                assert any(line.removesuffix("...") in text for text in texts_in_the_code()), line
    assert checked > 10
