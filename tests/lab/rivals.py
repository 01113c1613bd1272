"""What a user would pick instead, measured in the same lab: the registry alone, a central cache, libtorrent."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from p2pdist.testing.images import write_layout
from tests.e2e.agents import REPOSITORY
from tests.e2e.netlab import Host
from tests.e2e.programs import Program
from tests.lab.images import Bundle
from tests.lab.lab import Lab, Watch
from tests.lab.pulls import Client, Pull, Pulls
from tests.lab.registry import PORT, Registry
from tests.lab.result import Result

TORRENT_PORT = 6881
LEAD = 3.0  # seconds for all processes to come up before the common instant


def direct(lab: Lab, name: str, bundle: Bundle) -> Result:
    """Every host pulls from the registry."""
    clients = [lab.client(n, bundle, 0, mirror=None) for n in range(1, len(lab.hosts) + 1)]
    return lab.pull(name, "direct", bundle, clients)


def cache(lab: Lab, name: str, bundle: Bundle) -> Result:
    """Every host pulls through one docker-registry in proxy mode, on a host with a link like theirs."""
    upstream = f"http://{lab.registry.address}"
    proxy = Registry(lab.spare[0], lab.run.directory / f"cache-{name}", upstream)
    proxy.start()
    try:
        endpoint = {"address": proxy.host.address, "port": PORT, "query": ""}
        clients = [Client(host, [endpoint], bundle.references()) for host in lab.hosts]
        return lab.pull(name, "pull-through cache", bundle, clients)
    finally:
        proxy.stop()


def torrent_missing() -> str:
    """Why the comparison with libtorrent cannot run; "" when it can."""
    return (
        ""
        if importlib.util.find_spec("libtorrent")
        else 'libtorrent is not installed: pip install "p2pdist[bench]"'
    )


def torrent(lab: Lab, name: str, bundle: Bundle) -> Result:
    """Every host runs libtorrent as it comes; the registry's host seeds, and all know all others' addresses."""
    directory = lab.run.directory / f"torrent-{name}"
    content = directory / "content"
    write_layout(bundle.images, content)
    description = directory / "content.torrent"
    make = [sys.executable, "-m", "tests.lab.torrent", "make", str(content), str(description)]
    subprocess.run(make, check=True, cwd=REPOSITORY)
    hosts = [host.name for host in lab.hosts]
    try:
        return lab.measure(
            name, "libtorrent", bundle, hosts, lambda watch: _share(lab, directory, bundle, watch)
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _share(lab: Lab, directory: Path, bundle: Bundle, watch: Watch) -> Pulls:
    start = time.monotonic() + LEAD + 0.1 * len(lab.hosts)
    everyone = [lab.network.up, *lab.hosts]
    programs = [_program(host, directory, everyone, start, start + lab.scenario.seconds) for host in everyone]
    pulls = Pulls()
    try:
        for program in programs:
            program.start()
        ended: set[str] = set()
        while len(ended) < len(lab.hosts) and (now := time.monotonic() - start) < lab.scenario.seconds:
            time.sleep(0.2)
            got = [_look(program, bundle, pulls, ended) for program in programs[1:]]
            pulls.progress.append((now, got))
            watch(now, pulls)
    finally:
        for program in programs:
            program.kill()
    return pulls


def _program(host: Host, directory: Path, everyone: Sequence[Host], start: float, until: float) -> Program:
    seed = host is everyone[0]
    save = directory if seed else directory / host.name
    save.mkdir(exist_ok=True)
    plan = {
        "address": host.address,
        "port": TORRENT_PORT,
        "torrent": str(directory / "content.torrent"),
        "save": str(save),
        "peers": [other.address for other in everyone if other is not host],
        "start": start,
        "until": until,
        "seed": seed,
    }
    argv = [sys.executable, "-m", "tests.lab.torrent", "run", json.dumps(plan)]
    return Program(host, f"torrent-{directory.name}", argv, {"PYTHONPATH": REPOSITORY})


def _look(program: Program, bundle: Bundle, pulls: Pulls, ended: set[str]) -> int:
    """How far a host is, by the last whole line it wrote; books its end."""
    lines = program.log.read_text().splitlines(keepends=True) if program.log.exists() else []
    got = 0
    for line in lines[-3:]:
        if not line.startswith("{") or not line.endswith("\n"):
            continue
        event = json.loads(line)
        got = event.get("bytes", got)
        if "done" in event:
            got = bundle.size
            if program.host.name not in ended:
                ended.add(program.host.name)
                pulls.pulls.append(Pull(program.host.name, 0.0, event["done"], got, None, 0, 0, ""))
    return got if program.host.name not in ended else bundle.size
