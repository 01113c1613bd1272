"""What a DHT node is told when it is made, and the numbers it works with. Durations are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from p2pdist.errors import InvalidInputError
from p2pdist.records import MAX_ZONE, PeerId


@dataclass(frozen=True, slots=True)
class Tuning:
    """The DHT's numbers. The defaults were tuned with tests/bench_discovery.py, so that among 300 members, a tenth of them
    freshly dead, every record announced a second ago is found, half of them within 20 ms and 99 % within 100 ms.

    A record lives on the ``replicas`` nearest members and is found when ``enough`` of them have told what they hold.
    ``hedge``: a contact that has not answered for so long is no longer waited for by this lookup, though its answer
    still counts. ``patience``: one that has not answered for so long is suspected. Both grow with the measured
    round-trip time, between the bounds given here.
    """

    bucket: int = 20
    replicas: int = 8
    alpha: int = 4
    enough: int = 3
    hedge_floor: float = 0.004
    stranger_hedge: float = 0.03
    patience_floor: float = 0.05
    patience_cap: float = 0.3
    deadline: float = 0.6
    ttl: float = 1800.0
    renew_every: float = 600.0
    announce_rate: float = 50.0
    announce_burst: float = 100.0
    probe_every: float = 15.0
    refresh_every: float = 300.0
    lonely_retry: float = 0.5
    lonely_retry_cap: float = 30.0
    close_within: float = 2.0
    start_within: float = 1.0


@dataclass(frozen=True, slots=True, repr=False)
class DiscoverySettings:
    """One node. ``key`` is ``ClusterKey.derive("dht")``; ``listen_port`` 0 takes any free port.

    ``advertise`` is ``host:port`` or "" for the address that datagrams come from; ``bootstrap`` holds ``ip:port``,
    ``name:port`` or ``dns:name:port``; ``snapshot`` is the file that keeps the contacts over restarts.
    """

    peer: PeerId
    key: bytes
    listen_host: str
    listen_port: int
    advertise: str = ""
    bootstrap: tuple[str, ...] = ()
    zone: str = ""
    snapshot: Path | None = None
    seed: int | None = None
    tuning: Tuning = Tuning()

    def __post_init__(self) -> None:
        if len(self.key) != 32:
            raise InvalidInputError(f"the DHT's key is 32 bytes, not {len(self.key)}")
        if len(self.zone) > MAX_ZONE or not self.zone.isprintable():
            raise InvalidInputError(
                f"a zone is at most {MAX_ZONE} printable characters; got {self.zone[:80]!r}"
            )
