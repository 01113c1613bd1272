"""The admin API of running agents, against docs/admin-api.md: every route is there, in the form that is shown."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from p2pdist.agent.app import Running, run_parts
from p2pdist.config.load import load_config
from p2pdist.testing.images import Image, build_image
from p2pdist.testing.layers import build_layer
from p2pdist.testing.registry import FakeRegistry
from p2pdist.wire.keys import ClusterKey
from tests.adapters.api.registry_edge import until
from tests.adapters.dashboard.world import Stream
from tests.browser import Browser, open_tab
from tests.unit.docs.pages import ROOT

DOCUMENT = (ROOT / "docs" / "admin-api.md").read_text()
REGISTRY = "registry.example.com"
MIB = 2**20
IMAGE: Image = build_image("shop/web", "1.0", [build_layer("base", MIB), build_layer("app", MIB // 2)])
COMING: Image = build_image("shop/next", "2.0", [build_layer("next", 3 * MIB)])
NAMES = {image: f"{REGISTRY}/{image.name}:{image.tag}" for image in (IMAGE, COMING)}

# What is asked of the routes that want to know more.
QUERIES = {
    "GET /api/v1/layers": f"?reference={quote(NAMES[IMAGE])}",
    "GET /api/v1/history": f"?reference={quote(NAMES[IMAGE])}",
    "GET /api/v1/diff": f"?from={quote(NAMES[IMAGE])}&to={quote(NAMES[COMING])}",
}

CONFIG = """
[agent]
name = "{name}"
data_dir = "{data}"
drain_timeout = "0s"
docker_config = ""
[mirror]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[peer]
listen = "127.0.0.1:0"
bootstrap = [{bootstrap}]
cluster_key_file = "{key}"
[registries."registry.example.com"]
url = "{url}"
"""


def documented() -> dict[str, str]:
    """The text under each route's heading."""
    parts = re.split(r"^### `(\w+ /\S*)`$", DOCUMENT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def example(route: str) -> Any:
    match = re.search(
        r"^```json\n(.*?)^```$", documented()[route].partition("\n## ")[0], re.MULTILINE | re.DOTALL
    )
    assert match is not None, f"{route} has no example"
    return json.loads(match[1])


def differences(told: Any, shown: Any, at: str = "") -> list[str]:
    """Where a reader that knows only what is shown would be misled: names, and kinds of values.

    A null may stand for any single value, and an empty list for any list.
    """
    if told is None or shown is None:
        return [at] if isinstance(told or shown, dict | list) else []
    if isinstance(told, dict) and isinstance(shown, dict):
        odd = [f"{at}.{name}" for name in told.keys() ^ shown.keys()]
        return odd + [
            each
            for name in told.keys() & shown.keys()
            for each in differences(told[name], shown[name], f"{at}.{name}")
        ]
    if isinstance(told, list) and isinstance(shown, list):
        return [
            each for value in told[:1] for other in shown[:1] for each in differences(value, other, f"{at}[]")
        ]
    return [] if kind(told) is kind(shown) else [at]


def kind(value: Any) -> type:
    return float if type(value) is int else type(value)


@dataclass
class Town:
    """Two agents that met; both pulled IMAGE, and the first has begun with COMING, which does not arrive."""

    agents: list[Running]
    registry: FakeRegistry
    session: aiohttp.ClientSession

    def url(self, path: str, at: int = 0) -> str:
        return f"http://{self.agents[at].listeners['admin']}{path}"

    async def ask(self, path: str, method: str = "GET", at: int = 0, **options: Any) -> Any:
        async with self.session.request(method, self.url(path, at), **options) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def get(self, kind: str, image: Image, digest: str, at: int) -> bytes:
        """As a runtime gets it from its mirror."""
        url = f"http://{self.agents[at].listeners['mirror']}/v2/{image.name}/{kind}/{digest}?ns={REGISTRY}"
        async with self.session.get(url) as response:
            assert response.status == 200
            return await response.read()

    async def pull(self, image: Image, at: int) -> None:
        await self.get("manifests", image, image.tag, at)
        for digest in image.blobs:
            await self.get("blobs", image, str(digest), at)


@asynccontextmanager
async def town(directory: Path) -> AsyncIterator[Town]:
    key = directory / "cluster.key"
    key.touch(0o600)
    key.write_text(ClusterKey(bytes(range(32))).text())
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(FakeRegistry())
        for image in (IMAGE, COMING):
            registry.put_image(image.name, image.tag, image)
        agents: list[Running] = []
        for name in ("host-1", "host-2"):
            met = f'"{agents[0].listeners["peer"]}"' if agents else ""
            file = directory / f"{name}.toml"
            file.write_text(
                CONFIG.format(name=name, data=directory / name, bootstrap=met, key=key, url=registry.url)
            )
            agents.append(await stack.enter_async_context(run_parts(load_config(file, {}, {}))))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Town(agents, registry, session)
        registry.release()


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Town]:
    async with town(tmp_path) as two:
        async with asyncio.timeout(30):
            while not all([(await two.ask("/api/v1/peers", at=at))["peers"] for at in (0, 1)]):
                await asyncio.sleep(0.02)
            for at in (0, 1):
                await two.pull(IMAGE, at)
        layer = COMING.layers[0].digest
        two.registry.faults.update(
            {"only_digest": str(layer), "stall_after": MIB // 10, "stall_times": -1, "body_kinds": ["blob"]}
        )
        coming = asyncio.ensure_future(two.get("blobs", COMING, str(layer), 0))
        async with asyncio.timeout(30):
            await two.get("manifests", COMING, COMING.tag, 0)
            while not sum(each["received"] for each in (await two.ask("/api/v1/transfers"))["transfers"]):
                await asyncio.sleep(0.02)
        yield two
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


def test_every_route_is_documented_and_no_other(two: Town) -> None:
    app = two.agents[0].admin._runner.app
    routes = {
        f"{route.method} {route.resource.canonical}"
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    assert documented().keys() == routes


@pytest.mark.parametrize(
    ("told", "shown", "wrong"),
    [
        ({"a": 1, "b": None}, {"a": 1.5, "b": "text"}, []),
        ({"a": []}, {"a": [{"b": 1}]}, []),
        ({"a": True}, {"a": 1}, [".a"]),
        ({"a": [{"b": 1}]}, {"a": [{"c": 1}]}, [".a[].b", ".a[].c"]),
        ({"a": {}}, {"a": "text"}, [".a"]),
        ({"a": None}, {"a": {"b": 1}}, [".a"]),
    ],
)
def test_what_counts_as_a_difference(told: Any, shown: Any, wrong: list[str]) -> None:
    assert sorted(differences(told, shown)) == wrong


async def test_answers_have_the_form_that_is_shown(two: Town) -> None:
    name = {"reference": NAMES[IMAGE]}
    answers = {"POST /api/v1/pins": await two.ask("/api/v1/pins", "POST", json=name)}
    for route, text in documented().items():
        method, path = route.split(" ")
        if method == "GET" and "```json" in text.partition("\n## ")[0]:
            answers[route] = await two.ask(path + QUERIES.get(route, ""))
    answers["DELETE /api/v1/pins"] = await two.ask("/api/v1/pins", "DELETE", json=name)
    answers["POST /api/v1/gc"] = await two.ask("/api/v1/gc", "POST")
    assert len(answers) >= 12
    overview = answers["GET /api/v1/overview"]
    for part in ("transfers", "peers", "images"):  # as the routes of these names
        wanted = example(f"GET /api/v1/{part}")[part][0]
        wanted.pop("age", None)
        (row, *_) = overview[part][part]
        assert differences(row, wanted) == []
        assert answers[f"GET /api/v1/{part}"][part]
    for route, answer in answers.items():
        assert differences(answer, example(route)) == [], route


async def test_a_pull_has_the_form_that_is_shown(two: Town) -> None:
    block = re.search(r"```jsonl\n(.*?)```", documented()["POST /api/v1/pull"], re.DOTALL)
    assert block is not None
    forms = {(line := json.loads(text))["event"]: line for text in block[1].splitlines()}
    async with two.session.post(two.url("/api/v1/pull", 1), json={"reference": NAMES[IMAGE]}) as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
    assert {line["event"] for line in lines} == forms.keys()
    for line in lines:
        assert differences(line, forms[line["event"]]) == []


def events_of(route: str) -> dict[str, Any]:
    """The lines that are shown of a route that streams, by event."""
    block = re.search(r"```jsonl\n(.*?)```", documented()[route], re.DOTALL)
    assert block is not None
    return {(line := json.loads(text))["event"]: line for text in block[1].splitlines()}


async def test_imports_and_warm_ups_have_the_form_that_is_shown(two: Town, tmp_path: Path) -> None:
    token = (tmp_path / "host-1" / "command.token").read_text().strip()
    proof = {"headers": {"Authorization": f"Bearer {token}"}}
    name, layer = f"{REGISTRY}/team/app:v3", IMAGE.layers[0].digest
    answers = {
        "POST /api/v1/import/missing": await two.ask(
            "/api/v1/import/missing", "POST", json={"reference": name, "digests": [f"sha256:{5:064x}"]}, **proof
        ),
        "PUT /api/v1/import/blobs/{digest}": await two.ask(
            f"/api/v1/import/blobs/{layer}?reference={quote(name)}", "PUT", data=io.BytesIO(IMAGE.blobs[layer]),
            headers=proof["headers"] | {"Content-Type": "application/octet-stream"},
        ),
        "POST /api/v1/import": await two.ask(
            "/api/v1/import", "POST", json={"reference": name, "digest": str(IMAGE.digest)}, **proof
        ),
    }  # fmt: skip
    assert answers["POST /api/v1/import/missing"]["missing"]
    for route, answer in answers.items():
        assert differences(answer, example(route)) == [], route
    forms = events_of("POST /api/v1/warm")
    async with two.session.post(
        two.url("/api/v1/warm"), json={"reference": NAMES[IMAGE]}, **proof
    ) as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
    assert {line["event"] for line in lines} - {"waiting"} == forms.keys()
    assert lines[-1]["hosts"] == 2
    for line in lines:
        told = {**line, "bytes": line["bytes"] or {"peer": 1}} if "bytes" in line else line
        if told["event"] in forms:
            shown = forms[told["event"]]
            if "bytes" in shown:  # by source, whichever there were
                assert set(told["bytes"]) <= {"peer", "upstream"}
                shown = {**shown, "bytes": told["bytes"]}
            assert differences(told, shown) == []


async def test_diagnostics_have_the_parts_that_are_named(two: Town) -> None:
    answer = await two.ask("/api/v1/diagnostics")
    text = documented()["GET /api/v1/diagnostics"]
    assert set(re.findall(r"`(\w+)`", text)) == answer.keys()
    assert answer["pages"].keys() == {"status", "peers", "transfers", "images", "pins"}
    for name, page in answer["pages"].items():
        assert differences(page, example(f"GET /api/v1/{name}")) == [], name


async def test_what_is_not_answered_with_200_is_as_the_document_says(two: Town) -> None:
    """Statuses and forms of errors, and HEAD, over every route."""
    wrong = {"headers": {"Content-Type": "application/json"}, "data": b"{"}
    for route in documented():
        method, path = route.split(" ")
        path = path.replace("{digest}", f"sha256:{5:064x}").replace("{file}", "no.such")
        asked: list[tuple[str, str, dict[str, Any], set[int]]] = [("PATCH", path, {}, {405})]
        if method == "GET":
            asked.append((method, path, {"headers": {"Host": "evil.test"}}, {403}))
            if route in QUERIES:
                asked += [(method, path, {}, {400}), (method, f"{path}?{'x' * 7000}=1", {}, {400})]
                asked.append(
                    (method, re.sub(r"=[^&]*", "=absent.example/a:1", path + QUERIES[route]), {}, {404})
                )
        else:
            asked.append((method, path, wrong, {415} if method == "PUT" else {400, 403}))
            asked.append((method, path, {"headers": {"Origin": "http://evil.test"}}, {403}))
        for how, where, options, statuses in asked:
            async with two.session.request(how, two.url(where), **options) as response:
                assert response.status in statuses, (how, where)
                assert response.content_type == "application/json"
                error = (await response.json())["error"]
                assert error["status"] == response.status
                assert error["message"]
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
                if response.status == 405:
                    assert method in response.headers["Allow"]


async def test_head_is_get_without_its_body(two: Town) -> None:
    for route in documented():
        method, path = route.split(" ")
        if method != "GET" or path in ("/api/v1/events", "/metrics", "/api/v1/diagnostics"):
            continue
        url = two.url(path.replace("{file}", "app.js") + QUERIES.get(route, ""))
        async with two.session.head(url) as head, two.session.get(url) as get:
            assert (head.status, head.content_type) == (200, get.content_type), path
            assert await head.read() == b""
    async with two.session.head(two.url("/api/v1/events")) as response:
        assert response.status == 405


async def test_what_is_no_http_is_an_error_of_the_same_form(two: Town) -> None:
    host, port = two.agents[0].listeners["admin"].split(":")
    for sent in (b"GET / HTTP/9.x\r\n\r\n", b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer
        assert b"application/json" in head
        assert json.loads(body) == {"error": {"status": 400, "message": "bad request"}}


async def test_what_the_overview_says_of_a_cluster(two: Town) -> None:
    async with asyncio.timeout(30):
        while True:  # the last bytes are counted a moment after they arrived
            overview, status = await two.ask("/api/v1/overview"), await two.ask("/api/v1/status")
            if overview["status"] == {name: value for name, value in status.items() if name != "uptime"}:
                break
    (transfer,) = overview["transfers"]["transfers"]
    assert (transfer["digest"], transfer["size"]) == (str(COMING.layers[0].digest), COMING.layers[0].size)
    assert transfer["pieces"]["count"] == len(transfer["pieces"]["cells"])
    assert re.search("[#1-9]", transfer["pieces"]["cells"])
    sent = sum(
        source if isinstance(source, int) else 0
        for row in overview["savings"]["registries"]
        for source in row.values()
    )
    assert sent == sum(overview["status"]["client_bytes"].values()) > IMAGE.size
    assert overview["history"]["samples"][0][2:] == [0, 0, 0, 0, 0, 0]
    cursor = overview["cursor"]
    assert cursor == f"{overview['history']['run']}.{overview['history']['samples'][-1][0]}"
    later = (await two.ask(f"/api/v1/overview?after={cursor}"))["history"]["samples"]
    assert all(row[0] > overview["history"]["samples"][-1][0] for row in later)
    number = cursor.partition(".")[2]
    for other in (f"an-earlier-run.{number}", number, "", f"{cursor}x", f"{cursor[:-1]}.-5", "9" * 5000):
        told = (await two.ask(f"/api/v1/overview?after={other}"))["history"]["samples"]
        assert told[0] == overview["history"]["samples"][0], other
    assert {image["reference"] for image in overview["images"]["images"]} == set(NAMES.values())
    async with asyncio.timeout(30):
        while True:
            layers = (await two.ask(f"/api/v1/layers?reference={quote(NAMES[IMAGE])}"))["layers"]
            if [layer["hosts"] for layer in layers] == [2, 2]:
                break
            await asyncio.sleep(0.1)
    assert [layer["digest"] for layer in layers] == [str(layer.digest) for layer in IMAGE.layers]


async def test_a_stream_ends_with_its_agent(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        async with town(tmp_path) as two:
            response = await session.get(two.url("/api/v1/events"))
            assert (await Stream(response).next()).name == "beat"
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_the_dashboard_of_a_real_agent(two: Town, browser: Browser) -> None:
    async with open_tab(browser) as tab:
        await tab.goto(two.url("/"))
        await tab.until("document.getElementById('link').textContent === 'Live'")
        assert "host-1" in await tab.js("document.querySelector('h1').innerText")
        label = "document.querySelector('#transfers .pieces').getAttribute('aria-label')"
        count = (await two.ask("/api/v1/transfers"))["transfers"][0]["pieces"]["count"]
        assert re.fullmatch(rf"\d+ of {count} pieces here, \d+ arriving", await tab.until(label))
        client = (await two.ask("/api/v1/status"))["client_bytes"]
        sizes = "[...document.querySelectorAll('#sources data')].map(each => Number(each.value))"
        assert await tab.js(sizes) == [client["store"], client["peer"], client["upstream"]]
        two.registry.release()
        two.registry.faults.reset()
        await two.get("blobs", COMING, str(COMING.layers[0].digest), 0)
        await tab.until("document.getElementById('transfers-empty').checkVisibility()")
        await until(lambda: tab.problems == [])
