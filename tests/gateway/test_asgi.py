"""The gateway as an ASGI application under uvicorn: the same answers as over its own server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

import pytest

from cannery.protocol.envelope import request_id_of
from cannery.protocol.query_signature import QueryReplied, decode_query_response
from cannery.protocol.request_status import Replied, read_request_status
from tests.gateway.conftest import CANISTER, QUICK, Node, call_content, certificate_of, envelope, raw_request

CALL = f"/api/v4/canister/{CANISTER}/call"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A gateway under uvicorn."""
    running = Node(tmp_path_factory.mktemp("asgi"), replace(QUICK, body_idle_ms_max=200), asgi=True)
    yield running
    running.close()


def test_calls_queries_and_reads(node: Node) -> None:
    content = call_content("echo", b"hello")
    tree = certificate_of(node.post(CALL, envelope(content))).tree
    assert read_request_status(tree, request_id_of(content)) == Replied(b"hello")
    assert decode_query_response(node.query("echo", b"q").content).answer == QueryReplied(b"q")
    tree = certificate_of(node.read((b"request_status", request_id_of(content)))).tree
    assert read_request_status(tree, request_id_of(content)) == Replied(b"hello")
    assert node.call("echo", version=2).status_code == 202


def test_large_bodies_and_answers(node: Node) -> None:
    arg = os.urandom(3 * MIB)
    assert node.post(CALL, envelope(call_content("swallow", arg))).status_code == 200
    assert node.script.args[-1] == arg
    response = node.query(f"large:{5 * MIB}")
    assert sha256(response.content).hexdigest() == response.headers["cannery-body"]


def test_refusals_and_pages(node: Node) -> None:
    assert node.http.options(CALL).status_code == 204
    assert node.http.get("/nowhere").status_code == 404
    assert node.http.head("/api/v2/status").status_code == 200
    assert node.http.get("/health").text == "healthy\n"
    head = f"content-length: {QUICK.body_size_bytes_max + 1}\r\n\r\n"
    response = node.send(f"POST {CALL} HTTP/1.1\r\nhost: x\r\n{head}".encode())
    assert (response.status_code, response.headers["connection"]) == (413, "close")


def test_slow_bodies_and_clients_that_go_away(node: Node) -> None:
    request = raw_request("POST", CALL, envelope(call_content("echo")))
    assert node.send(request[:-1]).status_code == 408
    with node.connect() as connection:
        connection.sendall(request[:-1])
    assert node.call("echo").status_code == 200
