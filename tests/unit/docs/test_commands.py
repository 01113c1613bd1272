"""The tables of commands that are tested elsewhere, or not: nothing in them is out of date."""

from __future__ import annotations

import ast

import pytest

from tests.e2e.docs.hour import PAGE, STEPS, Said, commands, shown_commands
from tests.unit.docs.commands import ELSEWHERE, NOT_HERE, all_commands, commands_in, to_run
from tests.unit.docs.pages import ROOT, blocks


def names_of_tests(file: str) -> set[str]:
    """``test_x``, and ``TestClass::test_x``."""
    found: set[str] = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            members = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {f"{node.name}::{each.name}" for each in members}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


@pytest.mark.parametrize(("line", "test"), ELSEWHERE.items())
def test_the_test_that_runs_the_equivalent_exists(line: str, test: str) -> None:
    file, _, name = test.partition("::")
    assert name in names_of_tests(file), f"{line}: there is no {test}"


def test_a_test_that_does_not_exist_is_noticed() -> None:
    assert "test_docker" in names_of_tests("tests/e2e/test_setup.py")
    assert "TestRollback::test_skopeo_copies_the_old_digest_and_gc_lets_it_go" in names_of_tests(
        "tests/e2e/test_image_model.py"
    )
    assert "pulls_from_upstream" not in names_of_tests("tests/e2e/test_setup.py")


def test_the_tables_name_only_commands_that_the_documents_show() -> None:
    shown = {command.line for command in all_commands()}
    assert ELSEWHERE.keys() | NOT_HERE.keys() <= shown, (ELSEWHERE.keys() | NOT_HERE.keys()) - shown
    assert not ELSEWHERE.keys() & NOT_HERE.keys()


def test_most_commands_are_run() -> None:
    assert len(to_run()) > 1.5 * (len(ELSEWHERE) + len(NOT_HERE))
    assert not [
        command for command in to_run() if command.line.startswith(("systemctl ", "kubectl ", "ssh "))
    ]


@pytest.mark.parametrize(("text", "lines"), [
    ("a  # why\n\n# only a remark\nb", ["a", "b"]),
    ("a \\\n  --b \\\n  c\n", ["a --b c"]),
    ("a && b   # both", ["a", "b"]),
    ("(umask 077; a > b)\n", ["(umask 077; a > b)"]),
])  # fmt: skip
def test_commands_of_a_block(text: str, lines: list[str]) -> None:
    assert commands_in(text) == lines


def test_only_the_first_hour_has_transcripts() -> None:
    assert {block.page for block in blocks("console")} == {"docs/first-hour.md"}


def test_the_first_hour_shows_what_its_script_does() -> None:
    page = PAGE.read_text()
    assert shown_commands(page) == commands(), "run, as root: python -m tests.first_hour --write"
    for step in STEPS:
        if isinstance(step, Said) and "{registry}" not in step.text:
            assert step.text in page, "run, as root: python -m tests.first_hour --write"
