"""Messages find the session of their blob, and what one session finds out about members the others hear."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pdist.clock import SystemClock
from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId
from p2pdist.testing.memory_peers import peer_id
from p2pdist.testing.memory_store import MemoryStore
from p2pdist.transfer.swarm_hub import SwarmHub
from p2pdist.wire.swarm_messages import SwarmMessage, Update, encode

ONE, TWO, THREE = (Digest.of(name) for name in (b"one", b"two", b"three"))
ANNA, BERT = peer_id("anna"), peer_id("bert")


@dataclass
class Listener:
    """A session that takes note of what it hears; ``then`` is done on word of members that lag."""

    hub: SwarmHub
    digest: Digest
    claiming: bool = False
    closes: bool = False
    heard: list[tuple[PeerId, SwarmMessage]] = field(default_factory=list)
    gone: list[PeerId] = field(default_factory=list)
    lag: list[tuple[PeerId, ...]] = field(default_factory=list)

    def message(self, sender: PeerId, message: SwarmMessage) -> None:
        self.heard.append((sender, message))

    def lost(self, peer: PeerId) -> None:
        self.gone.append(peer)

    def lagging(self, peers: tuple[PeerId, ...]) -> None:
        self.lag.append(peers)
        if self.closes:
            self.hub.close(self.digest)


def listeners(hub: SwarmHub) -> list[Listener]:
    found = [Listener(hub, digest) for digest in (ONE, TWO, THREE)]
    for listener in found:
        hub.open(listener.digest, listener)
    return found


def test_what_one_session_found_out_the_others_hear_once() -> None:
    hub = SwarmHub(MemoryStore(1 << 20, SystemClock()), SystemClock())
    one, two, three = listeners(hub)
    hub.lagging(TWO, (ANNA, BERT))
    assert one.lag == three.lag == [(ANNA, BERT)]
    assert two.lag == []


def test_a_session_that_ends_on_that_word_keeps_it_from_nobody() -> None:
    hub = SwarmHub(MemoryStore(1 << 20, SystemClock()), SystemClock())
    one, _, three = listeners(hub)
    one.closes = True
    hub.lagging(TWO, (ANNA,))
    hub.lagging(TWO, (BERT,))
    assert one.lag == [(ANNA,)]
    assert three.lag == [(ANNA,), (BERT,)]


def test_word_of_members_that_lag_reaches_the_session_of_its_blob_only() -> None:
    hub = SwarmHub(MemoryStore(1 << 20, SystemClock()), SystemClock())
    one, two, three = listeners(hub)
    update = Update(TWO, lagging=(BERT,))
    assert hub.received(ANNA, encode(update)) is None
    assert two.heard == [(ANNA, update)]
    assert one.heard == three.heard == []
    assert hub.received(ANNA, encode(update)[:-3]) is None  # cut: nobody hears of it
    assert len(two.heard) == 1
