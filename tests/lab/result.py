"""What a run measured, as values: the ideal time T*, percentiles, the machine-readable record and the table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from tests.lab.scenario import Expect

GB = 1_000_000_000
MIB = 1024 * 1024


def ideal_seconds(size: int, goodput: float, hosts: int, pieces: int) -> float:
    """T* = (S/u)(1 + floor(log2 N)/M): no protocol over links of u bytes/s can be much faster (DESIGN.md section 2)."""
    return size / goodput * (1 + math.floor(math.log2(hosts)) / pieces)


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; nan of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Result:
    """One run. Bytes, seconds; ``copies``: blob bytes the registry sent / image bytes; ``wire_copies``: the same from the
    interface's counter; ``cpu_per_gb``: CPU-seconds of the agents (or of what else runs on the pulling hosts, clients left
    out) per GB received; ``busy``: cores in use by all, ``foreign``: by what is no part of the run."""

    name: str
    system: str
    hosts: int
    rate: float
    size: int
    pieces: int
    goodput: float
    ideal: float
    makespan: float
    p50: float
    p99: float
    first_byte_p50: float
    copies: float
    wire_copies: float
    blob_requests: int
    manifest_requests: int
    received: int = 0
    cpu: float = 0.0
    cpu_per_gb: float = 0.0
    peak_rss: int = 0
    client_cpu: float = 0.0
    busy: float = 0.0
    foreign: float = 0.0
    load_before: float = 0.0
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    fallback_bytes: int = 0
    retries: int = 0
    troubles: list[str] = field(default_factory=list)
    host_seconds: dict[str, float] = field(default_factory=dict)
    progress: list[tuple[float, list[int]]] = field(default_factory=list)
    links: list[tuple[float, dict[str, tuple[int, int]]]] = field(default_factory=list)
    counters: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Makespan / T*."""
        return self.makespan / self.ideal

    @property
    def agent_copies(self) -> float:
        """Upstream copies without what clients whose agent failed them fetched there themselves."""
        return self.copies - self.fallback_bytes / self.size

    def record(self) -> dict[str, object]:
        """For JSON; what is not a number is null."""
        plain = {**asdict(self), "ratio": self.ratio, "agent_copies": self.agent_copies}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}


def unmet(result: Result, expect: Expect) -> list[str]:
    """What was expected and did not hold."""
    bounds = (
        ("copies", result.copies, expect.copies),
        ("copies but for fallback", result.agent_copies, expect.agent_copies),
        ("makespan / T*", result.ratio, expect.ratio),
        ("CPU-s/GB", result.cpu_per_gb, expect.cpu_per_gb),
        ("peak RSS, MiB", result.peak_rss / MIB, expect.rss_mib),
        ("failed pulls", float(result.failed), float(expect.failed)),
    )
    return [
        f"{what}: {value:.3g}, expected at most {bound:.3g}"
        for what, value, bound in bounds
        if bound is not None and not value <= bound  # so that nan is not met
    ]


COLUMNS = (
    "case", "system", "N", "Mbit/s", "MiB", "makespan", "/ T*", "p50", "p99", "copies", "wire", "blob req",
    "mfst req", "CPU-s/GB", "peak MiB", "busy", "foreign", "failed",
)  # fmt: skip


def row(result: Result) -> list[str]:
    """The cells of a result's line; "-" where a figure makes no sense."""
    return [
        result.name,
        result.system,
        str(result.hosts),
        f"{result.rate:g}",
        f"{result.size / MIB:.0f}",
        f"{result.makespan:.2f} s",
        _or_dash(result.ratio),
        f"{result.p50:.2f} s",
        f"{result.p99:.2f} s",
        f"{result.copies:.3f}",
        f"{result.wire_copies:.3f}",
        str(result.blob_requests),
        str(result.manifest_requests),
        f"{result.cpu_per_gb:.1f}" if result.cpu_per_gb >= 0.05 else "-",
        f"{result.peak_rss / MIB:.0f}" if result.peak_rss else "-",
        f"{result.busy:.2f}",
        f"{result.foreign:.2f}",
        str(result.failed),
    ]


def _or_dash(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(header))]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)
