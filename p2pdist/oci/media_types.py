"""Media types of what registries serve, and Accept headers (OCI image-spec media-types.md; RFC 9110 section 12.5.1).

Always true here: media types are compared in lower case and without their parameters; what a client may send us in
Accept is read up to a bound, and the rest of it is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_FOREIGN_LAYER_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_FOREIGN_LAYER_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN_LAYER_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

OCTET_STREAM = "application/octet-stream"
JSON = "application/json"

IMAGE_MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
SCHEMA1 = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
MANIFESTS = IMAGE_MANIFESTS | INDEXES | {OCI_ARTIFACT}
FOREIGN_LAYERS = frozenset(
    {
        OCI_FOREIGN_LAYER,
        OCI_FOREIGN_LAYER_GZIP,
        OCI_FOREIGN_LAYER_ZSTD,
        DOCKER_FOREIGN_LAYER,
        DOCKER_FOREIGN_LAYER_GZIP,
    }
)
LAYERS = FOREIGN_LAYERS | {
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
}
IMAGE_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})

# docker-registry answers 404 for an OCI manifest when Accept lacks the OCI type, so each type is named.
ACCEPT_ALL_MANIFESTS: tuple[str, ...] = (
    OCI_INDEX,
    OCI_MANIFEST,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_ARTIFACT,
    "*/*",
)

_MAX_RANGES = 64
_MAX_RANGE_LENGTH = 256


def is_header_safe(text: str) -> bool:
    """Whether ``text`` may stand in a Content-Type header: 1 to 256 printable ASCII characters."""
    return 0 < len(text) <= _MAX_RANGE_LENGTH and text.isascii() and text.isprintable()


def essence(media_type: str) -> str:
    """A media type in lower case, without parameters (``A/B; q=1`` is ``a/b``); "" stays ""."""
    return media_type[:_MAX_RANGE_LENGTH].partition(";")[0].strip().lower()


def acceptable(media_type: str, accept: Sequence[str]) -> bool:
    """Whether a client that sent these Accept header values takes ``media_type``.

    The most specific range that matches decides, and ``q=0`` refuses (RFC 9110 section 12.4.2). No ranges at all
    accept anything. At most 64 ranges are read; what does not parse as a range matches nothing.
    """
    wanted = essence(media_type)
    verdict: tuple[int, bool] | None = None
    empty = True
    for item, refused in _ranges(accept):
        empty = False
        rank = _specificity(item, wanted)
        if rank and (verdict is None or rank > verdict[0] or (rank == verdict[0] and not refused)):
            verdict = (rank, not refused)
    return empty or (verdict is not None and verdict[1])


def _specificity(item: str, wanted: str) -> int:
    if item == wanted:
        return 3
    if item == "*/*":
        return 1
    return 2 if item.endswith("/*") and wanted.startswith(item[:-1]) else 0


def _ranges(accept: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each media range, and whether its weight is zero."""
    count = 0
    for value in accept:
        for part in value.split(",", _MAX_RANGES)[:_MAX_RANGES]:
            item = essence(part)
            if not item:
                continue
            if count == _MAX_RANGES:
                return
            count += 1
            yield item, _weight_is_zero(part[:_MAX_RANGE_LENGTH])


def _weight_is_zero(media_range: str) -> bool:
    for parameter in media_range.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            # RFC 9110 allows at most three decimals, so zero is written in one of these ways only.
            return value.strip() in {"0", "0.", "0.0", "0.00", "0.000"}
    return False
