"""Addresses as configured, as sockets show them, and as they are given to sockets."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.discovery.addresses import Family, HostPort, observed, parse_host_port, reached_at, resolve
from p2pdist.errors import InvalidInputError
from p2pdist.records import Endpoint


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1:5051", "10.0.0.1", 5051),
        ("[fd00::1]:5051", "fd00::1", 5051),
        ("agents.example:80", "agents.example", 80),
        ("dns:agents.example:80", "agents.example", 80),
        (" 10.0.0.1:1 ", "10.0.0.1", 1),
    ],
)
def test_what_is_configured_is_read(text: str, host: str, port: int) -> None:
    parsed = parse_host_port(text)
    assert parsed == HostPort(host, port)
    assert parse_host_port(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text", ["", "host", ":5051", "host:", "host:0", "host:65536", "fd00::1:5051", "a:b", "h:²"]
)
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not HOST:PORT"):
        parse_host_port(text)


@given(st.text(max_size=40))
def test_anything_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidInputError):
        assert 0 < parse_host_port(text).port < 65536


def test_ipv4_in_ipv6_clothes_is_ipv4() -> None:
    assert observed(("::ffff:10.0.0.1", 5051, 0, 0)) == Endpoint("10.0.0.1", 5051)
    assert observed(("fe80::1%eth0", 5051, 0, 2)) == Endpoint("fe80::1", 5051)
    assert observed(("10.0.0.1", 0)) is None


def test_a_socket_reaches_its_own_family_and_a_dual_one_both() -> None:
    four, six = Endpoint("10.0.0.1", 1), Endpoint("fd00::1", 1)
    for host, reaches in (("0.0.0.0", (True, False)), ("::", (True, True)), ("::1", (False, True))):
        family = Family(host)
        assert (family.reaches(four), family.reaches(six)) == reaches
    assert Family("::").sockaddr(four) == ("::ffff:10.0.0.1", 1)
    assert Family("::").sockaddr(six) == ("fd00::1", 1)
    assert Family("0.0.0.0").sockaddr(four) == ("10.0.0.1", 1)


async def test_addresses_resolve_to_themselves_and_nothing_to_nothing() -> None:
    assert await resolve(HostPort("127.0.0.1", 5), Family("0.0.0.0")) == [Endpoint("127.0.0.1", 5)]
    assert await resolve(HostPort("::1", 5), Family("0.0.0.0")) == []
    assert await resolve(HostPort("no-such-host.invalid", 5), Family("::")) == []
    assert await resolve(HostPort("a" * 70 + ".example", 5), Family("::")) == []


@pytest.mark.parametrize(
    ("said", "source", "taken"),
    [
        (None, "10.0.0.9", "10.0.0.9"),
        ("10.0.0.7", "10.0.0.9", "10.0.0.7"),
        ("127.0.0.1", "10.0.0.9", "10.0.0.9"),
        ("::1", "fd00::9", "fd00::9"),
        ("169.254.169.254", "10.0.0.9", "10.0.0.9"),
        ("fe80::1", "fd00::9", "fd00::9"),
        ("127.0.0.2", "127.0.0.1", "127.0.0.2"),
        ("fe80::1", "fe80::9", "fe80::1"),
    ],
)
def test_nobody_is_sent_to_an_address_that_means_itself(said: str | None, source: str, taken: str) -> None:
    named = Endpoint(said, 1) if said is not None else None
    found = reached_at(named, Endpoint(source, 2))
    assert found == Endpoint(taken, 1 if taken == said else 2)
