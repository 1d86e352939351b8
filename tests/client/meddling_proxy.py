"""A proxy between a client and a node that does what networks and thieves do: damage, drop, delay, replay."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

KEPT_HEADERS = ("content-type", "cannery-body", "upload-offset", "upload-length", "range")


@dataclass(frozen=True)
class Passing:
    """A request that passed, and the node's answer to it."""

    method: str
    path: str
    body: bytes
    status: int
    answer: bytes


Meddle = Callable[[Passing], bytes | None]


@dataclass
class Proxy:
    """`meddle` gives the body to pass on, or None to drop the connection after the node did its work."""

    target: str
    meddle: Meddle = lambda passing: passing.answer
    passed: list[Passing] = field(default_factory=list)
    url: str = ""


@contextmanager
def meddling_proxy(target: str) -> Iterator[Proxy]:
    """Run a proxy in front of a node."""
    proxy = Proxy(target)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(proxy))
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


def _handler_of(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    host = urlsplit(proxy.target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name: self.headers[name] for name in KEPT_HEADERS if name in self.headers}
            onward = http.client.HTTPConnection(host, timeout=60)
            onward.request(self.command, self.path, body, headers)
            response = onward.getresponse()
            answer = response.read()
            onward.close()
            passing = Passing(self.command, self.path, body, response.status, answer)
            proxy.passed.append(passing)
            changed = proxy.meddle(passing)
            if changed is None:
                self.close_connection = True
                return
            self.send_response(response.status)
            for name in KEPT_HEADERS:
                if response.headers.get(name):
                    self.send_header(name, response.headers[name])
            self.send_header("content-length", str(len(changed)))
            self.end_headers()
            self.wfile.write(changed)

        do_GET = do_POST = do_PATCH = do_HEAD = _pass

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    return Handler
