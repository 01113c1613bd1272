"""What aiohttp raises, in this package's words. Never the exception's own text where that may hold a URL: a redirect's
URL is signed, and a proxy's holds a password."""

from __future__ import annotations

import os
import ssl

import aiohttp

from p2pdist.errors import ProtocolError, SourceError, UnreachableError
from p2pdist.upstream.retry import LastingError

FOREIGN = (aiohttp.ClientError, OSError, ValueError, RuntimeError)
"""What aiohttp raises besides cancellation; RuntimeError for a session or connection that was closed meanwhile."""


def translate(error: BaseException, where: str) -> SourceError:
    """The error to raise from ``error``; ``where`` names the host that was asked."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return LastingError(f"{where} has a certificate that is not trusted ({_verify(error)}); {_CA_HINT}")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return LastingError(f"{where}: TLS failed ({_ssl_reason(error)}); is its url right, https and port?")
    if isinstance(error, TimeoutError):
        return UnreachableError(f"{where} did not answer in time")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return LastingError(f"{where}: the HTTP proxy answered {error.status}")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return UnreachableError(f"{where}: the name {error.host} cannot be resolved")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return UnreachableError(f"{where}: the HTTP proxy cannot be reached ({_os_reason(error)})")
    if isinstance(error, aiohttp.ClientOSError | OSError):
        return UnreachableError(f"{where} cannot be reached ({_os_reason(error)})")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return UnreachableError(f"{where} closed the connection without an answer")
    if isinstance(error, aiohttp.ClientPayloadError):
        return UnreachableError(f"{where} cut the connection within a body")
    if isinstance(error, aiohttp.ClientResponseError):
        return ProtocolError(f"{where} sent an answer that is not HTTP/1.1")
    return UnreachableError(f"{where} cannot be asked ({type(error).__name__})")


_CA_HINT = "put its CA into ca_file of the registry"


def _verify(error: aiohttp.ClientConnectorCertificateError) -> str:
    cause = error.certificate_error
    return getattr(cause, "verify_message", "") or type(cause).__name__


def _ssl_reason(error: BaseException) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return getattr(cause, "reason", None) or type(cause).__name__


def _os_reason(error: OSError) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return os.strerror(cause.errno) if cause.errno else type(cause).__name__
