"""Manifests, indexes and image configs, read from bytes that a stranger wrote (OCI image-spec; Docker schema 2).

Rules, and who keeps them:
- What is parsed is bounded first: bytes and containers before JSON, depth by the parser's recursion limit, entries by
  count.
- Media types are printable ASCII, since they go into headers, but not always TYPE/SUBTYPE: registries take any. Text
  holds no lone surrogates.
- A ``Manifest`` that exists holds only well-formed digests and sizes from 0 to 2**63 - 1; unknown fields are ignored,
  as the specification asks. ``kind`` is "other" for JSON that is no image and no index (an artifact of some format of
  its own): it can be stored and served, and refers to nothing that is known here.
- Nothing here decides on a digest: the caller checks the body's digest before or after, on the bytes as they came.
- Every fault is InvalidInputError and says which field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from p2pdist.errors import InvalidInputError, NotFoundError
from p2pdist.oci import media_types, platforms
from p2pdist.oci.descriptor import Descriptor, Platform
from p2pdist.oci.digest import Digest

MAX_MANIFEST = 4 * 1024 * 1024
MAX_CONFIG = 8 * 1024 * 1024
MAX_DESCRIPTORS = 4096
MAX_HISTORY = 4096
MAX_NESTED = 3
"""Indexes in an index, one in another, that are followed; the specification allows any number."""
# Each costs 16 times its two bytes once it is parsed; real manifests have a few per descriptor.
_MAX_CONTAINERS = 200_000
_MAX_SIZE = 2**63 - 1
_MAX_STRING = 4096
_MAX_ANNOTATIONS = 1024
_MAX_URLS = 16

Kind = Literal["image", "index", "other"]
JsonObject = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index. ``media_type`` is what the body is, whatever a header said."""

    kind: Kind
    media_type: str
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers that a registry can be asked for, each digest once.

        Foreign layers that name urls are fetched from those, by the runtime, never from the registry.
        """
        candidates = ((self.config,) if self.config else ()) + self.layers
        fetchable = {item.digest: item for item in reversed(candidates) if not is_foreign(item)}
        return tuple(reversed(fetchable.values()))

    def children(self) -> tuple[Descriptor, ...]:
        """The manifests that an index names; () for anything else."""
        return self.manifests


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One step that made an image, oldest first in the config; ``empty_layer`` steps made no layer."""

    created_by: str = ""
    created: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image config says; ``created`` is RFC 3339 text or ""."""

    platform: Platform
    created: str = ""
    history: tuple[HistoryEntry, ...] = ()
    diff_ids: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class Nesting:
    """The way through indexes in an index: how much deeper it may lead, and which of them were met already, so that what
    names the same ones again and again is no more work than its bytes."""

    levels: int = MAX_NESTED
    met: set[Digest] = field(default_factory=set)

    def into(self, index: Digest) -> Nesting | None:
        """The way on; None where it was met before. Raises InvalidInputError when it is too deep."""
        if not self.levels:
            raise nested_too_deep(index)
        if index in self.met:
            return None
        self.met.add(index)
        return Nesting(self.levels - 1, self.met)


def nested_too_deep(what: object) -> InvalidInputError:
    """For an image that is behind more indexes than are followed."""
    return InvalidInputError(
        f"{what} is, or has, an index in an index, more than {MAX_NESTED} times over: that is not followed"
    )


def is_foreign(descriptor: Descriptor) -> bool:
    """Whether a layer is not in the registry but at the urls it names."""
    return bool(descriptor.urls) and media_types.essence(descriptor.media_type) in media_types.FOREIGN_LAYERS


def parse_manifest(body: bytes, media_type: str = "") -> Manifest:
    """Read a manifest or index; ``media_type`` is what the source's header said, "" if nothing.

    The body decides when the two disagree, since only the body is covered by the digest. Raises InvalidInputError:
    not JSON, too large, schema 1, or a malformed field.
    """
    document = _load(body, MAX_MANIFEST, "manifest")
    kind, actual = _classify(document, media_type)
    if kind == "other":
        return Manifest(kind, actual, annotations=_annotations(document))
    common: JsonObject = {
        "subject": _optional(document, "subject", _descriptor),
        "artifact_type": _media_type(document, "artifactType"),
        "annotations": _annotations(document),
    }
    if kind == "index":
        return Manifest(kind, actual, manifests=_descriptors(document, "manifests"), **common)
    config = _optional(document, "config", _descriptor)
    layers = _descriptors(document, "blobs" if actual == media_types.OCI_ARTIFACT else "layers")
    return Manifest(kind, actual, config=config, layers=layers, **common)


def sniff_media_type(body: bytes) -> str:
    """The media type that a manifest's body has, for when a header is missing or too general to be of use.

    Its own ``mediaType``, else by its structure (image-spec, "Compatibility Matrix"). Raises InvalidInputError.
    """
    return _classify(_load(body, MAX_MANIFEST, "manifest"), "")[1]


def _classify(document: JsonObject, header: str) -> tuple[Kind, str]:
    """The kind and media type: the body's own field, else its structure, else the header."""
    own = media_types.essence(_media_type(document, "mediaType"))
    header = media_types.essence(header) if media_types.is_header_safe(header) else ""
    if own in media_types.SCHEMA1 or header in media_types.SCHEMA1 or document.get("schemaVersion") == 1:
        raise InvalidInputError(
            "this manifest is Docker schema 1, which is not supported: push the image again with a current client"
        )
    has_children, has_config = "manifests" in document, "config" in document or "layers" in document
    stated = own or header
    if stated in media_types.INDEXES or (has_children and own not in media_types.MANIFESTS):
        known = stated in media_types.INDEXES
        return _checked("index", stated if known else media_types.OCI_INDEX, ambiguous=has_config)
    if stated in media_types.IMAGE_MANIFESTS or has_config:
        known = stated in media_types.IMAGE_MANIFESTS
        return _checked("image", stated if known else media_types.OCI_MANIFEST, ambiguous=has_children)
    if own == media_types.OCI_ARTIFACT or (not own and header == media_types.OCI_ARTIFACT):
        return "image", media_types.OCI_ARTIFACT
    return "other", own or header or media_types.JSON


