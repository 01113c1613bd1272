"""WWW-Authenticate as registries write it, as the RFC allows it, and as an attacker might."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.upstream.challenge import Challenge, parse_challenges

TOKEN = st.text(string.ascii_lowercase + string.digits + "-_.", min_size=1, max_size=12)
NAME = TOKEN.filter(lambda text: text[0].isalpha())


def test_what_docker_hub_sends() -> None:
    header = (
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
        'scope="repository:library/nginx:pull,push"'
    )
    assert parse_challenges([header]) == (
        Challenge(
            "bearer",
            {
                "realm": "https://auth.docker.io/token",
                "service": "registry.docker.io",
                "scope": "repository:library/nginx:pull,push",
            },
        ),
    )


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Basic realm="a, b"'], [("basic", {"realm": "a, b"})]),
        (['basic Realm = "x"'], [("basic", {"realm": "x"})]),
        (["Negotiate"], [("negotiate", {})]),
        (["Negotiate YWJj==, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://t/", Basic realm="r"'],
            [("bearer", {"realm": "https://t/"}), ("basic", {"realm": "r"})],
        ),
        (
            ['Bearer realm="https://t/"', 'Basic realm="r"'],
            [("bearer", {"realm": "https://t/"}), ("basic", {"realm": "r"})],
        ),
        (
            ["Bearer realm=https://t/token,service=s"],
            [("bearer", {"realm": "https://t/token", "service": "s"})],
        ),
        ([r'Basic realm="say \"hi\""'], [("basic", {"realm": 'say "hi"'})]),
        (['Bearer realm="a",realm="b"'], [("bearer", {"realm": "a"})]),
        ([",, ,Basic realm=x,,"], [("basic", {"realm": "x"})]),
        ([""], []),
        ([], []),
        (['Bearer realm="never closed, service=x'], [("bearer", {"service": "x"})]),
        (['="x", Basic realm=r'], [("basic", {"realm": "r"})]),
    ],
)
def test_forms(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(c.scheme, dict(c.parameters)) for c in parse_challenges(headers)] == expected


@given(
    st.lists(st.tuples(NAME, st.dictionaries(NAME, st.text(max_size=20), min_size=1, max_size=4)), max_size=5)
)
def test_what_was_written_by_the_rules_is_read_back(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quote(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quote(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert [(c.scheme, dict(c.parameters)) for c in parse_challenges([header])] == challenges


@given(st.lists(st.text(alphabet='Bearbsic =,"\\\t realm:/.~\x00é', max_size=300), max_size=3))
def test_noise_is_never_an_error(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower() != ""


@pytest.mark.parametrize(
    "header", ['a="' * 9000, "," * 99_999, 'x y="\\' * 9000, "Basic " * 9000, "a=b," * 9000]
)
def test_work_is_bounded(header: str) -> None:
    found = parse_challenges([header] * 100)
    assert len(found) <= 64
