"""Images that exist once: each call builds content that no store has seen, and pushes it to a registry of the lab.

An image says its own label when it is run, so that a test sees that what runs is what was pushed.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from p2pdist.oci.descriptor import Platform
from p2pdist.testing.images import AMD64, MB, Image, build_image, build_index, total_size
from p2pdist.testing.layers import Compression, Layer, build_layer, busybox_files
from tests.e2e.upstream import HUB, PLAIN, Upstream

BUSYBOX = Path("/bin/busybox")
Flavour = Literal["oci", "docker"]


@dataclass(frozen=True)
class Pushed:
    """An image in an upstream registry. ``size`` counts the config and layers of the platform that is pulled here."""

    name: str
    label: str
    size: int
    blobs: int
    image: Image
    where: str = PLAIN

    @property
    def ref(self) -> str:
        """As one names it to a runtime."""
        return f"{self.where}/{self.name}"

    def at_hub(self) -> Pushed:
        """The same image as Docker Hub's: there all runtimes, dockerd too, ask the mirror for the same name."""
        return dataclasses.replace(self, where=HUB)

    def by_digest(self) -> Pushed:
        """The same image, named by its digest."""
        return dataclasses.replace(self, name=f"{self.repository}@{self.image.digest}")

    def renamed(self, name: str) -> Pushed:
        """A name under which nothing was pushed."""
        return dataclasses.replace(self, name=name)

    @property
    def repository(self) -> str:
        return re.split("[:@]", self.name)[0]

    @property
    def tag(self) -> str:
        return self.name.rpartition(":")[2]

    @property
    def biggest(self) -> Layer:
        return max(self.image.layers, key=lambda layer: layer.size)


class ImageShop:
    """Builds and pushes. Layer sizes are in megabytes, base first; the base also holds a shell."""

    def __init__(self, upstream: Upstream, directory: Path) -> None:
        self._upstream = upstream
        self._directory = directory
        self._numbers = itertools.count(1)

    def image(
        self,
        sizes: Sequence[float] = (4, 3, 1),
        *,
        flavour: Flavour = "oci",
        compression: Compression = "gzip",
        private: bool = False,
        tag: str = "",
    ) -> Pushed:
        """A plain image of one platform."""
        number = next(self._numbers)
        label = f"label-{number}"
        built = self._build(number, label, sizes, flavour, compression, AMD64)
        return self._push(built.named(f"library/app-{number}", tag or "v1"), label, built, private=private)

    def multi_platform(self, sizes: Sequence[float] = (2, 1)) -> Pushed:
        """An index over amd64 and arm64; what is pulled here is the former."""
        number = next(self._numbers)
        label = f"label-{number}"
        here = self._build(number, label, sizes, "oci", "gzip", AMD64)
        other = self._build(number, "not this one", sizes, "oci", "gzip", Platform("linux", "arm64", "v8"))
        index = build_index(f"library/app-{number}", "v1", [here, other])
        return self._push(index, label, here)

    def next_version(
        self, before: Pushed, sizes: Sequence[float] = (1,), tag: str = "", compression: Compression = "gzip",
        flavour: Flavour = "oci",
    ) -> Pushed:  # fmt: skip
        """A new version that shares all layers but the last ones; ``tag`` "" moves the tag of the old one."""
        number = next(self._numbers)
        label = f"label-{number}"
        kept = before.image.layers[: -len(sizes)]
        layers = [*kept, *self._layers(number, label, sizes, compression)]
        built = build_image("", "", layers, flavour=flavour, command=("/bin/cat", "/app/label"))
        return self._push(built.named(before.repository, tag or before.tag), label, built)

    def built_on(
        self, base: Pushed, sizes: Sequence[float] = (1,), *, compression: Compression = "gzip", flavour: Flavour = "oci"
    ) -> Pushed:  # fmt: skip
        """Another image, as from a build that starts from ``base``."""
        number = next(self._numbers)
        label = f"label-{number}"
        layers = [*base.image.layers, *self._layers(number, label, sizes, compression)]
        command = ("/bin/cat", "/app/label")
        built = build_image("", "", layers, flavour=flavour, command=command, onto=base.image)
        return self._push(built.named(f"library/app-{number}", "v1"), label, built)

    def _build(
        self, number: int, label: str, sizes: Sequence[float], flavour: Flavour, compression: Compression, on: Platform
    ) -> Image:  # fmt: skip
        layers = self._layers(number, label, sizes, compression, base=True)
        return build_image("", "", layers, platform=on, flavour=flavour, command=("/bin/cat", "/app/label"))

    def _layers(
        self, number: int, label: str, sizes: Sequence[float], compression: Compression, *, base: bool = False
    ) -> list[Layer]:  # fmt: skip
        made = []
        for depth, size in enumerate(sizes):
            files = busybox_files(BUSYBOX) if base and depth == 0 else {}
            if depth == len(sizes) - 1:
                files["app/label"] = f"{label}\n".encode()
            name = f"l{number}-{depth}-{label.replace(' ', '')}"
            made.append(
                build_layer(name, round(size * MB), seed=number, files=files, compression=compression)
            )
        return made

    def _push(self, image: Image, label: str, pulled: Image, *, private: bool = False) -> Pushed:
        files = self._directory / f"push-{label}"
        files.mkdir()
        write_files(image, files)
        where = self._upstream.push(files, f"{image.name}:{image.tag}", private=private)
        shutil.rmtree(files)
        size = total_size([pulled])
        return Pushed(f"{image.name}:{image.tag}", label, size, len(pulled.blobs), pulled, where)


def write_files(image: Image, directory: Path) -> None:
    """Write skopeo's ``dir:`` form, which holds any type of manifest as it is (an OCI layout holds OCI's only)."""
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    (directory / "manifest.json").write_bytes(image.manifest)
    for child in image.children:
        (directory / f"{child.digest.hex}.manifest.json").write_bytes(child.manifest)
    for digest, content in [blob for one in (image, *image.children) for blob in one.blobs.items()]:
        assert isinstance(content, bytes)
        (directory / digest.hex).write_bytes(content)


Builder = Callable[[ImageShop], Pushed]
