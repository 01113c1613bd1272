"""What this node answers to the requests of others. Synchronous: a record store, the contacts, and two limits.

Bodies, by method (request -> answer):
    PING      ()                                  -> ()
    FIND      (key, 0 nothing|1 providers|2 tags) -> (contacts, records)
    ANNOUNCE  (key, ttl in ms, complete, zone,    -> (kept, earlier, established, records[, contact])
               whether to tell the records)
    PUT_TAG   (key, ttl in ms, record)            -> (kept,)
    RENEW     (ttl in ms, keys)                   -> (the keys that have no record of the sender,)
    WITHDRAW  (keys,)                             -> ()
    LEAVE     ()                                  -> ()

Rules: a record's peer is the sender of the datagram, its endpoint the one the datagram names or comes from (what it
names only where others may reach it there). Each sender
may ask, and may write, only so often; beyond that there is no answer. An answer always fits in one datagram.
The contact in the answer to ANNOUNCE is the nearest to the key that this node knows, if nearer than itself: who
announced without a search, and does not know it, has to search. Both last fields of ANNOUNCE may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from kademlia.node import Node

from p2pdist.clock import Clock
from p2pdist.discovery.addresses import reached_at
from p2pdist.discovery.limits import PerSender
from p2pdist.discovery.records import RecordStore
from p2pdist.discovery.routing import ContactTable
from p2pdist.errors import InvalidInputError
from p2pdist.records import MAX_RECORD_BYTES, MAX_ZONE, ContentKey, Endpoint, PeerId, Provider
from p2pdist.wire import codec
from p2pdist.wire.datagram import MAX_PAYLOAD
from p2pdist.wire.dht_messages import Message, Method

Body = tuple[object, ...]

NOTHING, PROVIDERS, TAGS = 0, 1, 2
KEYS_PER_MESSAGE = 48
ROOM = MAX_PAYLOAD - 120
ROOM_BESIDE_CONTACT = ROOM - 41
CONTACTS = 12
MAX_TOLD = 32
CONTACTS_BESIDE_RECORDS = 8
_MAX_TTL_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Per sender: requests and written records per second, and how many of each in a burst."""

    requests: float = 2000.0
    requests_burst: float = 4000.0
    writes: float = 1000.0
    writes_burst: float = 4000.0


class Service:
    """Answers for one node."""

    def __init__(
        self, records: RecordStore, table: ContactTable, clock: Clock, limits: Limits = Limits()
    ) -> None:
        self._records = records
        self._table = table
        self._clock = clock
        self._asks = PerSender(limits.requests, limits.requests_burst)
        self._writes = PerSender(limits.writes, limits.writes_burst)

    def answer(self, message: Message, source: Endpoint) -> Body | None:
        """The answer's body; None when the sender asks too often. Raises InvalidInputError for a malformed request."""
        if not self._asks.take(message.sender.raw, 1, self._clock.now()):
            return None
        body = message.body
        match message.method:
            case Method.FIND:
                return self._find(message.sender, body)
            case Method.ANNOUNCE:
                return self._announce(message, source)
            case Method.PUT_TAG:
                return self._put_tag(message)
            case Method.RENEW:
                return self._renew(message)
            case Method.WITHDRAW:
                keys = codec.split_keys(codec.as_tuple(body, 1)[0], KEYS_PER_MESSAGE)
                self._records.withdraw(message.sender, keys)
            case Method.LEAVE:
                self._records.leave(message.sender)
                self._forget(message.sender)
            case _:
                pass
        return ()

    def _find(self, sender: PeerId, body: Body) -> Body:
        fields = codec.as_tuple(body, 2)
        key, wanted = codec.as_key(fields[0]), codec.as_int(fields[1], NOTHING, TAGS)
        now = self._clock.now()
        holds = wanted != NOTHING and self._records.holds(key, now, but=sender)
        most = CONTACTS_BESIDE_RECORDS if holds else CONTACTS
        near = self._table.find_neighbors(Node(key.raw), most, self._table.known(sender))
        contacts = [neighbour.encoded for neighbour in near]
        room = ROOM - sum(len(contact) + 3 for contact in contacts)
        return contacts, self._held(key, wanted, sender, room, now) if holds else []

    def _announce(self, message: Message, source: Endpoint) -> Body | None:
        fields = codec.as_tuple(message.body, 4)
        key, ttl = codec.as_key(fields[0]), codec.as_int(fields[1], 0, _MAX_TTL_MS)
        now = self._clock.now()
        if not self._writes.take(message.sender.raw, 1, now):
            return None
        provider = Provider(
            message.sender,
            (reached_at(message.endpoint, source),),
            codec.as_text(fields[3], MAX_ZONE),
            codec.as_bool(fields[2]),
        )
        placed = self._records.put(key, provider, ttl / 1000, now)
        told = len(fields) < 5 or codec.as_bool(fields[4])
        records = self._held(key, PROVIDERS, message.sender, ROOM_BESIDE_CONTACT, now) if told else []
        answer = (placed.kept, placed.earlier, placed.established, records)
        nearer = self._table.nearer(key, but=message.sender)
        return answer if nearer is None else (*answer, nearer.encoded)

    def _put_tag(self, message: Message) -> Body | None:
        fields = codec.as_tuple(message.body, 3)
        key, ttl = codec.as_key(fields[0]), codec.as_int(fields[1], 0, _MAX_TTL_MS)
        if not self._writes.take(message.sender.raw, 1, self._clock.now()):
            return None
        record = codec.decode_tag_record(codec.as_bytes(fields[2], MAX_RECORD_BYTES))
        if record.peer != message.sender:
            raise InvalidInputError("a tag record in another peer's name")
        return (self._records.put(key, record, ttl / 1000, self._clock.now()).kept,)

    def _renew(self, message: Message) -> Body | None:
        fields = codec.as_tuple(message.body, 2)
        ttl, keys = codec.as_int(fields[0], 0, _MAX_TTL_MS), codec.split_keys(fields[1], KEYS_PER_MESSAGE)
        if not self._writes.take(message.sender.raw, len(keys), self._clock.now()):
            return None
        return (codec.join_keys(self._records.renew(message.sender, keys, ttl / 1000, self._clock.now())),)

    def _held(self, key: ContentKey, wanted: int, asker: PeerId, room: int, now: float) -> list[bytes]:
        if wanted == TAGS:
            tags = self._records.tags(key, now, but=asker)
            return codec.fitting([codec.encode_tag_record(tag) for tag in tags], room)
        return self._records.told(key, MAX_TOLD, room, now, but=asker)

    def _forget(self, sender: PeerId) -> None:
        contact = self._table.known(sender)
        if contact is not None:
            self._table.remove_contact(contact)


def as_contact(value: object) -> tuple[PeerId, Endpoint] | None:
    """One of the contacts of an answer; None for one of no use (a later version's, or malformed)."""
    try:
        return codec.decode_contact(value)
    except InvalidInputError:
        return None
