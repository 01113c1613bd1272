"""``p2pdist setup`` on hosts as they are found: lists of directories, links, files for one user, a run that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from p2pdist.cli.main import run
from tests.adapters.cli.setup.hosts import MIRROR, Host
from tests.adapters.cli.setup.test_commands import ROOT, RUNTIMES
from tests.adapters.cli.setup.tree import tree

V2 = '[plugins."io.containerd.grpc.v1.cri".registry]'
V3 = "[plugins.'io.containerd.cri.v1.images'.registry]"
USERS = Path("home/me/.config/containers/registries.conf.d")


def on(host: Host, *words: str) -> int:
    """A command with the host's files at their usual places below a root."""
    return run([*words, "--root", str(host.root), "--config", str(host.config)])


@pytest.mark.parametrize("setting", ['config_path = "certs.d"', 'config_path = "~/certs.d"'])
def test_a_relative_config_path_is_told(host: Host, setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    host.toml.write_text(f"version = 2\n{V2}\n{setting}\n")
    before = tree(host.etc)
    assert on(host, "setup", "containerd") == 1
    error = capsys.readouterr().err
    assert "is no absolute path" in error
    assert "--certs-dir" in error
    assert tree(host.etc) == before
    assert on(host, "setup", "containerd", "--certs-dir", "/etc/containerd/certs.d") == 0


def test_a_config_path_that_is_no_text_is_none(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.toml.write_text(f"version = 3\n{V3}\nconfig_path = 7\n")
    assert on(host, "setup", "containerd") == 0
    assert "does not read /etc/containerd/certs.d yet" in capsys.readouterr().out


@pytest.mark.parametrize(("version", "table"), [(3, V2), (2, V3), (4, V2), (1, V2)])
def test_a_table_of_another_version_is_told(
    host: Host, version: int, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host.toml.write_text(f'version = {version}\n{table}\nconfig_path = "/etc/containerd/certs.d"\n')
    assert on(host, "setup", "containerd") == 0
    printed = capsys.readouterr().out
    assert f"(version {version}) does not set config_path" in printed
    assert f"sets it in {table}, the table of version" in printed


def test_changes_to_config_toml_want_a_restart(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("/elsewhere", "/etc/containerd/certs.d:/etc/docker/certs.d"):
        host.toml.write_text(f'version = 3\n{V3}\nconfig_path = "{path}"\n')
        assert on(host, "setup", "containerd", "--certs-dir", "/etc/containerd/certs.d") == 0
        assert "systemctl restart containerd" in capsys.readouterr().out


def test_what_a_later_directory_of_the_list_says_is_not_lost(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """containerd takes the first directory of the list that has the registry, and then no other."""
    later = host.etc / "docker" / "certs.d"
    for registry, file in (("ghcr.io", "ca.crt"), ("quay.io", "hosts.toml")):
        (later / registry).mkdir(parents=True)
        (later / registry / file).touch()
    host.toml.write_text(f'version = 2\n{V2}\nconfig_path = "/etc/containerd/certs.d:/etc/docker/certs.d"\n')
    assert on(host, "setup", "containerd") == 0
    printed = capsys.readouterr().out
    assert tomllib.loads(host.hosts("ghcr.io").read_text())["ca"] == ["/etc/docker/certs.d/ghcr.io/ca.crt"]
    assert "/etc/docker/certs.d/quay.io/hosts.toml is not read any more" in printed
    assert on(host, "setup", "containerd") == 0
    assert "nothing to change" in capsys.readouterr().out


def test_an_earlier_directory_of_the_list_goes_before(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    (host.etc / "docker" / "certs.d" / "ghcr.io").mkdir(parents=True)
    host.toml.write_text(f'version = 2\n{V2}\nconfig_path = "/etc/docker/certs.d:/etc/containerd/certs.d"\n')
    assert on(host, "setup", "containerd", "--certs-dir", "/etc/containerd/certs.d") == 0
    printed = capsys.readouterr().out
    assert "ghcr.io: containerd reads /etc/docker/certs.d/ghcr.io" in printed
    assert "quay.io: containerd reads" not in printed


def test_two_registries_in_one_directory_by_a_link(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    (host.certs / "ghcr.io").mkdir(parents=True)
    (host.certs / "quay.io").symlink_to("ghcr.io")
    before = tree(host.etc)
    for _ in range(2):
        assert host.setup("containerd") == 1
        assert f"{host.hosts('quay.io')} is one file with ghcr.io/hosts.toml" in capsys.readouterr().err
        assert tomllib.loads(host.hosts("ghcr.io").read_text())["server"] == "https://ghcr.io"
    assert host.setup("containerd", "--remove") == 0
    assert tree(host.etc) == before


def test_a_link_to_nowhere_is_told(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.certs.symlink_to("gone")
    assert host.setup("containerd") == 1
    assert (
        f"{host.certs}: it is a link to {host.certs.parent / 'gone'}, which is not there"
        in capsys.readouterr().err
    )


def test_a_null_in_daemon_json_is_no_mirror(host: Host) -> None:
    host.json.parent.mkdir()
    host.json.write_text('{"registry-mirrors": null, "debug": true}')
    assert host.setup("docker") == 0
    assert json.loads(host.json.read_text()) == {"registry-mirrors": [MIRROR], "debug": True}
    assert host.setup("docker", "--remove") == 0
    assert host.json.read_text() == '{"registry-mirrors": null, "debug": true}'


def test_a_user_s_drop_in_carries_over_what_the_system_s_files_say(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a registries.conf of their own, a user's drop-ins are read after those of /etc/containers."""
    host.conf_d.mkdir(parents=True)
    (host.conf_d / "a.conf").write_text('[[registry]]\nprefix = "quay.io"\nblocked = true\n')
    (host.conf_d.parent / "registries.conf").write_text(
        '[[registry]]\nprefix = "ghcr.io"\nlocation = "inner.example.com"\n'
    )
    (host.conf_d / "z.conf").write_text('[[registry]]\nlocation = "gcr.io"\ninsecure = true\n')
    assert on(host, "setup", "podman", "--conf-dir", f"/{USERS}") == 0
    captured = capsys.readouterr()
    written = tomllib.loads((host.root / USERS / "p2pdist.conf").read_text())["registry"]
    by_prefix = {each["prefix"]: each for each in written}
    assert "quay.io" not in by_prefix
    assert "blocked" in captured.err
    assert by_prefix["ghcr.io"]["location"] == "inner.example.com"
    assert by_prefix["gcr.io"]["insecure"] is True
    assert "is read after" not in captured.err
    (
        host.root / USERS.parent / "registries.conf"
    ).touch()  # with one of their own, nothing of the system's is read
    assert on(host, "setup", "podman", "--conf-dir", f"/{USERS}") == 0
    written = tomllib.loads((host.root / USERS / "p2pdist.conf").read_text())["registry"]
    assert "quay.io" in {each["prefix"] for each in written}


@pytest.mark.parametrize(
    ("name", "instead"),
    [("crio", "podman"), ("CRI-O", "podman"), ("skopeo", "podman"), ("kubernetes", "containerd")],
)
def test_a_runtime_that_is_set_up_by_another_name(
    name: str, instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["setup", name]) == 2
    assert f"p2pdist setup {instead}" in capsys.readouterr().err


# Ends itself as kill -9 would, before the Nth rename: a temporary file is there, the file itself is not.
KILLED = """\
import os, sys
from p2pdist.cli.main import main
left, real = [int(sys.argv.pop(1))], os.rename
def rename(*names):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), 9)
    real(*names)
os.rename = rename
main(sys.argv[1:])
"""


@pytest.mark.parametrize("renames", [0, 1, 4])
@pytest.mark.parametrize("undo_at_once", [True, False])
def test_what_a_killed_run_leaves_is_cleaned_up(host: Host, renames: int, undo_at_once: bool) -> None:
    before = tree(host.etc)
    argv = [sys.executable, "-c", KILLED, str(renames), *host.argv("containerd")]
    done = subprocess.run(
        argv, capture_output=True, check=False, timeout=60, env={**os.environ, "PYTHONPATH": ROOT}
    )
    assert done.returncode == -signal.SIGKILL
    assert list(host.etc.rglob("*.tmp"))
    if not undo_at_once:
        assert host.setup("containerd") == 0
        assert not list(host.etc.rglob("*.tmp"))
        assert len(list(host.certs.glob("*/hosts.toml"))) == 7
    assert host.setup("containerd", "--remove") == 0
    after = tree(host.etc)
    if renames:
        assert after == before
    else:  # before anything was remembered: a directory that nobody knows of any more
        assert not [
            name for name, (_, content) in after.items() if content is not None and name not in before
        ]


@RUNTIMES
def test_json_tells_what_was_done(host: Host, runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for words in (("--dry-run",), (), (), ("--remove",)):
        assert host.setup(runtime, "--json", *words) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert [each["changed"] for each in said] == [True, True, False, True]
    assert [each["dry_run"] for each in said] == [True, False, False, False]
    assert {each["runtime"] for each in said} == {runtime}
    for each, what in zip(said, ("wrote", "wrote", "unchanged", "removed"), strict=True):
        assert {file["what"] for file in each["files"]} == {what}
        assert all(file["problem"] == "" for file in each["files"])
    assert [file["path"] for file in said[0]["files"]] == [file["path"] for file in said[1]["files"]]
    assert said[0]["files"][0]["diff"].startswith("--- /dev/null\n+++ ")
    assert said[1]["notes"]


def test_json_tells_what_was_left_alone(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.hosts("ghcr.io").parent.mkdir(parents=True)
    host.hosts("ghcr.io").write_text("# theirs\n")
    assert host.setup("containerd", "--json") == 1
    captured = capsys.readouterr()
    files = {Path(file["path"]).parent.name: file for file in json.loads(captured.out)["files"]}
    assert (files["ghcr.io"]["what"], files["quay.io"]["what"]) == ("left alone", "wrote")
    assert files["ghcr.io"]["problem"] == "is there already, and was not written by setup"
    assert "look at it with" in captured.err


@RUNTIMES
def test_a_dry_run_tells_of_directories_and_of_the_state_file(
    host: Host, runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.setup(runtime, "--dry-run") == 0
    shown = capsys.readouterr().out
    host.setup(runtime)
    (state,) = host.etc.rglob(".p2pdist-setup-*")
    assert f"{state} would remember what was there" in shown
    capsys.readouterr()
    host.setup(runtime, "--remove", "--dry-run")
    assert "would remember" not in capsys.readouterr().out
