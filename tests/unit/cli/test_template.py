"""Formats as docker history takes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.cli.template import MAX_TEMPLATE, parse_template

HEADINGS = {"ID": "IMAGE", "Size": "SIZE", "CreatedBy": "CREATED BY", "Comment": "COMMENT"}
ROWS = [
    {"ID": "abcdef012345", "Size": "120MB", "CreatedBy": 'COPY "x" /', "Comment": "<a & b>"},
    {"ID": "<missing>", "Size": "0B", "CreatedBy": "CMD é", "Comment": ""},
]


def render(text: str) -> list[str]:
    return list(parse_template(text, tuple(HEADINGS)).rows(ROWS, HEADINGS, ("ID", "Size")))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("{{.ID}}", "abcdef012345"),
        ("{{ .ID }}: {{.Size}}!", "abcdef012345: 120MB!"),
        ("{{json .CreatedBy}}", '"COPY \\"x\\" /"'),
        ("{{json .}}", '{"ID":"abcdef012345","Size":"120MB"}'),
        ("json", '{"ID":"abcdef012345","Size":"120MB"}'),
        ("{{json .Comment}}", r'"\u003ca \u0026 b\u003e"'),
        ("{{lower .Size}} {{upper .ID}}", "120mb ABCDEF012345"),
        (r"{{.ID}}\t{{.Size}}\n", "abcdef012345\t120MB\n"),
        ("no field", "no field"),
        ("{ .ID }", "{ .ID }"),
        ("tables", "tables"),
    ],
)
def test_what_is_understood(text: str, first: str) -> None:
    assert render(text)[0] == first


def test_a_table_has_headings_and_columns_as_wide_as_dockers() -> None:
    assert render(r"table {{.ID}}\t{{.Size}}\t{{.CreatedBy}}") == [
        "IMAGE          SIZE      CREATED BY",
        'abcdef012345   120MB     COPY "x" /',
        "<missing>      0B        CMD é",
    ]
    assert render("table {{.Size}}") == ["SIZE", "120MB", "0B"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{{.Sise}}",
            r"there is no field \.Sise; the nearest is \.Size; there are: \.ID, \.Size, \.CreatedBy, ",
        ),
        ("{{.Zzz}}", r"there is no field \.Zzz; there are"),
        ("{{.size}}", r"the nearest is \.Size"),
        ("{{.}}", "only {{json .}} prints"),
        ("{{json}}", "is not understood"),
        ("{{range .}}x{{end}}", "is not understood"),
        ("{{.ID | json}}", "is not understood"),
        ("{{len .ID}}", "is not understood"),
        ("{{}}", "is not understood"),
        ("{{.ID", "no partner"),
        ("x}}", "no partner"),
        ("", "empty"),
        ("table ", "empty"),
        ("x" * (MAX_TEMPLATE + 1), "at most"),
    ],
)
def test_what_is_not_understood_is_named(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_template(text, tuple(HEADINGS))


@given(st.text(alphabet="{}.IDjson \\t\nx", max_size=40))
def test_any_text_is_a_template_or_a_clear_error(text: str) -> None:
    try:
        template = parse_template(text, tuple(HEADINGS))
    except ValueError as error:
        said = str(error)
    else:
        said = "".join(template.rows(ROWS, HEADINGS, ("ID",))) or "nothing"
    assert said
