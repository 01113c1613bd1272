"""The shape of content in motion: what every source of bytes (peer or upstream) hands to the transfer layer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from p2pdist.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class BlobStat:
    """What is known of a blob without its bytes. ``media_type`` is "" when the source named none."""

    digest: Digest
    size: int
    media_type: str = ""


class ContentStream(Protocol):
    """An open body. Used inside the context manager that gave it; iterated at most once.

    ``size`` is the whole blob's size in bytes, ``start`` the offset of the first byte that ``chunks`` yields.
    ``chunks`` ends exactly at the end that was asked for; else it raises SourceError (cut, stalled, wrong length).
    """

    @property
    def size(self) -> int: ...

    @property
    def start(self) -> int: ...

    @property
    def media_type(self) -> str: ...

    def chunks(self) -> AsyncIterator[bytes]: ...
