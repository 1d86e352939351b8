"""A real HTTP server that plays the webhook: it keeps what it got, and answers as it is told."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hook:
    """A running webhook. `statuses`: the answers to come, then 204 for ever."""

    statuses: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    taken: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    got: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = hook.statuses.pop(0) if hook.statuses else 204
                hook.bodies.append(body)
                if status < 300:
                    hook.taken.append(body)
                hook.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()
                hook.got.set()

            def log_message(self, *_args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook?key=secret"

    @property
    def alarms(self) -> list[dict[str, object]]:
        """The alarms that were taken, in the order of their arrival."""
        return [alarm for body in self.taken for alarm in json.loads(body)["alarms"]]

    @property
    def texts(self) -> list[object]:
        return [alarm["text"] for alarm in self.alarms]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
