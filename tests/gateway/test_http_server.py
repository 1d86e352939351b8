"""The HTTP server: requests in order, bounds on heads, bodies, connections and time, the end of a connection.

Time is not waited for: the server is shown a later one.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cannery.limits import (
    GATEWAY_BODY_BUFFER_SIZE_BYTES,
    GATEWAY_HEADER_COUNT_MAX,
    GATEWAY_HEADERS_SIZE_BYTES_MAX,
)
from cannery.protocol.query_signature import QueryReplied, decode_query_response
from tests.gateway.conftest import (
    CANISTER,
    QUICK,
    Node,
    call_content,
    envelope,
    query_content,
    raw_request,
    read_one,
)
from tests.waiting import NEVER_S

QUERY = f"/api/v3/canister/{CANISTER}/query"
MIB = 1024 * 1024


def _later(node: Node, seconds: float) -> None:
    """Show every connection a time in the future."""
    done = threading.Event()

    def look() -> None:
        now_s = asyncio.get_running_loop().time() + seconds
        for connection in list(node.server.connections):
            connection.check_time(now_s)
        done.set()

    node._loop.call_soon_threadsafe(look)
    assert done.wait(NEVER_S)


def _settle(node: Node) -> None:
    """Let the server find everything that was sent before: it answers a request on another connection."""
    for _ in range(3):
        node.http.get("/api/v2/status")


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.fixture
def connection(node: Node) -> Iterator[socket.socket]:
    with node.connect() as opened:
        yield opened


# --- requests on a connection ---------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(connection: socket.socket) -> None:
    args = [bytes([number]) * (number * 500 + 1) for number in range(30)]
    connection.sendall(
        b"".join(raw_request("POST", QUERY, envelope(query_content("echo", arg))) for arg in args)
    )
    with connection.makefile("rb") as stream:
        for arg in args:
            assert decode_query_response(read_one(stream).content).answer == QueryReplied(arg)


def test_large_and_small_bodies_share_a_connection(connection: socket.socket) -> None:
    args = [b"small", bytes(200_000), b"small again", bytes(2 * MIB), b"", bytes(70_000)]
    connection.sendall(
        b"".join(raw_request("POST", QUERY, envelope(query_content("echo", arg))) for arg in args)
    )
    with connection.makefile("rb") as stream:
        for arg in args:
            assert decode_query_response(read_one(stream).content).answer == QueryReplied(arg)


def test_a_request_may_come_byte_by_byte(node: Node, connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in raw_request("POST", QUERY, envelope(query_content("echo", b"slowly"))):
        connection.sendall(bytes([byte]))
    assert node.answer_of(connection).status_code == 200


def test_the_query_of_a_target_is_no_part_of_the_path(node: Node) -> None:
    assert node.http.get("/api/v2/status?when=now").status_code == 200
    assert node.send(b"GET http://other.example/api/v2/status HTTP/1.1\r\nhost: x\r\n\r\n").status_code == 200
    assert node.send(b"GET /api/v2/%73tatus HTTP/1.1\r\nhost: x\r\n\r\n").status_code == 200


def test_a_client_may_close_its_side_after_asking(node: Node, connection: socket.socket) -> None:
    connection.sendall(raw_request("POST", QUERY, envelope(query_content("echo", b"bye"))))
    connection.shutdown(socket.SHUT_WR)
    assert node.answer_of(connection).status_code == 200


@pytest.mark.parametrize(
    ("version", "header", "said"),
    [
        ("1.1", "", None),
        ("1.1", "connection: close\r\n", "close"),
        ("1.0", "", "close"),
        ("1.0", "connection: keep-alive\r\n", "keep-alive"),
    ],
)
def test_connections_are_kept_as_agreed(
    connection: socket.socket, version: str, header: str, said: str | None
) -> None:
    request = f"GET /api/v2/status HTTP/{version}\r\nhost: x\r\n{header}\r\n".encode()
    connection.sendall(request)
    with connection.makefile("rb") as stream:
        assert read_one(stream).headers.get("connection") == said
        if said == "close":
            assert stream.read() == b""
        else:
            connection.sendall(request)
            assert read_one(stream).status_code == 200


def test_a_client_may_ask_before_it_sends_a_body(connection: socket.socket) -> None:
    body = envelope(query_content("echo", b"x"))
    head = f"POST {QUERY} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(body)
    with connection.makefile("rb") as stream:
        assert read_one(stream).status_code == 200


def test_a_refused_body_is_not_asked_for(node: Node) -> None:
    head = f"POST {QUERY} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 999999999\r\n\r\n"
    response = node.send(head.encode())
    assert (response.status_code, response.headers["connection"]) == (413, "close")


def test_an_answer_reaches_a_client_that_is_still_sending(node: Node) -> None:
    body = bytes(5 * MIB)
    request = raw_request("POST", "/nowhere", body)
    assert node.send(request).status_code == 404


def test_every_answer_has_a_date(node: Node) -> None:
    assert node.http.get("/api/v2/status").headers["date"].endswith(" GMT")


# --- what is not HTTP, or too much of it ----------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /api/v2/status HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /api/v2/status HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /api/v2/status HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /api/v2/status HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /api/v2/status HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_no_request_is_400_or_closed(node: Node, data: bytes) -> None:
    response = node.send(data)
    assert response.status_code in (400, 405)
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    "head",
    [
        b"x: " + b"a" * GATEWAY_HEADERS_SIZE_BYTES_MAX,
        b"\r\n".join(b"x-%d: y" % number for number in range(GATEWAY_HEADER_COUNT_MAX + 2)),
        b"\r\n".join(b"x-%d: %s" % (number, b"y" * 1000) for number in range(40)),
    ],
)
def test_heads_are_bounded(node: Node, head: bytes) -> None:
    for end in (b"\r\n\r\n", b""):
        response = node.send(b"GET /api/v2/status HTTP/1.1\r\n" + head + end + b"\r\n" * (not end))
        assert response.status_code == 431


def test_long_paths_are_refused(node: Node) -> None:
    assert node.send(b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n").status_code == 414
    assert node.send(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n").status_code == 431


def test_upgrades_are_not_followed(node: Node) -> None:
    request = b"GET /api/v2/status HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert node.send(request).status_code == 200
    assert node.send(b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n").status_code in (400, 404, 405)


def test_connections_of_an_address_are_bounded(tmp_path: Path) -> None:
    node = Node(tmp_path, replace(QUICK, connections_per_address_count_max=3))
    try:
        opened = [node.connect() for _ in range(3)]
        for connection in opened:
            connection.sendall(raw_request("GET", "/api/v2/status"))
            with connection.makefile("rb") as stream:
                assert read_one(stream).status_code == 200
        response = node.send(raw_request("GET", "/api/v2/status"))
        assert (response.status_code, "too many connections from your address" in response.text) == (
            503,
            True,
        )
        opened.pop().close()
        assert node.wait_for(lambda: node.send(raw_request("GET", "/api/v2/status")).status_code == 200)
        for connection in opened:
            connection.close()
    finally:
        node.close()


def test_connections_are_bounded(tmp_path: Path) -> None:
    node = Node(tmp_path, replace(QUICK, connection_count_max=1))
    try:
        with node.connect() as connection, connection.makefile("rb") as stream:
            connection.sendall(raw_request("GET", "/api/v2/status"))
            assert read_one(stream).status_code == 200
            assert node.send(raw_request("GET", "/api/v2/status")).status_code == 503
    finally:
        node.close()


# --- time -----------------------------------------------------------------------------------------


def test_an_unused_connection_is_closed(node: Node, connection: socket.socket) -> None:
    _settle(node)
    _later(node, QUICK.keep_alive_ms_max / 1000 + 1)
    assert _is_closed(connection)


def test_a_head_that_does_not_end_is_408(node: Node, connection: socket.socket) -> None:
    connection.sendall(b"GET /api/v2/status HTTP/1.1\r\nhost: x\r\n")
    _settle(node)
    _later(node, QUICK.headers_ms_max / 1000 - 1)
    _later(node, QUICK.headers_ms_max / 1000 + 1)
    response = node.answer_of(connection)
    assert (response.status_code, "head" in response.text) == (408, True)


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_body_that_does_not_come_is_408(node: Node, connection: socket.socket, size: int) -> None:
    connection.sendall(raw_request("POST", QUERY, bytes(size))[: -size // 2])
    _settle(node)
    _later(node, QUICK.body_idle_ms_max / 1000 - 1)
    _later(node, QUICK.body_idle_ms_max / 1000 + size / QUICK.body_rate_bytes_per_s_min + 1)
    response = node.answer_of(connection)
    assert (response.status_code, "too slowly" in response.text) == (408, True)


def test_a_slow_body_has_the_time_that_its_bytes_earn(node: Node, connection: socket.socket) -> None:
    body = envelope(query_content("echo", bytes(400_000)))
    request = raw_request("POST", QUERY, body)
    connection.sendall(request[:-1000])
    assert node.wait_for(lambda: _received(node) > 390_000)
    _later(node, QUICK.body_idle_ms_max / 1000 + 300_000 / QUICK.body_rate_bytes_per_s_min)
    connection.sendall(request[-1000:])
    assert node.answer_of(connection).status_code == 200


def _received(node: Node) -> int:
    node.http.get("/api/v2/status")
    return max(connection._received for connection in list(node.server.connections))


def test_a_client_that_does_not_read_is_let_go(node: Node) -> None:
    name = node.query(f"large:{30 * MIB}").headers["cannery-body"]
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", node.port))
        connection.sendall(raw_request("GET", f"/cannery/body/{name}"))
        assert node.wait_for(lambda: _unread(node))
        assert len(connection.recv(1000)) > 0
        _later(node, 20)
        assert _unread(node)
        _later(node, 40)
        assert node.wait_for(lambda: not _unread(node))


def _unread(node: Node) -> int:
    node.http.get("/api/v2/status")
    return sum(connection._unread_since_s is not None for connection in node.server.connections)


def test_a_client_that_goes_away_frees_its_place(node: Node) -> None:
    before = len(node.server.connections)
    with node.connect() as connection:
        connection.sendall(raw_request("POST", QUERY, bytes(500_000))[:-1])
        assert node.wait_for(
            lambda: node.http.get("/api/v2/status") and len(node.server.connections) > before
        )
    assert node.wait_for(lambda: node.http.get("/api/v2/status") and len(node.server.connections) <= before)
    assert node.gateway._memory.used == 0


def test_answers_that_nobody_reads_are_not_piled_up(node: Node, connection: socket.socket) -> None:
    count = 60
    requests = [raw_request("POST", QUERY, envelope(query_content("large:900000"))) for _ in range(count)]
    connection.sendall(b"".join(requests))
    assert node.wait_for(lambda: _unread(node))
    _settle(node)
    assert max(one._transport.get_write_buffer_size() for one in list(node.server.connections)) < 2 * MIB
    with connection.makefile("rb") as stream:
        for _ in range(count):
            assert len(read_one(stream).content) > 900_000


def _paused(node: Node) -> int:
    """Give the bytes that a connection took before it stopped reading."""
    node.http.get("/api/v2/status")
    return max((one._received for one in list(node.server.connections) if not one._reading), default=0)


def test_a_body_that_nobody_reads_yet_stays_in_the_network(tmp_path: Path) -> None:
    node = Node(tmp_path, replace(QUICK, answer_wait_ms_max=60_000))
    first = raw_request("POST", f"/api/v4/canister/{CANISTER}/call", envelope(call_content("held")))
    second = raw_request("POST", QUERY, envelope(query_content("echo", bytes(30 * MIB))))
    with node.connect() as connection, connection.makefile("rb") as stream:
        sender = threading.Thread(target=connection.sendall, args=(first + second,))
        sender.start()
        received = node.wait_for(lambda: _paused(node))
        assert received < GATEWAY_BODY_BUFFER_SIZE_BYTES + MIB
        node._loop.call_soon_threadsafe(node.script.release)
        assert read_one(stream).status_code == 200
        assert read_one(stream).status_code == 200
        sender.join(10)
    node.close()


# --- the end --------------------------------------------------------------------------------------


def test_a_stopping_server_finishes_what_is_under_way(tmp_path: Path) -> None:
    node = Node(tmp_path, replace(QUICK, answer_wait_ms_max=60_000))
    idle, busy = node.connect(), node.connect()
    busy.sendall(raw_request("POST", f"/api/v4/canister/{CANISTER}/call", envelope(call_content("held"))))
    assert node.wait_for(lambda: node.http.get("/api/v2/status") and node.script.waiting)
    node._loop.call_soon_threadsafe(node._stop.set)
    assert _is_closed(idle)
    node._loop.call_soon_threadsafe(node.script.release)
    response = node.answer_of(busy)
    assert (response.status_code, response.headers["connection"]) == (200, "close")
    node.close()


def test_a_stopping_server_does_not_wait_for_ever(tmp_path: Path) -> None:
    node = Node(tmp_path, replace(QUICK, answer_wait_ms_max=60_000, shutdown_ms_max=50))
    busy = node.connect()
    busy.sendall(raw_request("POST", f"/api/v4/canister/{CANISTER}/call", envelope(call_content("held"))))
    assert node.wait_for(lambda: node.http.get("/api/v2/status") and node.script.waiting)
    node.close()
    assert _is_closed(busy)
