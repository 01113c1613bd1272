"""The page's files, and the guard around all of it."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest

from tests.adapters.dashboard.world import DIGESTS, IMAGE, World, running

ASSETS = {
    "style.css": "text/css", "icon.svg": "image/svg+xml", "app.js": "text/javascript", "chart.js": "text/javascript",
    "dom.js": "text/javascript", "format.js": "text/javascript", "images.js": "text/javascript",
    "more.js": "text/javascript", "pieces.js": "text/javascript", "source.js": "text/javascript",
}  # fmt: skip


async def test_the_page_and_all_that_it_loads(world: World) -> None:
    loaded, wanted = {}, ["/"]
    while wanted:
        path = wanted.pop()
        status, headers, body = await world.get(path)
        assert status == 200, path
        assert headers["X-Content-Type-Options"] == "nosniff"
        loaded[path] = headers["Content-Type"].partition(";")[0]
        text = body.decode()
        if path == "/":
            named = re.findall(r'(?:src|href)="(dashboard/[^"]+)"', text)
        else:
            named = [f"dashboard/{name}" for name in re.findall(r'from "\./([^"]+)"', text)]
        wanted += [f"/{name}" for name in set(named) if f"/{name}" not in loaded]
    assert loaded == {"/": "text/html"} | {f"/dashboard/{name}": kind for name, kind in ASSETS.items()}


async def test_nothing_from_elsewhere_and_no_markup_from_text(world: World) -> None:
    """What the browser enforces, and that no file would need more."""
    _, headers, page = await world.get("/")
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'",
        "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }  # fmt: skip
    for path in ("/", *(f"/dashboard/{name}" for name in ASSETS)):
        text = (await world.get(path))[2].decode()
        foreign = [url for url in re.findall(r"https?://[^\s\"'`)]+", text) if "www.w3.org" not in url]
        assert foreign == []
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text
        )
    assert b"style=" not in page
    assert not re.search(rb"\son\w+=", page)


async def test_every_address_is_relative_so_that_a_proxy_may_put_it_under_a_path(world: World) -> None:
    addresses = re.findall(r'(?:src|href)="([^"#][^"]*)"', (await world.get("/"))[2].decode())
    for name in ASSETS:
        text = (await world.get(f"/dashboard/{name}"))[2].decode()
        addresses += re.findall(r"(?:fetch|EventSource|ask)\([`\"']([^`\"']+)", text)
    assert len(addresses) >= 9
    assert [each for each in addresses if each.startswith("/") or ":" in each] == []


async def test_other_files_are_not_given(world: World) -> None:
    for path in ("nothing.js", "..%2froutes.py", "routes.py", "index.html%00"):
        assert (await world.get(f"/dashboard/{path}"))[0] == 404
    assert (await world.get("/dashboard/"))[0] == 404


@pytest.mark.parametrize(
    "path", ["/", "/dashboard/app.js", "/api/v1/overview", "/api/v1/events", "/api/v1/layers"]
)
async def test_the_guard_holds_for_all_of_it(world: World, path: str) -> None:
    assert (await world.get(path, headers={"Host": "evil.test"}))[0] == 403
    async with world.session.post(world.url + path, json={}) as response:
        assert response.status == 405


async def test_another_sites_page_takes_no_place_among_the_readers(world: World) -> None:
    for site in ("cross-site", "same-site"):
        assert (await world.get("/api/v1/events", headers={"Sec-Fetch-Site": site}))[0] == 403
    async with world.session.head(f"{world.url}/api/v1/events") as response:
        assert response.status == 405
    async with world.events(headers={"Sec-Fetch-Site": "same-origin"}) as stream:
        assert (await stream.next()).name == "beat"


async def test_layers() -> None:
    async with running() as world:
        path = f"/api/v1/layers?reference={quote(IMAGE)}"
        assert (await world.get(path))[0] == 404
        world.agent.layer_rows = [{"digest": DIGESTS[0], "size": 5, "held": True, "hosts": 2, "platform": ""}]
        assert await world.json(path) == {
            "reference": IMAGE, "digest": DIGESTS[1], "layers": world.agent.layer_rows
        }  # fmt: skip
        for query in ("", "?reference=", "?reference=UPPER/case", f"?reference={'x' * 2000}"):
            status, _, body = await world.get(f"/api/v1/layers{query}")
            assert status == 400
            assert json.loads(body)["error"]["message"]
