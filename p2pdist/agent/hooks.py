"""What happens, as metrics and log lines: the hooks of the layers, put on one ``Metrics``."""

from __future__ import annotations

import logging

from p2pdist.api.peer import PeerServerHooks
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.peers.http_client import PeerClientHooks
from p2pdist.records import PeerId
from p2pdist.telemetry.metrics import Metrics
from p2pdist.transfer.hooks import TransferHooks
from p2pdist.wire.http_verifier import Refusal

logger = logging.getLogger("p2pdist.transfer")


class CountTransfers(TransferHooks):
    """One log line per fetch: what, where from, how long."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def fetched(
        self, repository: Repository, digest: Digest, kind: str, seconds: float, by_source: dict[str, int]
    ) -> None:
        fields = {
            "registry": repository.registry,
            "repository": repository.path,
            "digest": str(digest),
            "seconds": round(seconds, 4),
            **{f"{source}_bytes": count for source, count in by_source.items()},
        }
        logger.info("fetched %s %s@%s", kind, repository, digest.short, extra={"fields": fields})

    def failed(self, repository: Repository, digest: Digest, kind: str, error: Exception) -> None:
        logger.warning("could not fetch %s %s@%s: %s", kind, repository, digest, error)

    def verify_failed(self, source: str, digest: Digest, peer: PeerId | None) -> None:
        self._metrics.verify_failed(source)
        who = f"peer {peer}" if peer else source
        logger.error("content from %s is not %s; it was thrown away", who, digest)

    def banned(self, peer: PeerId, reason: str) -> None:
        self._metrics.banned()
        logger.error("peer %s is banned for a while: it %s", peer, reason)


class CountPeerClient(PeerClientHooks):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def received(self, peer: PeerId, size: int) -> None:
        self._metrics.received("peer", size)


class CountPeerServer(PeerServerHooks):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def sent(self, peer: PeerId, size: int) -> None:
        self._metrics.sent_to_peer(size)

    def refused(self, reason: Refusal) -> None:
        self._metrics.peer_refused()

    def busy(self, peer: PeerId) -> None:
        self._metrics.peer_busy()
