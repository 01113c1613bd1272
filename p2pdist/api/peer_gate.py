"""Who may ask anything of the peer listener: only requests that prove the cluster key; answers to them are sealed."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pdist.clock import Clock
from p2pdist.wire.http_auth import CHALLENGE_HEADER, MAC_HEADER, Credentials, HttpAuth, SteadyWall, Target
from p2pdist.wire.http_verifier import Refusal, Refused, Verifier

HELLO_PATH = "/p2p/v1/hello"
PEER_HEADER = "P2PDist-Peer"
CREDENTIALS = web.RequestKey("credentials", Credentials)


class RefusalHook(Protocol):
    """Told of requests that proved nothing."""

    def refused(self, reason: Refusal) -> None: ...


class ProvenConnection:
    """What a connection may be told by the application: its sender has proven that it holds the cluster key."""

    def proven(self) -> None:
        raise NotImplementedError


class Gate:
    """Lets only proven requests in, and seals the answers to them."""

    def __init__(self, auth: HttpAuth, clock: Clock, hooks: RefusalHook) -> None:
        self._auth = auth
        self._clock = clock
        self._time = SteadyWall(clock.wall(), clock.now())
        self._verifier = Verifier(auth, self._time.ms(clock.now()))
        self._hooks = hooks

    def middleware(self) -> Middleware:
        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._admit(request, handler)

        return admit

    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        target = Target(request.method, request.raw_path, request.headers.get("Range", ""))
        verdict = self._verifier.admit(
            request.headers.get("Authorization"),
            target,
            self._time.ms(self._clock.now()),
            anyone=request.path == HELLO_PATH,
        )
        if isinstance(verdict, Refused):
            self._hooks.refused(verdict.reason)
            return _refusal(verdict)
        request[CREDENTIALS] = verdict
        if isinstance(request.protocol, ProvenConnection):
            request.protocol.proven()
        return await handler(request)

    async def seal(self, request: web.Request, response: web.StreamResponse) -> None:
        credentials = request.get(CREDENTIALS)
        if credentials is not None:
            response.headers[PEER_HEADER] = self._auth.own.hex
            response.headers[MAC_HEADER] = self._auth.seal(credentials, response.status, response.headers)


def _refusal(verdict: Refused) -> web.Response:
    response = web.Response(status=401, body=b"unauthorized\n")
    if verdict.challenge is None:
        response.force_close()
    else:
        response.headers[CHALLENGE_HEADER] = verdict.challenge
    return response
