"""The agent command's flags."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from p2pdist.cli.agent import _FLAGS, overrides
from p2pdist.config import schema


def test_flags_and_settings_become_keys() -> None:
    result = overrides(("store.max_size=10GiB", "tags.ttl = 5m"), {"agent__name": "a", "agent__zone": None})
    assert result == {"agent.name": "a", "store.max_size": "10GiB", "tags.ttl": "5m"}


def test_a_relative_data_dir_on_the_command_line_is_here() -> None:
    assert overrides(("agent.data_dir=data",), {}) == {"agent.data_dir": str(Path.cwd() / "data")}


@pytest.mark.parametrize("setting", ["store.max_size", "max_size=1", "="])
def test_a_malformed_setting_is_a_usage_error(setting: str) -> None:
    with pytest.raises(click.UsageError, match="SECTION"):
        overrides((setting,), {})


def test_every_flag_names_a_key_that_exists() -> None:
    for _, dotted, _ in _FLAGS:
        section, _, key = dotted.partition(".")
        assert schema.BY_NAME[section].key(key) is not None
