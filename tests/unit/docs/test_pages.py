"""What the documents name exists: files, anchors, commands, configuration keys."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from p2pdist.cli.main import cli
from p2pdist.config import schema
from p2pdist.config.load import _OTHER_VARIABLES, _SERVICE_LINK, load_config
from tests.unit.docs.pages import ROOT, Block, anchors, blocks, inline_code, links, name_of, pages

# Top-level keys of the files of other programs that the documents show.
FOREIGN = {"version", "plugins", "host", "server", "registry"}
PLACES = {"REF": "docker.io/library/nginx", "FILE": "config.toml", "SIZE": "10GiB"}


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} in {name_of(page)}"
        if anchor:
            assert anchor in anchors(file), f"{target} in {name_of(page)}: there is no such heading"


def test_files_that_are_named_exist() -> None:
    named = re.compile(
        r"(?:p2pdist|tests|docs|bin|api|store|swarm|transfer|wire|discovery|peers|upstream|retention|oci)/[\w./-]+"
    )
    checked = 0
    for page, text in inline_code():
        if named.fullmatch(text) and "/v1" not in text:
            checked += 1
            assert (ROOT / text).exists() or (ROOT / "p2pdist" / text).exists(), f"{text} in {page}"
    assert checked > 20


def command_lines() -> list[tuple[str, str]]:
    """(page, command line) of each ``p2pdist ...`` in shell blocks and in inline code."""
    lines = [
        (block.page, match[1])
        for block in blocks("sh")
        for line in block.text.splitlines()
        if (match := re.match(r"[( ]*(?:umask 077; )?(?:bin/)?(p2pdist(?: [^#|>)&]*)?)", line))
    ]
    return lines + [(page, text) for page, text in inline_code() if re.match(r"p2pdist(?: |\Z)", text)]


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_commands_parse(page: str, line: str) -> None:
    words = [PLACES.get(word, word) for word in shlex.split(line)[1:]]
    command: click.Command = cli
    context: click.Context | None = None
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        context = click.Context(command, parent=context, info_name=name)
        found = command.get_command(context, name)
        assert found is not None, f"`{line}` in {page}: there is no command {name}"
        command = found
    if not words:  # the command's name alone stands for it
        return
    with contextlib.suppress(click.exceptions.Exit):  # --version, --help
        command.make_context("p2pdist", words, parent=context)


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: f"{block.page}")
def test_toml_is_understood(block: Block, tmp_path: Path) -> None:
    tables = tomllib.loads(block.text)
    if set(tables) <= FOREIGN:
        return
    file = tmp_path / "config.toml"
    file.write_text(block.text)
    load_config(file, {}, {}, secrets=False)


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.page)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("sh"), ids=lambda block: block.page)
def test_shell_lines_parse(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, timeout=10)


def test_configuration_keys_that_are_named_exist() -> None:
    keys = {f"{section.name}.{key.name}" for section in schema.SECTIONS for key in section.keys}
    dotted = re.compile(rf"(?:{'|'.join(schema.BY_NAME)})\.([a-z_]+)")
    checked = 0
    for page, text in inline_code():
        if (match := dotted.fullmatch(text)) and match[1] not in {"id", "py"}:
            checked += 1
            assert text in keys, f"{text} in {page}"
        if re.fullmatch(r"P2PDIST_[A-Z_]+", text) and "SECTION" not in text:
            known = text in schema.BY_ENV or text in _OTHER_VARIABLES or _SERVICE_LINK.match(text)
            assert known, f"{text} in {page}"
    assert checked > 10


def test_no_page_names_the_place_it_was_written_at() -> None:
    for page in pages():
        assert not re.search(r"/tmp/|/home/|/root/(?!\.docker)", page.read_text()), name_of(page)
