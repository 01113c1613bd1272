"""What a flash crowd costs the DHT: how many datagrams, why they were sent, and CPU per datagram. All in one process.

    python -m tests.bench_discovery --crowd 16

The nodes start in the same instant, knowing the first three; some seconds later each does what a pull of an image of
four layers does. Requests are counted by what they were sent for; each has an answer beside it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from p2pdist.clock import SystemClock
from p2pdist.discovery.crawl import Crawl
from p2pdist.discovery.maintenance import Maintenance
from p2pdist.discovery.node import DiscoveryNode
from p2pdist.discovery.protocol import DhtProtocol
from p2pdist.discovery.publisher import Publisher
from p2pdist.discovery.settings import DiscoverySettings
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import PeerId, TagRecord

KEY = bytes(32)
LAYERS = 4
SETTLE = 6.0
FINDS = (0.5, 1.5, 2.0, 8.0)
AFTER = 3.0
REPOSITORY = Repository.of("docker.io", "library/nginx")
_cause: contextvars.ContextVar[str] = contextvars.ContextVar("cause", default="other")


@dataclass
class Counted:
    """Requests by cause and method, calls by cause, datagrams, and the CPU of all nodes, since the last reading."""

    requests: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    datagrams: int = 0
    cpu: float = field(default_factory=time.process_time)

    def report(self, what: str, nodes: list[DiscoveryNode]) -> None:
        cpu, now = time.process_time() - self.cpu, sum(n.counters().get("out", 0) for n in nodes)
        out, count = now - self.datagrams, len(nodes)
        print(
            f"{what}: {out / count:.0f} datagrams out and as many in per node, {cpu / count * 1000:.1f} ms of CPU"
            f" per node, {cpu / max(out, 1) * 1e6:.0f} us for each sent and received"
        )
        for name, number in sorted(self.requests.items(), key=lambda item: -item[1]):
            print(f"    {number / count:7.1f} requests  {name}")
        print("    calls", {name: round(number / count, 1) for name, number in self.calls.items()})
        self.__init__(datagrams=now)  # type: ignore[misc]


COUNTED = Counted()


def _named(owner: type, method: str, cause: str) -> None:
    """What ``owner.method`` sends is sent for ``cause``, unless there is a cause already."""
    before: Callable[..., Awaitable[Any]] = getattr(owner, method)

    @functools.wraps(before)
    async def wrapped(*args: Any, **more: Any) -> Any:
        if _cause.get() != "other":
            return await before(*args, **more)
        COUNTED.calls[cause] += 1
        token = _cause.set(cause)
        try:
            return await before(*args, **more)
        finally:
            _cause.reset(token)

    setattr(owner, method, wrapped)


def count_causes() -> None:
    """From here on each request is counted by its cause."""
    for owner, method, cause in (
        (Maintenance, "_look", "look around"),
        (Maintenance, "_greet", "greet"),
        (Maintenance, "_ping", "probe"),
        (Publisher, "hand_over", "hand over"),
        (Publisher, "renew", "renew"),
        (Publisher, "announce", "announce"),
        (Publisher, "announce_tag", "announce tag"),
        (Publisher, "withdraw", "withdraw"),
        (DiscoveryNode, "find", "find"),
        (DiscoveryNode, "find_tag", "find tag"),
    ):
        _named(owner, method, cause)
    made, ask, call, tell = Crawl.__init__, Crawl._ask, DhtProtocol._call, DhtProtocol.tell

    def remembering(self: Any, *args: Any, **more: Any) -> None:
        self.cause = _cause.get()
        made(self, *args, **more)

    def asking(self: Any, node: Any) -> None:
        token = _cause.set(self.cause)
        ask(self, node)
        _cause.reset(token)

    def calling(self: Any, target: Any, endpoint: Any, method: Any, *more: Any) -> None:
        COUNTED.requests[f"{_cause.get()}: {method.name}"] += 1
        call(self, target, endpoint, method, *more)

    def telling(self: Any, target: Any, method: Any, body: Any) -> None:
        COUNTED.requests[f"{_cause.get()}: {method.name} (told)"] += 1
        tell(self, target, method, body)

    Crawl.__init__ = remembering  # type: ignore[method-assign]
    Crawl._ask = asking  # type: ignore[method-assign]
    DhtProtocol._call = calling  # type: ignore[method-assign]
    DhtProtocol.tell = telling  # type: ignore[method-assign]


def _ports(count: int) -> list[int]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def start_together(count: int) -> list[DiscoveryNode]:
    ports = _ports(count)
    nodes = [
        DiscoveryNode(
            DiscoverySettings(
                peer=PeerId(os.urandom(20)),
                key=KEY,
                listen_host="127.0.0.1",
                listen_port=port,
                advertise=f"127.0.0.1:{port}",
                bootstrap=tuple(f"127.0.0.1:{first}" for first in ports[:3] if first != port),
            ),
            SystemClock(),
        )
        for port in ports
    ]
    await asyncio.gather(*(node.start() for node in nodes))
    return nodes


async def pull(node: DiscoveryNode) -> tuple[int, int]:
    """What a pull of an image does; how often this node was told to be first, and how many finds found nobody."""
    image = [Digest.of(f"blob {number}".encode()) for number in range(LAYERS + 2)]
    wish, layers = Digest.of(b"wish"), image[:LAYERS]
    await node.find_tag(REPOSITORY, "latest")
    await node.announce(wish, complete=False)
    told = [await node.announce(digest, complete=False) for digest in image[LAYERS:]]
    told += await asyncio.gather(*(node.announce(digest, complete=False) for digest in layers))
    empty = 0
    for pause in FINDS:
        await asyncio.sleep(pause)
        empty += sum(not found for found in await asyncio.gather(*(node.find(digest) for digest in layers)))
    for digest in image:
        await node.announce(digest)
    await node.announce_tag(
        REPOSITORY, "latest", TagRecord(PeerId(bytes(20)), image[0], "application/json", 1, 0.0)
    )
    await node.withdraw(wish)
    return sum(each.first for each in told), empty


async def crowd(count: int) -> None:
    """The whole measurement; prints as it goes."""
    count_causes()
    random.seed(1)
    nodes = await start_together(count)
    known = []
    for _ in range(int(SETTLE)):
        await asyncio.sleep(1.0)
        known.append(min(len(node.contacts()) for node in nodes))
    print(f"{count} nodes that started together: the least that one knew after each second {known}")
    COUNTED.report(f"start, {SETTLE:.0f} s", nodes)
    told = await asyncio.gather(*(pull(node) for node in nodes))
    COUNTED.report(f"the pulls, {sum(FINDS):.0f} s", nodes)
    firsts, empty = (sum(column) for column in zip(*told, strict=True))
    print(f"    told to be first {firsts} times for {LAYERS + 2} blobs; {empty} lookups found nobody")
    await asyncio.sleep(AFTER)
    COUNTED.report(f"after, {AFTER:.0f} s", nodes)
    for task in [node.abort() for node in nodes]:
        await task
