"""Which HTTP proxy a request takes: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as Go's programs (so the runtimes) read them.

Rules: loopback is never proxied; NO_PROXY holds ``*``, hosts (which stand for their subdomains too), ``.suffixes``,
``host:port``, addresses and networks (CIDR), with commas between; lower-case names win over upper-case ones.
Written here since the standard library's reading knows no networks, and aiohttp's also reads ~/.netrc.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from yarl import URL

from p2pdist.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of an environment; URLs may hold credentials, so this is never shown."""

    http: URL | None
    https: URL | None
    exempt: tuple[str, ...]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Proxies:
        """Read an environment; raises ConfigError for a proxy that is no http(s) URL."""
        no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        exempt = tuple(item for raw in no_proxy.split(",") if (item := raw.strip().lower()))
        return cls(_proxy(environ, "http_proxy"), _proxy(environ, "https_proxy"), exempt)

    def for_url(self, url: URL) -> URL | None:
        """The proxy for a request to ``url``, None to go straight."""
        proxy = self.https if url.scheme == "https" else self.http
        if proxy is None or _is_exempt(url, self.exempt):
            return None
        return proxy

    def __repr__(self) -> str:
        return f"Proxies(http={self.http is not None}, https={self.https is not None})"


def _proxy(environ: Mapping[str, str], name: str) -> URL | None:
    text = (environ.get(name) or environ.get(name.upper()) or "").strip()
    if not text:
        return None
    try:
        url = URL(text if "://" in text else f"http://{text}")
        valid = url.scheme in {"http", "https"} and bool(url.host)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{name.upper()} in the environment is not http(s)://[USER:PASSWORD@]HOST[:PORT]")
    return url


def _is_exempt(url: URL, exempt: tuple[str, ...]) -> bool:
    host, port = (url.host or "").lower().rstrip("."), str(url.port or "")
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_matches(item, host, port, address) for item in exempt)


def _matches(
    item: str, host: str, port: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
) -> bool:
    if item == "*":
        return True
    network = _network(item)
    if network is not None:
        return address is not None and address in network
    name, colon, wanted = item.rpartition(":")
    if colon and wanted.isdigit():
        if wanted != port:
            return False
        item = name.strip("[]")
    if item == host:
        return True
    suffix = item.removeprefix("*")
    return host.endswith(suffix if suffix.startswith(".") else f".{suffix}") and address is None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
