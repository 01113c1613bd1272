"""What the machine and a link can do, measured beside each run: goodput of TCP, SHA-256, loopback, cores in use."""

from __future__ import annotations

import hashlib
import os
import platform
import queue
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.e2e.netlab import Host
from tests.lab.client import enter

GOODPUT_SECONDS = 3.0
QUIET_CORES = 0.3
QUIET_LOOK = 1.5
WARM_UP = 0.5  # the shaper's burst and TCP's slow start, left out


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine's limits; rates in bytes per second on one core."""

    cores: int
    processor: str
    kernel: str
    python: str
    memory: int
    sha256: float
    loopback: float

    def record(self) -> dict[str, object]:
        return asdict(self)

    def line(self) -> str:
        """For the head of a report."""
        return (
            f"{self.cores} cores ({self.processor}), {self.memory / 2**30:.0f} GiB, "
            f"Linux {self.kernel}, Python {self.python}; "
            f"SHA-256 {self.sha256 / 1e9:.2f} GB/s a core, loopback TCP {self.loopback / 1e9:.2f} GB/s"
        )


def machine() -> Machine:
    """Measure this machine; takes about two seconds."""
    info = Path("/proc/cpuinfo").read_text()
    processor = next((x.partition(":")[2].strip() for x in info.splitlines() if "model name" in x), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        processor=processor,
        kernel=platform.release(),
        python=platform.python_version(),
        memory=memory,
        sha256=_sha256_rate(),
        loopback=_loopback_rate(),
    )


def cpu_seconds() -> float:
    """CPU seconds that the whole machine has spent, everything but idle and waiting for disks."""
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def wait_quiet(patience: float) -> float:
    """Wait until the machine does little else, for so many seconds at most; the cores in use at the end."""
    deadline = time.monotonic() + patience
    while True:
        before, at = cpu_seconds(), time.monotonic()
        time.sleep(QUIET_LOOK)
        busy = (cpu_seconds() - before) / (time.monotonic() - at)
        if busy < QUIET_CORES or time.monotonic() > deadline:
            return busy


def cpu_inside(namespaces: Collection[str]) -> float:
    """CPU seconds so far of the living processes in these network namespaces (paths)."""
    inodes = {os.stat(namespace).st_ino for namespace in namespaces}
    ticks = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if (process / "ns" / "net").stat().st_ino in inodes:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:  # it has ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def link_goodput(sender: Host, receiver: Host, seconds: float = GOODPUT_SECONDS) -> float:
    """u: TCP payload bytes per second from one host to another, over their links as they are now."""
    listening: queue.SimpleQueue[int | OSError] = queue.SimpleQueue()

    def send() -> None:
        try:
            enter(f"/run/netns/{sender.namespace}")
            listener = socket.create_server((sender.address, 0))
        except OSError as error:
            listening.put(error)
            return
        listener.settimeout(10)
        listening.put(listener.getsockname()[1])
        _send_for(listener, seconds)

    thread = threading.Thread(target=send)
    thread.start()
    port = listening.get()
    if isinstance(port, OSError):
        raise port
    with receiver.connect(port, sender.address) as connection:
        rate = _receive_rate(connection, WARM_UP)
    thread.join()
    return rate


def _sha256_rate() -> float:
    data, total, begun = bytes(1 << 20), 0, time.perf_counter()
    hasher = hashlib.sha256()
    while time.perf_counter() - begun < 0.5:
        hasher.update(data)
        total += len(data)
    return total / (time.perf_counter() - begun)


def _loopback_rate() -> float:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    sender = threading.Thread(target=_send_for, args=(listener, 1.0))
    sender.start()
    with socket.create_connection(address) as connection:
        rate = _receive_rate(connection, 0.0)
    sender.join()
    return rate


def _send_for(listener: socket.socket, seconds: float) -> None:
    with listener, listener.accept()[0] as connection:
        data, end = bytes(1 << 18), time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(data)


def _receive_rate(connection: socket.socket, warm_up: float) -> float:
    """Payload bytes per second until the sender ends, the first moments left out."""
    buffer = bytearray(1 << 18)
    first = last = time.monotonic()
    begun, total = first, 0
    while count := connection.recv_into(buffer):
        last = time.monotonic()
        if last - begun < warm_up:
            first, total = last, 0
        else:
            total += count
    return total / (last - first)
