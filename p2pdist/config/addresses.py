"""How the configuration names places: addresses to listen at and to reach, URLs, registries.

Rule: each function returns what was meant, or raises ValueError with what is wrong in a few words; nothing is resolved.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from p2pdist.config.model import ListenAddress
from p2pdist.config.texts import parse_list, parse_text
from p2pdist.errors import InvalidInputError
from p2pdist.oci.reference import parse_registry

_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?\Z"
)


def split_host_port(text: str) -> tuple[str, int | None]:
    """``HOST:PORT``, ``[V6]:PORT``, ``HOST`` or ``[V6]``; the port None when absent; raises ValueError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("has an unclosed '['")
        port_text = rest[1:] if rest else None
    else:
        host, colon, tail = text.partition(":")
        if ":" in tail:
            raise ValueError("needs brackets around its IPv6 address, as in [::1]:5051")
        port_text = tail if colon else None
    if port_text is None:
        return host, None
    if not port_text.isascii() or not port_text.isdigit() or int(port_text[:6]) > 65535 or len(port_text) > 5:
        raise ValueError("has no port from 0 to 65535")
    return host, int(port_text)


def parse_listen(value: object) -> ListenAddress:
    """Where to bind: ``127.0.0.1:5050``, ``[::]:5051``, ``:5051`` (all addresses); raises ValueError."""
    host, port = split_host_port(parse_text(value, 128).strip())
    if port is None:
        raise ValueError("has no port")
    if host == "localhost":
        host = "127.0.0.1"
    if host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"starts with {host!r}, which is not an IP address") from None
    return ListenAddress(host, port)


def parse_host_port(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """An address that others are reached at: an IP address or host name, and a port from 1; raises ValueError."""
    host, port = split_host_port(text)
    port = default_port if port is None else port
    if not port:
        raise ValueError("has no port from 1 to 65535")
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        # A name of digits and dots only is a mistyped address, never a host.
        if not _HOST_NAME.match(host) or re.fullmatch(r"[0-9.]+", host):
            raise ValueError(f"names {host!r}, which is neither an IP address nor a host name") from None
    return host, port


def join_host_port(host: str, port: int) -> str:
    """The text that ``parse_host_port`` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_advertise(value: object) -> str:
    """``HOST[:PORT]`` or ""; the loader adds the peer listener's port. Raises ValueError."""
    text = parse_text(value, 300).strip()
    if text and parse_host_port(text, default_port=1)[0] in {"0.0.0.0", "::"}:  # noqa: S104  (compared, not bound)
        raise ValueError("is not an address that others can reach")
    return text


def parse_bootstrap(value: object) -> tuple[str, ...]:
    """Peers to meet first: ``IP:PORT``, ``NAME:PORT`` or ``dns:NAME:PORT``, list or comma-separated; raises ValueError."""
    entries = parse_list(value)
    for entry in entries:
        try:
            parse_host_port(entry.removeprefix("dns:"))
        except ValueError as error:
            raise ValueError(f"holds {entry[:80]!r}, which {error}") from None
    return entries


def parse_names(value: object) -> tuple[str, ...]:
    """Host names, without ports; list or comma-separated; raises ValueError."""
    names = parse_list(value)
    for name in names:
        try:
            parse_host_port(name, default_port=1)
            with_port = split_host_port(name)[1] is not None
        except ValueError as error:
            raise ValueError(f"holds {name[:80]!r}, which {error}") from None
        if with_port:
            raise ValueError(f"holds {name[:80]!r}, which has a port; the name is enough")
    return names


def parse_url(value: object) -> str:
    """``https://HOST[:PORT]``, or http; "" for https at the registry's own name; raises ValueError."""
    text = parse_text(value, 300).strip().rstrip("/")
    if not text:
        return ""
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise ValueError("holds credentials; use username and password_file instead")
    if parts.scheme not in {"http", "https"} or parts.path or parts.query or parts.fragment:
        raise ValueError("is not http:// or https:// with a host, and nothing after it")
    host, port = split_host_port(parts.netloc)
    parse_host_port(join_host_port(host, 1 if port is None else port))
    return f"{parts.scheme}://{parts.netloc}"


def parse_endpoint(value: object) -> str:
    """``http://HOST[:PORT][/PATH]``, or https; "" for none; raises ValueError."""
    text = parse_text(value, 300).strip().rstrip("/")
    parts = urlsplit(text)
    if parts.query or parts.fragment or not text.isascii() or " " in text:
        raise ValueError("holds a query, a fragment or a space")
    if text:
        parse_url(f"{parts.scheme}://{parts.netloc}")
    return text


def parse_registry_name(text: str) -> str:
    """A registry's name as oci.reference reads it; raises ValueError."""
    try:
        name = parse_registry(text)
    except InvalidInputError as error:
        raise ValueError(str(error)) from None
    assert name is not None
    return name
