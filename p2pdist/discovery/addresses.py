"""Addresses: what sockets say, what configurations say, and what names resolve to.

Rules: an IPv4 address in IPv6 clothes (``::ffff:10.0.0.1``, as dual-stack sockets show it) is the IPv4 address. A name
that does not resolve is no error, only nothing.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from dataclasses import dataclass

from p2pdist.errors import InvalidInputError
from p2pdist.records import Endpoint

MAX_ADDRESSES = 64
RESOLVE_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host (a name or an address) and a port, as configured."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host_port(text: str) -> HostPort:
    """Read ``ip:port``, ``[ipv6]:port``, ``name:port`` or ``dns:name:port``; raises InvalidInputError."""
    host, colon, port = text.strip().removeprefix("dns:").rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidInputError(
            f"{text[:120]!r} is not HOST:PORT; write 10.0.0.1:5051, [fd00::1]:5051 or dns:agents.example:5051"
        )
    return HostPort(host, int(port))


@functools.lru_cache(maxsize=4096)  # asked for each datagram
def observed(address: tuple[object, ...]) -> Endpoint | None:
    """The endpoint a socket says a datagram came from; None when no datagram could be sent back."""
    host, port = str(address[0]).partition("%")[0], address[1]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return Endpoint(host, port) if isinstance(port, int) and port > 0 else None


@functools.lru_cache(maxsize=4096)
def reached_at(said: Endpoint | None, source: Endpoint) -> Endpoint:
    """Where a node is that names ``said`` in a datagram from ``source``: there, unless nobody but itself (loopback) or its
    own link (link-local) could reach it there, as with an address that was advertised by mistake."""
    if said is None:
        return source
    named, seen = ipaddress.ip_address(said.host), ipaddress.ip_address(source.host)
    if (named.is_loopback and not seen.is_loopback) or (named.is_link_local and not seen.is_link_local):
        return source
    return said


class Family:
    """What the listening socket can reach: IPv4, IPv6, or (bound to ``::``) both."""

    def __init__(self, listen_host: str) -> None:
        self.v6 = ":" in listen_host
        self.v4 = not self.v6 or ipaddress.ip_address(listen_host.partition("%")[0]).is_unspecified

    def reaches(self, endpoint: Endpoint) -> bool:
        return self.v6 if ":" in endpoint.host else self.v4

    def sockaddr(self, endpoint: Endpoint) -> tuple[str, int]:
        """What to give to ``sendto`` for an endpoint that is reached."""
        if self.v6 and ":" not in endpoint.host:
            return f"::ffff:{endpoint.host}", endpoint.port
        return endpoint.host, endpoint.port


def bind(host: str, port: int) -> socket.socket:
    """A bound, non-blocking UDP socket, dual-stack for ``::``; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


async def resolve(target: HostPort, family: Family) -> list[Endpoint]:
    """All addresses of ``target`` that ``family`` reaches, at most MAX_ADDRESSES; [] when there are none."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_WITHIN):
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError, TimeoutError):
        return []
    endpoints = dict.fromkeys(filter(None, (observed(entry[4]) for entry in found)))
    return [endpoint for endpoint in endpoints if family.reaches(endpoint)][:MAX_ADDRESSES]
