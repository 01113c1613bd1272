"""What a swarm message costs in CPU: two agents' links over loopback, each in a process of its own.

    python -m tests.bench_links --messages 20000

Prints CPU microseconds per message for who sends (what the same loop costs without sending taken off) and for who
receives, down to the session that is told; once with each message alone in its turn of the loop, once in bursts. Then
what each step costs by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from p2pdist.api.peer import PeerServerSettings, build_peer_app
from p2pdist.api.peer_listener import PeerListener
from p2pdist.clock import SystemClock
from p2pdist.oci.digest import Digest
from p2pdist.peers.http_client import HttpPeers
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.peers.swarm_links import HttpSwarmLinks
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.store.port import Store
from p2pdist.transfer.swarm_hub import SwarmHub
from p2pdist.wire.sealed_frames import FrameSeal
from p2pdist.wire.swarm_messages import PIECE_DIGEST, SwarmMessage, Update, decode, encode
from tests.support_peers import BlobShelf, auth_of, peer_id

BLOB = Digest.of(b"a blob")
KINDS = {
    "a claim": Update(BLOB, claim=(1234,)),
    "a piece held": Update(BLOB, have=((77, os.urandom(PIECE_DIGEST)),)),
    "20 pieces held": Update(BLOB, have=tuple((3 * piece, bytes(PIECE_DIGEST)) for piece in range(100, 120))),
}
WARM_UP = 500


class Told:
    """A session that only counts."""

    claiming = False

    def __init__(self) -> None:
        self.count = 0

    def message(self, sender: PeerId, message: SwarmMessage) -> None:
        self.count += 1

    def lost(self, peer: PeerId) -> None:
        raise SystemExit("the link was lost")


async def receive(pipe: Connection, count: int) -> None:
    hub, told = SwarmHub(cast(Store, BlobShelf())), Told()
    hub.open(BLOB, told)
    clock = SystemClock()
    app = build_peer_app(cast(Store, BlobShelf()), auth_of("seed"), clock, PeerServerSettings(), inbox=hub)
    listener = PeerListener(app, grace=0.1)
    await listener.start("127.0.0.1", 0)
    pipe.send(listener.port)
    for goal in (WARM_UP, count):
        begun = time.process_time()
        while told.count < goal:
            await asyncio.sleep(0.05)
        pipe.send((time.process_time() - begun) / goal)
        told.count -= goal
    await listener.close()


async def send(pipe: Connection, count: int, burst: int, pause: float) -> tuple[float, float]:
    """CPU seconds per message: sent, received."""
    clock = SystemClock()
    frames = [encode(message) for message in KINDS.values()]
    async with (
        HttpPeers(PeerClientSettings(), auth_of("leech"), clock) as peers,
        asyncio.TaskGroup() as tasks,
    ):
        links = HttpSwarmLinks(peers, auth_of("leech"), tasks, SwarmHub(cast(Store, BlobShelf())))
        seed = Provider(peer_id("seed"), (Endpoint("127.0.0.1", await answer(pipe)),))

        async def paced(goal: int, deliver: Callable[[bytes], None]) -> float:
            begun = time.process_time()
            for number in range(goal):
                deliver(frames[number % len(frames)])
                if number % burst == burst - 1:
                    await asyncio.sleep(pause)
            return (time.process_time() - begun) / goal

        await paced(WARM_UP, lambda frame: links.send(seed, frame))
        await answer(pipe)
        idle = await paced(count, lambda frame: None)
        sent = await paced(count, lambda frame: links.send(seed, frame))
        received = await answer(pipe)
        for task in tasks._tasks:
            task.cancel()
    return sent - idle, received


async def answer(pipe: Connection) -> float:
    return cast(float, await asyncio.to_thread(pipe.recv))


def receiver(pipe: Connection, count: int) -> None:
    uvloop.run(receive(pipe, count))


def run(count: int, burst: int, pause: float) -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receiver, args=(theirs, count))
    process.start()
    sent, received = uvloop.run(send(ours, count, burst, pause))
    process.join()
    print(f"bursts of {burst:3}: sent {sent * 1e6:6.1f} us, received {received * 1e6:6.1f} us a message")


def step(name: str, work: Callable[[], object], times: int = 20000) -> None:
    begun = time.process_time()
    for _ in range(times):
        work()
    print(f"  {name:28} {(time.process_time() - begun) / times * 1e6:6.2f} us")


def steps() -> None:
    seal = FrameSeal(os.urandom(32))
    for name, message in KINDS.items():
        frame = encode(message)
        print(f"{name}, {len(frame)} bytes:")
        step("encode (once for all)", lambda message=message: encode(message))
        step("MAC", lambda frame=frame: seal.next(frame))
        step("decode", lambda frame=frame: decode(frame))


def main() -> None:
    parser = argparse.ArgumentParser(description="What a swarm message costs.")
    parser.add_argument("--messages", type=int, default=20000)
    count = parser.parse_args().messages
    run(count // 4, 1, 0.001)  # uvloop counts in whole milliseconds
    run(count, 16, 0.004)
    steps()


if __name__ == "__main__":
    main()
