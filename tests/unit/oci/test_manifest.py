from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError, NotFoundError
from p2pdist.oci import media_types
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import (
    MAX_DESCRIPTORS,
    MAX_MANIFEST,
    Manifest,
    parse_config,
    parse_manifest,
    select_platform,
    sniff_media_type,
)


def entry(name: str, media_type: str = media_types.OCI_LAYER_GZIP, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(name.encode())), "size": len(name), **fields}


def image(*layers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": entry("config", media_types.OCI_CONFIG),
        "layers": list(layers),
        **fields,
    }


def index(*platforms: str | None, **fields: Any) -> dict[str, Any]:
    children = []
    for number, text in enumerate(platforms):
        parts = dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False)) if text else None
        child = entry(f"child {number}", media_types.OCI_MANIFEST, **({"platform": parts} if parts else {}))
        children.append(child)
    return {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": children, **fields}


def parse(document: Any, media_type: str = "") -> Manifest:
    return parse_manifest(json.dumps(document).encode(), media_type)


def digest(name: str) -> Digest:
    return Digest.of(name.encode())


def test_an_image() -> None:
    found = parse(image(entry("a"), entry("bb"), annotations={"k": "v"}))
    assert (found.kind, found.media_type) == ("image", media_types.OCI_MANIFEST)
    assert [item.digest for item in found.blobs()] == [digest("config"), digest("a"), digest("bb")]
    assert [item.size for item in found.layers] == [1, 2]
    assert (found.children(), found.subject, found.annotations) == ((), None, {"k": "v"})


def test_an_index_with_platforms() -> None:
    found = parse(index("linux/amd64", "linux/arm/v7", None))
    assert (found.kind, found.blobs()) == ("index", ())
    platforms = [Platform("linux", "amd64"), Platform("linux", "arm", "v7"), None]
    assert [item.platform for item in found.children()] == platforms


def test_an_artifact_with_a_subject() -> None:
    empty = entry("{}", media_types.OCI_EMPTY)
    found = parse(
        image(
            empty,
            config=empty,
            artifactType="application/x.sig",
            subject=entry("s", media_types.OCI_MANIFEST),
        )
    )
    assert found.artifact_type == "application/x.sig"
    assert found.subject is not None
    assert found.subject.digest == digest("s")
    assert [item.digest for item in found.blobs()] == [
        digest("{}")
    ]  # the same blob is named twice, and is one


def test_an_artifact_manifest_names_blobs() -> None:
    found = parse({"mediaType": media_types.OCI_ARTIFACT, "blobs": [entry("a")]})
    assert (found.kind, [item.digest for item in found.blobs()]) == ("image", [digest("a")])
    assert parse(image(blobs=[entry("ignored")])).layers == ()


def test_foreign_layers_are_not_in_the_registry() -> None:
    urls = ["https://elsewhere.example.test/layer"]
    found = parse(
        image(
            entry("foreign", media_types.DOCKER_FOREIGN_LAYER_GZIP, urls=urls),
            entry("pushed anyway", media_types.OCI_FOREIGN_LAYER),
            entry("mirrored", urls=urls),
        )
    )
    assert [item.digest for item in found.blobs()] == [
        digest("config"),
        digest("pushed anyway"),
        digest("mirrored"),
    ]
    assert found.layers[0].urls == tuple(urls)


@pytest.mark.parametrize(
    ("document", "header", "media_type"),
    [
        (image(mediaType=None), "", media_types.OCI_MANIFEST),
        (image(mediaType=None), "text/plain", media_types.OCI_MANIFEST),
        (image(mediaType=None), media_types.DOCKER_MANIFEST, media_types.DOCKER_MANIFEST),
        (image(mediaType=media_types.DOCKER_MANIFEST), media_types.OCI_MANIFEST, media_types.DOCKER_MANIFEST),
        (index(mediaType=None), "", media_types.OCI_INDEX),
        (index(mediaType=None), media_types.OCI_MANIFEST, media_types.OCI_INDEX),
        (index(mediaType=media_types.DOCKER_LIST), "application/json", media_types.DOCKER_LIST),
        ({"any": "thing"}, "application/x.own+json; charset=utf-8", "application/x.own+json"),
        ({"any": "thing"}, "bad\r\nheader", "application/json"),
        (image(config=entry("c", "config")), "", media_types.OCI_MANIFEST),
        ({"mediaType": "application/x.own+json"}, "", "application/x.own+json"),
    ],
)
def test_the_body_decides_what_it_is(document: dict[str, Any], header: str, media_type: str) -> None:
    assert parse(document, header).media_type == media_type


def test_sniffing() -> None:
    assert sniff_media_type(json.dumps(index(mediaType=None)).encode()) == media_types.OCI_INDEX
    assert sniff_media_type(b"{}") == "application/json"
    with pytest.raises(InvalidInputError):
        sniff_media_type(b"[]")


@pytest.mark.parametrize(
    ("document", "header"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, ""),
        ({"fsLayers": []}, media_types.DOCKER_SCHEMA1_SIGNED),
        ({"mediaType": media_types.DOCKER_SCHEMA1}, ""),
    ],
)
def test_schema_1_is_refused_in_so_many_words(document: dict[str, Any], header: str) -> None:
    with pytest.raises(InvalidInputError, match="schema 1, which is not supported"):
        parse(document, header)


