"""Cached-hit throughput: the agent serving a blob that it holds, beside nginx serving the same file, over loopback.

The load comes from wrk. Both servers and wrk share the machine's cores, as on a real host.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from p2pdist.oci.digest import Digest
from tests.e2e.agents import MIRROR_PORT
from tests.e2e.guard import wait_until
from tests.e2e.netlab import Host
from tests.e2e.programs import Program
from tests.lab.agents import REGISTRY_NAME, LabAgent, cost
from tests.lab.images import Bundle

NGINX_PORT = 8080
SECONDS = 5
_UNITS = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_RATE = re.compile(r"Transfer/sec:\s*([\d.]+)([KMG]?B)")
_REQUESTS = re.compile(r"Requests/sec:\s*([\d.]+)")
_BAD = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")


@dataclass(frozen=True, slots=True)
class Hit:
    """One server on one file: bytes and requests per second, and the server's CPU-seconds per GB."""

    server: str
    what: str
    size: int
    connections: int
    bytes_per_second: float
    requests_per_second: float
    cpu_per_gb: float
    trouble: str = ""

    def record(self) -> dict[str, object]:
        return asdict(self)


def compare(agent: LabAgent, bundle: Bundle) -> list[Hit]:
    """The image's biggest layer, then its config, from both servers; the agent must hold the image."""
    image = bundle.images[0]
    layer = max(image.layers, key=lambda item: item.size)
    config = next(digest for digest in image.blobs if digest not in {item.digest for item in image.layers})
    files = {"layer": (layer.digest, 2), "config": (config, 32)}
    blobs = agent.data / "store" / "blobs"
    nginx = _nginx(agent.host, blobs)
    hits = []
    try:
        for what, (digest, connections) in files.items():
            size = _path(blobs, digest).stat().st_size
            mirror = f"http://127.0.0.1:{MIRROR_PORT}/v2/{image.name}/blobs/{digest}?ns={REGISTRY_NAME}"
            plain = f"http://127.0.0.1:{NGINX_PORT}/{digest.algorithm}/{digest.hex}"
            hits.append(_load(agent.host, "p2pdist", [agent.pid], what, size, connections, mirror))
            hits.append(_load(agent.host, "nginx", _workers(nginx), what, size, connections, plain))
    finally:
        nginx.kill()
    return hits


def _path(blobs: Path, digest: Digest) -> Path:
    return blobs / digest.algorithm / digest.hex


def _nginx(host: Host, root: Path) -> Program:
    """One worker, sendfile on: what a file server does at its best."""
    directory = host.directory / "nginx"
    directory.mkdir(exist_ok=True)
    config = directory / "nginx.conf"
    config.write_text(
        f"user root;\ndaemon off;\nworker_processes 1;\npid {directory}/pid;\nerror_log stderr;\n"
        f"events {{ worker_connections 256; }}\nhttp {{ access_log off; sendfile on; tcp_nopush on;\n"
        f"client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};\n"
        f"uwsgi_temp_path {directory}; scgi_temp_path {directory};\n"
        f"server {{ listen 127.0.0.1:{NGINX_PORT}; root {root}; }} }}\n"
    )
    program = Program(host, "nginx", ["nginx", "-c", str(config)])
    program.start()
    program.wait(lambda: host.listens(NGINX_PORT))
    wait_until(lambda: bool(_workers(program)), 10, "nginx's worker")
    return program


def _workers(nginx: Program) -> list[int]:
    children = Path(f"/proc/{nginx.pid}/task/{nginx.pid}/children").read_text().split()
    return [int(child) for child in children]


def _load(
    host: Host, server: str, pids: list[int], what: str, size: int, connections: int, url: str
) -> Hit:  # fmt: skip
    before = sum(cost(pid).cpu for pid in pids)
    argv = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{SECONDS}s", "--timeout", "30s", url]
    text = host.run(*argv, seconds=SECONDS + 60)
    used = sum(cost(pid).cpu for pid in pids) - before
    rate, requests, bad = _RATE.search(text), _REQUESTS.search(text), _BAD.search(text)
    if rate is None or requests is None:
        raise AssertionError(f"wrk said nothing that can be read:\n{text}")
    per_second = float(rate[1]) * _UNITS[rate[2]]
    return Hit(
        server, what, size, connections, per_second, float(requests[1]),
        used / (per_second * SECONDS / 1e9), bad[0] if bad else "",
    )  # fmt: skip
