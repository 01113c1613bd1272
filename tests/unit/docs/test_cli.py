"""docs/cli.md says what the commands' own definitions say."""

from __future__ import annotations

import re

import click
import pytest

from tests.unit.docs.cli import DOCUMENT, _texts, commands, page

TEXT = DOCUMENT.read_text()


def test_the_page_is_up_to_date() -> None:
    assert page() == TEXT, "run: python -m tests.unit.docs.cli"


def test_every_command_and_option_is_there() -> None:
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", TEXT, re.MULTILINE))
    seen = 0
    for command, context in commands():
        section = sections.pop(context.command_path)
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                seen += 1
                assert all(name in section for name in parameter.opts), (
                    f"{parameter.opts} of {context.command_path}"
                )
    assert not sections
    assert seen > 60


@pytest.mark.parametrize(("help_text", "markdown"), [
    ("One:\n\n\b\nTwo:\n  2\nThree", ["One:", "Two:", "```text\n2\n```", "Three"]),
    ("\b\nExample:\n  p2pdist df", ["```sh\np2pdist df\n```"]),
    ("\b\nExamples:\n  a   why not\n  longer", ["```sh\na       # why not\nlonger\n```"]),
    ("A.\n\nB <c> | d_e.", ["A.", r"B \<c\> \| d_e."]),
])  # fmt: skip
def test_how_help_becomes_markdown(help_text: str, markdown: list[str]) -> None:
    assert list(_texts(help_text)) == markdown
