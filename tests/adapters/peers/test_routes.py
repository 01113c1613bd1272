from __future__ import annotations

import pytest

from p2pdist.peers.routes import RouteResolver, Routes, usable_endpoints
from p2pdist.records import Endpoint
from tests.support_peers import peer_id

A, B, C = Endpoint("10.0.0.1", 5051), Endpoint("fd00::1", 5051), Endpoint("10.0.0.3", 5051)
PEER = peer_id("seed")


def test_only_addresses_are_used_each_once_and_four_at_most() -> None:
    odd = [
        Endpoint("example.com", 1),
        Endpoint("10.0.0.1", 0),
        Endpoint("10.0.0.1", 65536),
        Endpoint("224.0.0.1", 1),
    ]
    assert usable_endpoints([*odd, A, A, B]) == (A, B)
    assert len(usable_endpoints(Endpoint("10.0.0.1", port) for port in range(1, 9))) == 4


def test_all_are_raced_then_each_is_tried_alone() -> None:
    assert list(Routes().to_try(PEER, (A, B))) == [(A, B), (A,), (B,)]
    assert list(Routes().to_try(PEER, (A,))) == [(A,)]
    assert list(Routes().to_try(PEER, ())) == []


def test_where_a_peer_was_found_is_tried_first_until_it_fails() -> None:
    routes = Routes()
    routes.worked(PEER, (A, B, C), (B,))
    assert list(routes.to_try(PEER, (A, B, C))) == [(B,), (A,), (C,)]
    assert next(routes.to_try(peer_id("other"), (A, B, C))) == (A, B, C)
    routes.failed(PEER, (A, B, C))
    assert next(routes.to_try(PEER, (A, B, C))) == (A, B, C)


async def test_made_up_names_resolve_to_their_endpoints_and_no_others_do() -> None:
    resolver = RouteResolver()
    name = resolver.name(PEER, (A, B))
    assert name == resolver.name(PEER, (A, B))
    assert name != resolver.name(PEER, (A,))
    assert len(name) <= 63, "it must do as a host name in TLS"
    found = await resolver.resolve(name)
    assert [(each["host"], each["port"]) for each in found] == [(A.host, A.port), (B.host, B.port)]
    with pytest.raises(OSError, match="no route"):
        await resolver.resolve("example.com")
