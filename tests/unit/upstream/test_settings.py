"""Where registries are."""

from __future__ import annotations

import pytest

from p2pdist.errors import ConfigError
from p2pdist.upstream.settings import RegistrySettings


@pytest.mark.parametrize(
    ("name", "url", "base"),
    [
        ("docker.io", "", "https://registry-1.docker.io"),
        ("quay.io", "", "https://quay.io"),
        ("registry.test:5000", "", "https://registry.test:5000"),
        ("registry.test:5000", "http://10.0.0.1:5000/", "http://10.0.0.1:5000"),
        ("registry.test", "https://proxy.test/cache/", "https://proxy.test/cache"),
    ],
)
def test_base_url(name: str, url: str, base: str) -> None:
    settings = RegistrySettings(name, url)
    assert settings.base_url == base
    assert settings.plain_http is base.startswith("http://")


@pytest.mark.parametrize(
    "url", ["registry.test", "ftp://x", "https://", "https://user:secret@x", "https://x?y"]
)
def test_a_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match=r"registry\.test") as caught:
        _ = RegistrySettings("registry.test", url).base_url
    assert "secret" not in str(caught.value)


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(RegistrySettings("a", username="u", password="secret"))
