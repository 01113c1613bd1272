"""Descriptors and platforms (OCI image-spec, descriptor.md and image-index.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pdist.oci.digest import Digest


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """What an image runs on: ``os/architecture[/variant]``."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content: its media type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""
