"""The tables in docs/configuration.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pdist.config import document, schema

DOCUMENT = Path(__file__).parents[3] / document.DEFAULT_FILE


def test_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text()
    assert document.replaced(text) == text, "run: python -m p2pdist.config.document"


def test_every_key_and_variable_is_in_it() -> None:
    tables = document.tables()
    for variable, (section, key) in schema.BY_ENV.items():
        assert f"`{key.name}`<br>`{variable}`" in tables
        assert f"`[{section.name}]`" in tables
    for key in schema.REGISTRY.keys:
        assert f"| `{key.name}` |" in tables


def test_rewriting_changes_only_what_is_between_the_markers(tmp_path: Path) -> None:
    file = tmp_path / "configuration.md"
    file.write_text(f"before\n{document.BEGIN}\nstale words\n{document.END}\nafter\n")
    assert document.main([str(file)]) == 0
    text = file.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "stale words" not in text


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        document.replaced("nothing here")
