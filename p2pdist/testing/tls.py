"""Certificates for tests: an authority of one's own, and leaves that it signs.

Always true here: keys are made anew and good for a day; nothing is written outside the directory that is given.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFE = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: a leaf with its key, and the authority that signed it."""

    certificate: Path
    key: Path
    authority: Path

    def server_context(self) -> ssl.SSLContext:
        """For a listener."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a client that trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.authority))


class TestAuthority:
    """A certificate authority in memory; ``issue`` writes leaves."""

    __test__ = False  # not a test case, whatever its name begins with

    def __init__(self, name: str = "p2pdist test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(self._name, self._name, self._key.public_key()).add_extension(
            constraints, critical=True
        )
        self.certificate = builder.add_extension(_usage(authority=True), critical=True).sign(
            self._key, hashes.SHA256()
        )

    def issue(self, directory: Path, *hosts: str, expired: bool = False) -> CertificateFiles:
        """Write a leaf for the host names and addresses (default: localhost, 127.0.0.1 and ::1) and this authority."""
        names = hosts or ("localhost", "127.0.0.1", "::1")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(names[0]), self._name, key.public_key(), expired=expired)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        directory.mkdir(parents=True, exist_ok=True)
        files = CertificateFiles(directory / "leaf.pem", directory / "leaf.key", directory / "ca.pem")
        pem = serialization.Encoding.PEM
        files.certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(pem))
        files.authority.write_bytes(self.certificate.public_bytes(pem))
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files.key.touch(mode=0o600)
        files.key.write_bytes(private)
        return files


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, expired: bool = False
) -> x509.CertificateBuilder:
    # An hour back, for hosts whose clocks differ a little.
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    if expired:
        start -= 2 * _LIFE
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _LIFE)
    )
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
