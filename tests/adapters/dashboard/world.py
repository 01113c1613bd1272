"""An admin listener with the dashboard over an agent that says what a test puts in."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from p2pdist.api.admin import AdminSettings, build_admin_app
from p2pdist.api.dashboard.live import LiveSettings
from p2pdist.api.dashboard.routes import Dashboard
from p2pdist.api.server import Listener, ListenerSettings
from p2pdist.errors import NotFoundError
from p2pdist.oci.reference import Reference
from p2pdist.telemetry.history import History
from tests.adapters.api.test_admin import FakeBackend

NOW = 1_795_000_000.0
DIGESTS = [f"sha256:{number:064x}" for number in range(0xA0, 0xA8)]
IMAGE = "registry.example.com/shop/web:2.4"


def totals(store: int, peer: int, upstream: int) -> dict[str, Any]:
    return {
        "client_bytes": {"store": store, "peer": peer, "upstream": upstream},
        "received_bytes": {"peer": peer, "upstream": upstream},
        "sent_bytes": {"client": store + peer + upstream, "peer": 7_000_000},
        "saved_bytes": store + peer,
    }


def empty_sections() -> dict[str, Any]:
    """An agent that was just started."""
    return {
        "status": {
            "name": "host-1", "peer": "ab" * 20, "version": "1.2.3", "zone": "", "ready": True, "reasons": [],
            "cluster": True, "peers": 0, "transfers": 0,
            "store": {
                "path": "/data", "committed": 0, "reserved": 0, "quota": 50_000_000_000, "blobs": 0, "pinned": 0
            },
            **totals(0, 0, 0),
            "listeners": {"mirror": "127.0.0.1:5050", "admin": "127.0.0.1:5052"},
            "warnings": [],
        },
        "savings": {"registries": [{"registry": "docker.io", "store": 0, "peer": 0, "upstream": 0}]},
        "transfers": {"count": 0, "transfers": []},
        "peers": {"count": 0, "peers": []},
        "images": {"count": 0, "images": []},
    }  # fmt: skip


def busy_sections() -> dict[str, Any]:
    """An agent with a bit of everything."""
    sections = empty_sections()
    sections["status"] |= {
        "zone": "rack-1", "peers": 2, "transfers": 1, "warnings": ["peer.advertise is a loopback address"],
        **totals(40_000_000, 50_000_000, 10_000_000),
    }  # fmt: skip
    sections["status"]["store"] |= {
        "committed": 12_500_000_000,
        "reserved": 500_000_000,
        "blobs": 42,
        "pinned": 3,
    }
    sections["savings"]["registries"] = [
        {"registry": "docker.io", "store": 40_000_000, "peer": 30_000_000, "upstream": 10_000_000},
        {"registry": "ghcr.io", "store": 0, "peer": 20_000_000, "upstream": 0},
        {"registry": "quay.io", "store": 0, "peer": 0, "upstream": 0},
    ]
    sections["transfers"] = {
        "count": 1,
        "transfers": [
            {
                "digest": DIGESTS[0], "repository": "registry.example.com/shop/web", "size": 64 * 2**20,
                "received": 33 * 2**20, "seconds": 2.0, "users": 2,
                "bytes": {"peer": 23 * 2**20, "upstream": 10 * 2**20},
                "pieces": {"piece": 2**20, "count": 64, "cells": "#" * 32 + "55" + "." * 30},
            }
        ],
    }  # fmt: skip
    sections["peers"] = {
        "count": 2,
        "peers": [
            {
                "peer": "01" * 20, "endpoint": "10.0.0.2:5051", "state": "ok", "rtt": 0.0012, "rate": 48e6,
                "seen": 1.5,
            },
            {
                "peer": "02" * 20, "endpoint": "10.0.0.3:5051", "state": "banned", "rtt": None, "rate": None,
                "seen": 61.0,
            },
        ],
    }  # fmt: skip
    sections["images"] = {
        "count": 2,
        "images": [
            {
                "reference": IMAGE, "digest": DIGESTS[1], "size": 137_000_000, "held": 137_000_000,
                "complete": True, "platforms": ["linux/amd64", "linux/arm64"], "resolved_at": NOW - 90.0,
                "pinned": True,
            },
            {
                "reference": "docker.io/library/redis:7", "digest": DIGESTS[2], "size": 40_000_000,
                "held": 30_000_000, "complete": False, "platforms": [], "resolved_at": NOW - 7200.0,
                "pinned": False,
            },
        ],
    }  # fmt: skip
    return sections


LONG = "registry.internal.eu-central-1.example-corporation.test:5000/platform/pipelines/nightly-feature-extraction-worker"


def crowded_sections() -> dict[str, Any]:
    """An agent of a large cluster: many peers, transfers of many pieces, and names as long as they get."""
    sections = busy_sections()
    sections["status"] |= {
        "name": "ip-10-213-144-201.eu-central-1.compute.internal", "zone": "eu-central-1b/row-12/rack-7",
        "peers": 32, "transfers": 8, "warnings": [f"{LONG} cannot be reached", "mirror.listen is not loopback"],
        **totals(4_012_000_000_000, 9_950_000_000_000, 120_000_000_000),
    }  # fmt: skip
    sections["savings"]["registries"] = [
        {"registry": LONG.partition("/")[0], "store": 4 * 10**12, "peer": 9 * 10**12, "upstream": 10**11},
        *(
            {"registry": f"mirror-{at}.example", "store": 10**at, "peer": 0, "upstream": at}
            for at in range(9)
        ),
    ]
    cells = [
        "#" * 256,
        "#" * 100 + "93" + "." * 154,
        "." * 256,
        "5" * 64,
        "#1." * 21 + "#",
        "#",
        "9",
        "." * 64,
    ]
    sections["transfers"] = {
        "count": 11,
        "transfers": [
            {
                "digest": f"sha256:{at:064x}", "repository": LONG if at % 2 else "docker.io/library/app",
                "size": 10**10, "received": 10**9 * at, "seconds": 2.0 + at, "users": at % 3,
                "bytes": {"peer": 9 * 10**8 * at, "upstream": 10**8 * at},
                "pieces": {"piece": 2**22, "count": 2385 if len(row) == 256 else len(row), "cells": row},
            }
            for at, row in enumerate(cells)
        ],
    }  # fmt: skip
    states = ["ok", "ok", "ok", "busy", "backing off", "banned"]
    sections["peers"] = {
        "count": 300,
        "peers": [
            {
                "peer": f"{at:02x}" * 20, "state": states[at % 6], "rtt": 0.0004 * 2**at if at < 14 else None,
                "endpoint": f"[2001:db8:85a3:1234:5678:8a2e:370:{at:x}]:5051" if at % 2 else f"10.213.144.{at}:5051",
                "rate": 1e6 * at or None, "seen": 3.0 * at,
            }
            for at in range(32)
        ],
    }  # fmt: skip
    many = ["linux/amd64", "linux/arm64/v8", "linux/arm/v7", "linux/s390x", "linux/ppc64le", "linux/riscv64"]
    sections["images"]["images"] = [
        {
            "reference": f"{LONG if at % 2 else 'docker.io/library/app'}:build-{at:04}", "digest": DIGESTS[at],
            "size": 10 ** (3 + at), "held": 10 ** (3 + at) // (1 + at % 2), "complete": not at % 2,
            "platforms": many[: at + 1], "resolved_at": NOW - 10.0**at, "pinned": at == 4,
        }
        for at in range(7)
    ]  # fmt: skip
    sections["images"]["count"] = 1207
    return sections


def full_sections() -> dict[str, Any]:
    """An agent of a large cluster in the rush: as much of everything as one overview may hold."""
    sections = crowded_sections()
    transfer, image = sections["transfers"]["transfers"][1], sections["images"]["images"][0]
    sections["transfers"] = {
        "count": 40,
        "transfers": [transfer | {"digest": f"sha256:{at:064x}"} for at in range(40)],
    }
    sections["peers"] = {
        "count": 300,
        "peers": [
            sections["peers"]["peers"][at % 32] | {"peer": f"{at:040x}", "endpoint": f"10.9.{at // 250}.{at % 250}:5051"}
            for at in range(256)
        ],
    }  # fmt: skip
    sections["images"] = {
        "count": 200,
        "images": [image | {"reference": f"registry.example/team/app-{at}:1.{at}"} for at in range(200)],
    }
    return sections


@dataclass
class FakeDashboard:
    """Implements DashboardBackend; ``asked`` counts the computations of each section."""

    sections: dict[str, Any] = field(default_factory=empty_sections)
    samples: History = field(default_factory=History)
    run: str = "run1"
    error: Exception | None = None
    gate: asyncio.Event | None = None
    asked: dict[str, int] = field(default_factory=dict)
    layer_rows: list[dict[str, Any]] = field(default_factory=list)
    past: list[dict[str, Any]] | None = None
    cursors: list[str] = field(default_factory=list)

    async def section(self, name: str) -> Any:
        self.asked[name] = self.asked.get(name, 0) + 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return copy.deepcopy(self.sections[name])

    def beat(self) -> dict[str, float]:
        return {"time": NOW, "uptime": 3700.0}

    def history(self, cursor: str = "") -> dict[str, Any]:
        self.cursors.append(cursor)
        run, _, number = cursor.partition(".")
        return {"run": self.run, **self.samples.after(int(number) if run == self.run else -1)}

    def cursor(self) -> str:
        return f"{self.run}.{self.samples.last}"

    async def layers(self, reference: Reference) -> dict[str, Any]:
        if not self.layer_rows:
            raise NotFoundError(f"this store does not hold {reference}")
        return {"reference": str(reference), "digest": DIGESTS[1], "layers": self.layer_rows}

    def sample(self, time: float, store: int, peer: int, upstream: int) -> None:
        self.samples.add(time, totals(store, peer, upstream))


@dataclass
class Event:
    name: str
    data: Any
    id: str


class Stream:
    """A reader of events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> Event:
        """The next event; fields that are not of an event (retry) are skipped."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(20):
            while "event" not in fields:
                fields = {}
                while line := (await self.response.content.readline()).decode().rstrip("\n"):
                    name, _, value = line.partition(": ")
                    fields[name] = value
                assert fields, "the stream ended"
        return Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))

    async def until(self, name: str) -> Event:
        while (event := await self.next()).name != name:
            pass
        return event

    async def first(self, count: int) -> dict[str, Event]:
        """The first so many, by name; each comes once."""
        found = [await self.next() for _ in range(count)]
        assert len({event.name for event in found}) == count
        return {event.name: event for event in found}


@dataclass
class World:
    agent: FakeDashboard
    dashboard: Dashboard
    listener: Listener
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.port}"

    async def get(self, path: str, **options: Any) -> tuple[int, Any, bytes]:
        async with self.session.get(self.url + path, **options) as response:
            return response.status, response.headers, await response.read()

    async def json(self, path: str, **options: Any) -> Any:
        status, _, body = await self.get(path, **options)
        assert status == 200, body
        return json.loads(body)

    @asynccontextmanager
    async def events(self, path: str = "/api/v1/events", **options: Any) -> AsyncIterator[Stream]:
        async with self.session.get(self.url + path, **options) as response:
            assert response.status == 200, await response.text()
            yield Stream(response)


def quick(**changes: Any) -> LiveSettings:
    return LiveSettings(**({"interval": 0.02, "beat": 3600.0} | changes))


@asynccontextmanager
async def running(
    agent: FakeDashboard | None = None, settings: LiveSettings | None = None, port: int = 0
) -> AsyncIterator[World]:
    """A world on a free port, or that one."""
    agent = agent or FakeDashboard()
    dashboard = Dashboard(agent, settings or quick())

    def past(app: web.Application) -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.json_response({"history": agent.past})

        if agent.past is not None:
            app.router.add_get("/api/v1/history/tags", answer)

    app = build_admin_app(FakeBackend(), AdminSettings(("host-1.example",)), [dashboard, past])
    listener = Listener(app, ListenerSettings("admin.listen"))
    await listener.start("127.0.0.1", port)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            yield World(agent, dashboard, listener, session)
    finally:
        await listener.close()
