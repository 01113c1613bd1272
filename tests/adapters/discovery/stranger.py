"""A bare socket that can say anything to a node, sealed or not."""

from __future__ import annotations

import asyncio
import socket

from p2pdist.clock import SystemClock
from p2pdist.discovery.node import DiscoveryNode
from p2pdist.records import PeerId
from p2pdist.wire import dht_messages
from p2pdist.wire.datagram import Sealer
from p2pdist.wire.dht_messages import Message, Method
from tests.adapters.discovery.conftest import KEY


class Stranger:
    """A socket of its own that can send anything, sealed or not."""

    def __init__(self, key: bytes = KEY, wall: float | None = None, session: bytes = b"s" * 16) -> None:
        self.peer = PeerId(b"p" * 20)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        clock = SystemClock()
        self.sealer = Sealer(key, session, wall=clock.wall() if wall is None else wall, now=clock.now())

    def send(self, node: DiscoveryNode, data: bytes) -> None:
        self.socket.sendto(data, ("127.0.0.1", node.port))

    def sealed(self, payload: bytes) -> bytes:
        return self.sealer.seal(payload, SystemClock().now())

    def request(self, node: DiscoveryNode, method: Method, body: tuple[object, ...]) -> bytes:
        message = Message(7, self.peer, node._settings.peer, None, method, body)
        return self.sealed(dht_messages.encode_message(message))

    async def heard(self) -> bytes:
        async with asyncio.timeout(10):
            return await asyncio.get_running_loop().sock_recv(self.socket, 2000)

    def heard_nothing(self) -> bool:
        try:
            self.socket.recv(2000)
        except BlockingIOError:
            return True
        return False
