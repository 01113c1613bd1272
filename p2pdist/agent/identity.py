"""Who this agent is: a peer id made on first start and kept in the data directory, and how others reach it."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path

from p2pdist.errors import InvalidInputError, StoreError
from p2pdist.records import PeerId

FILE = "peer.id"


def load_peer_id(data_dir: Path) -> PeerId:
    """The id kept in ``data_dir``, made if there is none; raises StoreError for a damaged file."""
    path = data_dir / FILE
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return _create(path)
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    try:
        return PeerId(bytes.fromhex(text))
    except (ValueError, InvalidInputError) as error:
        raise StoreError(f"{path} does not hold 40 hex digits; remove it, and a new id is made") from error


def _create(path: Path) -> PeerId:
    peer = PeerId(secrets.token_bytes(20))
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("w", encoding="ascii") as file:
            file.write(peer.hex + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}") from error
    return peer


def outgoing_address(listen_host: str, towards: Iterable[str]) -> str:
    """The address other hosts see: the one listened on, or that of the route to a bootstrap address.

    No packet is sent: connecting a datagram socket only picks the route.
    """
    if listen_host and not ipaddress.ip_address(listen_host).is_unspecified:
        return listen_host
    for host in (*towards, "192.0.2.1", "2001:db8::1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((host, 9))
                return str(probe.getsockname()[0])
            except OSError:
                continue
    return "127.0.0.1"
