"""What the demo counted, and whether the promises held. Pure: counters in, figures and verdicts out.

Three parties counted independently: the registry what it sent, the agents what they received, sent and delivered, and the
runtimes what they got. The promises are equalities and bounds between them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# How often each unique byte may leave the registry when every host pulls at the same moment: one copy, and races. A race
# costs a piece (256 KiB at least), which is much of the demo's small layers; large ones are measured by bin/bench.
MAX_UPSTREAM_COPIES = 1.25
SOURCES = ("store", "peer", "upstream")

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+([^\s]+)(?:\s+\d+)?\Z")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a Prometheus exposition."""

    name: str
    labels: dict[str, str]
    value: float


def parse_metrics(text: str) -> list[Sample]:
    """Samples of the Prometheus text format; lines that are none are skipped."""
    samples = []
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.match(line.strip())
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        samples.append(Sample(match[1], dict(_LABEL.findall(match[2] or "")), value))
    return samples


def total(samples: Sequence[Sample], name: str, **labels: str) -> int:
    """The sum of a metric's samples that have these labels."""
    return int(
        sum(
            sample.value
            for sample in samples
            if sample.name == name
            and all(sample.labels.get(label) == value for label, value in labels.items())
        )
    )


@dataclass(frozen=True, slots=True)
class AgentFigures:
    """One agent's own counters (bytes), and what its runtime counted."""

    name: str
    client: dict[str, int]
    received_peer: int
    received_upstream: int
    sent_peer: int
    runtime_bytes: int

    @classmethod
    def of(cls, name: str, metrics: str, runtime_bytes: int) -> AgentFigures:
        samples = parse_metrics(metrics)
        return cls(
            name=name,
            client={
                source: total(samples, "p2pdist_client_bytes_total", source=source) for source in SOURCES
            },
            received_peer=total(samples, "p2pdist_received_bytes_total", source="peer"),
            received_upstream=total(samples, "p2pdist_received_bytes_total", source="upstream"),
            sent_peer=total(samples, "p2pdist_sent_bytes_total", to="peer"),
            runtime_bytes=runtime_bytes,
        )

    @property
    def client_bytes(self) -> int:
        return sum(self.client.values())


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise, whether it held, and the numbers that say so."""

    text: str
    held: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The whole run. ``unique_bytes``: every blob and manifest once; ``image_bytes``: each image with all its layers."""

    agents: tuple[AgentFigures, ...]
    upstream_bytes: int
    unique_bytes: int
    image_bytes: int
    seconds: float

    @property
    def upstream_copies(self) -> float:
        return self.upstream_bytes / self.unique_bytes if self.unique_bytes else 0.0

    @property
    def client_bytes(self) -> int:
        return sum(agent.client_bytes for agent in self.agents)

    @property
    def without(self) -> int:
        """What the upstream would have sent had each runtime pulled from it directly."""
        return self.unique_bytes * len(self.agents)

    @property
    def saved(self) -> int:
        return self.without - self.upstream_bytes


def registry_bytes(counters: Mapping[str, object]) -> int:
    """Body bytes of blobs and manifests that left the demo's registry, by its own counters."""
    blobs, manifests = counters["total_blob_bytes"], counters["manifest_bytes"]
    assert isinstance(blobs, int)
    assert isinstance(manifests, int)
    return blobs + manifests


def judge(figures: Figures, *, bound: float = MAX_UPSTREAM_COPIES) -> tuple[Promise, ...]:
    """The promises, in the order they are shown. The runtimes have checked every digest before."""
    received = sum(agent.received_upstream for agent in figures.agents)
    from_peers = sum(agent.received_peer for agent in figures.agents)
    to_peers = sum(agent.sent_peer for agent in figures.agents)
    short = [agent.name for agent in figures.agents if agent.runtime_bytes != figures.unique_bytes]
    unlike = [agent.name for agent in figures.agents if agent.client_bytes != agent.runtime_bytes]
    return (
        Promise(
            "every runtime got every byte of all images, each digest right",
            not short,
            f"{len(figures.agents)} x {figures.unique_bytes:,} bytes"
            if not short
            else f"not on {', '.join(short)}",
        ),
        Promise(
            f"at most {bound:.2f} copies crossed the upstream link",
            figures.upstream_copies <= bound,
            f"{figures.upstream_copies:.3f} copies for {len(figures.agents)} hosts",
        ),
        Promise(
            "the agents' upstream counters equal the registry's own",
            received == figures.upstream_bytes,
            f"{received:,} and {figures.upstream_bytes:,} bytes",
        ),
        Promise(
            "the agents' client counters equal what the runtimes got",
            not unlike,
            f"{figures.client_bytes:,} bytes" if not unlike else f"not on {', '.join(unlike)}",
        ),
        Promise(
            "peers received no more than peers sent",  # a piece that came from elsewhere first is broken off
            from_peers <= to_peers,
            f"{from_peers:,} of {to_peers:,} bytes",
        ),
    )
