"""``p2pdist setup containerd`` on temporary directories."""

from __future__ import annotations

import tomllib

import pytest

from p2pdist.cli.main import run
from tests.adapters.cli.setup.hosts import MIRROR, Host

THEIRS = b'[host."https://m.example.com"]\n'


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


def test_a_changed_hosts_file_is_not_undone_unasked(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.setup("containerd")
    host.hosts("ghcr.io").write_text("# mine\n")
    assert host.setup("containerd", "--remove") == 1
    assert "and drops that change" in capsys.readouterr().err
    assert [path.parent.name for path in host.certs.glob("*/hosts.toml")] == ["ghcr.io"]
    assert host.setup("containerd", "--remove", "--force") == 0
    assert not host.certs.exists()


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
