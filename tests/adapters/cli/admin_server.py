"""An admin interface with scripted answers, on a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, bytes]


@dataclass
class FakeAdmin:
    """``answers`` by "METHOD /path": a JSON value, (status, raw bytes), or a list of events for a pull."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    address: str = ""

    def answer(self, line: str, body: Any) -> Answer:
        self.asked.append((line, body))
        found = self.answers.get(line, (404, b'{"message": "no such page"}'))
        if isinstance(found, tuple):
            return found
        if isinstance(found, list) and line.startswith("POST"):
            return 200, b"".join(json.dumps(event).encode() + b"\n" for event in found)
        return 200, json.dumps(found).encode()


@contextmanager
def fake_admin(**answers: Any) -> Iterator[FakeAdmin]:
    """Serve until the block is left."""
    admin = FakeAdmin()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, data = admin.answer(f"{self.command} {self.path.removeprefix('/api/v1')}", body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815  (http.server's names)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server's name)
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    admin.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield admin
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
