"""Merging the mirror into daemon.json: what is kept, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist.cli.setup import daemon_json
from p2pdist.cli.setup.daemon_json import KEY
from p2pdist.errors import InvalidInputError

# A busy machine is no reason to fail.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
MIRROR = "http://127.0.0.1:5050"
OTHER = "https://mirror.example.com"

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.text(max_size=6).filter(lambda key: key != KEY)
MIRROR_LISTS = st.lists(st.sampled_from([OTHER, f"{MIRROR}/", "http://10.0.0.1:5000", MIRROR]), max_size=4)
LAYOUTS = st.sampled_from(
    [(None, ", ", ": "), (None, ",", ":"), (2, ",", ": "), ("\t", " ,", " : "), (0, ",", ":")]
)


@st.composite
def files(draw: st.DrawFn, *, with_mirrors: bool) -> bytes:
    """A daemon.json as people lay it out, with line ends of either kind."""
    members: list[tuple[str, Any]] = list(draw(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4)).items())
    if with_mirrors:
        members.insert(draw(st.integers(0, len(members))), (KEY, draw(MIRROR_LISTS)))
    indent, comma, colon = draw(LAYOUTS)
    ascii_only = draw(st.booleans())
    text = json.dumps(
        dict(members), indent=indent, separators=(comma, colon), ensure_ascii=ascii_only
    ) + draw(st.sampled_from(["", "\n", "\n\n"]))
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"]))).encode(
        "utf-8", "surrogatepass" if ascii_only else "replace"
    )


def with_first(document: dict[str, Any], mirror: str) -> dict[str, Any]:
    rest = [each for each in document.get(KEY, []) if each.rstrip("/") != mirror]
    return {**document, KEY: [mirror, *rest]}


@calm
@given(files(with_mirrors=False))
def test_taking_out_what_was_merged_gives_the_same_bytes(data: bytes) -> None:
    assert daemon_json.remove(daemon_json.merge(data, MIRROR), MIRROR) == data


@calm
@given(files(with_mirrors=True))
def test_only_the_mirrors_change_and_keys_keep_their_order(data: bytes) -> None:
    before, after = json.loads(data), json.loads(daemon_json.merge(data, MIRROR))
    wanted = before if before[KEY] and before[KEY][0].rstrip("/") == MIRROR else with_first(before, MIRROR)
    assert list(after.items()) == list(wanted.items())
    start = data.index(f'"{KEY}"'.encode())
    assert daemon_json.merge(data, MIRROR)[:start] == data[:start]


@calm
@given(files(with_mirrors=True) | files(with_mirrors=False))
def test_merging_twice_is_merging_once(data: bytes) -> None:
    once = daemon_json.merge(data, MIRROR)
    assert daemon_json.merge(once, MIRROR) == once
    assert daemon_json.points_at(once, MIRROR)
    assert not daemon_json.points_at(daemon_json.remove(once, MIRROR), MIRROR)


@calm
@given(st.binary(max_size=60) | st.text('{}[]":, \n\\abr1-', max_size=40).map(str.encode))
def test_any_bytes_are_merged_or_refused(data: bytes) -> None:
    try:
        merged = daemon_json.merge(data, MIRROR)
    except InvalidInputError:
        return
    assert json.loads(merged.decode().removeprefix("\ufeff"))[KEY][0].rstrip("/") == MIRROR


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, '{\n  "registry-mirrors": ["http://127.0.0.1:5050"]\n}\n'),
        ("", '{\n  "registry-mirrors": ["http://127.0.0.1:5050"]\n}\n'),
        ("{}\n", '{\n  "registry-mirrors": ["http://127.0.0.1:5050"]\n}\n'),
        ('{"a":1}', '{"a":1, "registry-mirrors": ["http://127.0.0.1:5050"]}'),
        ('{\n\t"a": 1\n}\n', '{\n\t"a": 1,\n\t"registry-mirrors": ["http://127.0.0.1:5050"]\n}\n'),
        ('{"registry-mirrors": ["x"], "a": 1}', '{"registry-mirrors": ["http://127.0.0.1:5050", "x"], "a": 1}'),
        (
            '{\n  "registry-mirrors": [\n    "x"\n  ]\n}',
            '{\n  "registry-mirrors": [\n    "http://127.0.0.1:5050",\n    "x"\n  ]\n}',
        ),
        ('{"registry-mirrors": []}', '{"registry-mirrors": ["http://127.0.0.1:5050"]}'),
        ('{"registry-mirrors": ["x", "http://127.0.0.1:5050/"]}', '{"registry-mirrors": ["http://127.0.0.1:5050", "x"]}'),
        ('\ufeff{"a": 1}', '\ufeff{"a": 1, "registry-mirrors": ["http://127.0.0.1:5050"]}'),
    ],
)  # fmt: skip
def test_the_layout_is_kept(before: str | None, after: str) -> None:
    assert daemon_json.merge(None if before is None else before.encode(), MIRROR).decode() == after


def test_a_mirror_that_is_first_already_is_left_as_it_stands() -> None:
    data = b'{"registry-mirrors":["http://127.0.0.1:5050/"]}'
    assert daemon_json.merge(data, MIRROR) == data


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"registry-mirrors": ["http://127.0.0.1:5050"], "a": 1}', '{"a": 1}'),
        ('{"registry-mirrors": ["http://127.0.0.1:5050"]}', "{}"),
        ('{"registry-mirrors": ["http://127.0.0.1:5050", "x"]}', '{"registry-mirrors": ["x"]}'),
        ('{"registry-mirrors": ["x"]}', '{"registry-mirrors": ["x"]}'),
        ("  ", "  "),
    ],
)
def test_only_the_mirror_is_taken_out(before: str, after: str) -> None:
    assert daemon_json.remove(before.encode(), MIRROR).decode() == after


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a": 1,}', "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"b": {"a": 1, "a": 2}}', "'a' stands twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[]", "not a JSON object"),
        (b'{"registry-mirrors": "x"}', "not a list of texts"),
        (b'{"registry-mirrors": [1]}', "not a list of texts"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_docker_would_not_read_is_refused(data: bytes, why: str) -> None:
    for refuse in (daemon_json.merge, daemon_json.remove, daemon_json.points_at):
        with pytest.raises(InvalidInputError, match=why):
            refuse(data, MIRROR)
