"""Names of repositories and images (distribution-spec, "Pulling manifests"; distribution/reference grammar).

Always true here: a ``Repository`` or ``Reference`` that exists is well-formed: lower-case path components, a
host with an optional port, a tag of at most 128 characters; so each is safe in URLs and paths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest

DEFAULT_REGISTRY = "docker.io"
_DOCKER_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]{{1,5}}))?\Z")
_MAX_NAME = 255


def looks_like_host(part: str) -> bool:
    """Whether the first path part of an image name is a registry host (it has a dot or port, or is localhost)."""
    return ("." in part or ":" in part or part == "localhost") and parse_registry(
        part, strict=False
    ) is not None


def parse_registry(text: str, *, strict: bool = True) -> str | None:
    """A registry's name as users write it (``host[:port]``), lower-cased, Docker Hub's aliases folded into docker.io.

    Raises InvalidInputError when it is none; with ``strict=False`` returns None instead.
    """
    match = _HOST.match(text) if len(text) <= _MAX_NAME else None
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        if strict:
            raise InvalidInputError(f"registry {text[:_MAX_NAME]!r} is not HOST or HOST:PORT")
        return None
    name = text.lower()
    return DEFAULT_REGISTRY if name in _DOCKER_ALIASES else name


@dataclass(frozen=True, slots=True, order=True)
class Repository:
    """A registry (``docker.io``, ``registry.example.test:5000``) and a path in it (``library/nginx``)."""

    registry: str
    path: str

    @classmethod
    def of(cls, registry: str, path: str) -> Repository:
        """Check both parts; raises InvalidInputError."""
        host = parse_registry(registry)
        assert host is not None
        if len(path) > _MAX_NAME or not _NAME.match(path):
            raise InvalidInputError(
                f"repository name {path[:_MAX_NAME]!r} is not lower-case components joined by '/'"
            )
        return cls(host, path)

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}"


def parse_tag(text: str) -> str:
    """A tag as it is; raises InvalidInputError."""
    if not _TAG.match(text):
        raise InvalidInputError(f"tag {text[:130]!r} is not 1 to 128 of letters, digits, '_', '.', '-'")
    return text


def parse_tag_or_digest(text: str) -> str | Digest:
    """What follows ``manifests/`` in a URL: a digest if it has a colon, else a tag; raises InvalidInputError."""
    return Digest.parse(text) if ":" in text else parse_tag(text)


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """An image as people name it: a repository with a tag, a digest, or both (then the digest decides)."""

    repository: Repository
    tag: str | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``[REGISTRY/]PATH[:TAG][@DIGEST]`` as Docker does (docker.io, library/, latest are implied).

        Raises InvalidInputError.
        """
        if len(text) > 1024:
            raise InvalidInputError("image reference is longer than 1024 characters")
        rest, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        first, slash, remainder = rest.partition("/")
        if slash and looks_like_host(first):
            registry, path = first, remainder
        else:
            registry, path = DEFAULT_REGISTRY, rest
        path, colon, tag = path.partition(":")
        repository = Repository.of(registry, path)
        if repository.registry == DEFAULT_REGISTRY and "/" not in path:
            repository = Repository(DEFAULT_REGISTRY, f"library/{path}")
        if colon:
            return cls(repository, parse_tag(tag), digest)
        return cls(repository, None if digest else "latest", digest)

    @property
    def target(self) -> str | Digest:
        """What to ask the registry for: the digest if there is one, else the tag."""
        if self.digest is not None:
            return self.digest
        assert self.tag is not None
        return self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")
