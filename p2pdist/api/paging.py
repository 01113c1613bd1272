"""Lists that come in pages (tags, referrers): a client's query to upstream, and upstream's links to the client."""

from __future__ import annotations

import re
from urllib.parse import quote

from aiohttp import web
from multidict import CIMultiDict

from p2pdist.api.responses import Refusal, header_safe
from p2pdist.oci.errors import ErrorCode
from p2pdist.upstream.port import UpstreamPage

_MAX_QUERY = 16
_MAX_QUERY_VALUE = 2048
_LINK = re.compile(r"<([^>]*)>(.*)", re.DOTALL)


def page_query(request: web.Request) -> dict[str, str]:
    """The query without our own ``ns``; raises Refusal for a page size that is no number, and for too much of it."""
    query = {key: value for key, value in request.query.items() if key != "ns"}
    if len(query) > _MAX_QUERY or any(
        len(key) + len(value) > _MAX_QUERY_VALUE for key, value in query.items()
    ):
        raise Refusal(400, ErrorCode.PAGINATION_NUMBER_INVALID, "the query is too long")
    number = query.get("n", "0")
    if not (number.isascii() and number.isdigit() and len(number) <= 9):
        raise Refusal(
            400, ErrorCode.PAGINATION_NUMBER_INVALID, f"n={number[:20]!r} is not a number of entries"
        )
    return query


def page_headers(request: web.Request, page: UpstreamPage) -> CIMultiDict[str]:
    """What is passed on of the headers that came with a page."""
    headers = CIMultiDict[str]()
    for name, value in page.headers.items():
        if name.lower() == "link":
            link = _own_link(request, value)
            if link:
                headers["Link"] = link
        elif name.lower() == "content-type":
            headers[name] = header_safe(value, "application/json")
        elif name.lower() == "oci-filters-applied" and header_safe(value, ""):
            headers[name] = value
    return headers


def _own_link(request: web.Request, link: str) -> str | None:
    """Upstream's link to the next page as one to this mirror, which the client named in its own way."""
    match = _LINK.match(link[:_MAX_QUERY_VALUE])
    if match is None or not link.isascii() or not link.isprintable():
        return None
    parts = [part for part in match[1].partition("?")[2].split("&") if part and not part.startswith("ns=")]
    if "ns" in request.query:
        parts.append(f"ns={quote(request.query['ns'], safe='')}")
    return f"<{request.rel_url.raw_path}?{'&'.join(parts)}>{match[2]}"
