"""Whole command lines of ``p2pdist setup`` on temporary directories: what is written, printed and undone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist.cli.main import run
from p2pdist.cli.setup import files
from tests.adapters.cli.setup.tree import tree

ROOT = str(Path(__file__).parents[4])
MIRROR = "http://127.0.0.1:5050"
THEIRS = b'[host."https://m.example.com"]\n'


class Host:
    """The files of a host's runtimes in a directory, and the commands on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.etc = root / "etc"
        self.certs = self.etc / "containerd" / "certs.d"
        self.toml = self.etc / "containerd" / "config.toml"
        self.json = self.etc / "docker" / "daemon.json"
        self.conf_d = self.etc / "containers" / "registries.conf.d"
        self.config = root / "p2pdist.toml"
        self.config.write_text("")
        self.etc.mkdir()
        self.toml.parent.mkdir()
        self.toml.write_text("version = 2\n")

    def argv(self, runtime: str, *words: str) -> list[str]:
        places = {
            "containerd": ["--certs-dir", str(self.certs), "--containerd-config", str(self.toml)],
            "docker": ["--daemon-json", str(self.json)],
            "podman": ["--conf-dir", str(self.conf_d)],
        }
        return ["setup", runtime, "--config", str(self.config), *places[runtime], *words]

    def setup(self, runtime: str, *words: str) -> int:
        return run(self.argv(runtime, *words))

    def hosts(self, registry: str) -> Path:
        return self.certs / registry / "hosts.toml"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("P2PDIST_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


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


def test_containerd_gets_each_registry_with_its_true_upstream(host: Host) -> None:
    host.config.write_text(
        '[mirror]\nlisten = "127.0.0.1:6060"\n[registries."r.example.com:5000"]\nurl = "http://10.0.0.2:5000"\n'
    )
    host.setup("containerd")
    written = {path.parent.name: tomllib.loads(path.read_text()) for path in host.certs.glob("*/hosts.toml")}
    assert len(written) == 8
    assert "_default" not in written
    assert {name: each["server"] for name, each in written.items()} | {} == {
        "docker.io": "https://registry-1.docker.io",
        "r.example.com:5000": "http://10.0.0.2:5000",
        **{name: f"https://{name}" for name in written if name not in ("docker.io", "r.example.com:5000")},
    }
    assert all(list(each["host"]) == ["http://127.0.0.1:6060"] for each in written.values())


def test_a_registry_that_is_mirrored_no_more_is_undone(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.setup("containerd")
    host.config.write_text('[registries."gcr.io"]\nenabled = false\n')
    assert host.setup("containerd") == 0
    assert not (host.certs / "gcr.io").exists()
    assert host.hosts("ghcr.io").exists()
    assert f"removed {host.hosts('gcr.io')}" in capsys.readouterr().out


def test_a_foreign_hosts_file_is_kept_the_others_are_written(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.hosts("ghcr.io").parent.mkdir(parents=True)
    host.hosts("ghcr.io").write_bytes(THEIRS)
    assert host.setup("containerd") == 1
    error = capsys.readouterr().err
    assert f"{host.hosts('ghcr.io')} is there already, and was not written by setup" in error
    assert "p2pdist setup containerd --force --dry-run" in error
    assert host.hosts("ghcr.io").read_bytes() == THEIRS
    assert host.hosts("quay.io").exists()

    assert host.setup("containerd", "--force", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert '-[host."https://m.example.com"]' in shown
    assert f'+[host."{MIRROR}"]' in shown
    assert host.setup("containerd", "--force") == 0
    assert MIRROR in host.hosts("ghcr.io").read_text()
    assert host.setup("containerd", "--remove") == 0
    assert host.hosts("ghcr.io").read_bytes() == THEIRS
    assert not host.hosts("quay.io").exists()


def test_the_files_that_the_readme_told_to_write_are_left(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.hosts("docker.io").parent.mkdir(parents=True)
    by_hand = (
        f'server = "https://registry-1.docker.io"\n[host."{MIRROR}"]\n  capabilities = ["pull", "resolve"]\n'
    )
    host.hosts("docker.io").write_text(by_hand)
    assert host.setup("containerd") == 0
    assert host.hosts("docker.io").read_text() == by_hand
    assert "points at the agent already" in capsys.readouterr().err
    host.setup("containerd", "--remove")
    assert host.hosts("docker.io").read_text() == by_hand


def test_certificates_beside_stay_in_force(host: Host) -> None:
    host.hosts("ghcr.io").parent.mkdir(parents=True)
    authority = host.hosts("ghcr.io").parent / "ca.crt"
    authority.touch()
    host.setup("containerd")
    assert tomllib.loads(host.hosts("ghcr.io").read_text())["ca"] == [str(authority)]


def test_config_path_decides_where_and_config_toml_is_never_written(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    table = '[plugins."io.containerd.grpc.v1.cri".registry]'
    host.toml.write_text(
        f"version = 2\nimports = ['conf.d/*.toml', 'config.toml', 'none.toml']\n{table}\nconfig_path = ''\n"
    )
    (host.toml.parent / "conf.d").mkdir()
    imported = host.toml.parent / "conf.d" / "a.toml"
    imported.write_text(f"version = 2\n{table}\nconfig_path = '{host.root}/elsewhere'\n")
    before = (host.toml.read_bytes(), imported.read_bytes())
    assert (
        run(["setup", "containerd", "--config", str(host.config), "--containerd-config", str(host.toml)]) == 0
    )
    assert "nothing to restart" in capsys.readouterr().out
    assert (host.root / "elsewhere" / "docker.io" / "hosts.toml").exists()
    assert host.setup("containerd", "--dry-run") == 0
    assert f"containerd reads {host.root}/elsewhere" in capsys.readouterr().out
    assert run(["setup", "containerd", "--containerd-config", str(host.toml), "--remove"]) == 0
    assert not (host.root / "elsewhere").exists()
    assert (host.toml.read_bytes(), imported.read_bytes()) == before


def test_what_is_left_to_do_by_hand_is_printed(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    (host.certs / "_default").mkdir(parents=True)
    host.setup("containerd")
    printed = capsys.readouterr().out
    assert f'[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "{host.certs}"' in printed
    assert f"ctr images pull --hosts-dir {host.certs}" in printed
    assert "_default" in printed


def test_docker_keeps_what_is_there(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.json.parent.mkdir()
    target = host.etc / "real.json"
    target.write_bytes(b'{\r\n  "log-level": "warn",\r\n  "registry-mirrors": ["https://m.example.com"]\r\n}')
    target.chmod(0o640)
    host.json.symlink_to("../real.json")
    before = tree(host.etc)
    assert host.setup("docker") == 0
    printed = capsys.readouterr().out
    assert f"changed {host.json}" in printed
    assert "docker.io images only" in printed
    assert "systemctl reload docker" in printed
    after = target.read_bytes()
    assert after == (
        b'{\r\n  "log-level": "warn",\r\n  "registry-mirrors": ["http://127.0.0.1:5050", "https://m.example.com"]\r\n}'
    )
    assert host.json.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert host.setup("docker", "--remove") == 0
    assert "systemctl restart docker" in capsys.readouterr().out
    assert tree(host.etc) == before


def test_docker_without_docker_io(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.config.write_text('[registries."docker.io"]\nenabled = false\n')
    assert host.setup("docker") == 2
    assert "does not mirror docker.io" in capsys.readouterr().err
    assert host.setup("containerd") == 0
    assert not host.hosts("docker.io").exists()


def test_a_changed_daemon_json_is_not_undone_unasked(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.json.parent.mkdir()
    host.json.write_text('{"a": 1}')
    host.setup("docker")
    host.json.write_text(host.json.read_text().replace('"a": 1', '"a": 2'))
    changed = host.json.read_text()
    capsys.readouterr()
    assert host.setup("docker", "--remove") == 1
    error = capsys.readouterr().err
    assert f"{host.json} was changed since setup wrote it" in error
    assert "takes out only what setup added" in error
    assert host.json.read_text() == changed
    assert host.setup("docker", "--remove", "--force") == 0
    assert host.json.read_text() == '{"a": 2}'


def test_a_changed_hosts_file_is_not_undone_unasked(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.setup("containerd")
    host.hosts("ghcr.io").write_text("# mine\n")
    assert host.setup("containerd", "--remove") == 1
    assert "and drops that change" in capsys.readouterr().err
    assert [path.parent.name for path in host.certs.glob("*/hosts.toml")] == ["ghcr.io"]
    assert host.setup("containerd", "--remove", "--force") == 0
    assert not host.certs.exists()


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


def test_podman_adds_to_what_is_said_elsewhere(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    url = 'url = "http://r.example.com:5000"\n'
    host.config.write_text(
        f'[registries."r.example.com"]\n{url}[registries."r.example.com:5000"]\n{url}[registries."x:5001"]\n'
    )
    host.conf_d.mkdir(parents=True)
    (host.conf_d.parent / "registries.conf").write_text(
        'unqualified-search-registries = ["docker.io"]\n[[registry]]\nlocation = "quay.io"\n'
    )
    (host.conf_d / "a.conf").write_text('[[registry]]\nprefix = "quay.io"\nlocation = "inner.example.com"\n')
    (host.conf_d / "z.conf").write_text('[[registry]]\nlocation = "gcr.io"\n')
    (host.conf_d / "not-read.txt").write_text("not toml")
    assert host.setup("podman") == 0
    captured = capsys.readouterr()
    assert f"{host.conf_d / 'z.conf'} is read after p2pdist.conf" in captured.err
    assert "x:5001 is left out" in captured.err
    assert "systemctl reload crio" in captured.out
    written = tomllib.loads((host.conf_d / "p2pdist.conf").read_text())
    assert set(written) == {"registry"}
    by_prefix = {each["prefix"]: each for each in written["registry"]}
    assert by_prefix["quay.io"]["location"] == "inner.example.com"
    assert by_prefix["r.example.com:5000"]["mirror"][0]["location"] == "127.0.0.1:5050/r.example.com"
    assert host.setup("podman") == 0
    assert capsys.readouterr().out.startswith("nothing to change")


def test_a_foreign_drop_in_is_kept_unless_it_says_the_same(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.conf_d.mkdir(parents=True)
    drop_in = host.conf_d / "p2pdist.conf"
    drop_in.write_text("# empty\n")
    assert host.setup("podman") == 1
    assert "was not written by setup" in capsys.readouterr().err
    assert host.setup("podman", "--force") == 0
    written = drop_in.read_bytes()
    assert host.setup("podman", "--remove") == 0
    assert drop_in.read_text() == "# empty\n"
    drop_in.write_bytes(b"# by hand\n" + written)
    assert host.setup("podman") == 0
    assert drop_in.read_bytes().startswith(b"# by hand\n")


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


def test_a_containerd_configuration_that_is_named_has_to_be_there(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.toml.unlink()
    assert host.setup("containerd") == 1
    assert f"there is no {host.toml}" in capsys.readouterr().err


def test_a_configuration_imports_a_bounded_number_of_files(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(101):
        (host.toml.parent / f"{number}.toml").touch()
    host.toml.write_text("imports = ['[0-9]*.toml']")
    assert host.setup("containerd") == 1
    assert "imports more than 100 files" in capsys.readouterr().err


def test_the_agents_configuration_is_the_one_of_all_commands(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.config.write_text("[x]\n")
    assert host.setup("docker") == 2
    host.config.write_text("")
    monkeypatch.setenv("P2PDIST_MIRROR_LISTEN", "127.0.0.1:7070")
    assert host.setup("docker") == 0
    assert json.loads(host.json.read_text()) == {"registry-mirrors": ["http://127.0.0.1:7070"]}


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
