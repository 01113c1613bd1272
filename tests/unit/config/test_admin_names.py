"""The names by which the admin listener may be called."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pdist.config.load import load_config
from p2pdist.errors import ConfigError


def test_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[admin]\nnames = ["p2pdist.example.internal", "host-1"]\n')
    assert load_config(file, {}, {}).admin.names == ("p2pdist.example.internal", "host-1")
    environ = {"P2PDIST_ADMIN_NAMES": "a.example, b.example"}
    assert load_config(file, environ, {}).admin.names == ("a.example", "b.example")
    assert load_config(None, {}, {}).admin.names == ()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("host-1:5052", "has a port"),
        ("*.example", "neither an IP address nor a host name"),
        ("*", "neither an IP address nor a host name"),
        ("http://host-1", "has no port from"),
        ("a b", "neither an IP address nor a host name"),
    ],
)
def test_what_is_no_name_is_an_error_that_says_what_to_give(tmp_path: Path, name: str, why: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[admin]\nnames = ["{name}"]\n')
    with pytest.raises(ConfigError, match=f"names: .*{why}.*p2pdist.example.internal"):
        load_config(file, {}, {})
