"""The admin listener: what it tells, what it does, and whom it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from p2pdist.api.admin import AdminSettings, build_admin_app
from p2pdist.api.server import Listener, ListenerSettings
from p2pdist.errors import NotFoundError, StoreFullError, UnreachableError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.reference import Reference
from tests.adapters.api.registry_edge import read_to_end, until

EVENTS: tuple[dict[str, Any], ...] = (
    {"event": "layer", "digest": "sha256:aa", "size": 9, "received": 4, "source": "peer"},
    {"event": "layer", "digest": "sha256:aa", "size": 9, "received": 9, "source": "peer"},
    {"event": "done", "digest": "sha256:bb", "bytes": {"peer": 9}},
)


@dataclass
class FakeBackend:
    """Implements AdminBackend; ``error`` is raised by every call, by ``pull`` after ``events``."""

    reasons: list[str] = field(default_factory=list)
    error: Exception | None = None
    events: tuple[dict[str, Any], ...] = EVENTS
    gate: asyncio.Event | None = None
    done: list[tuple[object, ...]] = field(default_factory=list)
    open_pulls: int = 0

    def _note(self, *call: object) -> None:
        self.done.append(call)
        if self.error is not None:
            raise self.error

    def not_ready(self) -> list[str]:
        return self.reasons

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        self._note("metrics", accept)
        return b"p2pdist_peers 3\n", "text/plain; version=0.0.4; charset=utf-8"

    async def status(self) -> dict[str, Any]:
        self._note("status")
        return {"name": "host-1"}

    async def peers(self) -> list[dict[str, Any]]:
        return [{"peer": "ab"}]

    async def images(self) -> list[dict[str, Any]]:
        return [{"reference": "docker.io/library/nginx:1"}]

    async def transfers(self) -> list[dict[str, Any]]:
        return []

    async def pins(self) -> list[str]:
        return ["docker.io/library/nginx:1"]

    async def pin(self, reference: Reference) -> dict[str, Any]:
        self._note("pin", reference)
        return {"reference": str(reference)}

    async def unpin(self, reference: Reference) -> dict[str, Any]:
        self._note("unpin", reference)
        return {"reference": str(reference)}

    async def collect(self, target: int | None) -> dict[str, Any]:
        self._note("collect", target)
        return {"dropped": 2, "freed": 10}

    async def pull(
        self, reference: Reference, platform: Platform | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        self.done.append(("pull", reference, platform))
        self.open_pulls += 1
        try:
            for event in self.events:
                yield event
                if self.gate is not None:
                    await self.gate.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.open_pulls -= 1


@dataclass
class Admin:
    backend: FakeBackend
    listener: Listener
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any, bytes]:
        url = f"http://127.0.0.1:{self.listener.port}{path}"
        async with self.session.request(method, url, **options) as response:
            return response.status, response.headers, await response.read()

    async def json(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        status, headers, body = await self.ask(method, path, **options)
        assert headers["Content-Type"] == "application/json"
        assert headers["X-Content-Type-Options"] == "nosniff"
        return status, json.loads(body)


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    backend = FakeBackend()
    app = build_admin_app(backend, AdminSettings(("host-1.example",), max_pulls=2, body_timeout=0.2))
    listener = Listener(app, ListenerSettings("admin.listen"))
    await listener.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        yield Admin(backend, listener, session)
    await listener.close()


async def test_health_and_readiness(admin: Admin) -> None:
    assert await admin.json("GET", "/healthz") == (200, {"status": "ok"})
    assert await admin.json("GET", "/readyz") == (200, {"ready": True, "reasons": []})
    admin.backend.reasons = ["the store is being opened"]
    assert await admin.json("GET", "/readyz") == (
        503,
        {"ready": False, "reasons": ["the store is being opened"]},
    )
    assert (await admin.json("GET", "/healthz"))[0] == 200


async def test_metrics_in_the_format_the_scraper_asks_for(admin: Admin) -> None:
    status, headers, body = await admin.ask("GET", "/metrics", headers={"Accept": "application/x"})
    assert (status, body) == (200, b"p2pdist_peers 3\n")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert admin.backend.done == [("metrics", "application/x")]


async def test_state_as_json(admin: Admin) -> None:
    assert await admin.json("GET", "/api/v1/status") == (200, {"name": "host-1"})
    assert await admin.json("GET", "/api/v1/peers") == (200, {"peers": [{"peer": "ab"}]})
    assert await admin.json("GET", "/api/v1/images") == (
        200,
        {"images": [{"reference": "docker.io/library/nginx:1"}]},
    )
    assert await admin.json("GET", "/api/v1/transfers") == (200, {"transfers": []})
    assert await admin.json("GET", "/api/v1/pins") == (200, {"pins": ["docker.io/library/nginx:1"]})


async def test_pinning_and_collecting(admin: Admin) -> None:
    nginx = Reference.parse("nginx:1.27")
    assert await admin.json("POST", "/api/v1/pins", json={"reference": "nginx:1.27"}) == (
        200,
        {"reference": "docker.io/library/nginx:1.27"},
    )
    assert (await admin.json("DELETE", "/api/v1/pins", json={"reference": "nginx:1.27"}))[0] == 200
    assert await admin.json("POST", "/api/v1/gc") == (200, {"dropped": 2, "freed": 10})
    assert (await admin.json("POST", "/api/v1/gc", json={"target": 5}))[0] == 200
    assert admin.backend.done == [("pin", nginx), ("unpin", nginx), ("collect", None), ("collect", 5)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("pins", b""),
        ("pins", b"{}"),
        ("pins", b"[]"),
        ("pins", b'{"reference": 5}'),
        ("pins", b'{"reference": "UPPER/case"}'),
        ("pins", b"not json"),
        ("pins", b"[" * 50_000),
        ("gc", b'{"target": -1}'),
        ("gc", b'{"target": true}'),
        ("gc", b'{"target": "5GiB"}'),
        ("pull", b'{"reference": "nginx", "platform": "linux"}'),
        ("pull", b'{"reference": "nginx", "platform": 5}'),
    ],
)
async def test_malformed_commands_are_refused_and_not_carried_out(
    admin: Admin, path: str, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    status, answer = await admin.json("POST", f"/api/v1/{path}", data=body, headers=headers)
    assert status == 400
    assert answer["error"]["message"]
    assert admin.backend.done == []


async def test_a_command_that_is_too_large_or_too_slow(admin: Admin) -> None:
    body = json.dumps({"reference": "x" * 100_000}).encode()
    headers = {"Content-Type": "application/json"}
    assert (await admin.json("POST", "/api/v1/pins", data=body, headers=headers))[0] == 413
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.listener.port)
    writer.write(
        b"POST /api/v1/pins HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 50\r\n\r\n{"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.transport.abort()


async def test_errors_of_the_agent_are_told(admin: Admin) -> None:
    for error, status in (
        (NotFoundError("no such image"), 404),
        (StoreFullError("full"), 507),
        (RuntimeError("inside"), 500),
    ):
        admin.backend.error = error
        answer = await admin.json("POST", "/api/v1/pins", json={"reference": "nginx"})
        assert answer[0] == status
        assert ("inside" in answer[1]["error"]["message"]) is False
        assert (await admin.json("GET", "/api/v1/status"))[0] == status


async def test_unknown_paths_and_methods(admin: Admin) -> None:
    assert (await admin.json("GET", "/api/v1/other"))[0] == 404
    assert (await admin.json("GET", "/v2/"))[0] == 404
    status, headers, _ = await admin.ask("GET", "/api/v1/gc")
    assert (status, headers["Allow"]) == (405, "POST")


# -- pulls --


async def test_a_pull_tells_how_it_goes_line_by_line(admin: Admin) -> None:
    body = {"reference": "nginx:1.27", "platform": "linux/arm64"}
    status, headers, lines = await admin.ask("POST", "/api/v1/pull", json=body)
    assert (status, headers["Content-Type"]) == (200, "application/x-ndjson")
    assert tuple(json.loads(line) for line in lines.splitlines()) == EVENTS
    assert admin.backend.done == [("pull", Reference.parse("nginx:1.27"), Platform("linux", "arm64"))]


async def test_events_arrive_while_the_pull_goes_on(admin: Admin) -> None:
    admin.backend.gate = asyncio.Event()
    url = f"http://127.0.0.1:{admin.listener.port}/api/v1/pull"
    async with admin.session.post(url, json={"reference": "nginx"}) as response:
        assert json.loads(await response.content.readline()) == EVENTS[0]
        admin.backend.gate.set()
        assert len((await response.read()).splitlines()) == 2


async def test_a_pull_that_fails_at_once_is_an_error_and_later_an_event(admin: Admin) -> None:
    admin.backend.error, admin.backend.events = UnreachableError("upstream is down"), ()
    assert await admin.json("POST", "/api/v1/pull", json={"reference": "nginx"}) == (
        502,
        {"error": {"status": 502, "message": "upstream is down"}},
    )
    admin.backend.events = EVENTS[:1]
    status, _, lines = await admin.ask("POST", "/api/v1/pull", json={"reference": "nginx"})
    assert status == 200
    assert json.loads(lines.splitlines()[-1]) == {"event": "error", "message": "upstream is down"}


async def test_a_pull_ends_with_its_client(admin: Admin) -> None:
    admin.backend.gate = asyncio.Event()
    url = f"http://127.0.0.1:{admin.listener.port}/api/v1/pull"
    async with admin.session.post(url, json={"reference": "nginx"}) as response:
        await response.content.readline()
        assert admin.backend.open_pulls == 1
        response.close()
    await until(lambda: admin.backend.open_pulls == 0)


async def test_too_many_pulls_at_once_are_put_off(admin: Admin) -> None:
    admin.backend.gate = asyncio.Event()
    pulls = [
        asyncio.ensure_future(admin.ask("POST", "/api/v1/pull", json={"reference": "nginx"}))
        for _ in range(2)
    ]
    await until(lambda: admin.backend.open_pulls == 2)
    status, headers, _ = await admin.ask("POST", "/api/v1/pull", json={"reference": "nginx"})
    assert (status, headers["Retry-After"]) == (429, "5")
    admin.backend.gate.set()
    assert [(await pull)[0] for pull in pulls] == [200, 200]
    assert (await admin.ask("POST", "/api/v1/pull", json={"reference": "nginx"}))[0] == 200


# -- who may --


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:5052", 200),
        ("[::1]:5052", 200),
        ("10.1.2.3", 200),
        ("localhost", 200),
        ("LOCALHOST.:80", 200),
        ("host-1.example:5052", 200),
        ("evil.test", 403),
        ("localhost.evil.test", 403),
        ("127.0.0.1.evil.test", 403),
        ("127.0.0.1@evil.test", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
async def test_only_names_of_this_host_are_answered(admin: Admin, host: str, status: int) -> None:
    """A page whose own name is made to resolve to this host (DNS rebinding) comes with that name."""
    for path in ("/metrics", "/api/v1/status"):
        assert (await admin.ask("GET", path, headers={"Host": host}))[0] == status


async def test_http_1_0_without_a_host(admin: Admin) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.listener.port)
    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b"200 OK" in await read_to_end(reader)
    writer.close()


async def test_pages_of_other_origins_cannot_give_commands(admin: Admin) -> None:
    own = f"127.0.0.1:{admin.listener.port}"
    for headers, status in (
        ({"Origin": f"http://{own}"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"http://{own}.evil.test"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ):
        sent = {"Content-Type": "application/json"} | headers
        answer = await admin.ask("POST", "/api/v1/gc", data=b'{"target": 1}', headers=sent)
        assert answer[0] == status, headers
    assert admin.backend.done == [("collect", 1)] * 2
    assert "Access-Control-Allow-Origin" not in (await admin.ask("GET", "/api/v1/status"))[1]