def _checked(kind: Kind, media_type: str, *, ambiguous: bool) -> tuple[Kind, str]:
    # A body that one reader takes for an index and another for an image is how CVE-2021-41190 worked.
    if ambiguous:
        raise InvalidInputError(f"manifest says it is {media_type}, and holds fields of the other kind")
    return kind, media_type


def select_platform(index: Manifest, platform: Platform) -> Descriptor:
    """The child of ``index`` that runs on ``platform``, the best fit first, then the earliest named.

    Raises NotFoundError, listing what there is. The child may be an index itself.
    """
    best = max(index.manifests, key=lambda item: _child_fitness(item, platform), default=None)
    if best is None or _child_fitness(best, platform) == 0:
        available = platforms.listing(item.platform for item in index.manifests)
        raise NotFoundError(f"this image has nothing for {platform}; it has: {available}")
    return best


def _child_fitness(child: Descriptor, platform: Platform) -> int:
    # An artifact (a signature, an attestation) names no platform because it runs nowhere.
    return (
        0 if child.artifact_type and child.platform is None else platforms.fitness(child.platform, platform)
    )


def parse_config(body: bytes) -> ImageConfig:
    """Read an image config (image-spec config.md). Raises InvalidInputError; absent fields become empty."""
    document = _load(body, MAX_CONFIG, "image config")
    rootfs = _optional(document, "rootfs", _object) or {}
    diff_ids = tuple(
        Digest.parse(_text(item, "rootfs.diff_ids")) for item in _list(rootfs, "diff_ids", MAX_DESCRIPTORS)
    )
    history = tuple(
        _history_entry(_object(item, "history")) for item in _list(document, "history", MAX_HISTORY)
    )
    return ImageConfig(_platform(document, "config"), _string(document, "created"), history, diff_ids)


