"""What a request to the mirror is about: its registry, repository and content, parsed once. Pure.

A request names its registry in one of three ways, the first that applies (docs/architecture.md):
1. ``?ns=HOST`` (containerd); 2. a first path part that looks like a host (Podman, CRI-O, skopeo, curl);
3. neither: docker.io (Docker's registry-mirrors), where a name of one part stands for ``library/NAME``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

from p2pdist.api.responses import Refusal
from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.errors import ErrorCode
from p2pdist.oci.reference import (
    DEFAULT_REGISTRY,
    Repository,
    looks_like_host,
    parse_registry,
    parse_tag,
)

API_ROOT = "/v2/"
_MAX_PATH = 1024


class Kind(enum.StrEnum):
    """The kinds of content of the pull API; the values are what metrics and logs call them."""

    MANIFEST = "manifest"
    BLOB = "blob"
    TAGS = "tags"
    REFERRERS = "referrers"


@dataclass(frozen=True, slots=True)
class ManifestTarget:
    """A manifest, by tag or digest."""

    repository: Repository
    reference: str | Digest
    kind: ClassVar[Kind] = Kind.MANIFEST


@dataclass(frozen=True, slots=True)
class BlobTarget:
    """A blob."""

    repository: Repository
    digest: Digest
    kind: ClassVar[Kind] = Kind.BLOB


@dataclass(frozen=True, slots=True)
class TagsTarget:
    """The list of a repository's tags."""

    repository: Repository
    kind: ClassVar[Kind] = Kind.TAGS


@dataclass(frozen=True, slots=True)
class ReferrersTarget:
    """What refers to a manifest."""

    repository: Repository
    digest: Digest
    kind: ClassVar[Kind] = Kind.REFERRERS


AnyTarget = ManifestTarget | BlobTarget | TagsTarget | ReferrersTarget


def parse_target(path: str, ns: str | None) -> AnyTarget:
    """Read a decoded path below ``/v2/`` and the ``ns`` parameter (None: absent).

    Raises Refusal: 404 for a path that is none of the pull API's, 400 for a malformed name, tag or digest.
    Source: distribution-spec, "Endpoints" (end-2, end-3, end-8, end-12).
    """
    if len(path) > _MAX_PATH:
        raise Refusal(400, ErrorCode.NAME_INVALID, f"the path is longer than {_MAX_PATH} characters")
    # The name may hold any of these words itself, so the path is read from its end.
    parts = path.removeprefix(API_ROOT).rsplit("/", 2)
    if not path.startswith(API_ROOT) or len(parts) != 3:
        raise _unknown(path)
    name, endpoint, reference = parts
    match endpoint:
        case "manifests":
            return ManifestTarget(_repository(name, ns), _manifest_reference(reference))
        case "blobs":
            return BlobTarget(_repository(name, ns), _digest(reference))
        case "referrers":
            return ReferrersTarget(_repository(name, ns), _digest(reference))
        case "tags" if reference == "list":
            return TagsTarget(_repository(name, ns))
    raise _unknown(path)


def _unknown(path: str) -> Refusal:
    return Refusal(404, ErrorCode.UNSUPPORTED, f"{path[:200]!r} is not a path of the registry pull API")


def _repository(name: str, ns: str | None) -> Repository:
    try:
        registry, path = _split(name, ns)
        if registry == DEFAULT_REGISTRY and "/" not in path:
            path = f"library/{path}"
        return Repository.of(registry, path)
    except InvalidInputError as error:
        raise Refusal(400, ErrorCode.NAME_INVALID, str(error)) from error


def _split(name: str, ns: str | None) -> tuple[str, str]:
    if ns is not None:
        return parse_registry(ns) or "", name
    first, slash, rest = name.partition("/")
    if not looks_like_host(first):
        return DEFAULT_REGISTRY, name
    if not slash or not rest:
        raise InvalidInputError(f"the path names the registry {first!r} but no repository in it")
    return parse_registry(first) or "", rest


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidInputError as error:
        raise Refusal(400, ErrorCode.DIGEST_INVALID, str(error)) from error


def _manifest_reference(text: str) -> str | Digest:
    if ":" in text:
        return _digest(text)
    try:
        return parse_tag(text)
    except InvalidInputError as error:
        raise Refusal(400, ErrorCode.TAG_INVALID, str(error)) from error
