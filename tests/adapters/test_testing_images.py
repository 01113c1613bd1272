"""The image builder: what it writes is what runtimes unpack, and a registry serves."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import sys
import tarfile
from pathlib import Path

import aiohttp
import pytest

from p2pdist.oci import media_types
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import parse_config, parse_manifest, select_platform
from p2pdist.testing.images import (
    MB,
    Image,
    build_artifact,
    build_image,
    build_index,
    build_service_set,
    total_size,
    write_layout,
)
from p2pdist.testing.layers import Layer, build_layer, noise
from p2pdist.testing.registry import FakeRegistry
from p2pdist.testing.registry_content import RegistryContent


def content(source: bytes | Path) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def config_of(image: Image) -> bytes:
    config = parse_manifest(image.manifest).config
    assert config is not None
    return content(image.blobs[config.digest])


def test_the_worked_example_shares_its_base() -> None:
    images = build_service_set(0.01)
    assert [image.name for image in images] == ["svc-a", "svc-b", "svc-c"]
    layers = [[layer.digest for layer in image.layers] for image in images]
    assert layers[0][:3] == layers[1][:3] == layers[2][:3]
    assert len({image[3] for image in layers}) == 3
    assert total_size(images) == pytest.approx(1.81 * MB, rel=0.05)
    assert sum(image.size for image in images) == pytest.approx(5.31 * MB, rel=0.05)


def test_the_same_arguments_give_the_same_digests(tmp_path: Path) -> None:
    first, again = build_service_set(0.001), build_service_set(0.001, directory=tmp_path)
    assert [image.digest for image in first] == [image.digest for image in again]
    assert build_service_set(0.001, seed=2)[0].digest != first[0].digest
    for image in again:
        assert all(Digest.of(content(source)) == digest for digest, source in image.blobs.items())


def test_a_config_tells_the_layers_and_their_history() -> None:
    (image, *_) = build_service_set(0.001)
    config = parse_config(config_of(image))
    assert config.platform == Platform("linux", "amd64")
    assert config.diff_ids == tuple(layer.diff_id for layer in image.layers)
    assert [step.empty_layer for step in config.history] == [False] * 4 + [True]
    assert config.history[0].created_by == "COPY base /"


def untar(layer: Layer) -> dict[str, tarfile.TarInfo]:
    body = content(layer.source)
    plain = gzip.decompress(body) if layer.compression == "gzip" else body
    assert Digest.of(plain) == layer.diff_id
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        return {entry.name: entry for entry in archive}


def test_layers_are_tar_archives(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(noise(5000))
    (image, *_) = build_service_set(0.001, busybox=busybox)
    entries = untar(image.layers[0])
    assert (entries["bin/busybox"].size, entries["bin/sh"].linkname) == (5000, "busybox")
    assert entries["bin/busybox"].mode == 0o755
    assert entries["opt/base/000.bin"].size == 120_000 - 5000 - len(b"root:x:0:0:root:/:/bin/sh\n")
    assert untar(image.layers[3])["app/name"].size == len("svc-a\n")
    assert untar(build_layer("plain", 100, compression="none"))["opt/plain/000.bin"].size == 100


def test_a_zstd_layer_is_a_frame_of_raw_blocks() -> None:
    layer = build_layer("z", 300_000, compression="zstd")
    body = content(layer.source)
    assert body[:4] == bytes.fromhex("28b52ffd")
    plain, at = b"", 6
    while True:
        header = int.from_bytes(body[at : at + 3], "little")
        last, kind, size = header & 1, (header >> 1) & 3, header >> 3
        assert (kind, size <= 128 * 1024) == (0, True)
        plain, at = plain + body[at + 3 : at + 3 + size], at + 3 + size
        if last:
            break
    assert (at, Digest.of(plain)) == (len(body), layer.diff_id)
    (image, *_) = build_service_set(0.0001, compression="zstd")
    assert parse_manifest(image.manifest).layers[0].media_type == media_types.OCI_LAYER_ZSTD


def test_docker_flavour() -> None:
    found = parse_manifest(build_service_set(0.0001, flavour="docker")[0].manifest)
    assert found.media_type == media_types.DOCKER_MANIFEST
    assert found.config is not None
    assert found.config.media_type == media_types.DOCKER_CONFIG
    assert {layer.media_type for layer in found.layers} == {media_types.DOCKER_LAYER_GZIP}


def test_an_index_and_a_layout(tmp_path: Path) -> None:
    arm = Platform("linux", "arm", "v7")
    images = [
        build_image("multi", "x", [build_layer(name, 1000)], platform=platform)
        for name, platform in (("amd", Platform("linux", "amd64")), ("arm", arm))
    ]
    index = build_index("team/multi", "1.0", images)
    write_layout([index, *build_service_set(0.0001)], tmp_path)
    loaded = RegistryContent()
    loaded.load_layout(tmp_path)
    assert sorted(loaded.repositories) == ["svc-a", "svc-b", "svc-c", "team/multi"]
    repository = loaded.repositories["team/multi"]
    found = repository.find_manifest("1.0")
    assert found is not None
    chosen = select_platform(found.parsed(), arm)
    assert repository.manifests[chosen.digest].body == images[1].manifest
    assert repository.blobs.keys() == images[0].blobs.keys() | images[1].blobs.keys()
    assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


async def test_an_artifact_is_found_by_its_subject() -> None:
    (image, *_) = build_service_set(0.0001)
    async with FakeRegistry() as registry, aiohttp.ClientSession() as http:
        registry.put_image("svc-a", "1.0", image)
        registry.put_image("svc-a", "", build_artifact("svc-a", image, "application/x.sig", b"signed"))
        async with http.get(f"{registry.url}/v2/svc-a/referrers/{image.digest}") as response:
            (found,) = (await response.json(content_type=None))["manifests"]
    assert found["artifactType"] == "application/x.sig"


async def test_the_registry_as_a_process(tmp_path: Path) -> None:
    (image, *_) = build_service_set(0.001, directory=tmp_path)
    write_layout([image], tmp_path)
    arguments = ["-m", "p2pdist.testing.registry", str(tmp_path), "--port", "0"]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        assert line.startswith("serving svc-a on http://127.0.0.1:")
        url = line.split()[-1]
        async with aiohttp.ClientSession() as http:
            for layer in image.layers:
                async with http.get(f"{url}/v2/svc-a/blobs/{layer.digest}") as response:
                    assert Digest.of(await response.read()) == layer.digest
            async with http.get(f"{url}/_counters") as response:
                sent = (await response.json())["total_blob_bytes"]
        assert sent == sum(layer.size for layer in image.layers)
    finally:
        process.terminate()
        assert await process.wait() in {-15, 0}


async def test_a_directory_that_is_no_layout_is_named(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "p2pdist.testing.registry", str(tmp_path), stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert str(tmp_path) in stderr.decode()
