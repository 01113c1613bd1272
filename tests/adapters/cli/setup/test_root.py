"""``--root``: another host's files through a mount, with that host's own paths in them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from p2pdist.cli.errors import CommandError
from p2pdist.cli.main import run
from p2pdist.cli.setup.root import HostRoot
from tests.adapters.cli.setup.tree import tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with containerd's directory in its configuration, by an import, and a certificate."""
    etc = tmp_path / "mounted" / "etc"
    (etc / "containerd" / "conf.d").mkdir(parents=True)
    (etc / "containerd" / "config.toml").write_text(
        'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n'
    )
    (etc / "containerd" / "conf.d" / "a.toml").write_text(
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/certs"\n'
    )
    (etc / "certs" / "ghcr.io").mkdir(parents=True)
    (etc / "certs" / "ghcr.io" / "ca.crt").touch()
    return etc.parent


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "p2pdist.toml").write_text('[mirror]\nlisten = "127.0.0.1:6060"\n')
    return str(tmp_path / "p2pdist.toml")


def test_each_runtime_is_set_up_below_it_and_undone(
    root: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(root)
    common = ["--root", str(root), "--config", config]
    for runtime in ("containerd", "docker", "podman"):
        assert run(["setup", runtime, *common]) == 0
    written = tomllib.loads((root / "etc/certs/ghcr.io/hosts.toml").read_text())
    assert written["ca"] == ["/etc/certs/ghcr.io/ca.crt"]
    assert "http://127.0.0.1:6060" in (root / "etc/docker/daemon.json").read_text()
    assert (root / "etc/containers/registries.conf.d/p2pdist.conf").exists()
    printed = capsys.readouterr().out
    assert f"wrote {root}/etc/certs/ghcr.io/hosts.toml" in printed
    assert "containerd reads /etc/certs at each pull" in printed
    for runtime in ("containerd", "docker", "podman"):
        assert run(["setup", runtime, *common]) == 0
        assert "nothing to change" in capsys.readouterr().out
        assert run(["setup", runtime, *common, "--remove"]) == 0
    assert tree(root) == before


@pytest.mark.parametrize("link", ["etc/docker", "etc/docker/daemon.json"])
def test_a_link_that_leads_out_is_not_followed(
    root: Path, config: str, tmp_path: Path, link: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(outside)
    assert run(["setup", "docker", "--root", str(root), "--config", config]) == 1
    assert f"which is not below {root}" in capsys.readouterr().err
    assert list(outside.iterdir()) == []


def test_a_link_that_stays_below_is_followed(root: Path, config: str) -> None:
    (root / "opt").mkdir()
    (root / "etc" / "docker").symlink_to("../opt")
    assert run(["setup", "docker", "--root", str(root), "--config", config]) == 0
    assert (root / "opt" / "daemon.json").exists()


def test_paths_here_and_there(root: Path) -> None:
    host = HostRoot(root)
    assert host.here(Path("/etc/certs")) == root / "etc" / "certs"
    assert host.glob(Path("/etc/c*")) == [Path("/etc/certs"), Path("/etc/containerd")]
    assert host.glob(Path("/etc/none")) == [Path("/etc/none")]
    assert host.glob(Path("/etc/a**b")) == []
    assert HostRoot().here(Path("/etc/x")) == Path("/etc/x")
    with pytest.raises(CommandError, match="not below"):
        host.here(Path("/../../x"))
