"""docs/cli.md, made of the commands' own definitions: ``python -m tests.unit.docs.cli`` writes it."""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from p2pdist.cli.main import cli

DOCUMENT = Path(__file__).parents[3] / "docs" / "cli.md"
HEAD = """\
<!-- This page is generated: python -m tests.unit.docs.cli -->

# Command line

Every command with its options, as `--help` shows them. Examples that name `jq` need that program.
[Exit codes](operations.md#exit-codes) are the same for all commands.
"""
_EXAMPLE = re.compile(r"(\S.*?)(?: {2,}(\S.*))?")


def page() -> str:
    """The whole document."""
    sections = [_section(command, context) for command, context in commands()]
    return "\n".join([HEAD, *sections]).rstrip() + "\n"


def commands() -> Iterator[tuple[click.Command, click.Context]]:
    """The root and every command below it, in the order of ``--help``."""
    yield from _below(cli, None, "p2pdist")


def _below(
    command: click.Command, parent: click.Context | None, name: str
) -> Iterator[tuple[click.Command, click.Context]]:
    context = click.Context(command, parent=parent, info_name=name, **command.context_settings)
    yield command, context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from _below(found, context, child)


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {context.command_path}", f"    {usage}", *_texts(command.help or "")]
    if isinstance(command, click.Group):
        parts.append(_table("command", _children(command, context)))
    parts += [_table("option", _options(command, context)), *_texts(command.epilog or "")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _children(group: click.Group, context: click.Context) -> list[tuple[str, str]]:
    found = []
    for name in group.list_commands(context):
        child = group.get_command(context, name)
        assert child is not None
        anchor = f"{context.command_path} {name}".replace(" ", "-")
        found.append((f"[`{name}`](#{anchor})", child.get_short_help_str(limit=200)))
    return found


def _options(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    options = [each for each in command.params if isinstance(each, click.Option)]
    records = [option.get_help_record(context) for option in options]
    return [(f"`{record[0]}`", re.sub(" +", " ", record[1])) for record in records if record]


def _table(kind: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = [f"| {name.replace('|', chr(92) + '|')} | {_escaped(text)} |" for name, text in rows]
    return "\n".join([f"| {kind} | does |", "|---|---|", *lines])


def _escaped(text: str) -> str:
    """Text that a reader sees as it is, in a table's cell, too."""
    return re.sub(r"([|<>*])", r"\\\1", text)


def _texts(text: str) -> Iterator[str]:
    """Help text as Markdown: examples as shell blocks, other indented lines as they are, the rest as paragraphs."""
    for paragraph in re.split(r"\n\s*\n|^\x08\n", inspect.cleandoc(text), flags=re.MULTILINE):
        lines = paragraph.strip("\n").splitlines()
        if lines and re.fullmatch(r"Examples?:", lines[0]):
            yield "```sh\n" + "\n".join(_examples(lines[1:])) + "\n```"
        elif lines:
            yield from _prose(lines)


def _prose(lines: list[str]) -> Iterator[str]:
    for indented, group in itertools.groupby(lines, key=lambda line: line.startswith("  ")):
        if indented:
            yield "```text\n" + "\n".join(line.strip() for line in group) + "\n```"
        else:
            yield _escaped("\n".join(group))


def _examples(lines: list[str]) -> Iterator[str]:
    split = [found.groups() for line in lines if (found := _EXAMPLE.fullmatch(line.strip()))]
    width = max(len(command) for command, _ in split)
    for command, remark in split:
        yield f"{command:{width}}  # {remark}" if remark else command


if __name__ == "__main__":
    DOCUMENT.write_text(page())
    sys.exit(0)
