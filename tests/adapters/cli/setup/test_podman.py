"""``p2pdist setup podman`` on temporary directories."""

from __future__ import annotations

import tomllib

import pytest

from tests.adapters.cli.setup.hosts import Host


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


def test_a_mirror_that_podman_cannot_name_is_refused(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.config.write_text('[mirror]\nlisten = "[::1]:5050"\n')
    assert host.setup("podman") == 2
    assert "take no IPv6 address" in capsys.readouterr().err
    assert not host.conf_d.exists()
    assert host.setup("containerd") == 0
