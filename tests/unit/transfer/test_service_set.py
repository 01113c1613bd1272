"""The worked example (base, node, libs, three services) at a small scale: what 1, 8 and 64 hosts store, and what leaves the
registry. The figures for the full sizes are in docs/image-model.md, by the same function."""

from __future__ import annotations

import pytest

from p2pdist.oci.digest import Digest
from p2pdist.oci.sharing import savings
from p2pdist.testing.images import Image, build_service_set, total_size
from p2pdist.transfer.disk_usage import disk_usage
from tests.unit.transfer.town import Member, Town
from tests.unit.transfer.world import APP, pull, until

SET = build_service_set(scale=0.001)


def blobs_of(image: Image) -> dict[Digest, int]:
    """Manifest, config and layers, with their sizes."""
    sizes = {digest: len(source) for digest, source in image.blobs.items() if isinstance(source, bytes)}
    return {image.digest: len(image.manifest), **sizes}


def serve(town: Town) -> None:
    for image in SET:
        for digest, source in image.blobs.items():
            assert isinstance(source, bytes)
            town.upstream.put_blob(APP, source, digest)
        town.upstream.put_manifest(APP, image.manifest, image.media_type, image.name)


async def pull_set(member: Member) -> None:
    """As a runtime does: the tag, the manifest, then the blobs that it lacks."""
    for image in SET:
        await member.mirror.manifest(APP, image.name)
        for digest in image.blobs:
            if await member.store.stat(digest) is None:
                await pull(member, digest)


async def announced(member: Member) -> None:
    """Until the others can find all of the set here."""
    everything = {digest for image in SET for digest in blobs_of(image)}
    await until(lambda: everything <= {digest for digest, whole in member.discovery.announced if whole})


@pytest.mark.parametrize("hosts", [1, 8, 64])
async def test_a_cluster_stores_each_layer_once_a_host_and_pulls_it_once_in_all(hosts: int) -> None:
    town = Town()
    serve(town)
    expected = savings([blobs_of(image) for image in SET], hosts)
    assert expected.storage_layered == total_size(SET) + sum(len(image.manifest) for image in SET)
    async with town.members(*(f"host-{number}" for number in range(hosts))) as members:
        for member in members:
            await pull_set(member)
            await announced(member)
        for member in members:
            usage = await disk_usage(member.store)
            assert usage.layered == usage.usage.committed == expected.storage_layered
            assert usage.separate == expected.storage_separate
    assert town.upstream.sent == expected.pulled_shared
    assert expected.pulled_layered == hosts * town.upstream.sent
