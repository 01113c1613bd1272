"""How quickly, and how surely, a record is found: many DHT nodes in one process, some of them freshly dead.

    python -m tests.bench_discovery --nodes 300 --dead 0.1 --records 200
    python -m tests.bench_discovery --crowd 16

Prints announce and find percentiles in milliseconds, lookups that missed, CPU per lookup, and how many announcers of
one key in the same instant were told that they are first.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import time
from collections import Counter

from p2pdist.clock import SystemClock
from p2pdist.discovery.node import DiscoveryNode
from p2pdist.discovery.settings import DiscoverySettings, Tuning
from p2pdist.oci.digest import Digest
from p2pdist.records import ContentKey, PeerId
from tests.bench_crowd import crowd

KEY = bytes(32)


async def make_nodes(count: int, tuning: Tuning) -> list[DiscoveryNode]:
    nodes: list[DiscoveryNode] = []
    for _ in range(count):
        seeds = random.sample(nodes, min(3, len(nodes)))
        node = DiscoveryNode(
            DiscoverySettings(
                peer=PeerId(os.urandom(20)),
                key=KEY,
                listen_host="127.0.0.1",
                listen_port=0,
                bootstrap=tuple(f"127.0.0.1:{seed.port}" for seed in seeds),
                tuning=tuning,
            ),
            SystemClock(),
        )
        await node.start()
        nodes.append(node)
    return nodes


def distance(node: DiscoveryNode, key: ContentKey) -> int:
    return int.from_bytes(node._settings.peer.raw, "big") ^ int.from_bytes(key.raw, "big")


def percentiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1000 for q in (0.5, 0.9, 0.99)]
    return " / ".join(f"{ms:.1f}" for ms in at) + f" (max {ordered[-1] * 1000:.0f})"


async def measure(nodes: int, dead: float, records: int, flash: int, age: float, tuning: Tuning) -> None:
    started = time.monotonic()
    everyone = await make_nodes(nodes, tuning)
    await asyncio.sleep(2.0)
    sizes = [len(node.contacts()) for node in everyone]
    print(f"{nodes} nodes up in {time.monotonic() - started:.1f} s; contacts {min(sizes)}..{max(sizes)}")
    gone = random.sample(everyone, int(nodes * dead))
    await asyncio.gather(*(node.abort() for node in gone))
    alive = [node for node in everyone if node not in gone]

    # 300 agents' objects in one process make collections that none of them would see alone (0.1 to 0.5 s).
    gc.collect()
    gc.freeze()

    announce: list[float] = []
    find: list[float] = []
    missed = holding = primary = 0
    firsts: Counter[bool] = Counter()
    pending: list[tuple[float, DiscoveryNode, Digest]] = []
    cpu = announce_cpu = find_cpu = 0.0

    async def look(until: float) -> None:
        nonlocal missed, find_cpu
        while pending and pending[0][0] <= until:
            _, owner, digest = pending.pop(0)
            asker = random.choice([node for node in alive if node is not owner])
            before, cpu_before = time.perf_counter(), time.process_time()
            providers = await asker.find(digest)
            find.append(time.perf_counter() - before)
            find_cpu += time.process_time() - cpu_before
            missed += not providers

    for _ in range(records):
        digest = Digest.of(os.urandom(16))
        owner = random.choice(alive)
        before, cpu_before = time.perf_counter(), time.process_time()
        told = await owner.announce(digest, complete=False)
        announce.append(time.perf_counter() - before)
        announce_cpu += time.process_time() - cpu_before
        firsts[told.first] += 1
        key = ContentKey.of_blob(digest)
        nearest = sorted(alive, key=lambda node: distance(node, key))[:8]
        now = time.monotonic()
        holding += sum(bool(node._server.records.providers(key, 1, now)) for node in nearest)
        primary += bool(nearest[0]._server.records.providers(key, 1, now))
        pending.append((time.monotonic() + age, owner, digest))
        await asyncio.sleep(0.01)
        await look(time.monotonic())
    while pending:
        await asyncio.sleep(max(0.0, pending[0][0] - time.monotonic()))
        await look(time.monotonic())

    print(f"  announce p50/p90/p99 ms {percentiles(announce)}; first {firsts[True]} of {records}")
    print(f"  of the true 8 nearest {holding / records:.2f} hold it; the very nearest {primary} of {records}")
    print(f"  find     p50/p90/p99 ms {percentiles(find)}; missed {missed} of {records}")
    print(
        f"  CPU, both ends: announce {announce_cpu / records * 1000:.2f} ms, find {find_cpu / records * 1000:.2f} ms"
    )

    told_first: Counter[int] = Counter()
    flash_times: list[float] = []
    for _ in range(flash):
        digest = Digest.of(os.urandom(16))
        crowd = random.sample(alive, min(16, len(alive)))
        before = time.perf_counter()
        answers = await asyncio.gather(*(node.announce(digest, complete=False) for node in crowd))
        flash_times.append(time.perf_counter() - before)
        told_first[sum(answer.first for answer in answers)] += 1
    if flash:
        print(f"  flash crowds of 16: firsts {dict(told_first)}; whole crowd ms {percentiles(flash_times)}")
    cpu = time.process_time()
    await asyncio.sleep(3.0)
    print(f"  idle: {(time.process_time() - cpu) / 3 / len(alive) * 100:.3f} % of a core per node")
    totals: Counter[str] = Counter()
    for node in alive:
        totals.update({**node.counters(), **node.state()})
    print(f"  counters {dict(totals)}")
    await asyncio.gather(*(node.abort() for node in alive))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=60)
    parser.add_argument("--dead", type=float, default=0.1)
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--flash", type=int, default=30)
    parser.add_argument("--age", type=float, default=1.0, help="seconds between announcing and looking")
    parser.add_argument(
        "--crowd", type=int, default=0, help="count the datagrams of so many nodes that pull at once"
    )
    parser.add_argument("--uvloop", action="store_true")
    args = parser.parse_args()
    work = (
        crowd(args.crowd)
        if args.crowd
        else measure(args.nodes, args.dead, args.records, args.flash, args.age, Tuning())
    )
    if args.uvloop:
        import uvloop

        uvloop.run(work)
    else:
        asyncio.run(work)


if __name__ == "__main__":
    main()
