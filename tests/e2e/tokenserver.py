"""A Docker token server for the lab's private registry: ``python -m tests.e2e.tokenserver ADDRESS PORT CERT KEY``.

It signs what a known user asks for (distribution's spec/auth/token), and gives strangers 401.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509 import load_pem_x509_certificate

SERVICE = "e2e-registry"
ISSUER = "e2e-issuer"
USERS = {"puller": "pull-s3cret", "pusher": "push-s3cret"}
ACTIONS = {"puller": {"pull"}, "pusher": {"pull", "push"}}
LIFE = 60


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """JSON web tokens with ES256 and the certificate in the header, as distribution reads them."""

    def __init__(self, certificate: Path, key: Path) -> None:
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self._key = loaded
        leaf = load_pem_x509_certificate(certificate.read_bytes())
        self._chain = [base64.b64encode(leaf.public_bytes(serialization.Encoding.DER)).decode()]

    def token(self, user: str, scopes: list[str]) -> str:
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            granted = sorted(set(actions.split(",")) & ACTIONS[user])
            access.append({"type": kind, "name": name, "actions": granted})
        claims = {
            "iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + LIFE, "nbf": now - 10, "iat": now,
            "jti": uuid.uuid4().hex, "access": access,
        }  # fmt: skip
        header = {"typ": "JWT", "alg": "ES256", "x5c": self._chain}
        signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
        r, s = utils.decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class Handler(BaseHTTPRequestHandler):
    signer: Signer

    def do_GET(self) -> None:
        user = self._user()
        if user is None:
            return self._send(
                401, {"errors": [{"code": "UNAUTHORIZED", "message": "unknown user or password"}]}
            )
        scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
        token = self.signer.token(user, [one for scope in scopes for one in scope.split(" ")])
        return self._send(200, {"token": token, "expires_in": LIFE})

    def _user(self) -> str | None:
        kind, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        name, _, password = base64.b64decode(encoded).decode().partition(":")
        return name if password and USERS.get(name) == password else None

    def _send(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    address, port, certificate, key = sys.argv[1:5]
    Handler.signer = Signer(Path(certificate), Path(key))
    ThreadingHTTPServer((address, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
