"""Where a redirect may lead, decided purely (RFC 9110 section 15.4).

Rules: https never leads to http, unless the operator configured the registry itself with http; only http(s), no
credentials in the URL; Authorization stays on the registry's own origin, and once lost is not regained; the
Location's own percent-encoding is kept, since signatures cover it. A token server's redirect is followed where
credentials may go with it: to the same origin, or from http to https on the same host.
"""

from __future__ import annotations

from yarl import URL

from p2pdist.errors import DeniedError, ProtocolError

FOLLOWED = frozenset({301, 302, 303, 307, 308})
_MAX_LOCATION = 8192


def redirect_target(current: URL, location: str, *, plain_http: bool, what: str) -> URL:
    """The absolute URL of a Location header. Raises ProtocolError for none that can be used, DeniedError for a downgrade."""
    if not location or len(location) > _MAX_LOCATION or not location.isprintable():
        raise ProtocolError(f"{what} was redirected without a usable Location")
    try:
        clean = location.isascii() and " " not in location
        target = current.join(URL(location, encoded=clean))
        valid = target.scheme in {"http", "https"} and bool(target.host) and target.user is None
    except ValueError:
        valid = False
    if not valid:
        raise ProtocolError(f"{what} was redirected to something that is no http(s) URL")
    if target.scheme == "http" and not plain_http:
        raise DeniedError(
            f"{what} was redirected to {target.authority} without TLS, which is refused for a registry with https"
        )
    return target.with_fragment(None)


def token_redirect(current: URL, location: str, *, what: str) -> URL | None:
    """Where a token server's redirect leads, None where it is not followed; raises ProtocolError as ``redirect_target``."""
    target = redirect_target(current, location, plain_http=True, what=what)
    upgraded = (current.scheme, target.scheme) == ("http", "https") and current.host == target.host
    return target if upgraded or current.origin() == target.origin() else None