def _history_entry(item: JsonObject) -> HistoryEntry:
    # created_by holds whole shell scripts, so it is shortened where other strings are refused.
    created_by = item.get("created_by") or ""
    comment = item.get("comment") or ""
    return HistoryEntry(
        created_by=_text(created_by, "history.created_by", None)[:_MAX_STRING],
        created=_string(item, "created"),
        comment=_text(comment, "history.comment", None)[:_MAX_STRING],
        empty_layer=item.get("empty_layer") is True,
    )


def _load(body: bytes, limit: int, what: str) -> JsonObject:
    if len(body) > limit:
        raise InvalidInputError(f"{what} has {len(body)} bytes, and at most {limit} are read")
    if body.count(b"{") + body.count(b"[") > _MAX_CONTAINERS:
        raise InvalidInputError(f"{what} has more than {_MAX_CONTAINERS} objects and lists")
    try:
        # Decoded first: json would guess UTF-16 and -32 too, which no runtime reads.
        document = json.loads(body.decode(), parse_constant=_no_constant)
    except RecursionError as error:
        raise InvalidInputError(f"{what} is nested too deeply") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, or an integer with too many digits
        raise InvalidInputError(f"{what} is not JSON: {str(error)[:120]}") from error
    return _object(document, what)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _object(value: object, name: str) -> JsonObject:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{name} is not a JSON object")
    return value


def _optional(document: JsonObject, key: str, read: Callable[[object, str], T]) -> T | None:
    value = document.get(key)
    return None if value is None else read(value, key)


def _list(document: JsonObject, key: str, limit: int) -> list[object]:
    value = document.get(key)
    if value is None:  # Go's encoder writes null for an empty slice
        return []
    if not isinstance(value, list):
        raise InvalidInputError(f"{key} is not a JSON list")
    if len(value) > limit:
        raise InvalidInputError(f"{key} has {len(value)} entries, and at most {limit} are read")
    return value


def _text(value: object, name: str, limit: int | None = _MAX_STRING) -> str:
    if not isinstance(value, str) or (limit is not None and len(value) > limit):
        raise InvalidInputError(f"{name} is not a string of at most {limit or MAX_CONFIG} characters")
    # A lone surrogate cannot be written anywhere; Go's decoder replaces it as well.
    return value if value.isascii() else value.encode(errors="replace").decode()


def _string(document: JsonObject, key: str) -> str:
    value = document.get(key)
    return "" if value is None else _text(value, key)


def _media_type(document: JsonObject, key: str) -> str:
    found = _string(document, key)
    if found and not media_types.is_header_safe(found):
        raise InvalidInputError(f"{key} {found[:80]!r} is not a media type that a header can hold")
    return found


def _annotations(document: JsonObject) -> dict[str, str]:
    found = _optional(document, "annotations", _object) or {}
    if len(found) > _MAX_ANNOTATIONS:
        raise InvalidInputError(
            f"annotations has {len(found)} entries, and at most {_MAX_ANNOTATIONS} are read"
        )
    return {_text(key, "annotations", None): _text(value, key[:80], None) for key, value in found.items()}


def _descriptors(document: JsonObject, key: str) -> tuple[Descriptor, ...]:
    return tuple(_descriptor(item, key) for item in _list(document, key, MAX_DESCRIPTORS))


def _descriptor(value: object, name: str) -> Descriptor:
    item = _object(value, name)
    size = item.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        raise InvalidInputError(f"{name}: size is not an integer from 0 to 2**63 - 1")
    return Descriptor(
        media_type=_media_type(item, "mediaType"),
        digest=Digest.parse(_text(item.get("digest"), f"{name}.digest")),
        size=size,
        platform=_optional(item, "platform", _platform),
        urls=tuple(_text(url, f"{name}.urls") for url in _list(item, "urls", _MAX_URLS)),
        annotations=_annotations(item),
        artifact_type=_media_type(item, "artifactType"),
    )


def _platform(value: object, name: str) -> Platform:
    item = _object(value, name)
    return Platform(_string(item, "os"), _string(item, "architecture"), _string(item, "variant"))
