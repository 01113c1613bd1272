"""From a peer's endpoints to connections.

A peer may name several addresses, of which some lead nowhere, or (container bridges) to another agent or back here. So
all are raced with a small head start for the earlier ones, and when another agent than the wanted one answers, each is
tried alone. The HTTP client pools connections by host name: each peer with its set of endpoints gets a made-up name.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

from aiohttp.abc import AbstractResolver, ResolveResult

from p2pdist.errors import DeniedError, P2PDistError, ProtocolError, UnreachableError
from p2pdist.records import MAX_ENDPOINTS, Endpoint, PeerId

_MAX_NAMES = 4096
Route = tuple[Endpoint, ...]
Found = TypeVar("Found")


def usable_endpoints(endpoints: Iterable[Endpoint]) -> Route:
    """At most MAX_ENDPOINTS different endpoints whose host is an IP address, in order: names are never resolved."""
    found = dict.fromkeys(endpoint for endpoint in endpoints if _is_usable(endpoint))
    return tuple(found)[:MAX_ENDPOINTS]


def _is_usable(endpoint: Endpoint) -> bool:
    try:
        address = ipaddress.ip_address(endpoint.host)
    except ValueError:
        return False
    return 0 < endpoint.port < 65536 and not (address.is_multicast or address.is_unspecified)


def name_of(peer: PeerId | None) -> str:
    """How messages call a peer (None: whoever answers)."""
    return "(any)" if peer is None else peer.short


class Routes:
    """Which endpoints to try in turn; remembers where a peer was found. Bounded, least recently used out."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[PeerId, Route], Route] = OrderedDict()

    async def ask(
        self, peer: PeerId | None, endpoints: tuple[Endpoint, ...], ask: Callable[[Route], Awaitable[Found]]
    ) -> Found:
        """What ``ask`` finds on the first route on which the peer itself answers.

        ``ask`` raises UnreachableError where nobody does, DeniedError or ProtocolError where somebody else does.
        """
        usable = usable_endpoints(endpoints)
        failure: P2PDistError = UnreachableError(
            f"peer {name_of(peer)} names no address that can be asked: {', '.join(map(str, endpoints[:4])) or 'none'}"
        )
        for attempt, route in enumerate(self.to_try(peer, usable)):
            try:
                found = await ask(route)
            except UnreachableError as error:
                if attempt == 0:
                    self.failed(peer, usable)
                    raise
                failure = failure if isinstance(failure, DeniedError | ProtocolError) else error
            except (DeniedError, ProtocolError) as error:
                failure = error  # the peer may still be found at another of its addresses
            else:
                self.worked(peer, usable, route)
                return found
        raise failure

    def to_try(self, peer: PeerId | None, endpoints: Route) -> Iterator[Route]:
        """Where the peer was found before, else all at once; then each endpoint alone."""
        if not endpoints:
            return
        first = endpoints if peer is None else self._found.get((peer, endpoints), endpoints)
        yield first
        if len(endpoints) > 1:
            yield from ((endpoint,) for endpoint in endpoints if (endpoint,) != first)

    def worked(self, peer: PeerId | None, endpoints: Route, route: Route) -> None:
        """The peer itself answered on ``route``."""
        if peer is None or route == endpoints:
            return
        self._found[peer, endpoints] = route
        self._found.move_to_end((peer, endpoints))
        while len(self._found) > _MAX_NAMES:
            self._found.popitem(last=False)

    def failed(self, peer: PeerId | None, endpoints: Route) -> None:
        """Nobody answered where the peer was found before: race all of them again."""
        if peer is not None:
            self._found.pop((peer, endpoints), None)


class RouteResolver(AbstractResolver):
    """Hands out made-up host names for routes, and resolves them for aiohttp; bounded, least recently used out."""

    def __init__(self) -> None:
        self._routes: OrderedDict[str, Route] = OrderedDict()

    def name(self, peer: PeerId | None, route: Route) -> str:
        """The host name that stands for ``route`` to ``peer``."""
        who = peer.hex if peer is not None else "anyone"
        where = hashlib.blake2b(" ".join(map(str, route)).encode(), digest_size=8).hexdigest()
        name = f"{who}-{where}"
        self._routes[name] = route
        self._routes.move_to_end(name)
        while len(self._routes) > _MAX_NAMES:
            self._routes.popitem(last=False)
        return name

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        route = self._routes.get(host)
        if not route:
            raise OSError(f"no route is known for {host}")
        return [
            ResolveResult(
                hostname=host,
                host=endpoint.host,
                port=endpoint.port,
                family=socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for endpoint in route
        ]

    async def close(self) -> None:
        return None
