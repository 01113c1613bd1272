"""The configuration in force, as a debug bundle shows it."""

from __future__ import annotations

import json
from pathlib import Path

from p2pdist.config import schema
from p2pdist.config.effective import effective_config, known_secrets
from p2pdist.config.load import load_config

WRITTEN = """
[agent]
docker_config = "docker.json"
[store]
max_size = "1GiB"
[peer]
bootstrap = ["10.0.0.1:5051"]
insecure_open_cluster = true
[registries."ghcr.io"]
username = "puller"
password = "hunter2-ghcr"
"""


def test_every_key_is_there_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(WRITTEN)
    (tmp_path / "docker.json").write_text("{}")
    config = load_config(file, {}, {})
    shown = effective_config(config)
    for section in schema.SECTIONS:
        assert set(shown[section.name]) == {key.name for key in section.keys}
    assert shown["store"]["max_size"] == 2**30
    assert shown["mirror"]["listen"] == "127.0.0.1:5050"
    assert shown["peer"]["bootstrap"] == ["10.0.0.1:5051"]
    assert shown["agent"]["docker_config"] == str(tmp_path / "docker.json")
    assert shown["source"] == str(file)
    assert shown["registries"]["ghcr.io"]["username"] == "puller"
    assert shown["registries"]["ghcr.io"]["password"] == "***"
    assert shown["registries"]["docker.io"]["password"] == ""
    assert "hunter2" not in json.dumps(shown)
    assert known_secrets(config) == ["hunter2-ghcr"]
