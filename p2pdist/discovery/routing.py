"""Who this node knows: kademlia's routing table, kept to those heard from directly, with what is known of each.

Always true here:
- A contact enters the table only when an authentic datagram came from it. What others say about it (hearsay) makes a
  candidate for one lookup, nothing more.
- A contact that misses one answer is suspected: it leaves the table at once and hearsay about it is not taken. A word
  from itself clears it. Suspects are asked again, ever less often, and then forgotten.
- ``find_neighbors`` gives the truly nearest contacts (the package's own gives those of the nearest buckets).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from p2pdist.records import ContentKey, Endpoint, PeerId
from p2pdist.wire.codec import encode_contact

PROBE_AFTER = (1.0, 5.0, 30.0, 120.0, 600.0)
_MAX_SUSPECTS = 1024
_NEVER = float("-inf")
_Range = tuple[int, int]


class RoundTrip:
    """A smoothed round-trip time and its variation, in seconds (RFC 6298, section 2)."""

    __slots__ = ("smoothed", "variation")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variation = 0.0

    def sample(self, seconds: float) -> None:
        """Take one measurement in."""
        if self.smoothed is None:
            self.smoothed, self.variation = seconds, seconds / 2
            return
        self.variation += (abs(self.smoothed - seconds) - self.variation) / 4
        self.smoothed += (seconds - self.smoothed) / 8

    def bound(self, variations: float, floor: float, cap: float) -> float:
        """How long an answer may take: the smoothed time and so many variations, within bounds."""
        if self.smoothed is None:
            return cap
        return min(max(self.smoothed + variations * self.variation, floor), cap)


class Neighbour(Node):  # type: ignore[misc]  # kademlia has no type information
    """A node of the DHT and what is known of it. ``heard`` is when it last sent something, None if it never did;
    ``since``, when it was first heard from since it started."""

    id: bytes
    long_id: int
    ip: str
    port: int

    def __init__(self, peer: PeerId, endpoint: Endpoint) -> None:
        super().__init__(peer.raw, endpoint.host, endpoint.port)
        self.peer = peer
        self.endpoint = endpoint
        self.rtt = RoundTrip()
        self.heard: float | None = None
        self.since = float("-inf")
        self.session = b""
        self._encoded = b""

    @property
    def encoded(self) -> bytes:
        """Its id and endpoint, as told to others."""
        if not self._encoded:
            self._encoded = encode_contact(self.peer, self.endpoint)
        return self._encoded

    def move(self, endpoint: Endpoint) -> None:
        """It is reached elsewhere now."""
        self.endpoint, self.ip, self.port = endpoint, endpoint.host, endpoint.port
        self._encoded = b""


@dataclass(slots=True)
class Suspect:
    """A contact that missed an answer; ``due`` is when it is asked again."""

    neighbour: Neighbour
    probes: int
    due: float


class ContactTable(RoutingTable):  # type: ignore[misc]  # kademlia has no type information
    """The routing table of the node ``me``; all times are the caller's ``now``. ``changed`` is when a node was last heard
    from for the first time, or after it was restarted. Of each bucket it keeps when that was so, and when a search
    last named nobody new there (``searched``)."""

    def __init__(self, me: PeerId, bucket: int) -> None:
        self._known: dict[bytes, Neighbour] = {}
        self._suspects: OrderedDict[bytes, Suspect] = OrderedDict()
        self.changed = float("-inf")
        self._changed: dict[_Range, float] = {}
        self._searched: dict[_Range, float] = {}
        super().__init__(None, bucket, Node(me.raw))

    def __len__(self) -> int:
        return len(self._known)

    def heard(self, peer: PeerId, endpoint: Endpoint, session: bytes, now: float) -> tuple[Neighbour, bool]:
        """An authentic datagram came from ``peer``. True when it is new here, back, or has been restarted."""
        known = self._met(peer)
        neighbour = known or self._cleared(peer) or Neighbour(peer, endpoint)
        news = known is None or neighbour.session != session
        if neighbour.session != session:
            self.changed = neighbour.since = now
            self._changed[self._bucket_of(neighbour.long_id).range] = now
        if neighbour.endpoint is not endpoint and neighbour.endpoint != endpoint:
            neighbour.move(endpoint)
        neighbour.heard, neighbour.session = now, session
        if known is None:
            self.add_contact(neighbour)
        return neighbour, news

    def hearsay(self, peer: PeerId, endpoint: Endpoint) -> Neighbour | None:
        """Someone says that ``peer`` is at ``endpoint``: the contact if known, a candidate if not, None for a suspect
        or this node itself."""
        known = self._met(peer)
        if known is not None:
            return known
        if peer.raw in self._suspects or peer.raw == self.node.id:
            return None
        return Neighbour(peer, endpoint)

    def suspect(self, neighbour: Neighbour, now: float) -> None:
        """It missed an answer: do not wait for it again until it is heard from."""
        self.remove_contact(neighbour)
        suspect = self._suspects.get(neighbour.id)
        if suspect is None:
            self._suspects[neighbour.id] = Suspect(neighbour, 0, now + PROBE_AFTER[0])
            while len(self._suspects) > _MAX_SUSPECTS:
                self._suspects.popitem(last=False)

    def alive(self, neighbour: Neighbour) -> bool:
        """Whether it has been heard from and is not suspected."""
        return neighbour.heard is not None and neighbour.id not in self._suspects

    def is_suspect(self, peer: PeerId) -> bool:
        return peer.raw in self._suspects

    def due_suspects(self, now: float, most: int) -> list[Neighbour]:
        """Suspects to ask again now; each call counts as having asked them. One asked often enough is forgotten."""
        due = [suspect for suspect in self._suspects.values() if suspect.due <= now][:most]
        asked = []
        for suspect in due:
            suspect.probes += 1
            if suspect.probes > len(PROBE_AFTER):
                del self._suspects[suspect.neighbour.id]
            else:
                suspect.due = now + PROBE_AFTER[min(suspect.probes, len(PROBE_AFTER) - 1)]
                asked.append(suspect.neighbour)
        return asked

    def searched(self, key: ContentKey, began: float, *, news: bool) -> None:
        """A search near ``key`` is over; ``news``: it named someone never heard from."""
        bucket = self._bucket_of(int.from_bytes(key.raw, "big"))
        self._searched[bucket.range] = float("-inf") if news else began

    def settled(self, key: ContentKey, most: int) -> bool:
        """Whether the ``most`` nearest to ``key`` are known, as far as one can know: in each bucket that may hold one of
        them there was room for all, and since someone new came there a search has named nobody unheard of."""
        unsure = [bucket for bucket in self.buckets if not self._is_settled(bucket)]
        if not unsure:
            return True
        nearest = self.find_neighbors(Node(key.raw), most)
        if len(nearest) < most:
            return False
        target = int.from_bytes(key.raw, "big")
        reach = nearest[-1].long_id ^ target
        return all(_least_distance(bucket, target) > reach for bucket in unsure)

    def has_room(self, neighbour: Neighbour) -> bool:
        """Whether it would be a contact if it were heard from."""
        bucket = self._bucket_of(neighbour.long_id)
        return len(bucket) < self.ksize or bool(bucket.has_in_range(self.node))

    def known(self, peer: PeerId) -> Neighbour | None:
        """The contact, if it is in the table."""
        return self._known.get(peer.raw)

    def contacts(self) -> list[Neighbour]:
        """All that are in the table."""
        return list(self._known.values())

    def quiet(self, before: float, most: int) -> list[Neighbour]:
        """Contacts not heard from since ``before``, the quietest first."""
        quiet = [n for n in self._known.values() if n.heard is not None and n.heard < before]
        return heapq.nsmallest(most, quiet, key=lambda n: n.heard or 0.0)

    def add_contact(self, node: Neighbour) -> None:
        """Put it in its bucket; a full bucket keeps it as a replacement unless the bucket may split."""
        bucket = self.buckets[self.get_bucket_for(node)]
        while not bucket.add_node(node):
            if not bucket.has_in_range(self.node) or bucket.range[0] == bucket.range[1]:
                return
            self.split_bucket(self.get_bucket_for(node))
            self._recount()
            bucket = self.buckets[self.get_bucket_for(node)]
        self._known[node.id] = node

    def remove_contact(self, node: Neighbour) -> None:
        """Take it out; a replacement takes its place."""
        bucket = self.buckets[self.get_bucket_for(node)]
        bucket.remove_node(node)
        if self._known.pop(node.id, None) is not None:
            for other in bucket.get_nodes():
                self._known.setdefault(other.id, other)

    def _bucket_of(self, place: int) -> KBucket:
        return next(bucket for bucket in self.buckets if place <= bucket.range[1])

    def _is_settled(self, bucket: KBucket) -> bool:
        changed, searched = (marks.get(bucket.range, _NEVER) for marks in (self._changed, self._searched))
        return len(bucket) < self.ksize and changed < searched

    def get_bucket_for(self, node: Node) -> int:
        for index, bucket in enumerate(self.buckets):
            if node.long_id <= bucket.range[1]:
                return index
        raise AssertionError("the buckets cover all ids")

    def find_neighbors(
        self, node: Node, k: int | None = None, exclude: Neighbour | None = None
    ) -> list[Neighbour]:
        target = node.long_id
        skip = exclude.id if exclude is not None else None
        others = [n for n in self._known.values() if n.id != skip]
        return sorted(others, key=lambda n: n.long_id ^ target)[: k or self.ksize]

    def nearer(self, key: ContentKey, but: PeerId) -> Neighbour | None:
        """The contact nearest to ``key``, without ``but``, if it is nearer than this node."""
        target = int.from_bytes(key.raw, "big")
        nearest, distance = None, self.node.long_id ^ target
        for neighbour in self._known.values():
            if neighbour.long_id ^ target < distance and neighbour.id != but.raw:
                nearest, distance = neighbour, neighbour.long_id ^ target
        return nearest

    def _met(self, peer: PeerId) -> Neighbour | None:
        """The contact, in the table or waiting for a place in it."""
        known = self._known.get(peer.raw)
        if known is None:
            bucket = self.buckets[self.get_bucket_for(Node(peer.raw))]
            waiting: Neighbour | None = bucket.replacement_nodes.get(peer.raw)
            return waiting
        return known

    def _cleared(self, peer: PeerId) -> Neighbour | None:
        suspect = self._suspects.pop(peer.raw, None)
        return suspect.neighbour if suspect else None

    def _recount(self) -> None:
        self._known = {n.id: n for bucket in self.buckets for n in bucket.get_nodes()}


def _least_distance(bucket: KBucket, target: int) -> int:
    """How near to ``target`` a node in the bucket's range could be."""
    low, high = map(int, bucket.range)
    bits = (high - low + 1).bit_length() - 1  # the package's lowest bucket is one id wider than the others
    return ((target ^ low) >> bits) << bits
