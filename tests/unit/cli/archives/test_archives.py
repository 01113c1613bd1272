"""Archives as they are, and as somebody might make them to do harm."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pdist.cli.archives import files as bounds
from p2pdist.cli.archives import oci_layout
from p2pdist.cli.archives.files import open_files
from p2pdist.cli.archives.images import ArchivedImage, read_images
from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_NESTED, parse_manifest
from p2pdist.oci.media_types import DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_MANIFEST
from p2pdist.testing.images import AMD64, Image, build_artifact, build_image, build_index, write_layout
from p2pdist.testing.layers import build_layer

Content = dict[str, bytes]


def tar_of(directory: Path, content: Content, extra: Callable[[tarfile.TarFile], None] | None = None) -> Path:
    path = directory / "archive.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in content.items():
            add(archive, name, data)
        if extra is not None:
            extra(archive)
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    for key, value in fields.items():
        setattr(entry, key, value)
    archive.addfile(entry, io.BytesIO(data))


def images_in(path: Path) -> list[ArchivedImage]:
    """The images of an archive, all without a fault; the first fault as an error."""
    with open_files(path) as files:
        found = read_images(files)
    for each in found:
        if each.fault:
            raise InvalidInputError(each.fault)
    return found


def bytes_of(path: Path) -> dict[Digest, bytes]:
    """Every blob of every image of the archive, as it would be sent."""
    with open_files(path) as files:
        return {blob.digest: b"".join(blob.read()) for image in read_images(files) for blob in image.blobs}


def image(name: str = "app", tag: str = "v1") -> Image:
    return build_image(name, tag, [build_layer("one", 3000, seed=1), build_layer("two", 2000, seed=2)])


def layout(directory: Path, *images: Image) -> Path:
    write_layout(images or [image()], directory / "layout")
    return directory / "layout"


def as_tar(layout: Path) -> Path:
    path = layout.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        archive.add(layout, ".")
    return path


class TestOciLayouts:
    @pytest.mark.parametrize("form", ["directory", "tar"])
    def test_everything_of_an_image_is_there_the_manifest_last(self, tmp_path: Path, form: str) -> None:
        wanted = image()
        path = layout(tmp_path, wanted)
        path = as_tar(path) if form == "tar" else path
        (found,) = images_in(path)
        assert (found.digest, found.label) == (wanted.digest, "app:v1")
        assert [str(name) for name in found.names] == ["docker.io/library/app:v1"]
        assert found.blobs[-1].digest == wanted.digest
        assert found.size == wanted.size + len(wanted.manifest)
        for digest, data in bytes_of(path).items():
            assert Digest.of(data) == digest

    def test_of_an_index_the_platforms_that_are_there(self, tmp_path: Path) -> None:
        here, gone = image(), build_image("app", "v1", [build_layer("arm", 1000, seed=3)])
        index = build_index("app", "v1", [here, gone])
        path = layout(tmp_path, index)
        (found,) = images_in(path)
        assert (found.left_out, len(found.blobs)) == ((), 8)
        assert found.blobs[-1].digest == index.digest
        (path / "blobs/sha256" / gone.layers[0].digest.hex).unlink()
        (found,) = images_in(path)
        assert found.left_out == (str(AMD64),)
        assert {blob.digest for blob in found.blobs} == {index.digest, here.digest, *here.blobs}
        (path / "blobs/sha256" / here.digest.hex).unlink()
        with pytest.raises(InvalidInputError, match="no platform of it whole"):
            images_in(path)

    def test_an_index_in_an_index_is_followed(self, tmp_path: Path) -> None:
        here, gone = image(), build_image("", "", [build_layer("arm", 1000, seed=3)])
        inner = build_index("", "", [here, gone])
        path = layout(tmp_path, build_index("app", "v1", [inner]))
        (path / "blobs/sha256" / gone.layers[0].digest.hex).unlink()
        (found,) = images_in(path)
        assert found.left_out == (str(AMD64),)
        assert {blob.digest for blob in found.blobs} == {found.digest, inner.digest, here.digest, *here.blobs}

    def test_indexes_without_end_are_not_followed(self, tmp_path: Path) -> None:
        nested = build_index("", "", [image()])
        for _ in range(MAX_NESTED + 1):
            nested = build_index("app", "v1", [nested])
        with pytest.raises(InvalidInputError, match="not followed"):
            images_in(layout(tmp_path, nested))

    def test_many_ways_to_the_same_indexes_are_no_more_work_than_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        children = [build_index(f"{number}", "", [image(), image("app", "v2")]) for number in range(2)]
        for level in range(MAX_NESTED - 1):
            children = [build_index("app", f"{level}{number}", [*children, image()]) for number in range(2)]
        path = layout(tmp_path, build_index("app", "v1", children))
        read = []
        monkeypatch.setattr(oci_layout, "parse_manifest", lambda *a: read.append(a) or parse_manifest(*a))
        assert images_in(path)
        assert len(read) < 20

    def test_one_image_with_a_fault_is_no_fault_of_the_others(self, tmp_path: Path) -> None:
        good, bad = image("app", "v1"), build_image("app", "v2", [build_layer("gone", 1000, seed=4)])
        path = layout(tmp_path, good, bad)
        (path / "blobs/sha256" / bad.layers[0].digest.hex).unlink()
        with open_files(path) as files:
            first, second = read_images(files)
        assert (first.fault, second.label) == ("", "app:v2")
        assert "lacks the blob" in second.fault

    def test_what_is_attached_to_an_image_is_known_as_such(self, tmp_path: Path) -> None:
        wanted = image()
        path = layout(tmp_path, wanted, build_artifact("app", wanted, "application/x.signature", b"signed"))
        assert [each.attached for each in images_in(path)] == [False, True]

    def test_names_of_containerd_and_names_that_are_only_a_tag(self, tmp_path: Path) -> None:
        path = layout(tmp_path, image("app", "v1"), image("app", "v2"))
        index = json.loads((path / "index.json").read_bytes())
        first = index["manifests"][0]
        first["annotations"] = {
            "io.containerd.image.name": "registry.example.com/team/app:v1",
            "org.opencontainers.image.ref.name": "v1",
        }
        index["manifests"][1] |= {"annotations": {"org.opencontainers.image.ref.name": "latest"}}
        del index["manifests"][1:]
        (path / "index.json").write_text(json.dumps(index))
        (found,) = images_in(path)
        assert [str(name) for name in found.names] == ["registry.example.com/team/app:v1"]
        first["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
        (path / "index.json").write_text(json.dumps(index))
        (found,) = images_in(path)
        assert (found.names, found.label) == ((), "latest")

    def test_an_image_with_two_names_is_one(self, tmp_path: Path) -> None:
        (found,) = images_in(layout(tmp_path, image("app", "v1"), image("app", "v2")))
        assert [str(name) for name in found.names] == ["docker.io/library/app:v1", "docker.io/library/app:v2"]

    @pytest.mark.parametrize("what", ["gone", "short", "manifest", "link", "version", "json", "field"])
    def test_what_is_wrong_is_named(self, tmp_path: Path, what: str) -> None:
        wanted = image()
        path = layout(tmp_path, wanted)
        blob = path / "blobs/sha256" / wanted.layers[0].digest.hex
        if what == "gone":
            blob.unlink()
        elif what == "short":
            blob.write_bytes(blob.read_bytes()[:-1])
        elif what == "manifest":
            blob = path / "blobs/sha256" / wanted.digest.hex
            blob.write_bytes(blob.read_bytes().replace(b'"schemaVersion":2', b'"schemaVersion": 2'))
        elif what == "link":
            blob.unlink()
            blob.symlink_to("/etc/hostname")
        elif what == "version":
            (path / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
        elif what == "field":
            (path / "index.json").write_text('{"schemaVersion": 2, "manifests": [{"digest": "x"}]}')
        else:
            (path / "index.json").write_text("{")
        words = {
            "gone": "lacks the blob",
            "short": "bytes instead of",
            "manifest": "does not have the digest of its name",
            "link": "no regular file",
            "version": "version 2.0.0",
            "json": r"index\.json in .*layout.* not JSON",
            "field": r"index\.json in .*layout.* size",
        }
        with pytest.raises(InvalidInputError, match=words[what]):
            images_in(path)

    def test_a_file_that_shrinks_while_it_is_sent_is_noticed(self, tmp_path: Path) -> None:
        wanted = image()
        path = layout(tmp_path, wanted)
        with open_files(path) as files:
            (found,) = read_images(files)
            chunks = found.blobs[1].read()
            os.truncate(path / "blobs/sha256" / found.blobs[1].digest.hex, 5)
            with pytest.raises(InvalidInputError, match="was changed"):
                list(chunks)

    def test_a_directory_with_nothing_in_it_says_what_was_looked_for(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match=r"index\.json.*manifest\.json"):
            images_in(tmp_path)


def docker_content(*, compressed: bool = False, tags: list[str] | None = None) -> Content:
    """What docker save wrote before version 25."""
    layers = [b"layer one" * 100, b"layer two" * 50]
    config = json.dumps(
        {"os": "linux", "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(data)) for data in layers]}}
    ).encode()
    stored = [gzip.compress(data, mtime=0) for data in layers] if compressed else layers
    name = f"{Digest.of(config).hex}.json"
    entry = {
        "Config": name,
        "RepoTags": ["app:v1"] if tags is None else tags,
        "Layers": ["a/layer.tar", "b/layer.tar"],
    }
    return {
        "a/layer.tar": stored[0],
        "b/layer.tar": stored[1],
        name: config,
        "manifest.json": json.dumps([entry]).encode(),
    }


class TestDockerArchives:
    @pytest.mark.parametrize("compressed", [False, True])
    def test_a_manifest_is_made_of_the_layers_as_they_are(self, tmp_path: Path, compressed: bool) -> None:
        content = docker_content(compressed=compressed)
        path = tar_of(tmp_path, content)
        (found,) = images_in(path)
        assert found.built
        assert [str(name) for name in found.names] == ["docker.io/library/app:v1"]
        sent = bytes_of(path)
        assert all(Digest.of(data) == digest for digest, data in sent.items())
        manifest = parse_manifest(sent[found.digest])
        assert manifest.media_type == DOCKER_MANIFEST
        assert [sent[layer.digest] for layer in manifest.layers] == [
            content["a/layer.tar"],
            content["b/layer.tar"],
        ]
        wanted = DOCKER_LAYER_GZIP if compressed else DOCKER_LAYER
        assert {layer.media_type for layer in manifest.layers} == {wanted}

    def test_the_same_archive_always_gives_the_same_digest(self, tmp_path: Path) -> None:
        first, second = (
            images_in(tar_of(tmp_path, docker_content())),
            images_in(tar_of(tmp_path, docker_content())),
        )
        assert first[0].digest == second[0].digest
        assert (
            str(first[0].digest) == "sha256:5a464087fb776400c6c8d13cedf2dd4e17af6818ca7ae34aac7a5275f9e40460"
        )

    def test_layers_that_are_links_within_the_archive(self, tmp_path: Path) -> None:
        content = docker_content()
        first, second = content.pop("a/layer.tar"), content.pop("b/layer.tar")

        def link(archive: tarfile.TarFile) -> None:
            add(archive, "./hash.tar", first)
            add(archive, "a/layer.tar", type=tarfile.SYMTYPE, linkname="../hash.tar")
            add(archive, "other.tar", second)
            add(archive, "b/layer.tar", type=tarfile.LNKTYPE, linkname="other.tar")

        (found,) = images_in(tar_of(tmp_path, content, link))
        assert found.blobs[0].size == len(first)

    def test_an_image_without_a_name(self, tmp_path: Path) -> None:
        (found,) = images_in(tar_of(tmp_path, docker_content(tags=[])))
        assert found.names == ()

    def test_where_there_is_an_oci_index_as_well_that_counts(self, tmp_path: Path) -> None:
        wanted = image()
        path = layout(tmp_path, wanted)
        for name, data in docker_content().items():
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_bytes(data)
        (found,) = images_in(as_tar(path))
        assert found.digest == wanted.digest
        (path / "index.json").write_text('{"schemaVersion": 2, "manifests": []}')
        (found,) = images_in(as_tar(path))
        assert found.built

    @pytest.mark.parametrize(
        ("manifest", "words"),
        [
            (b"{", "not JSON"),
            (b"{}", "no list"),
            (b"[1]", "without proper Config"),
            (b'[{"Config": 1, "Layers": []}]', "without proper Config"),
            (b'[{"Config": "x", "Layers": [1]}]', "without proper Config"),
            (b'[{"Config": "x", "Layers": []}]', "has no x"),
            (b'{"schemaVersion": 2, "layers": []}', "as skopeo writes it to dir:"),
            (b'[{"Config": "../../etc/passwd", "Layers": []}]', "has no"),
            (b"[" * 100_000, "not JSON"),
        ],
    )
    def test_a_manifest_list_that_is_not_one(self, tmp_path: Path, manifest: bytes, words: str) -> None:
        with pytest.raises(InvalidInputError, match=words):
            images_in(tar_of(tmp_path, docker_content() | {"manifest.json": manifest}))

    @pytest.mark.parametrize("where", ["absolute", "upwards", "behind a link"])
    def test_a_directory_does_not_choose_what_root_reads(self, tmp_path: Path, where: str) -> None:
        secret = tmp_path / "secrets/key.gz"
        secret.parent.mkdir()
        secret.write_bytes(gzip.compress(b"key"))
        path = tmp_path / "archive"
        path.mkdir()
        (path / "a").symlink_to(secret.parent)
        name = {"absolute": str(secret), "upwards": "../secrets/key.gz", "behind a link": "a/key.gz"}[where]
        config = {"rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"key"))]}}
        (path / "config").write_text(json.dumps(config))
        (path / "manifest.json").write_text(json.dumps([{"Config": "config", "Layers": [name]}]))
        with pytest.raises(InvalidInputError, match=r"outside of the archive|leads out of it"):
            images_in(path)

    def test_a_layout_whose_blobs_are_elsewhere_is_not_read(self, tmp_path: Path) -> None:
        path = layout(tmp_path)
        (path / "blobs").rename(tmp_path / "elsewhere")
        (path / "blobs").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InvalidInputError, match="leads out of it"):
            images_in(path)

    def test_layers_that_do_not_fit_the_config(self, tmp_path: Path) -> None:
        content = docker_content()
        entry = json.loads(content["manifest.json"])
        entry[0]["Layers"].pop()
        with pytest.raises(InvalidInputError, match=r"names 1 layers.*has 2"):
            images_in(tar_of(tmp_path, content | {"manifest.json": json.dumps(entry).encode()}))
        del content["b/layer.tar"]
        with pytest.raises(InvalidInputError, match="lacks the layer b/layer"):
            images_in(tar_of(tmp_path, content))


class TestHostileTars:
    @pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../out", ".."])
    def test_a_name_that_leaves_the_archive(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InvalidInputError, match="outside of the archive"):
            images_in(tar_of(tmp_path, docker_content() | {name: b"x"}))

    @pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd"])
    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
    def test_a_link_that_leaves_the_archive(self, tmp_path: Path, target: str, kind: bytes) -> None:
        with pytest.raises(InvalidInputError, match="outside of the archive"):
            images_in(
                tar_of(tmp_path, docker_content(), lambda tar: add(tar, "x", type=kind, linkname=target))
            )

    def test_links_in_a_circle(self, tmp_path: Path) -> None:
        content = docker_content()
        del content["a/layer.tar"]

        def circle(archive: tarfile.TarFile) -> None:
            add(archive, "a/layer.tar", type=tarfile.SYMTYPE, linkname="other")
            add(archive, "a/other", type=tarfile.SYMTYPE, linkname="layer.tar")

        with pytest.raises(InvalidInputError, match="link to a link"):
            images_in(tar_of(tmp_path, content, circle))

    def test_a_name_that_comes_twice(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="twice"):
            images_in(tar_of(tmp_path, docker_content(), lambda tar: add(tar, "./manifest.json", b"[]")))

    def test_devices_and_sparse_files(self, tmp_path: Path) -> None:
        for kind in (tarfile.CHRTYPE, tarfile.FIFOTYPE):
            with pytest.raises(InvalidInputError, match="no regular file"):
                images_in(tar_of(tmp_path, docker_content(), lambda tar, kind=kind: add(tar, "x", type=kind)))  # type: ignore[misc]

    def test_a_header_that_promises_a_long_name_is_not_believed(self, tmp_path: Path) -> None:
        entry = tarfile.TarInfo("././@LongLink")
        entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 3 << 30
        path = tmp_path / "bomb.tar"
        path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
        os.truncate(path, 4 << 30)  # sparse: it takes no room
        with pytest.raises(InvalidInputError, match="header of 3221225"):
            images_in(path)

    def test_too_many_members(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounds, "MAX_MEMBERS", 3)
        with pytest.raises(InvalidInputError, match="more than 3 members"):
            images_in(tar_of(tmp_path, docker_content()))

    def test_a_cut_one(self, tmp_path: Path) -> None:
        path = tar_of(tmp_path, {"big": bytes(100_000)})
        os.truncate(path, 50_000)
        with pytest.raises(InvalidInputError, match="cut off"):
            images_in(path)

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "not a tar"),
            (b"junk" * 1000, "not a tar"),
            (gzip.compress(b"x"), "not a tar"),
            (bytes(10240), "holds no files"),
        ],
    )
    def test_what_is_no_tar(self, tmp_path: Path, data: bytes, words: str) -> None:
        path = tmp_path / "x.tar"
        path.write_bytes(data)
        with pytest.raises(InvalidInputError, match=words):
            images_in(path)

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="neither a directory nor a file"):
            images_in(Path("/dev/null"))
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InvalidInputError, match="neither a directory nor a file"):
            images_in(tmp_path / "pipe")
