"""The state file: what is written is read back, and nothing else is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist.cli.setup.plan import Entry
from p2pdist.cli.setup.state import State, file_name, parse, render
from p2pdist.errors import InvalidInputError

NAMES = st.sampled_from(["daemon.json", "docker.io/hosts.toml", "r.example.com:5000/hosts.toml"])
ENTRIES = st.builds(
    Entry,
    st.none() | st.binary(max_size=20),
    st.integers(0, 0o7777),
    st.lists(st.text("abcdef0123456789", min_size=64, max_size=64), max_size=2).map(tuple),
    st.text(max_size=10),
)
STATES = st.builds(
    State,
    st.dictionaries(NAMES, ENTRIES, max_size=3),
    st.lists(st.sampled_from([".", "..", "docker.io"]), max_size=3).map(tuple),
)
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@calm
@given(STATES)
def test_what_is_written_is_read(state: State) -> None:
    assert parse(render(state, "docker")) == state


@calm
@given(st.binary(max_size=40) | st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(["format", "files", "made", "x"]), inner, max_size=4)).map(
    lambda value: json.dumps(value).encode()))  # fmt: skip
def test_anything_else_is_refused(data: bytes) -> None:
    try:
        state = parse(data)
    except InvalidInputError:
        return
    assert parse(render(state, "docker")) == state


def changed(**changes: Any) -> bytes:
    value = json.loads(render(State({"daemon.json": Entry(b"x", 0o644, ("ab",))}, (".",)), "docker"))
    for key, new in changes.items():
        if key in value:
            value[key] = new
        else:
            value["files"]["daemon.json"][key] = new
    return json.dumps(value).encode()


def test_a_file_of_the_tests_own_making_is_read() -> None:
    assert parse(changed()).files["daemon.json"].original == b"x"


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2}, {"files": []}, {"files": {"../x": {}}}, {"made": [1]}, {"made": ["a\0b"]}, {"original": "?"},
        {"original": 1}, {"mode": "rw"}, {"mode": 0o10000}, {"mode": -1}, {"written": [1]}, {"added": None},
    ],
)  # fmt: skip
def test_a_changed_one_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        parse(changed(**changes))


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\0"])
def test_a_name_never_leads_out_of_the_directory(name: str) -> None:
    entry = json.loads(changed())["files"]["daemon.json"]
    with pytest.raises(InvalidInputError):
        parse(changed(files={name: entry}))


def test_runtimes_have_files_of_their_own_that_no_runtime_reads() -> None:
    assert file_name("docker") != file_name("podman")
    assert not file_name("podman").endswith((".conf", ".toml"))


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        parse(b"[" * 100_000)
