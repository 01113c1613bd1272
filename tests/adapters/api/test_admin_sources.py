"""The admin listener's commands that want a token: imports, and warm-ups of the cluster."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from p2pdist.api.admin import AdminBackend, build_admin_app
from p2pdist.api.admin_import import MAX_DIGESTS, ImportRoutes, ImportSettings
from p2pdist.api.admin_warm import WarmRoutes, WarmSettings
from p2pdist.api.server import Listener, ListenerSettings
from p2pdist.errors import DeniedError, InvalidInputError, NotFoundError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference
from tests.adapters.api.test_admin import FakeBackend

TOKEN = {"Authorization": "Bearer secret"}
BYTES = {**TOKEN, "Content-Type": "application/octet-stream"}
NAME = Reference.parse("app:v1")
BLOB = f"/api/v1/import/blobs/{Digest.of(b'data')}?reference=app:v1"


@dataclass
class Sources:
    """Implements ImportBackend and WarmBackend; ``error`` is raised by every call."""

    error: Exception | None = None
    done: list[tuple[object, ...]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    def _note(self, *call: object) -> None:
        self.done.append(call)
        if self.error is not None:
            raise self.error

    async def missing(self, reference: Reference, digests: list[Digest]) -> list[Digest]:
        self._note("missing", reference)
        return digests[1:]

    async def add(
        self, reference: Reference, digest: Digest, size: int, chunks: AsyncIterator[bytes | bytearray]
    ) -> None:
        if self.error is not None:
            raise self.error
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        body = b"".join([bytes(chunk) async for chunk in chunks])
        self._note("add", reference, digest, size, body)

    async def name(self, reference: Reference, digest: Digest) -> dict[str, Any]:
        self._note("name", reference, digest)
        return {"digest": str(digest)}

    async def warm(
        self, reference: Reference, platform: Platform | None, zone: str | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        self._note("warm", reference, platform, zone)
        yield {"event": "host", "peer": "ab"}
        if self.gate is not None:
            await self.gate.wait()
        yield {"event": "done", "hosts": 1, "failed": 0}


@dataclass
class Admin:
    sources: Sources
    port: int
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, bytes]:
        async with self.session.request(method, f"http://127.0.0.1:{self.port}{path}", **options) as answer:
            return answer.status, await answer.read()

    async def json(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        status, answer = await self.ask("POST", path, json=body, headers=TOKEN)
        return status, json.loads(answer)


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    sources = Sources()
    parts = [
        ImportRoutes(sources, ImportSettings("secret", max_uploads=1, progress_timeout=0.2)),
        WarmRoutes(sources, WarmSettings("secret", max_at_once=1)),
    ]
    backend: AdminBackend = FakeBackend()
    listener = Listener(build_admin_app(backend, parts=parts), ListenerSettings("admin.listen"))
    await listener.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        yield Admin(sources, listener.port, session)
    await listener.close()


async def test_blobs_then_the_name(admin: Admin) -> None:
    digests = [Digest.of(b"held"), Digest.of(b"data")]
    body = {"reference": "app:v1", "digests": list(map(str, digests))}
    assert await admin.json("/api/v1/import/missing", body) == (200, {"missing": [str(digests[1])]})
    assert (await admin.ask("PUT", BLOB, data=b"data", headers=BYTES))[0] == 200
    body = {"reference": "app:v1", "digest": str(digests[1])}
    assert await admin.json("/api/v1/import", body) == (200, {"digest": str(digests[1])})
    assert admin.sources.done == [
        ("missing", NAME),
        ("add", NAME, digests[1], 4, b"data"),
        ("name", NAME, digests[1]),
    ]


async def test_a_large_blob_comes_through_whole(admin: Admin) -> None:
    data = bytes(range(256)) * 20_000
    path = f"/api/v1/import/blobs/{Digest.of(data)}?reference=app:v1"
    assert (await admin.ask("PUT", path, data=io.BytesIO(data), headers=BYTES))[0] == 200
    assert admin.sources.done[0][4] == data


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer \xe9"}])
async def test_without_the_token_nothing_is_done(admin: Admin, headers: dict[str, str]) -> None:
    for method, path, options in (
        ("POST", "/api/v1/import/missing", {"json": {"reference": "app:v1", "digests": []}}),
        ("POST", "/api/v1/import", {"json": {"reference": "app:v1", "digest": str(Digest.of(b""))}}),
        ("POST", "/api/v1/warm", {"json": {"reference": "app:v1"}}),
    ):
        status, body = await admin.ask(method, path, headers=headers, **options)
        assert status == 403
        assert b"command.token" in body
    plain = {**headers, "Content-Type": "application/octet-stream"}
    assert (await admin.ask("PUT", BLOB, data=b"data", headers=plain))[0] == 403
    assert admin.sources.done == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(DeniedError("no"), 403), (NotFoundError("no"), 404), (InvalidInputError("no"), 400)],
)
async def test_what_the_agent_refuses(admin: Admin, error: Exception, status: int) -> None:
    admin.sources.error = error
    assert (await admin.json("/api/v1/import/missing", {"reference": "app:v1", "digests": []}))[0] == status
    assert (await admin.ask("PUT", BLOB, data=b"data", headers=BYTES))[0] == status
    assert (await admin.json("/api/v1/warm", {"reference": "app:v1"}))[0] == status


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("import/missing", {"reference": "app:v1"}),
        ("import/missing", {"reference": "app:v1", "digests": ["sha256:zz"]}),
        ("import/missing", {"reference": "app:v1", "digests": ["x"] * (MAX_DIGESTS + 1)}),
        ("import/missing", {"reference": "UPPER", "digests": []}),
        ("import", {"reference": "app:v1"}),
        ("warm", {}),
        ("warm", {"reference": "app:v1", "zone": 1}),
        ("warm", {"reference": "app:v1", "zone": "x" * 65}),
        ("warm", {"reference": "app:v1", "platform": "linux"}),
    ],
)
async def test_what_is_malformed(admin: Admin, path: str, body: dict[str, Any]) -> None:
    assert (await admin.json(f"/api/v1/{path}", body))[0] == 400
    assert admin.sources.done == []


async def test_a_blob_must_tell_its_size_and_its_type(admin: Admin) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"data"

    assert (await admin.ask("PUT", BLOB, data=pieces(), headers=BYTES))[0] == 411
    as_text = {**TOKEN, "Content-Type": "text/plain"}
    assert (await admin.ask("PUT", BLOB, data=b"data", headers=as_text))[0] == 415
    assert (await admin.ask("PUT", BLOB.partition("?")[0], data=b"data", headers=BYTES))[0] == 400
    # A page can POST without a type to another origin, which then looks like bytes.
    path, body = "/api/v1/import/missing", b'{"reference": "app:v1", "digests": []}'
    assert (await admin.ask("POST", path, data=body, headers=BYTES))[0] == 415
    assert admin.sources.done == []


async def test_bytes_that_stop_coming_are_not_waited_for(admin: Admin) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.port)
    head = (
        f"PUT {BLOB} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n"
        "Content-Type: application/octet-stream\r\nContent-Length: 4\r\n\r\nda"
    )
    writer.write(head.encode())
    assert b" 408 " in await reader.readline()
    writer.close()
    assert admin.sources.done == []


async def test_how_many_come_at_once_is_bounded(admin: Admin) -> None:
    admin.sources.gate = asyncio.Event()
    first = asyncio.create_task(admin.ask("PUT", BLOB, data=b"data", headers=BYTES))
    async with asyncio.timeout(20):
        await admin.sources.entered.wait()
        assert (await admin.ask("PUT", BLOB, data=b"data", headers=BYTES))[0] == 429
    admin.sources.gate.set()
    assert (await first)[0] == 200


async def test_a_warm_up_tells_of_each_host(admin: Admin) -> None:
    body = {"reference": "app:v1", "platform": "linux/arm64", "zone": "rack-7"}
    status, answer = await admin.ask("POST", "/api/v1/warm", json=body, headers=TOKEN)
    assert status == 200
    events = [json.loads(line) for line in answer.splitlines()]
    assert [event["event"] for event in events] == ["host", "done"]
    assert admin.sources.done == [("warm", NAME, Platform("linux", "arm64"), "rack-7")]


async def test_how_many_warm_ups_are_followed_is_bounded(admin: Admin) -> None:
    admin.sources.gate = asyncio.Event()
    url = f"http://127.0.0.1:{admin.port}/api/v1/warm"
    async with admin.session.post(url, json={"reference": "app:v1"}, headers=TOKEN) as first:
        assert json.loads(await first.content.readline())["event"] == "host"
        assert (await admin.json("/api/v1/warm", {"reference": "app:v1"}))[0] == 429
        admin.sources.gate.set()
        assert json.loads(await first.content.readline())["event"] == "done"
