"""Whole command lines against an admin interface on a socket: what is printed, where, and the exit code."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pdist import __version__
from p2pdist.cli.main import run
from p2pdist.wire.keys import ClusterKey
from tests.adapters.cli.admin_server import FakeAdmin, fake_admin

DIGEST = "sha256:" + "ab" * 32
STATUS = {
    "name": "host-1",
    "version": "0.1.0",
    "uptime": 3700,
    "ready": True,
    "zone": "rack-7",
    "peers": 2,
    "transfers": [],
    "store": {"committed": 10**9, "quota": 4 * 10**9, "blobs": 12},
    "client_bytes": {"store": 100, "peer": 200, "upstream": 100},
    "received_bytes": {"peer": 200, "upstream": 100},
    "sent_bytes": {"peer": 50, "client": 400},
    "listeners": {"mirror": "127.0.0.1:5050"},
}


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("P2PDIST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("p2pdist.cli.options.DEFAULT_CONFIG", tmp_path / "absent.toml")


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    with fake_admin() as server:
        yield server


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_status_for_people(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answers["GET /status"] = STATUS
    assert run(["status", "--admin", admin.address]) == 0
    printed = capsys.readouterr().out
    for words in (
        "host-1, version 0.1.0, up 1h 1m",
        "ready",
        "rack-7",
        "1.0 GB of 4.0 GB (25.0 %), 12 blobs",
    ):
        assert words in printed
    assert "300 B (75.0 %) did not cross the upstream link" in printed


def test_status_of_an_agent_that_cannot_read_containerds_content(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"path": "/c", "blobs": 0, "size": 0, "unchecked": 0, "trouble": "it cannot be read\x1b[1m"}
    admin.answers["GET /status"] = {**STATUS, "containerd": content}
    assert run(["status", "--admin", admin.address]) == 0
    printed = capsys.readouterr().out
    assert "0 blobs, 0 B, seeded from its own store; it cannot be read" in printed
    assert "\x1b" not in printed


def test_status_for_scripts(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answers["GET /status"] = STATUS
    assert run(["status", "--json", "--admin", admin.address]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_status_of_an_agent_that_says_little(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    for answer in (
        {},
        [],
        {"store": None, "peers": None, "client_bytes": {"peer": "x"}, "warnings": ["look out"]},
    ):
        admin.answers["GET /status"] = answer
        assert run(["status", "--admin", admin.address]) == 0
    assert "look out" in capsys.readouterr().out


def test_peers(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answers["GET /peers"] = [
        {"peer": "ab" * 20, "endpoint": "10.0.0.2:5051", "rtt": 0.003, "seen": 4.0, "state": "ok"}
    ]
    assert run(["peers", "--admin", admin.address]) == 0
    printed = capsys.readouterr().out
    assert "ababababab" in printed
    assert "10.0.0.2:5051" in printed
    assert "3ms" in printed
    assert "ZONE" not in printed  # nobody tells it
    admin.answers["GET /peers"] = {"peers": []}
    assert run(["peers", "--admin", admin.address]) == 0
    assert "alone" in capsys.readouterr().err


def test_images(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answers["GET /images"] = {
        "images": [
            {
                "reference": "docker.io/library/nginx:1.27",
                "digest": DIGEST,
                "size": 1000,
                "held": 500,
                "platforms": ["linux/amd64"],
                "age": 60,
            },
            {
                "reference": "ghcr.io/o/app:v3",
                "digest": DIGEST,
                "size": 1000,
                "complete": True,
                "pinned": True,
            },
        ]
    }
    assert run(["images", "--admin", admin.address]) == 0
    first, second = capsys.readouterr().out.splitlines()[2:4]
    for words in ("docker.io/library/nginx:1.27", "abababababab", "50.0 %", "linux/amd64", "1m 0s ago"):
        assert words in first
    assert "all" in second
    assert "pinned" in second


def test_pins(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answers |= {"POST /pins": {}, "DELETE /pins": {}, "GET /pins": ["docker.io/library/nginx:latest"]}
    assert run(["pin", "nginx", "--admin", admin.address]) == 0
    assert run(["unpin", "nginx", "--admin", admin.address]) == 0
    assert run(["pins", "--admin", admin.address]) == 0
    assert admin.asked[:2] == [
        ("POST /pins", {"reference": "docker.io/library/nginx:latest"}),
        ("DELETE /pins", {"reference": "docker.io/library/nginx:latest"}),
    ]
    assert capsys.readouterr().out.splitlines()[-1] == "docker.io/library/nginx:latest"


def test_gc(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answers["POST /gc"] = {"dropped": 3, "bytes": 5000}
    assert run(["gc", "--to", "10GiB", "--admin", admin.address]) == 0
    assert admin.asked == [("POST /gc", {"target": 10 * 2**30})]
    assert capsys.readouterr().out == "dropped 3 blobs, freed 5.0 kB\n"
    assert run(["gc", "--to", "ten", "--admin", admin.address]) == 2


def test_pull_in_a_pipe_prints_a_line_per_layer(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    layer = {"event": "layer", "digest": DIGEST, "size": 1000, "source": "peer"}
    admin.answers["POST /pull"] = [
        layer | {"received": 1},
        layer | {"received": 1000},
        {"event": "done", "digest": DIGEST},
    ]
    assert run(["pull", "nginx", "--platform", "linux/arm64", "--admin", admin.address]) == 0
    assert admin.asked == [
        ("POST /pull", {"reference": "docker.io/library/nginx:latest", "platform": "linux/arm64"})
    ]
    assert capsys.readouterr().out.splitlines() == [
        "abababababab  1.0 kB  from peer",
        f"pulled docker.io/library/nginx:latest@{DIGEST}",
    ]


def test_pull_for_scripts_passes_the_events_on(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    events = [{"event": "layer", "digest": DIGEST}, {"event": "done"}]
    admin.answers["POST /pull"] = events
    assert run(["pull", "nginx", "--json", "--admin", admin.address]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == events
    admin.answers["POST /pull"] = [{"event": "error", "message": "upstream is down"}]
    assert run(["pull", "nginx", "--json", "--admin", admin.address]) == 1
    assert "upstream is down" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["pull", "Not A Name"],
        ["pull", "x", "--platform", "linux"],
        ["pin", ""],
        ["status", "--admin", "nowhere"],
        ["nonsense"],
        ["status", "--nonsense"],
    ],
)
def test_what_is_mistyped_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error:" in captured.err


@pytest.mark.parametrize(
    "command", [["status"], ["peers"], ["images"], ["pins"], ["gc"], ["pin", "x"], ["pull", "x"]]
)
def test_without_an_agent_every_command_says_so_and_exits_3(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{closed_port()}"
    assert run([*command, "--admin", address]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    error, hint = captured.err.splitlines()
    assert f"no agent answers at {address}" in error
    assert hint.startswith("p2pdist: hint: start the agent")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((409, b'{"error": "docker.io/library/x:latest is not held"}'), "is not held"),
        ((403, b'{"errors": [{"code": "DENIED", "message": "not configured"}]}'), "not configured"),
        ((500, b"<html>"), "answered 500"),
        ((404, b'{"errors": [{"message": "no path"}]}'), "is no agent's admin interface (404: no path)"),
        ((401, b"unauthorized"), "is no agent's admin interface (401: Unauthorized)"),
        ((200, b"<html>hello</html>"), "does not answer as a p2pdist agent"),
        ((200, b"[" * 100_000), "does not answer as a p2pdist agent"),
    ],
)
def test_an_agent_that_refuses_or_is_none(
    admin: FakeAdmin, answer: tuple[int, bytes], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.answers["POST /pins"] = answer
    assert run(["pin", "x", "--admin", admin.address]) == 1
    assert words in capsys.readouterr().err


def test_the_admin_address_comes_from_the_configuration(
    admin: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.answers["GET /pins"] = ["a.example/b:c"]
    file = tmp_path / "config.toml"
    file.write_text(f'[admin]\nlisten = "{admin.address}"\n[peer]\ncluster_key_file = "/absent/secret"')
    assert run(["pins", "--config", str(file)]) == 0
    assert capsys.readouterr().out == "a.example/b:c\n"


def test_a_mistake_in_the_configuration_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[store]\nmax_sise = 1")
    for command in ("agent", "status"):
        assert run([command, "--config", str(file)]) == 2
        assert "nearest known is max_size" in capsys.readouterr().err


def test_an_internal_error_is_one_line_and_a_traceback_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("p2pdist.cli.inspect.admin_client", fail)
    assert run(["status"]) == 1
    assert "internal error: RuntimeError: boom" in capsys.readouterr().err
    with pytest.raises(RuntimeError):
        run(["--debug", "status"])


def test_cluster_key_prints_a_new_key_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cluster", "key"]) == 0
    assert run(["cluster", "key"]) == 0
    one, other = capsys.readouterr().out.splitlines()
    assert ClusterKey.parse(one).raw != ClusterKey.parse(other).raw


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    for command in ([], ["agent"], ["demo"], ["pull"], ["status"], ["gc"], ["check"], ["cluster", "key"]):
        assert run([*command, "--help"]) == 0
        assert "Usage: p2pdist" in capsys.readouterr().out


def test_the_line_that_the_help_shows_completes_commands_in_bash(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    (line,) = [
        each.strip()
        for each in capsys.readouterr().out.splitlines()
        if "bash_source" in each and "eval" in each
    ]
    script = (
        f'{line}; COMP_WORDS=(p2pdist im) COMP_CWORD=1; _p2pdist_completion p2pdist; echo "${{COMPREPLY[@]}}"'
    )
    there = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=there, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["import", "images"], done.stderr


def test_a_reader_that_leaves_gets_no_complaint(admin: FakeAdmin) -> None:
    admin.answers["GET /pins"] = [f"a.example/b:{number}" for number in range(20_000)]
    command = [sys.executable, "-m", "p2pdist", "pins", "--admin", admin.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a.example/b:0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141
