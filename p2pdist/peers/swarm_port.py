"""The port of the swarm's control messages: small, ordered per peer, best effort.

Always true here: ``send`` never blocks and never raises; what cannot be delivered is reported once through ``lost``.
A peer's messages arrive in the order in which they were sent, authenticated as that peer's. Adapters: peers/swarm_links.py,
testing/memory_peers.py.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Protocol

from p2pdist.records import PeerId, Provider

Work = Coroutine[None, None, None]


class SwarmLinks(Protocol):
    """The sending side."""

    def send(self, provider: Provider, frame: bytes) -> None:
        """Queue one frame (wire/swarm_messages.py) for a peer; connects when need be."""


class SwarmInbox(Protocol):
    """The receiving side, implemented by the transfer layer."""

    def received(self, sender: PeerId, frame: bytes) -> Work | None:
        """A frame from an authenticated peer; malformed ones are dropped.

        What it returns, if anything, is to be awaited before the next frame of this peer is handed over.
        """

    def lost(self, peer: PeerId) -> None:
        """Frames for this peer could not be delivered."""


class NoLinks:
    """For an agent without a cluster."""

    def send(self, provider: Provider, frame: bytes) -> None:
        return None
