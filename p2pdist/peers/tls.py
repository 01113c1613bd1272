"""TLS between agents: both sides show a certificate of the cluster's own authority.

Host names are not compared: peers are found by address, and whoever has a certificate of this authority is a member.
Who a peer is, the cluster key proves on top (wire/http_auth.py).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from p2pdist.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PeerTls:
    """PEM files: this agent's certificate and key, and the authority that signs those of all agents."""

    certificate: Path
    key: Path
    authority: Path

    def client_context(self) -> ssl.SSLContext:
        """For connecting to peers; raises ConfigError."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def server_context(self) -> ssl.SSLContext:
        """For the peer listener; raises ConfigError."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cafile=self.authority)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"peer.tls_ca_file {self.authority} cannot be used: {error}") from error
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"peer.tls_cert_file {self.certificate} and peer.tls_key_file {self.key} cannot be used together: {error}"
            ) from error
        return context
