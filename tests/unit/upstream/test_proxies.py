"""HTTP_PROXY and its kin, as Go's programs read them."""

from __future__ import annotations

import pytest
from yarl import URL

from p2pdist.errors import ConfigError
from p2pdist.upstream.proxies import Proxies

BOTH = {"HTTP_PROXY": "http://plain:1", "HTTPS_PROXY": "http://user:secret@tls:2"}


def test_each_scheme_has_its_own() -> None:
    proxies = Proxies.of(BOTH)
    assert proxies.for_url(URL("http://registry.test/")) == URL("http://plain:1")
    assert proxies.for_url(URL("https://registry.test/")) == URL("http://user:secret@tls:2")
    assert "secret" not in repr(proxies)
    assert Proxies.of({}).for_url(URL("https://registry.test/")) is None
    assert Proxies.of({**BOTH, "http_proxy": "low:3"}).for_url(URL("http://x.test/")) == URL("http://low:3")


@pytest.mark.parametrize(
    "url", ["http://localhost:5000/", "https://127.0.0.1/", "https://127.9.9.9/", "http://[::1]:5/"]
)
def test_loopback_is_never_proxied(url: str) -> None:
    assert Proxies.of(BOTH).for_url(URL(url)) is None


@pytest.mark.parametrize(
    ("no_proxy", "url", "exempt"),
    [
        ("*", "https://registry.test/", True),
        ("registry.test", "https://registry.test/", True),
        ("registry.test", "https://a.registry.test/", True),
        ("registry.test", "https://otherregistry.test/", False),
        (".registry.test", "https://a.registry.test/", True),
        (".registry.test", "https://registry.test/", False),
        ("*.registry.test", "https://a.registry.test/", True),
        ("other, REGISTRY.test ", "https://registry.test/", True),
        ("registry.test:5000", "https://registry.test:5000/", True),
        ("registry.test:5000", "https://registry.test/", False),
        ("10.0.0.0/8", "https://10.1.2.3/", True),
        ("10.0.0.0/8", "https://11.1.2.3/", False),
        ("10.1.2.3", "https://10.1.2.3:8443/", True),
        ("10.1.2.3:8443", "https://10.1.2.3:8443/", True),
        ("2.3", "https://10.1.2.3/", False),
        ("fd00::/8", "https://[fd00::1]:5000/", True),
        ("[fd00::1]:5000", "https://[fd00::1]:5000/", True),
        ("", "https://registry.test/", False),
        (" , ,", "https://registry.test/", False),
    ],
)
def test_no_proxy(no_proxy: str, url: str, exempt: bool) -> None:
    proxies = Proxies.of({**BOTH, "NO_PROXY": no_proxy})
    assert (proxies.for_url(URL(url)) is None) is exempt


@pytest.mark.parametrize("value", ["socks5://x:1", "http://", "http://[", "what://u:p@x"])
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(value: str) -> None:
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        Proxies.of({"HTTPS_PROXY": value})
    assert value not in str(caught.value)
