"""A real node performs HTTP outcalls of a canister, and performs them again when its process was killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cannery import Canister, Context, Outcome, Pending, continuation, update
from cannery.candid.codec import decoder, encoder
from cannery.candid.python import type_of
from cannery.cdk.management import Management
from cannery.cdk.outcalls import HttpResult, http_post
from cannery.testing import Node
from tests.node.process_node import ProcessNode
from tests.waiting import NEVER_S


class Asker(Canister):
    """Posts to a port of this machine."""

    @update
    def ask(self, ctx: Context, url: str) -> Pending[str]:
        return ctx.call(Management().http_request(http_post(url, b"ping")), then=self.answered)

    @continuation
    def answered(self, ctx: Context, outcome: Outcome[HttpResult]) -> str:
        return outcome.value.body.decode() if outcome.ok else outcome.reject_message


class Server:
    """Answers what it is sent, once it may."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.was_asked = threading.Semaphore(0)
        self.bodies: list[bytes] = []
        self.port = 0


@contextmanager
def serving() -> Iterator[Server]:
    world = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            world.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            world.was_asked.release()
            world.may_answer.wait(NEVER_S)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"pong")

        def log_message(self, *args: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a killed node breaks off
    world.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield world
    finally:
        world.may_answer.set()
        server.shutdown()
        server.server_close()


def test_a_node_asks_and_asks_again_after_a_kill(tmp_path: Path) -> None:
    with Node() as harness:
        module = harness.build(Asker)
    with serving() as world:
        (tmp_path / "cannery.toml").write_text(f"[outcalls]\nallow = ['http://127.0.0.1:{world.port}']\n")
        node = ProcessNode(tmp_path)
        asker = node.install(module)
        arg = encoder((type_of(str),))((f"http://127.0.0.1:{world.port}/x",))
        replies: list[bytes] = []
        calling = threading.Thread(target=lambda: replies.append(node.agent.call(asker, "ask", arg)))
        calling.start()
        assert world.was_asked.acquire(timeout=NEVER_S)
        node.child("subnet_process").kill()
        assert world.was_asked.acquire(timeout=NEVER_S)
        world.may_answer.set()
        calling.join(60)
        (reply,) = replies
        assert decoder((type_of(str),))(reply) == ("pong",)
        assert world.bodies == [b"ping", b"ping"]
        refused = node.agent.call(asker, "ask", encoder((type_of(str),))(("http://127.0.0.1:1/",)))
        assert b"does not call http://127.0.0.1:1" in refused
        code, errors = node.stop()
        assert code == 0, errors
        assert "Traceback" not in errors, errors
