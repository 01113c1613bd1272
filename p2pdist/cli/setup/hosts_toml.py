"""containerd's ``hosts.toml``: where it asks for one registry's images (containerd, docs/hosts.md). Pure.

Hosts are tried in order, for each request; ``server`` is the last. Keys above the hosts are the server's own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from p2pdist.cli.setup.mirrors import MirroredRegistry
from p2pdist.config.texts import quote

FILE = "hosts.toml"
_HEAD = "# Written by: p2pdist setup containerd (undo: p2pdist setup containerd --remove)\n"


@dataclass(frozen=True, slots=True)
class Certificates:
    """What containerd trusts and shows for a registry by files in its directory, as long as there is no ``hosts.toml``."""

    authorities: tuple[str, ...] = ()
    clients: tuple[tuple[str, str], ...] = ()


def directory_of(name: str, present: Collection[str]) -> str:
    """The directory that containerd reads for a registry: ``host_port_`` goes before ``host:port`` where both are there."""
    host, colon, port = name.rpartition(":")
    if not colon or name.endswith("]"):
        return name
    other = f"{host}_{port}_"
    return other if other in present else name


def certificates_in(directory: str, files: Collection[str]) -> Certificates:
    """The certificate files of a registry's directory, named as Docker names them: ``*.crt``; ``*.cert`` with ``*.key``."""
    authorities = tuple(f"{directory}/{name}" for name in sorted(files) if name.endswith(".crt"))
    pairs = []
    for name in sorted(files):
        if name.endswith(".cert"):
            # Without a key of its own the certificate's file holds the key too.
            key = name.removesuffix(".cert") + ".key"
            pairs.append((f"{directory}/{name}", f"{directory}/{key if key in files else name}"))
    return Certificates(authorities, tuple(pairs))


def render(registry: MirroredRegistry, mirror: str, beside: Certificates) -> bytes:
    """The file: the mirror at the URL ``mirror`` first, then upstream, with what was trusted there before.

    Trust is left out for plain http: with it containerd would try TLS first.
    """
    lines = [_HEAD, f"server = {quote(registry.upstream)}\n"]
    if not registry.plain_http:
        configured = [str(registry.ca_file)] if registry.ca_file else []
        authorities = [*beside.authorities, *(ca for ca in configured if ca not in beside.authorities)]
        if authorities:
            lines.append(f"ca = {_list(authorities)}\n")
        if beside.clients:
            lines.append(f"client = [{', '.join(_list(pair) for pair in beside.clients)}]\n")
    lines.append(f'\n[host.{quote(mirror)}]\n  capabilities = ["pull", "resolve"]\n')
    return "".join(lines).encode()


def points_at(text: bytes, mirror: str) -> bool:
    """Whether a file that someone else wrote asks the mirror first."""
    try:
        hosts = tomllib.loads(text.decode()).get("host")
    except (ValueError, RecursionError):
        return False
    if not isinstance(hosts, dict) or not hosts:
        return False
    first, table = next(iter(hosts.items()))
    allowed = table.get("capabilities", ["pull"]) if isinstance(table, dict) else []
    return first.rstrip("/") == mirror and isinstance(allowed, list) and "pull" in allowed


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(quote(text) for text in texts) + "]"
