"""Pieces from peers: one flow (flow.py) to each peer that something is wanted of, beside the general client.

Always true here: every wait is bounded (connect, answer, no progress); a flow that failed in any way is never used again;
one that nobody uses for IDLE_SECONDS is closed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial

from p2pdist.errors import (
    BusyError,
    DeniedError,
    InvalidInputError,
    P2PDistError,
    ProtocolError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.peers.flow import FlowConnection
from p2pdist.peers.routes import usable_endpoints
from p2pdist.peers.signer import Signer
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.wire.flow_frames import PATH
from p2pdist.wire.http_auth import HttpAuth, Target

IDLE_SECONDS = 20.0
_RETRY = 0.5


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
        signer: Signer,
        *,
        connect_timeout: float = 1.0,
        progress_timeout: float = 6.0,
        tls: ssl.SSLContext | None = None,
        on_received: Callable[[PeerId, int], None] | None = None,
    ) -> None:
        self._auth = auth
        self._signer = signer
        self._connect_timeout = connect_timeout
        self._progress_timeout = progress_timeout
        self._tls = tls
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
        """Fill ``buffer`` with the bytes from ``start`` of a blob of ``size`` bytes; errors as in the port.

        DeniedError may mean that the clocks differ: a greeting (``HttpPeers.hello``) learns by how much.
        """
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
        failure: P2PDistError = UnreachableError(f"peer {provider.peer.short} names no address")
        for endpoint in usable_endpoints(provider.endpoints):
            try:
                async with asyncio.timeout(self._connect_timeout):
                    flow = await self._connect(endpoint, provider.peer)
            except (OSError, TimeoutError) as error:
                failure = UnreachableError(f"peer {provider.peer.short} at {endpoint}: {error!r}")
                continue
            try:
                async with asyncio.timeout(2 * self._connect_timeout):
                    await self._open(flow, endpoint, provider.peer)
            except TimeoutError:
                flow.close()
                failure = UnreachableError(f"peer {provider.peer.short} at {endpoint} does not answer")
            except BaseException:
                flow.close()
                raise
            else:
                return flow
        raise failure

    async def _connect(self, endpoint: Endpoint, peer: PeerId) -> FlowConnection:
        _, protocol = await asyncio.get_running_loop().create_connection(
            lambda: FlowConnection(partial(self._on_received, peer), self._progress_timeout, IDLE_SECONDS),
            endpoint.host,
            endpoint.port,
            ssl=self._tls,
        )
        return protocol

    async def _open(self, flow: FlowConnection, endpoint: Endpoint, peer: PeerId) -> None:
        credentials = self._signer.sign(Target("GET", PATH), peer)
        request = f"GET {PATH} HTTP/1.1\r\nHost: {endpoint}\r\nAuthorization: {credentials.header()}\r\n\r\n"
        answer = await flow.greet(request.encode("ascii"))
        if answer.status == 401:
            raise DeniedError(f"peer {peer.short} refuses this agent's proof")
        try:
            seal = answer.headers.get("p2pdist-mac", "")
            self._auth.check_seal(seal, credentials, peer, answer.status, answer.headers)
        except InvalidInputError as error:
            raise ProtocolError(f"the answer for peer {peer.short} is not from it: {error}") from error
        if answer.status in (429, 503):
            raise BusyError(f"peer {peer.short} has no room for another flow", _RETRY)
        if answer.status != 101:
            raise ProtocolError(f"peer {peer.short} answered {answer.status} to a flow")
        flow.begin(self._auth.frames(credentials))
