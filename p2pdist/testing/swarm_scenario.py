"""What the swarm's simulator is asked (hosts, links, blobs), and what came of it. The model: swarm_simulator.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pdist.swarm.geometry import Geometry
from p2pdist.swarm.planner import PlannerSettings


@dataclass(frozen=True, slots=True)
class HostLink:
    """Rates in bytes per second; ``arrives`` and ``leaves`` in seconds. ``holds``: everything, from the start."""

    up: float
    down: float
    arrives: float = 0.0
    leaves: float | None = None
    zone: str = ""
    holds: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated. ``upstream`` is the registry's uplink in bytes per second; sizes in bytes.

    ``upstream_ends``: from that second on, upstream refuses. ``piece``: cut blobs coarser than the daemon does, for
    large swarms. Beside all of its arc a host looks for ``neighbours``; ``most`` are accepted.
    """

    blobs: tuple[int, ...]
    hosts: tuple[HostLink, ...]
    upstream: float
    latency: float = 0.0005
    far_latency: float = 0.0005
    upstream_ends: float | None = None
    neighbours: int = 32
    most: int = 192
    seed: int = 1
    chunks_per_piece: int = 8
    piece: int | None = None
    settings: PlannerSettings = field(default_factory=PlannerSettings)
    deadline: float = 3600.0

    @property
    def size(self) -> int:
        return sum(self.blobs)

    def geometry(self, blob: int) -> Geometry:
        """How the blob is cut in this scenario."""
        size = self.blobs[blob]
        return Geometry.of(size) if self.piece is None else Geometry(size, self.piece, -(-size // self.piece))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: seconds from each host's arrival to its last byte (None: never), bytes that left upstream,
    bytes that crossed between zones, requests for pieces and messages of all hosts."""

    finished: tuple[float | None, ...]
    makespan: float
    upstream_bytes: float
    upstream_copies: float
    far_bytes: float
    requests: int
    messages: int
    gave_up: int


def best_makespan(scenario: Scenario) -> float:
    """T* of Mundinger, Weber and Weiss: (S/u)(1 + floor(log2 N)/M), u the slowest link, N hosts, M pieces of all
    blobs together."""
    rate = min([scenario.upstream, *(min(host.up, host.down) for host in scenario.hosts)])
    pieces = sum(scenario.geometry(blob).count for blob in range(len(scenario.blobs)))
    return scenario.size / rate * (1 + (len(scenario.hosts).bit_length() - 1) / max(1, pieces))
