"""``p2pdist setup docker`` on temporary directories."""

from __future__ import annotations

import json

import pytest

from tests.adapters.cli.setup.hosts import Host
from tests.adapters.cli.setup.tree import tree


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


def test_the_agents_configuration_is_the_one_of_all_commands(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.config.write_text("[x]\n")
    assert host.setup("docker") == 2
    host.config.write_text("")
    monkeypatch.setenv("P2PDIST_MIRROR_LISTEN", "127.0.0.1:7070")
    assert host.setup("docker") == 0
    assert json.loads(host.json.read_text()) == {"registry-mirrors": ["http://127.0.0.1:7070"]}
