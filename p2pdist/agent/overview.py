"""What the dashboard asks of the agent (api.dashboard.live.DashboardBackend): the agent's own answers, made small."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import Any

from p2pdist.agent.backend import Backend
from p2pdist.oci.reference import Reference
from p2pdist.telemetry.history import History
from p2pdist.telemetry.metrics import Metrics
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.holders import Holders
from p2pdist.transfer.host_counts import HostCounts

MAX_TRANSFERS = 64
MAX_PEERS = 256
MAX_IMAGES = 200


class Overview:
    """Each section is what the route of the same name answers, but bounded, and without what changes by itself."""

    def __init__(
        self, backend: Backend, context: TransferContext, counts: HostCounts, metrics: Metrics
    ) -> None:
        self._backend = backend
        self._clock = context.clock
        self._store = context.store
        self._metrics = metrics
        self._holders = Holders(context.store, counts)
        self._history = History()
        self._started = context.clock.now()
        self._run = secrets.token_hex(4)

    async def run(self) -> None:
        """Sample the counters until cancelled."""
        while True:
            self._history.add(self._clock.wall(), self._metrics.totals())
            await self._clock.sleep(self._history.interval)

    # -- api.dashboard.live.DashboardBackend --

    async def section(self, name: str) -> Any:
        match name:
            case "status":
                return {
                    key: value for key, value in (await self._backend.status()).items() if key != "uptime"
                }
            case "savings":
                return {"registries": self._metrics.by_registry()}
            case "transfers":
                return _first(await self._backend.transfers(), "transfers", MAX_TRANSFERS)
            case "peers":
                peers = sorted(await self._backend.peers(), key=lambda row: -(row["rate"] or 0.0))
                return _first(peers, "peers", MAX_PEERS)
            case _:
                return await self._images()

    async def _images(self) -> dict[str, Any]:
        """Only the first are looked into: a store may know thousands of tags."""
        rows = await self._backend.images(MAX_IMAGES)
        count = len(rows) if len(rows) < MAX_IMAGES else len(await self._store.tags())
        return {
            "count": count,
            "images": [{key: value for key, value in row.items() if key != "age"} for row in rows],
        }

    def beat(self) -> dict[str, float]:
        return {
            "time": round(self._clock.wall(), 1),
            "uptime": round(self._clock.now() - self._started, 1),
        }

    def cursor(self) -> str:
        return f"{self._run}.{self._history.last}"

    def history(self, cursor: str = "") -> dict[str, Any]:
        run, _, number = cursor.partition(".")
        known = run == self._run and number.isascii() and number.isdigit() and len(number) < 18
        return {"run": self._run, **self._history.after(int(number) if known else -1)}

    async def layers(self, reference: Reference) -> dict[str, Any]:
        digest, layers = await self._holders.layers(reference)
        rows = [asdict(layer) | {"digest": str(layer.digest)} for layer in layers]
        return {"reference": str(reference), "digest": str(digest), "layers": rows}


def _first(rows: list[dict[str, Any]], name: str, most: int) -> dict[str, Any]:
    """The first rows, and how many there are."""
    return {"count": len(rows), name: rows[:most]}
