"""index.json: what stands in it, and that a real skopeo reads the store by it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.store.disk import DiskStore
from p2pdist.store.index import parse_index
from p2pdist.store.port import TagEntry
from p2pdist.testing.clock import ManualClock
from tests.conformance.store import NGINX, REDIS, add, tag_entry

OCI = (media_types.OCI_MANIFEST, media_types.OCI_CONFIG, media_types.OCI_LAYER)
LOCAL = Repository.of("localhost:5000", "team/app")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskStore]:
    opened = await DiskStore.open_dir(tmp_path / "data", 10_000_000, ManualClock())
    yield opened
    await opened.close()


def listed(tmp_path: Path) -> dict[str, str]:
    document = json.loads((tmp_path / "data" / "store" / "index.json").read_bytes())
    return {
        item["annotations"]["org.opencontainers.image.ref.name"]: item["digest"]
        for item in document["manifests"]
    }


async def test_tags_are_listed_while_their_manifest_is_held(tmp_path: Path, store: DiskStore) -> None:
    one = (await add(store, b'{"one":1}', media_types.OCI_MANIFEST)).digest
    two = Digest.of(b'{"two":2}')
    await store.record_tag(tag_entry(one))
    await store.record_tag(tag_entry(one, tag="1.27"))
    await store.record_tag(tag_entry(two, repository=REDIS))
    nginx, redis = "docker.io/library/nginx", "docker.io/library/redis:latest"
    assert listed(tmp_path) == {f"{nginx}:latest": str(one), f"{nginx}:1.27": str(one)}
    await add(store, b'{"two":2}', media_types.OCI_MANIFEST)
    assert listed(tmp_path)[redis] == str(two)
    await store.record_tag(tag_entry(two, at=2000.0))
    assert listed(tmp_path)[f"{nginx}:latest"] == str(two)
    await store.delete(two)
    assert listed(tmp_path) == {f"{nginx}:1.27": str(one)}


async def test_it_is_parsed_back(tmp_path: Path, store: DiskStore) -> None:
    digest = (await add(store, b"{}", media_types.OCI_MANIFEST)).digest
    entries = [
        TagEntry(repository, "v1", digest, media_types.OCI_MANIFEST, 2, at, at)
        for repository, at in ((LOCAL, 5.25), (NGINX, 7.0))
    ]
    for entry in entries:
        await store.record_tag(entry)
    assert parse_index((tmp_path / "data" / "store" / "index.json").read_bytes()) == entries


json_values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["annotations", "digest", "size", "mediaType", "org.opencontainers.image.ref.name"]
            ),
            inner,
        )
    ),
    max_leaves=10,
)


@given(st.one_of(st.binary(max_size=50), json_values.map(lambda v: json.dumps({"manifests": [v]}).encode())))
def test_whatever_stands_in_it_opening_survives(body: bytes) -> None:
    assert parse_index(body) == []


async def add_image(
    store: DiskStore, text: str, manifest_type: str, config_type: str, layer_type: str
) -> TagEntry:
    """A real image of one file, as a registry would have given it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("hello")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    layer = archive.getvalue()
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    rootfs = {"type": "layers", "diff_ids": [diff_id]}
    config = json.dumps({"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {"mediaType": config_type, "digest": str(Digest.of(config)), "size": len(config)},
        "layers": [{"mediaType": layer_type, "digest": str(Digest.of(layer)), "size": len(layer)}],
    }
    body = json.dumps(manifest).encode()
    await add(store, layer)
    await add(store, config)
    info_of_manifest = await add(store, body, manifest_type)
    return TagEntry(NGINX, text, info_of_manifest.digest, manifest_type, len(body), 1.0, 1.0)


def skopeo(*arguments: str) -> str:
    return subprocess.run(
        ["skopeo", *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


async def test_skopeo_copies_images_out_of_the_store(tmp_path: Path, store: DiskStore) -> None:
    image = await add_image(store, "oci", *OCI)
    entries = [image, TagEntry(LOCAL, "v1", image.digest, image.media_type, 2, 1.0, 1.0)]
    for entry in entries:
        await store.record_tag(entry)
    for entry in entries:
        name = f"{entry.repository}:{entry.tag}"
        source = f"oci:{tmp_path / 'data' / 'store'}:{name}"
        raw = skopeo("inspect", "--raw", source)
        assert Digest.of(raw.encode()) == entry.digest
        target = tmp_path / f"copy of {entry.tag}"
        skopeo("--insecure-policy", "copy", source, f"dir:{target}")
        for digest in [layer["digest"] for layer in json.loads(raw)["layers"]]:
            assert Digest.of((target / digest.partition(":")[2]).read_bytes()) == Digest.parse(digest)


async def test_a_docker_manifest_is_listed_as_what_it_is(tmp_path: Path, store: DiskStore) -> None:
    # skopeo 1.9's oci: transport passes over such entries; a false media type would let it find them, and then break
    # its conversions, so the index stays true to image-spec descriptor.md.
    types = (media_types.DOCKER_MANIFEST, media_types.DOCKER_CONFIG, media_types.DOCKER_LAYER)
    await store.record_tag(await add_image(store, "docker", *types))
    document = json.loads((tmp_path / "data" / "store" / "index.json").read_bytes())
    assert [item["mediaType"] for item in document["manifests"]] == [media_types.DOCKER_MANIFEST]


async def test_skopeo_finds_its_platform_in_an_index(tmp_path: Path, store: DiskStore) -> None:
    child = await add_image(store, "child", *OCI)
    descriptor = {
        "mediaType": child.media_type,
        "digest": str(child.digest),
        "size": child.size,
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    body = json.dumps(
        {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [descriptor]}
    ).encode()
    info = await add(store, body, media_types.OCI_INDEX)
    index = TagEntry(NGINX, "index", info.digest, media_types.OCI_INDEX, len(body), 1.0, 1.0)
    await store.record_tag(index)
    source = f"oci:{tmp_path / 'data' / 'store'}:docker.io/library/nginx:index"
    choose = ["--override-arch", "amd64", "--override-os", "linux"]
    skopeo("--insecure-policy", *choose, "copy", source, f"dir:{tmp_path / 'copy'}")
    assert Digest.of((tmp_path / "copy" / "manifest.json").read_bytes()) == child.digest
