"""Where the swarm's messages meet the blobs they are about.

Always true here: one session per blob that is being fetched; a message about any other blob is answered with what the
store knows. Bounded: sessions by the fetches in progress, neighbours by MAX_MEMBERS a session. A message that is not
understood is left out: the log tells of a kind that is unknown (a later version's) once per peer, of faults once a minute.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from itertools import takewhile
from typing import Protocol

from p2pdist.clock import Clock, SystemClock
from p2pdist.discovery.limits import Seldom
from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.peers.swarm_port import SwarmLinks, Work
from p2pdist.records import PeerId, Provider
from p2pdist.store.port import Store
from p2pdist.swarm.geometry import Geometry
from p2pdist.wire.swarm_messages import Join, Leave, SwarmMessage, UnknownKindError, decode, encode

logger = logging.getLogger(__name__)
_MAX_NAMED = 1024


class Session(Protocol):
    """One blob's swarm on this host."""

    def message(self, sender: PeerId, message: SwarmMessage) -> None: ...

    def lost(self, peer: PeerId) -> None: ...

    def lagging(self, peers: tuple[PeerId, ...]) -> None:
        """This host found that these members, it may be itself, cannot keep up."""

    @property
    def claiming(self) -> bool:
        """Whether there are pieces that nobody has or fetches."""


class SwarmHub:
    """Implements peers.swarm_port.SwarmInbox."""

    def __init__(self, store: Store, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._seldom = Seldom()
        self._named: OrderedDict[PeerId, None] = OrderedDict()
        self._links: SwarmLinks | None = None
        self._own: Provider | None = None
        self._sessions: dict[Digest, Session] = {}

    @property
    def own(self) -> Provider:
        """How others reach this agent."""
        assert self._own is not None, "not connected"
        return self._own

    def connect(self, links: SwarmLinks, own: Provider) -> None:
        """Set the sending side and who this agent is; once, before the first session."""
        self._links, self._own = links, own

    def open(self, digest: Digest, session: Session) -> None:
        """From now on, messages about the blob go to the session."""
        self._sessions[digest] = session

    def gives_way(self, digest: Digest) -> bool:
        """Whether a session that began before this blob's still has something to ask of upstream."""
        earlier = takewhile(lambda each: each != digest, self._sessions)
        return any(self._sessions[each].claiming for each in earlier)

    def close(self, digest: Digest) -> None:
        self._sessions.pop(digest, None)

    def send(self, provider: Provider, frame: bytes) -> None:
        """See SwarmLinks.send."""
        if self._links is not None:
            self._links.send(provider, frame)

    def received(self, sender: PeerId, frame: bytes) -> Work | None:
        """As SwarmInbox.received."""
        try:
            message = decode(frame)
        except UnknownKindError:
            self._unknown_kind(sender)
            return None
        except InvalidInputError as error:
            if self._seldom.due("bad", self._clock.now()):
                logger.warning("peer %s sent a bad swarm message: %s", sender.short, error)
            return None
        if isinstance(message, Join) and message.sender.peer != sender:
            if self._seldom.due("posed", self._clock.now()):
                logger.warning("peer %s posed as %s", sender.short, message.sender.peer.short)
            return None
        session = self._sessions.get(message.digest)
        if session is not None:
            session.message(sender, message)
        elif isinstance(message, Join) and message.answer:
            return self._answer(message)
        return None

    def _unknown_kind(self, sender: PeerId) -> None:
        if sender not in self._named:
            logger.info(
                "peer %s sends swarm messages of a kind that this version does not know", sender.short
            )
            self._named[sender] = None
            if len(self._named) > _MAX_NAMED:
                self._named.popitem(last=False)

    async def _answer(self, join: Join) -> None:
        info = await self._store.stat(join.digest)
        if info is None or not info.shared or info.size != join.size:
            self.send(join.sender, encode(Leave(join.digest)))
            return
        have = frozenset(range(Geometry.of(info.size).count))
        self.send(join.sender, encode(Join(join.digest, info.size, self.own, have)))

    def lagging(self, digest: Digest, peers: tuple[PeerId, ...]) -> None:
        """What this host found out in the session for one blob holds in the others."""
        for each, session in list(self._sessions.items()):
            if each != digest:
                session.lagging(peers)

    def lost(self, peer: PeerId) -> None:
        """As SwarmInbox.lost."""
        for session in list(self._sessions.values()):
            session.lost(peer)
