"""Key and password files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from p2pdist.config.load import load_config
from p2pdist.config.model import Config, PeerConfig
from p2pdist.config.secrets import key_from_file, read_cluster_key
from p2pdist.errors import ConfigError
from p2pdist.wire.keys import ClusterKey


def secret(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def load(key: Path) -> Config:
    return load_config(None, {"P2PDIST_PEER_CLUSTER_KEY_FILE": str(key)}, {})


def test_a_good_key_is_read(tmp_path: Path) -> None:
    key = ClusterKey.generate()
    config = load(secret(tmp_path / "key", key.text() + "\n"))
    assert config.warnings == ()
    found = read_cluster_key(config)
    assert found is not None
    assert found.raw == key.raw


def test_without_a_key_there_is_no_cluster_and_an_open_one_has_the_well_known_key() -> None:
    assert read_cluster_key(Config()) is None
    opened = read_cluster_key(replace(Config(), peer=PeerConfig(insecure_open_cluster=True)))
    assert opened == ClusterKey.open_cluster()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("p2pdist1-short", "not a cluster key"),
        ("hunter2", "not a cluster key"),
        (b"\xff\xff", "not a text"),
        ("x" * 100_000, "larger"),
    ],
)
def test_a_bad_key_says_how_to_make_one_and_never_what_it_holds(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(secret(tmp_path / "key", content))
    message = str(caught.value)
    assert words in message
    assert "peer.cluster_key_file" in message
    assert "p2pdist cluster key" in message
    assert "hunter2" not in message


def test_a_missing_key_a_directory_and_a_fifo(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"peer\.cluster_key_file"):
        load(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="not a regular file"):
        load(tmp_path / "fifo")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o660, True)])
def test_a_key_that_others_can_read_gives_a_warning(tmp_path: Path, mode: int, warned: bool) -> None:
    config = load(secret(tmp_path / "key", ClusterKey.generate().text(), mode))
    assert bool(config.warnings) is warned
    assert all("chmod 600" in warning for warning in config.warnings)


def test_a_key_of_somebody_else_is_not_to_be_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    # The tests may run as root, who may read all.
    monkeypatch.setattr("p2pdist.config.secrets.os.open", refuse)
    with pytest.raises(ConfigError, match=r"Permission denied.*chown") as caught:
        key_from_file(tmp_path / "key")
    assert "make one" not in str(caught.value)


def test_a_key_and_an_open_cluster_contradict_each_other(tmp_path: Path) -> None:
    env = {
        "P2PDIST_PEER_CLUSTER_KEY_FILE": str(secret(tmp_path / "key", ClusterKey.generate().text())),
        "P2PDIST_PEER_INSECURE_OPEN_CLUSTER": "yes",
    }
    with pytest.raises(ConfigError, match="contradicts"):
        load_config(None, env, {})


def test_a_password_file_gives_the_password(tmp_path: Path) -> None:
    secret(tmp_path / "token", "hunter2\n", 0o644)
    file = tmp_path / "config.toml"
    file.write_text('[registries."a.example"]\nusername = "me"\npassword_file = "token"')
    config = load_config(file, {}, {})
    assert config.registries["a.example"].password == "hunter2"
    (warning,) = config.warnings
    assert "token can be read" in warning
    assert "hunter2" not in warning


def test_commands_that_need_no_secrets_do_not_open_them(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[peer]\ncluster_key_file = "absent"\n[registries."a.example"]\nusername = "me"\npassword_file = "absent"'
    )
    with pytest.raises(ConfigError, match=r"peer\.cluster_key_file") as caught:
        load_config(file, {}, {})
    assert "password_file" in str(caught.value)
    assert load_config(file, {}, {}, secrets=False).registries["a.example"].password == ""
