"""Credentials for requests to other peers, in the time of whoever is asked."""

from __future__ import annotations

import secrets

from p2pdist.clock import Clock
from p2pdist.errors import DeniedError, InvalidInputError, ProtocolError
from p2pdist.peers.routes import name_of
from p2pdist.records import PeerId
from p2pdist.wire.http_auth import (
    NONCE_BYTES,
    Credentials,
    HttpAuth,
    PeerOffsets,
    SteadyWall,
    Target,
)


class Signer:
    """Makes them, and remembers by how much the clocks of others differ from this host's."""

    def __init__(self, auth: HttpAuth, clock: Clock) -> None:
        self._auth = auth
        self._clock = clock
        self._wall = SteadyWall(clock.wall(), clock.now())
        self._offsets = PeerOffsets()

    def sign(self, target: Target, to: PeerId | None, *, time_of: PeerId | None = None) -> Credentials:
        """Fresh ones for a request to ``to`` (None: to whoever answers); ``time_of``: whose time it is, if another's."""
        time_ms, clock_of = self._now_ms(), time_of or to
        if clock_of is not None:
            time_ms = self._offsets.time_for(clock_of, time_ms)
        return self._auth.sign(target, to, time_ms, secrets.token_bytes(NONCE_BYTES))

    def learn(self, header: str, refused: Credentials, peer: PeerId | None) -> PeerId:
        """Adopt the time that a refusal proves (the value of CHALLENGE_HEADER); who refused.

        Raises DeniedError (no member of the cluster did), ProtocolError (another member than ``peer``).
        """
        try:
            challenge = self._auth.read_challenge(header, refused.nonce)
        except InvalidInputError as error:
            raise DeniedError(
                f"peer {name_of(peer)} refused: it has another cluster key, or is not an agent ({error})"
            ) from error
        if peer is not None and challenge.peer != peer:
            raise ProtocolError(f"peer {challenge.peer.short} answers where peer {peer.short} was expected")
        self._offsets.learn(challenge, self._now_ms())
        return challenge.peer

    def _now_ms(self) -> int:
        return self._wall.ms(self._clock.now())
