"""Pieces from peers: one flow (flow.py) to each peer that something is wanted of, beside the general client.

Always true here: every wait is bounded (connect, answer, no progress); a flow that failed in any way is never used again;
one that nobody uses for IDLE_SECONDS is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from p2pdist.errors import P2PDistError
from p2pdist.oci.digest import Digest
from p2pdist.peers.flow import FlowConnection
from p2pdist.peers.upgrade import Upgrader
from p2pdist.records import PeerId, Provider
from p2pdist.wire.flow_frames import PATH
from p2pdist.wire.http_auth import HttpAuth

IDLE_SECONDS = 20.0


class _Attempt:
    """A connection that is being made, and why it could not be."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.error: P2PDistError | None = None


class PieceClient:
    """Used within one event loop; ``close`` it. Times in seconds."""

    def __init__(
        self,
        auth: HttpAuth,
        upgrader: Upgrader,
        *,
        answer_timeout: float = 4.0,
        progress_timeout: float = 6.0,
        on_received: Callable[[PeerId, int], None] | None = None,
    ) -> None:
        self._auth = auth
        self._upgrader = upgrader
        self._answer_timeout = answer_timeout
        self._progress_timeout = progress_timeout
        self._on_received = on_received or (lambda peer, size: None)
        self._flows: dict[PeerId, FlowConnection] = {}
        self._dialling: dict[PeerId, _Attempt] = {}

    def close(self) -> None:
        """Close all flows."""
        for flow in self._flows.values():
            flow.close()
        self._flows.clear()

    async def fetch(
        self,
        provider: Provider,
        digest: Digest,
        start: int,
        size: int,
        buffer: memoryview,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Fill ``buffer`` with the bytes from ``start`` of a blob of ``size`` bytes; errors as in the port."""
        flow = self._flows.get(provider.peer)
        if flow is None or not flow.alive:
            flow = await self._dial_once(provider)
        handle, done = flow.want(digest, start, size, buffer, on_progress)
        try:
            await done
        except asyncio.CancelledError:
            flow.cancel(handle)
            raise

    async def _dial_once(self, provider: Provider) -> FlowConnection:
        """However many ask at once, one connection is made, or one is tried in vain for all of them."""
        peer = provider.peer
        attempt = self._dialling.setdefault(peer, _Attempt())
        async with attempt.lock:
            flow = self._flows.get(peer)
            if flow is not None and flow.alive:
                return flow
            if attempt.error is not None:
                raise attempt.error
            self._drop_dead()
            try:
                flow = self._flows[peer] = await self._dial(provider)
            except P2PDistError as error:
                attempt.error = error
                raise
            finally:
                if self._dialling.get(peer) is attempt:
                    del self._dialling[peer]
            return flow

    def _drop_dead(self) -> None:
        for peer, flow in list(self._flows.items()):
            if not flow.alive:
                del self._flows[peer]

    async def _dial(self, provider: Provider) -> FlowConnection:
        peer = provider.peer

        def make() -> FlowConnection:
            return FlowConnection(partial(self._on_received, peer), self._progress_timeout, IDLE_SECONDS)

        opened = await self._upgrader.open(provider, PATH, make, self._answer_timeout)
        opened.connection.begin(self._auth.frames(opened.credentials))
        return opened.connection
