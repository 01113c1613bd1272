"""Images from files: what is kept, what gets a name, who is told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from p2pdist.errors import (
    BusyError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    StoreFullError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference
from p2pdist.testing.images import Image, build_image, build_index
from p2pdist.testing.layers import build_layer
from p2pdist.testing.memory_store import MemoryStore
from p2pdist.transfer.context import TransferPolicy
from p2pdist.transfer.importing import ImageImporter
from tests.unit.transfer.world import APP, World, pull

IMAGE = build_image("library/app", "v1", [build_layer("one", 3000, seed=1), build_layer("two", 2000, seed=2)])
NAME = Reference.parse("app:v1")


class Files:
    """Somebody who has images as files; ``told`` is what the importer says became visible."""

    def __init__(self, world: World) -> None:
        self.told: dict[Digest, bool] = {}
        self.importer = ImageImporter(world.context(), self._committed)

    def _committed(self, digest: Digest, *, shared: bool) -> None:
        self.told[digest] = shared

    async def send(self, data: bytes, *, digest: Digest | None = None, size: int | None = None) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 1000):
                yield data[start : start + 1000]

        wanted = digest or Digest.of(data)
        await self.importer.add(APP, wanted, len(data) if size is None else size, chunks())

    async def send_all(self, image: Image) -> None:
        for data in [*image.blobs.values(), image.manifest]:
            assert isinstance(data, bytes)
            await self.send(data)


async def test_an_image_is_pulled_by_its_name_with_upstream_down() -> None:
    world = World()
    world.upstream.down = True
    files = Files(world)
    await files.send_all(IMAGE)
    imported = await files.importer.name(NAME, IMAGE.digest)
    assert imported.sizes.keys() == {IMAGE.digest, *IMAGE.blobs}
    assert files.told == dict.fromkeys([*IMAGE.blobs, IMAGE.digest], True)
    async with world.agent() as agent:
        served = await agent.mirror.manifest(APP, "v1")
        assert (served.digest, served.media_type) == (IMAGE.digest, IMAGE.media_type)
        layer = IMAGE.layers[0]
        assert (await pull(agent, layer.digest)).data == IMAGE.blobs[layer.digest]
    other = world.cluster.join("other")
    assert [record.digest for record in await other.find_tag(APP, "v1")] == [IMAGE.digest]
    assert await other.find(IMAGE.digest) != ()


async def test_only_what_is_missing_has_to_be_sent() -> None:
    world = World()
    files = Files(world)
    digests = [*IMAGE.blobs, IMAGE.digest]
    assert await files.importer.missing(APP, digests) == digests
    await files.send_all(IMAGE)
    assert await files.importer.missing(APP, digests) == []


async def test_of_a_registry_that_is_not_shared_nothing_is_told() -> None:
    world = World(policy=TransferPolicy(shares=lambda registry: False))
    files = Files(world)
    await files.send_all(IMAGE)
    await files.importer.name(NAME, IMAGE.digest)
    assert set(files.told.values()) == {False}
    assert world.discovery.announced == []
    assert not any(info.shared for info in await world.store.blobs())
    world.policy = TransferPolicy()
    shared = Files(world)  # under a name that is shared it has to come again
    assert await shared.importer.missing(APP, [IMAGE.digest]) == [IMAGE.digest]
    await shared.send_all(IMAGE)
    assert all(info.shared for info in await world.store.blobs())


async def test_wrong_bytes_are_refused_and_leave_nothing() -> None:
    world = World()
    files = Files(world)
    with pytest.raises(InvalidInputError, match="is not that"):
        await files.send(b"wrong", digest=Digest.of(b"right"))
    with pytest.raises(InvalidInputError, match="is not that"):
        await files.send(b"right", size=6)
    with pytest.raises(InvalidInputError, match="beyond"):
        await files.send(b"right", size=4)
    usage = await world.store.usage()
    assert (usage.committed, usage.reserved, files.told) == (0, 0, {})


async def test_a_blob_that_is_being_fetched_is_said_to_be_busy() -> None:
    world = World()
    ingest = await world.store.ingest(Digest.of(b"data"), 4)
    with pytest.raises(BusyError, match="being fetched"):
        await Files(world).send(b"data")
    await ingest.close()
    await Files(world).send(b"data")


async def test_what_an_earlier_fetch_left_is_not_trusted() -> None:
    world = World()
    ingest = await world.store.ingest(Digest.of(b"data"), 4)
    await ingest.write(0, b"xx")
    await ingest.close()
    await Files(world).send(b"data")
    assert await world.store.read(Digest.of(b"data"), 4) == b"data"


async def test_a_store_without_room_says_so() -> None:
    world = World()
    world.store = MemoryStore(10, world.clock)
    with pytest.raises(StoreFullError, match="max_size"):
        await Files(world).send(bytes(11))


async def test_a_registry_that_is_not_configured_is_refused() -> None:
    files = Files(World())
    elsewhere = Reference.parse("registry.example.test/app:v1")
    with pytest.raises(DeniedError, match="not configured"):
        await files.importer.missing(elsewhere.repository, [])
    with pytest.raises(DeniedError, match="not configured"):
        await files.importer.name(elsewhere, IMAGE.digest)


async def test_no_name_for_an_image_that_is_not_whole() -> None:
    world = World()
    files = Files(world)
    with pytest.raises(NotFoundError, match=r"manifest .* is not held"):
        await files.importer.name(NAME, IMAGE.digest)
    await files.send(IMAGE.manifest)
    with pytest.raises(NotFoundError, match=r"blob .* is not held"):
        await files.importer.name(NAME, IMAGE.digest)
    assert await world.store.tags() == []
    world.upstream.down = True
    async with world.agent() as agent:
        with pytest.raises(UnreachableError):
            await agent.mirror.manifest(APP, "v1")


async def test_of_an_index_the_platforms_that_are_held() -> None:
    world = World()
    files = Files(world)
    gone = build_image("", "", [build_layer("gone", 1000, seed=9)])
    index = build_index("", "", [IMAGE, gone])
    await files.send(index.manifest)
    with pytest.raises(NotFoundError, match="no platform"):
        await files.importer.name(NAME, index.digest)
    await files.send_all(IMAGE)
    imported = await files.importer.name(NAME, index.digest)
    assert imported.left_out == ("linux/amd64",)
    assert imported.sizes.keys() == {index.digest, IMAGE.digest, *IMAGE.blobs}


@pytest.mark.parametrize(
    "body", [b"{}", b"not json", b'{"schemaVersion":1}', b'{"schemaVersion":2,"mediaType":"application/x"}']
)
async def test_what_is_no_image_gets_no_name(body: bytes) -> None:
    files = Files(World())
    await files.send(body)
    with pytest.raises(InvalidInputError):
        await files.importer.name(NAME, Digest.of(body))


async def test_a_name_by_digest_must_be_right_and_is_no_tag() -> None:
    world = World()
    files = Files(world)
    await files.send_all(IMAGE)
    with pytest.raises(InvalidInputError, match="not that of"):
        await files.importer.name(Reference(APP, None, Digest.of(b"other")), IMAGE.digest)
    await files.importer.name(Reference(APP, None, IMAGE.digest), IMAGE.digest)
    assert await world.store.tags() == []
