"""A store that fails (a disk that is full, broken, read-only or gone) costs what it keeps, and no client its pull."""

from __future__ import annotations

from typing import NoReturn

import pytest

from p2pdist.errors import P2PDistError, StoreError, StoreFullError
from tests.unit.transfer.test_manifests import manifest, tagged
from tests.unit.transfer.world import APP, SIZE, World, blob, pull


def breaks(world: World, error: P2PDistError, *methods: str) -> None:
    async def broken(*_args: object, **_options: object) -> NoReturn:
        raise error

    for method in methods:
        setattr(world.store, method, broken)


ERRORS = [
    StoreFullError("the disk is full"),
    StoreError("Input/output error"),
    StoreError("Read-only file system"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
async def test_a_blob_passes_through(error: P2PDistError) -> None:
    world, data = World(), blob()
    digest = world.has(data)
    breaks(world, error, "ingest")
    async with world.agent() as agent:
        client = await pull(agent, digest)
    assert client.data == data
    assert client.moved == {"upstream": SIZE}


@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.parametrize("broken", [("put",), ("link",), ("record_tag",), ("put", "link", "record_tag")])
async def test_a_manifest_is_served(error: P2PDistError, broken: tuple[str, ...]) -> None:
    world = World()
    digest = tagged(world)
    breaks(world, error, *broken)
    async with world.agent() as agent:
        for _ in range(2):
            served = await agent.mirror.manifest(APP, "latest")
            assert (served.body, served.digest) == (manifest(), digest)
            assert (await agent.mirror.manifest(APP, digest)).body == manifest()
