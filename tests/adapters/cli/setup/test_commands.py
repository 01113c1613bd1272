"""What holds for ``p2pdist setup`` of every runtime: idempotent, undone byte for byte, refused whole."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist.cli.setup import files
from tests.adapters.cli.setup.hosts import Host
from tests.adapters.cli.setup.tree import tree

ROOT = str(Path(__file__).parents[4])

RUNTIMES = pytest.mark.parametrize("runtime", ["containerd", "docker", "podman"])


@RUNTIMES
def test_twice_is_once_and_remove_leaves_nothing(
    host: Host, runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(host.etc)
    assert host.setup(runtime) == 0
    assert "wrote" in capsys.readouterr().out
    written = tree(host.etc)
    assert written != before
    assert host.setup(runtime) == 0
    assert capsys.readouterr().out.startswith("nothing to change in ")
    assert tree(host.etc) == written
    assert host.setup(runtime, "--remove") == 0
    assert "removed" in capsys.readouterr().out
    assert tree(host.etc) == before
    assert host.setup(runtime, "--remove") == 0
    assert capsys.readouterr().out.startswith("nothing to undo in ")


@RUNTIMES
def test_a_dry_run_shows_what_a_real_one_does_and_does_nothing(
    host: Host, runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(host.root)
    assert host.setup(runtime, "--dry-run") == 0
    assert tree(host.root) == before
    shown = capsys.readouterr().out
    assert "nothing was written (--dry-run)" in shown
    host.setup(runtime)
    for path in host.etc.rglob("*"):
        if path.is_file() and path != host.toml and not path.name.startswith("."):
            assert f"+++ {path}" in shown
            assert "".join(f"+{line}\n" for line in path.read_text().splitlines()) in shown
    written = tree(host.root)
    capsys.readouterr()
    assert host.setup(runtime, "--remove", "--dry-run") == 0
    assert tree(host.root) == written
    assert "+++ /dev/null" in capsys.readouterr().out


@RUNTIMES
def test_the_state_file_is_for_root_only(host: Host, runtime: str) -> None:
    host.setup(runtime)
    (state,) = host.etc.rglob(".p2pdist-setup-*")
    assert state.stat().st_mode & 0o777 == 0o600


HOSTS = st.dictionaries(
    st.sampled_from(
        ["docker.io", "ghcr.io", "r.example.com:5000", "r.example.com_5000_", "_default", "other"]
    ),
    st.dictionaries(st.sampled_from(["hosts.toml", "ca.crt", "a.cert"]), st.binary(max_size=9), max_size=2),
    max_size=4,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=25)
@given(
    HOSTS, st.none() | st.sampled_from([b"{}", b'{\n "a": 1}', b'{"registry-mirrors": ["x"]}']), st.booleans()
)
def test_apply_then_remove_is_as_before_byte_for_byte(
    directories: dict[str, dict[str, bytes]], daemon_json: bytes | None, again: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        host = Host(Path(name))
        host.config.write_text('[registries."r.example.com:5000"]\n')
        for directory, content in directories.items():
            (host.certs / directory).mkdir(parents=True)
            for file, data in content.items():
                (host.certs / directory / file).write_bytes(data)
        if daemon_json is not None:
            host.json.parent.mkdir()
            host.json.write_bytes(daemon_json)
            host.json.chmod(0o600)
        before = tree(host.etc)
        for runtime in ("containerd", "docker", "podman"):
            assert host.setup(runtime, "--force") == 0
        if again:  # with another address and other registries
            host.config.write_text(
                '[mirror]\nlisten = "127.0.0.1:6060"\n[registries."ghcr.io"]\nenabled = false\n'
            )
            for runtime in ("containerd", "docker", "podman"):
                assert host.setup(runtime) == 0
        assert tree(host.etc) != before
        for runtime in ("containerd", "docker", "podman"):
            assert host.setup(runtime, "--remove") == 0
        assert tree(host.etc) == before


@pytest.mark.parametrize("survived", range(12))
def test_a_run_cut_off_anywhere_can_be_repeated_and_undone(
    host: Host, survived: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(host.etc)
    real, left = files.write, [survived]

    def cut(path: Path, content: bytes, mode: int) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, content, mode)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", cut)
        # 7 files, and the state file before and after.
        assert host.setup("containerd") == (130 if survived < 9 else 0)
    assert host.setup("containerd") == 0
    assert len(list(host.certs.glob("*/hosts.toml"))) == 7
    left[0] = min(survived, 6)
    with monkeypatch.context() as patch:
        patch.setattr(files, "remove", lambda path: cut(path, b"", 0) or path.unlink())
        patch.setattr(files, "write", real)
        host.setup("containerd", "--remove")
    assert host.setup("containerd", "--remove") == 0
    # What was cut off after the state file had gone may leave empty directories, nothing else.
    assert {k: v for k, v in tree(host.etc).items() if v[1] is not None} == {
        k: v for k, v in before.items() if v[1] is not None
    }


def test_undoing_needs_no_configuration(host: Host) -> None:
    for runtime in ("containerd", "docker", "podman"):
        host.setup(runtime)
    host.config.write_text("not toml")
    host.toml.write_text("not toml")
    for runtime in ("containerd", "docker", "podman"):
        assert host.setup(runtime) == (1 if runtime == "containerd" else 2)
        assert host.setup(runtime, "--remove") == 0
    assert not host.certs.exists()
    assert not host.json.exists()


def malformed_json(host: Host) -> Path:
    host.json.parent.mkdir()
    host.json.write_text('{"a": 1,}')
    return host.json


def malformed_toml(host: Host) -> Path:
    host.toml.write_text("version = ")
    return host.toml


def malformed_import(host: Host) -> Path:
    host.toml.write_text("imports = ['a.toml']")
    (host.toml.parent / "a.toml").write_text("x")
    return host.toml.parent / "a.toml"


def malformed_registries(host: Host) -> Path:
    host.conf_d.mkdir(parents=True)
    (host.conf_d.parent / "registries.conf").write_text("[registries.search]\nregistries = []\n")
    return host.conf_d.parent / "registries.conf"


def conflicting_registries(host: Host) -> Path:
    host.conf_d.mkdir(parents=True)
    (host.conf_d / "a.conf").write_text(
        '[[registry]]\nprefix = "ghcr.io"\nlocation = "quay.io"\ninsecure = true\n'
    )
    return host.conf_d / "p2pdist.conf"


def foreign_state(host: Host) -> Path:
    host.json.parent.mkdir()
    state = host.json.parent / ".p2pdist-setup-docker.json"
    state.write_text("{}")
    return state


@pytest.mark.parametrize(
    ("runtime", "spoil"),
    [
        ("docker", malformed_json), ("docker", foreign_state), ("containerd", malformed_toml),
        ("containerd", malformed_import), ("podman", malformed_registries), ("podman", conflicting_registries),
    ],
)  # fmt: skip
@pytest.mark.parametrize("words", [(), ("--force",), ("--dry-run",)])
def test_what_cannot_be_read_is_an_error_and_nothing_is_touched(
    host: Host,
    runtime: str,
    spoil: Callable[[Host], Path],
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = spoil(host)
    before = tree(host.root)
    assert host.setup(runtime, *words) == 1
    assert str(path) in capsys.readouterr().err
    assert tree(host.root) == before


# Modules are read first, since they may lie where only root can read.
AS_NOBODY = "import os, sys; from p2pdist.cli.main import main; os.setgid(65534); os.setuid(65534); main(sys.argv[1:])"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give up being root")
@RUNTIMES
def test_without_rights_it_says_so_and_touches_nothing(runtime: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        host = Host(Path(name))
        host.root.chmod(0o755)
        before = tree(host.root)
        argv = [sys.executable, "-c", AS_NOBODY, *host.argv(runtime)]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=60, env={"PYTHONPATH": ROOT}
        )
        assert done.returncode == 1, done.stderr
        assert "Permission denied" in done.stderr
        assert "run it as root (sudo); --dry-run needs no right to write" in done.stderr
        assert tree(host.root) == before
