"""The log line of one pull: what a runtime asked for, where its bytes came from, and how it ended."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from p2pdist.api.target import BlobTarget, ManifestTarget
from p2pdist.oci.digest import Digest
from p2pdist.transfer.content import Source

logger = logging.getLogger("p2pdist.mirror")

CLIENT_LEFT = "the client left"
_MAX_AGENT = 120


@dataclass(slots=True)
class PullRecord:
    """One GET of a manifest or blob. ``outcome`` is "" when all went well; ``started`` is in monotonic seconds; ``left``:
    the client went away, or took nothing for too long."""

    target: ManifestTarget | BlobTarget
    started: float
    digest: Digest | None = None
    status: int = 0
    outcome: str = ""
    stale: bool = False
    left: bool = False
    expected: int = -1
    by_source: dict[Source, int] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether the client got every byte that it was promised."""
        return sum(self.by_source.values()) == self.expected

    @property
    def farthest(self) -> Source:
        """Where the byte with the longest way came from."""
        return next((each for each in (Source.UPSTREAM, Source.PEER) if each in self.by_source), Source.STORE)

    @property
    def verdict(self) -> str:
        """For counting: served, refused (there is no such content, or not now), left (by the client), or failed."""
        if not self.outcome:
            return "served"
        if self.left:
            return "left"
        return "refused" if 400 <= self.status < 500 else "failed"

    def count(self, source: Source, size: int) -> None:
        """``size`` more bytes have gone to the client."""
        self.by_source[source] = self.by_source.get(source, 0) + size

    def log(self, client: str, now: float) -> None:
        """Write the line; ``client`` is its User-Agent, ``now`` in monotonic seconds."""
        level = self._level()
        if not logger.isEnabledFor(level):
            return
        logger.log(
            level,
            "%s %s %s",
            self._verb(),
            self.target.kind.value,
            self._name(),
            extra={"fields": self._fields(client, now)},
        )

    def _level(self) -> int:
        broken = bool(self.outcome) and self.status < 400 and self.outcome != CLIENT_LEFT
        return logging.WARNING if broken or self.status >= 500 else logging.INFO

    def _verb(self) -> str:
        if not self.outcome:
            return "served"
        return "refused" if self.status >= 400 else "broke off"

    def _reference(self) -> str | Digest:
        return self.target.reference if isinstance(self.target, ManifestTarget) else self.target.digest

    def _name(self) -> str:
        reference = self._reference()
        return f"{self.target.repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"

    def _fields(self, client: str, now: float) -> dict[str, object]:
        reference = self._reference()
        fields: dict[str, object] = {
            "registry": self.target.repository.registry,
            "repository": self.target.repository.path,
            **({} if isinstance(reference, Digest) else {"tag": reference}),
            "digest": str(self.digest or (reference if isinstance(reference, Digest) else "")),
            "status": self.status,
            "bytes": sum(self.by_source.values()),
            **{f"{source.value}_bytes": self.by_source.get(source, 0) for source in Source},
            "seconds": round(now - self.started, 4),
            "client": client[:_MAX_AGENT],
        }
        if self.stale:
            fields["stale"] = True
        if self.outcome:
            fields["outcome"] = self.outcome
        return fields
