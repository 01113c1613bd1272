"""The image model on the admin listener, from a request to a store's content and back as JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import pytest

from p2pdist.agent.backend import own_platform
from p2pdist.agent.image_answers import ImageAnswers
from p2pdist.api.admin import build_admin_app
from p2pdist.api.admin_images import add_image_routes
from p2pdist.api.server import Listener, ListenerSettings
from p2pdist.oci.descriptor import Platform
from p2pdist.testing.images import Image, build_image, build_index
from p2pdist.testing.layers import build_layer
from tests.adapters.api.test_admin import FakeBackend
from tests.unit.transfer.test_image_model import Shelf

OTHER = Platform("plan9", "arm")
REF = "docker.io/library/app"


def image(*names: str, platform: Platform | None = None) -> Image:
    layers = [build_layer(name, 2000) for name in names]
    return build_image("app", "", layers, platform=platform or own_platform())


@dataclass
class Models:
    """A listener over a store that is filled by hand."""

    shelf: Shelf
    listener: Listener
    session: aiohttp.ClientSession

    async def get(self, path: str, **query: str) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.listener.port}/api/v1/{path}"
        async with self.session.get(url, params=query) as response:
            assert response.headers["Content-Type"] == "application/json"
            assert response.headers["Cache-Control"] == "no-store"
            return response.status, json.loads(await response.read())

    async def ok(self, path: str, **query: str) -> Any:
        status, answer = await self.get(path, **query)
        assert status == 200, answer
        return answer

    async def refused(self, path: str, **query: str) -> tuple[int, str]:
        status, answer = await self.get(path, **query)
        assert answer["error"]["status"] == status
        return status, answer["error"]["message"]


@pytest.fixture
async def models() -> AsyncIterator[Models]:
    shelf = Shelf()
    answers = ImageAnswers(shelf.store, shelf.counts)
    listener = Listener(
        build_admin_app(FakeBackend(), parts=[partial(add_image_routes, backend=answers)]),
        ListenerSettings("admin.listen"),
    )
    await listener.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        yield Models(shelf, listener, session)
    await listener.close()


async def test_history(models: Models) -> None:
    one = image("base", "app")
    await models.shelf.put(one, without=(one.layers[1].digest,))
    answer = await models.ok("history", reference="app:v1")
    assert (answer["reference"], answer["digest"]) == (f"{REF}:v1", str(one.digest))
    assert answer["manifest"] == answer["digest"]
    assert answer["size"] == one.size + len(one.manifest)
    assert answer["image_id"] == json.loads(one.manifest)["config"]["digest"]
    assert answer["platform"] == str(own_platform())
    assert answer["counted"] is False
    command, app, base = answer["history"]
    assert (command["empty"], command["layer"], command["size"]) == (True, None, 0)
    assert app == {
        "created": "2024-01-01T00:00:00Z",
        "created_by": "COPY app /",
        "comment": "",
        "empty": False,
        "layer": str(one.layers[1].digest),
        "diff_id": str(one.layers[1].diff_id),
        "media_type": "application/vnd.oci.image.layer.v1.tar+gzip",
        "size": one.layers[1].size,
        "foreign": False,
        "held": False,
        "hosts": None,
    }
    assert base["held"] is True


async def test_history_of_another_platform(models: Models) -> None:
    here, there = image("here"), image("there", platform=OTHER)
    await models.shelf.put(build_index("app", "v1", [here, there]), without=(there.digest,))
    assert (await models.ok("history", reference="app:v1"))["manifest"] == str(here.digest)
    status, message = await models.refused("history", reference="app:v1", platform="plan9/arm")
    assert status == 404
    assert f"(held: {own_platform()})" in message
    await models.shelf.hold(there)
    answer = await models.ok("history", reference="app:v1", platform="plan9/arm")
    assert answer["manifest"] == str(there.digest)


async def test_what_tags_pointed_at(models: Models) -> None:
    old, new = image("old"), image("new")
    await models.shelf.hold(new)
    await models.shelf.tag(old, at=1.0)
    await models.shelf.tag(new, at=2.0)
    await models.shelf.tag(new, "v2", at=3.0)
    answer = await models.ok("history/tags", reference=f"{REF}:v1")
    size = new.size + len(new.manifest)
    assert answer == {
        "history": [
            {
                "reference": f"{REF}:v1",
                "digest": str(new.digest),
                "first_seen": 2.0,
                "resolved_at": 2.0,
                "current": True,
                "held": True,
                "held_bytes": size,
                "size": size,
            },
            {
                "reference": f"{REF}:v1",
                "digest": str(old.digest),
                "first_seen": 1.0,
                "resolved_at": 1.0,
                "current": False,
                "held": False,
                "held_bytes": 0,
                "size": None,
            },
        ]
    }
    everything = (await models.ok("history/tags"))["history"]
    assert [row["reference"] for row in everything] == [f"{REF}:v2", f"{REF}:v1", f"{REF}:v1"]


async def test_disk_usage(models: Models) -> None:
    old, one, other = image("base", "old"), image("base", "one"), image("base", "other")
    for each in (old, one, other):
        await models.shelf.hold(each)
    await models.shelf.tag(old, at=1.0)
    await models.shelf.tag(one, at=2.0)
    await models.shelf.tag(other, "v2")
    answer = await models.ok("df")
    rows = {row["digest"]: row for row in answer["images"]}
    assert rows[str(one.digest)]["references"] == [f"{REF}:v1"]
    assert rows[str(old.digest)]["references"] == []
    assert rows[str(old.digest)]["past_references"] == [f"{REF}:v1"]
    assert rows[str(one.digest)]["layers"] == {
        "size": one.layers[0].size + one.layers[1].size,
        "shared": one.layers[0].size,
        "unique": one.layers[1].size,
    }
    assert rows[str(one.digest)]["complete"] is True
    assert answer["saved"] == answer["separate"] - answer["layered"] == 2 * one.layers[0].size
    assert answer["store"]["committed"] == answer["layered"] == answer["unpinned"]
    assert (answer["other"], answer["store"]["reserved"]) == (0, 0)
    unique = old.layers[1].size + len(old.manifest)
    config = next(
        len(body) for digest, body in old.blobs.items() if digest not in {x.digest for x in old.layers}
    )
    assert answer["reclaimable"] == unique + config


async def test_diff(models: Models) -> None:
    old, new = image("base", "old"), image("base", "new")
    await models.shelf.put(old)
    await models.shelf.put(new, "v2", without=(new.layers[1].digest,))
    answer = await models.ok("diff", **{"from": "app:v1", "to": "app:v2"})
    assert (answer["from"]["digest"], answer["to"]["digest"]) == (str(old.digest), str(new.digest))
    assert answer["shared"] == [
        {
            "digest": str(old.layers[0].digest),
            "media_type": "application/vnd.oci.image.layer.v1.tar+gzip",
            "size": old.layers[0].size,
        }
    ]
    assert [row["digest"] for row in answer["added"]] == [str(new.layers[1].digest)]
    assert [row["digest"] for row in answer["dropped"]] == [str(old.layers[1].digest)]
    assert answer["shared_bytes"] == old.layers[0].size
    assert answer["moved_bytes"] == sum(row["size"] for row in answer["moved"])
    assert answer["missing_bytes"] == new.layers[1].size
    assert {row["digest"] for row in answer["moved"] if not row["held"]} == {str(new.layers[1].digest)}


@pytest.mark.parametrize(
    ("path", "query", "status", "words"),
    [
        ("history", {}, 400, '"reference" must name an image'),
        ("history", {"reference": ""}, 400, '"reference" must name an image'),
        ("history", {"reference": "UPPER"}, 400, "lower-case"),
        ("history", {"reference": "x" * 2000}, 400, "1024"),
        ("history", {"reference": "app", "platform": "linux"}, 400, "OS/ARCH"),
        ("history", {"reference": "app"}, 404, "'p2pdist pull docker.io/library/app:latest' fetches it"),
        ("history/tags", {"reference": ""}, 400, '"reference" must name an image'),
        ("history/tags", {"reference": "app"}, 404, "was never resolved"),
        ("history/tags", {"reference": "app@sha256:" + "0" * 64}, 400, "never moves"),
        ("diff", {}, 400, '"from" must name an image'),
        ("diff", {"from": "app"}, 400, '"to" must name an image'),
        ("diff", {"from": "app", "to": "other"}, 404, "does not hold docker.io/library/app:latest"),
    ],
)
async def test_what_cannot_be_answered_says_why(
    models: Models, path: str, query: dict[str, str], status: int, words: str
) -> None:
    found, message = await models.refused(path, **query)
    assert (found, words in message) == (status, True), message


async def test_the_routes_are_a_part_of_their_own() -> None:
    paths = {
        route.resource.canonical for route in build_admin_app(FakeBackend()).router.routes() if route.resource
    }
    assert "/api/v1/images" in paths
    assert not paths & {"/api/v1/history", "/api/v1/history/tags", "/api/v1/df", "/api/v1/diff"}
