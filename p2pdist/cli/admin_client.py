"""The running agent's admin interface (JSON over HTTP), as the commands use it.

Rules: every wait and every answer is bounded; whoever answers without being an agent gives a clear error, never a traceback.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import quote, urlencode

from p2pdist.cli.errors import AgentUnreachableError, CommandError
from p2pdist.config.model import ListenAddress

MAX_ANSWER = 64 * 1024 * 1024
MAX_EVENT = 1024 * 1024
TIMEOUT = 10.0
# A pull that says nothing for this long has lost its agent; the agent itself gives up on a stalled source much earlier.
STREAM_TIMEOUT = 120.0
_HINT = "start the agent (p2pdist agent), or say where it listens: --admin HOST:PORT"


class AdminClient:
    """Requests to one agent. Errors: AgentUnreachableError (nobody there), CommandError (it answered no)."""

    def __init__(self, address: ListenAddress) -> None:
        self._host = _reachable(address.host)
        self._port = address.port

    @property
    def address(self) -> str:
        return str(ListenAddress(self._host, self._port))

    def get(self, path: str, query: dict[str, str] | None = None) -> Any:
        """The JSON under ``/api/v1/``."""
        asked = "?" + urlencode(query, safe="/:@") if query else ""
        return self._call("GET", path + asked, None)

    def send(
        self, method: str, path: str, body: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> Any:
        """POST or DELETE with a JSON body."""
        return self._call(method, path, body, headers)

    def upload(self, path: str, size: int, chunks: Iterable[bytes], headers: Mapping[str, str]) -> Any:
        """PUT ``size`` bytes as they come. What the iterator raises passes through."""
        own = {**headers, "Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with self._exchange("PUT", path, _Body(chunks), own, STREAM_TIMEOUT) as response:
            data = self._read(lambda: response.read(MAX_ANSWER + 1))
        return self._parse(data) if data.strip() else {}

    def stream(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """POST, then the answer's events (one JSON object per line) as they come."""
        with self._request("POST", path, body, STREAM_TIMEOUT, headers) as response:
            while line := self._read(lambda: response.readline(MAX_EVENT + 1)):
                if line.strip():
                    event = self._parse(line)
                    if isinstance(event, dict):
                        yield event

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        with self._request(method, path, body, TIMEOUT, headers) as response:
            data = self._read(lambda: response.read(MAX_ANSWER + 1))
        if len(data) > MAX_ANSWER:
            raise CommandError(f"the agent at {self.address} answered more than {MAX_ANSWER} bytes")
        return self._parse(data) if data.strip() else {}

    def _request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        timeout: float,
        extra: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[http.client.HTTPResponse]:
        headers, payload = dict(extra or {}), None
        if body is not None:
            payload, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        return self._exchange(method, path, payload, headers, timeout)

    @contextmanager
    def _exchange(
        self, method: str, path: str, payload: bytes | _Body | None, headers: dict[str, str], timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        own = {"Accept": "application/json", "Connection": "close"}
        url = f"/api/v1/{quote(path, safe='/?=&%:@+')}"
        try:
            try:
                _send(connection, method, url, payload, {**own, **headers})
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                if isinstance(payload, _Body) and payload.error is error:
                    raise
                raise self._unreachable(error) from error
            if response.status >= 400:
                raise self._refused(response)
            yield response
        finally:
            connection.close()

    def _read(self, read: Any) -> bytes:
        try:
            return bytes(read())
        except (OSError, http.client.HTTPException) as error:
            raise AgentUnreachableError(
                f"the agent at {self.address} broke off in mid-answer ({_reason(error)})",
                "see its log; what it has fetched stays, so running the command again goes on from there",
            ) from error

    def _parse(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise CommandError(
                f"what listens at {self.address} does not answer as a p2pdist agent", _HINT
            ) from None

    def _unreachable(self, error: Exception) -> AgentUnreachableError:
        if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
            return AgentUnreachableError(f"what listens at {self.address} does not speak HTTP", _HINT)
        return AgentUnreachableError(f"no agent answers at {self.address} ({_reason(error)})", _HINT)

    def _refused(self, response: http.client.HTTPResponse) -> CommandError:
        data = self._read(lambda: response.read(64 * 1024))
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            answer = None
        message = error_message(answer)
        if response.status in (401, 404) and not (isinstance(answer, dict) and "error" in answer):
            said = (
                f"{response.status}: {message or response.reason}"  # the mirror, the peer port, or a stranger
            )
            return CommandError(
                f"what listens at {self.address} is no agent's admin interface ({said})", _HINT
            )
        return CommandError(
            message or f"the agent at {self.address} answered {response.status} {response.reason}"
        )


class _Body:
    """Chunks to send; what reading them raises is kept apart from what sending them raises."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._chunks
        except Exception as error:
            self.error = error
            raise


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    url: str,
    payload: bytes | _Body | None,
    headers: dict[str, str],
) -> None:
    try:
        connection.request(method, url, payload, headers)
    except (BrokenPipeError, ConnectionResetError):
        # Who refuses a body answers before it has it all, and hangs up: the answer tells more than the break.
        if not isinstance(payload, _Body) or payload.error is not None:
            raise


def error_message(answer: Any) -> str:
    """The words in an error answer: ``{"error"|"message": TEXT}``, or OCI's ``{"errors": [{"message": TEXT}]}``."""
    if not isinstance(answer, dict):
        return ""
    for key in ("message", "error", "reason"):
        if isinstance(answer.get(key), str):
            return str(answer[key])
        if isinstance(answer.get(key), dict):
            return error_message(answer[key])
    errors = answer.get("errors")
    return error_message(errors[0]) if isinstance(errors, list) and errors else ""


def _reachable(host: str) -> str:
    """Where a listener bound to all addresses is reached on its own host."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (compared, not bound)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError | socket.timeout):
        return "timed out"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
