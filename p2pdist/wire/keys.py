"""The cluster key, and the separate keys derived from it.

Rules: the cluster key itself is never used on the wire; each purpose has a key of its own (HKDF-SHA256, RFC 5869), so
that what one protocol reveals is of no use in another. A key's text form is ``p2pdist1-`` and 43 base64url characters.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from p2pdist.errors import InvalidInputError

_PREFIX = "p2pdist1-"


@dataclass(frozen=True, slots=True, repr=False)
class ClusterKey:
    """32 secret bytes that every agent of one cluster holds."""

    raw: bytes

    @classmethod
    def generate(cls) -> ClusterKey:
        return cls(secrets.token_bytes(32))

    @classmethod
    def parse(cls, text: str) -> ClusterKey:
        """Read the text form; raises InvalidInputError without repeating the secret."""
        body = text.strip()
        try:
            if not body.startswith(_PREFIX):
                raise ValueError
            raw = base64.b64decode(body[len(_PREFIX) :] + "=", altchars=b"-_", validate=True)
            if len(raw) != 32:
                raise ValueError
        except (ValueError, binascii.Error):
            raise InvalidInputError(
                "not a cluster key: it is one line of 'p2pdist1-' and 43 characters, as 'p2pdist cluster key' prints it"
            ) from None
        return cls(raw)

    @classmethod
    def open_cluster(cls) -> ClusterKey:
        """The well-known key of clusters with ``insecure_open_cluster``: it protects nothing."""
        return cls(b"p2pdist insecure open cluster 00")

    def text(self) -> str:
        return _PREFIX + base64.urlsafe_b64encode(self.raw).rstrip(b"=").decode()

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose: ``dht``, ``peer-http``."""
        return HKDF(algorithm=SHA256(), length=32, salt=b"p2pdist v1", info=purpose.encode()).derive(self.raw)

    def __repr__(self) -> str:
        return "ClusterKey(...)"
