"""Texts as TOML: what is quoted is read again as it was."""

from __future__ import annotations

import tomllib

from hypothesis import example, given
from hypothesis import strategies as st

from p2pdist.config.texts import quote


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("tag \U000e0001 of a language")
def test_any_text_comes_back(text: str) -> None:
    assert tomllib.loads(f"x = {quote(text)}")["x"] == text
