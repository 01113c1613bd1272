"""containerd's host files."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from p2pdist.cli.setup import hosts_toml
from p2pdist.cli.setup.hosts_toml import Certificates
from p2pdist.cli.setup.mirrors import MirroredRegistry

MIRROR = "http://127.0.0.1:5050"
HUB = MirroredRegistry("docker.io", "https://registry-1.docker.io")


def test_the_mirror_first_then_the_true_upstream() -> None:
    text = hosts_toml.render(HUB, MIRROR, Certificates())
    assert tomllib.loads(text.decode()) == {
        "server": "https://registry-1.docker.io",
        "host": {MIRROR: {"capabilities": ["pull", "resolve"]}},
    }
    assert hosts_toml.points_at(text, MIRROR)


def test_trust_that_the_new_file_would_hide_is_kept() -> None:
    beside = hosts_toml.certificates_in(
        "/c/r", ["a.crt", "b.crt", "c.cert", "c.key", "d.cert", "hosts.toml", "note"]
    )
    registry = MirroredRegistry("r.example.com", "https://r.example.com", Path("/etc/ca.pem"))
    written = tomllib.loads(hosts_toml.render(registry, MIRROR, beside).decode())
    assert written["ca"] == ["/c/r/a.crt", "/c/r/b.crt", "/etc/ca.pem"]
    # A certificate without a key of its own has it in the same file.
    assert written["client"] == [["/c/r/c.cert", "/c/r/c.key"], ["/c/r/d.cert", "/c/r/d.cert"]]
    same = MirroredRegistry("r.example.com", "https://r.example.com", Path("/c/r/a.crt"))
    assert tomllib.loads(hosts_toml.render(same, MIRROR, beside).decode())["ca"] == [
        "/c/r/a.crt",
        "/c/r/b.crt",
    ]


def test_plain_http_has_no_trust_to_make_containerd_try_tls() -> None:
    registry = MirroredRegistry("r.example.com", "http://r.example.com:5000", Path("/etc/ca.pem"))
    written = tomllib.loads(
        hosts_toml.render(registry, MIRROR, Certificates(("/a.crt",), (("/b", "/c"),))).decode()
    )
    assert set(written) == {"server", "host"}


@pytest.mark.parametrize(
    ("name", "present", "directory"),
    [
        ("docker.io", ["docker.io_443_"], "docker.io"),
        ("r.example.com:5000", [], "r.example.com:5000"),
        ("r.example.com:5000", ["r.example.com:5000"], "r.example.com:5000"),
        ("r.example.com:5000", ["r.example.com:5000", "r.example.com_5000_"], "r.example.com_5000_"),
        ("[::1]:5000", [], "[::1]:5000"),
        ("[::1]", [], "[::1]"),
    ],
)
def test_the_directory_is_the_one_that_containerd_reads(
    name: str, present: list[str], directory: str
) -> None:
    assert hosts_toml.directory_of(name, present) == directory


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('[host."http://127.0.0.1:5050"]\ncapabilities = ["pull", "resolve"]', True),
        ('[host."http://127.0.0.1:5050/"]', True),
        ('[host."http://127.0.0.1:5050"]\ncapabilities = ["push"]', False),
        ('[host."https://m.example.com"]\n[host."http://127.0.0.1:5050"]', False),
        ('[host."http://127.0.0.1:5051"]', False),
        ('server = "http://127.0.0.1:5050"', False),
        ("host = 1", False),
        ('[host]\n"http://127.0.0.1:5050" = 1', False),
        ("not toml", False),
        ("a = " + "[" * 10_000, False),
    ],
)
def test_whether_someone_elses_file_asks_the_agent_first(text: str, answer: bool) -> None:
    assert hosts_toml.points_at(text.encode(), MIRROR) is answer
    assert hosts_toml.points_at(b"\xff", MIRROR) is False
