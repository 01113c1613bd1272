"""What the transfer layer tells whoever watches (metrics, logs); it never counts by itself."""

from __future__ import annotations

from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import PeerId


class TransferHooks:
    """Override what is of interest; each call is cheap and must not raise."""

    def begun(self, repository: Repository, digest: Digest, kind: str) -> None:
        """A blob's fetch begins; ``fetched`` or ``failed`` follows, unless the agent stops. Not told of manifests."""

    def fetched(
        self, repository: Repository, digest: Digest, kind: str, seconds: float, by_source: dict[str, int]
    ) -> None:
        """A blob or manifest (``kind``) was committed; ``by_source`` holds bytes by "peer" and "upstream"."""

    def failed(self, repository: Repository, digest: Digest, kind: str, error: Exception) -> None:
        """A fetch was given up."""

    def verify_failed(self, source: str, digest: Digest, peer: PeerId | None) -> None:
        """Content from ``source`` ("peer", "upstream", "store") did not have its digest."""

    def banned(self, peer: PeerId, reason: str) -> None:
        """A peer will not be asked for a while."""