@pytest.mark.parametrize(
    "document",
    [
        [],
        None,
        "text",
        1,
        image({**entry("a"), "size": -1}),
        image({**entry("a"), "size": 2**63}),
        image({**entry("a"), "size": True}),
        image({**entry("a"), "size": "1"}),
        image({**entry("a"), "size": 1.0}),
        image({"digest": str(digest("a"))}),
        image({**entry("a"), "digest": "sha256:short"}),
        image({**entry("a"), "digest": 7}),
        image({**entry("a"), "mediaType": "a/b\r\nSet-Cookie: x"}),
        image({**entry("a"), "urls": ["u"] * 17}),
        image({**entry("a"), "urls": [1]}),
        image({**entry("a"), "annotations": {"k": 1}}),
        image(layers=["layer"]),
        image(layers={"0": entry("a")}),
        image(layers=[entry("a")] * (MAX_DESCRIPTORS + 1)),
        image(config=[]),
        image(subject={}),
        image(mediaType=1),
        image(annotations={str(number): "" for number in range(1025)}),
        image(manifests=[]),  # ambiguous: CVE-2021-41190
        index(layers=[]),
        {"mediaType": media_types.OCI_INDEX, "layers": []},
        {"mediaType": media_types.DOCKER_MANIFEST, "manifests": []},
        index("linux/amd64", manifests=[{**entry("a"), "platform": "linux"}]),
    ],
)
def test_malformed(document: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(document)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        "{}".encode("utf-16"),
        b'{"a":NaN}',
        b'{"size":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"a":[' + b"{}," * 300_000 + b"{}]}",
        b'{"a":"' + b"x" * MAX_MANIFEST + b'"}',
    ],
    ids=lambda body: f"{len(body)} bytes",
)
def test_bombs(body: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_manifest(body)
    with pytest.raises(InvalidInputError):
        parse_config(body + b" " * MAX_MANIFEST)
    assert len(str(caught.value)) < 400


def test_lone_surrogates_are_replaced() -> None:
    found = parse(image(annotations={"k\ud800": "v\udfff"}))
    assert found.annotations == {"k?": "v?"}


def test_null_is_as_absent() -> None:
    found = parse(image(annotations=None, subject=None, layers=None, artifactType=None))
    assert (found.layers, found.subject, found.annotations, found.artifact_type) == ((), None, {}, "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
keys = st.sampled_from(
    ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations", "artifactType"]
)
near_manifests = st.builds(
    lambda base, changes: {**base, **changes},
    st.sampled_from([{}, image(entry("a")), index("linux/amd64")]),
    st.dictionaries(keys, json_values, max_size=3),
)


@given(near_manifests, st.text(max_size=20))
def test_near_manifests_parse_or_are_refused(document: dict[str, Any], header: str) -> None:
    try:
        found = parse(document, header)
    except InvalidInputError:
        return
    assert media_types.is_header_safe(found.media_type)
    assert all(item.size >= 0 for item in (*found.blobs(), *found.children()))
    str(found.annotations).encode()


@given(st.binary(max_size=200))
def test_noise_is_refused(body: bytes) -> None:
    for read in (parse_manifest, parse_config):
        try:
            read(body)
        except InvalidInputError:
            continue
        assert isinstance(json.loads(body), dict)


# -- platforms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platforms", "wanted", "chosen"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["windows/amd64", "linux/amd64"], "linux/amd64", 1),
        (["linux/arm64/v8"], "linux/arm64", 0),
        (["linux/arm64"], "linux/arm64/v8", 0),
        (["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm", 1),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", 1),
        (["linux/arm/v7", "linux/arm/v6"], "linux/arm/v6", 1),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v3", 1),
        (["linux/ppc64le"], "linux/ppc64le", 0),
        (["unknown/unknown", "linux/amd64"], "linux/amd64", 1),
        (["linux/arm64", None], "linux/amd64", 1),
        ([None, "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64", "linux/amd64"], "linux/amd64", 0),
    ],
)
def test_the_best_child(platforms: list[str | None], wanted: str, chosen: int) -> None:
    found = parse(index(*platforms))
    parts = wanted.split("/")
    platform = Platform(parts[0], parts[1], parts[2] if len(parts) > 2 else "")
    assert select_platform(found, platform) == found.manifests[chosen]


@pytest.mark.parametrize(
    ("platforms", "wanted"),
    [
        (["linux/amd64/v3"], Platform("linux", "amd64")),
        (["linux/arm/v7"], Platform("linux", "arm", "v6")),
        (["linux/arm/v7"], Platform("linux", "arm64")),
        (["linux/amd64"], Platform("windows", "amd64")),
        (["linux/mips/hardfloat"], Platform("linux", "mips", "softfloat")),
        ([], Platform("linux", "amd64")),
    ],
)
def test_nothing_fits(platforms: list[str | None], wanted: Platform) -> None:
    with pytest.raises(NotFoundError, match="this image has nothing for"):
        select_platform(parse(index(*platforms)), wanted)


def test_the_error_lists_what_there_is() -> None:
    with pytest.raises(NotFoundError) as caught:
        select_platform(
            parse(index("linux/amd64", "linux/arm/v7", "linux/amd64")), Platform("linux", "s390x")
        )
    assert str(caught.value) == "this image has nothing for linux/s390x; it has: linux/amd64, linux/arm/v7"


def test_an_artifact_is_never_what_runs() -> None:
    signature = entry("signature", media_types.OCI_MANIFEST, artifactType="application/x.sig")
    with pytest.raises(NotFoundError):
        select_platform(parse(index(manifests=[signature])), Platform("linux", "amd64"))


# -- configs -----------------------------------------------------------------------------------------------------


def test_a_config() -> None:
    body = {
        "created": "2024-01-01T00:00:00Z",
        "os": "linux",
        "architecture": "arm",
        "variant": "v7",
        "rootfs": {"type": "layers", "diff_ids": [str(digest("a"))]},
        "history": [
            {"created": "2024-01-01T00:00:00Z", "created_by": "x" * 10_000},
            {"created_by": None, "comment": "why", "empty_layer": True},
        ],
    }
    found = parse_config(json.dumps(body).encode())
    assert str(found.platform) == "linux/arm/v7"
    assert found.diff_ids == (digest("a"),)
    assert [item.empty_layer for item in found.history] == [False, True]
    assert (len(found.history[0].created_by), found.history[1].comment) == (4096, "why")


def test_an_empty_config_has_empty_fields() -> None:
    found = parse_config(b"{}")
    assert (found.platform, found.created, found.history, found.diff_ids) == (Platform("", ""), "", (), ())


@pytest.mark.parametrize(
    "document",
    [
        {"history": {}},
        {"history": ["step"]},
        {"history": [{"created_by": 1}]},
        {"rootfs": []},
        {"rootfs": {"diff_ids": ["sha256:x"]}},
        {"rootfs": {"diff_ids": [1]}},
        {"os": 1},
        {"created": {}},
    ],
)
def test_malformed_configs(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        parse_config(json.dumps(document).encode())
