"""Bytes over time, for the dashboard's chart: a bounded ring of samples of the counters.

Always true here: at most ``capacity`` samples, the oldest go first; numbers grow by one; what is sampled are totals
since the start of the process, so a reader that missed samples loses detail and no bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from typing import Any

INTERVAL = 5.0
CAPACITY = 720


@dataclass(frozen=True, slots=True)
class Sample:
    """``time`` is wall-clock seconds; the rest are bytes since the start: ``store``, ``peer`` and ``upstream`` given to
    runtimes by where they came from, the others on the wire."""

    number: int
    time: float
    store: int
    peer: int
    upstream: int
    received_peer: int
    received_upstream: int
    sent_peer: int


class History:
    """One hour at 5 s, unless told otherwise. ``interval`` (seconds) is what the caller of ``add`` keeps to."""

    def __init__(self, interval: float = INTERVAL, capacity: int = CAPACITY) -> None:
        self.interval = interval
        self.capacity = max(1, capacity)
        self._samples: deque[Sample] = deque(maxlen=self.capacity)
        self._next = 0

    def add(self, time: float, totals: Mapping[str, Any]) -> None:
        """Keep a sample; ``totals`` as ``Metrics.totals`` has them."""
        client, received, sent = totals["client_bytes"], totals["received_bytes"], totals["sent_bytes"]
        self._samples.append(
            Sample(
                self._next,
                round(time, 1),
                client["store"],
                client["peer"],
                client["upstream"],
                received["peer"],
                received["upstream"],
                sent["peer"],
            )
        )
        self._next += 1

    @property
    def last(self) -> int:
        """The newest sample's number; -1 before there is one."""
        return self._next - 1

    def after(self, number: int = -1) -> dict[str, Any]:
        """The samples with higher numbers, oldest first: {interval, capacity, fields, samples: [[...], ...]}."""
        rows = [list(astuple(sample)) for sample in self._samples if sample.number > number]
        names = [field.name for field in fields(Sample)]
        return {"interval": self.interval, "capacity": self.capacity, "fields": names, "samples": rows}
