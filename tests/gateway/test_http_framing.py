"""What stands around requests and bodies: chunks, trailers, wished upgrades, more than a read holds."""

from __future__ import annotations

import pytest

from cannery.limits import GATEWAY_BODY_FRAMING_SIZE_BYTES_MAX
from cannery.protocol.query_signature import QueryReplied, decode_query_response
from tests.gateway.conftest import CANISTER, Node, envelope, query_content, raw_request, read_one

QUERY = f"/api/v3/canister/{CANISTER}/query"
CHUNKED = f"POST {QUERY} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n".encode()
STATUS = raw_request("GET", "/api/v2/status")
TOO_MUCH = b"x" * (GATEWAY_BODY_FRAMING_SIZE_BYTES_MAX + 300_000)


def chunks_of(body: bytes, size: int) -> bytes:
    parts = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        (b"zz\r\n", "Invalid character in chunk size"),
        (b"-1\r\n", "Invalid character in chunk size"),
        (b"ffffffffffffffffff\r\n", "Chunk size overflow"),
        (b"3\r\nabcd\r\n", "not an HTTP/1.1 request"),
        (b"5;" + TOO_MUCH, "more framing than bytes"),
        (b"1\r\na\r\n0\r\nx: " + TOO_MUCH, "more framing than bytes"),
    ],
)
def test_a_body_that_is_wrong_on_its_way_is_answered_at_once(node: Node, rest: bytes, text: str) -> None:
    answer = node.send(CHUNKED + b"\r\n" + rest)
    assert answer.status_code == 400
    assert text in answer.text


def test_small_chunks_and_trailers_are_as_good_as_one(node: Node) -> None:
    body = envelope(query_content("echo", bytes(100_000)))
    for size in (1, 7, len(body)):
        answer = node.send(CHUNKED + b"\r\n" + chunks_of(body, size) + b"0\r\nx-checked: yes\r\n\r\n")
        assert decode_query_response(answer.content).answer == QueryReplied(bytes(100_000))


def test_an_upgrade_that_is_not_spoken_is_ignored_whatever_the_request(node: Node) -> None:
    """Java's client wishes for HTTP/2 with each request, bodies included."""
    body = envelope(query_content("echo", b"java"))
    wish = "connection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\nupgrade: h2c\r\n"
    requests = (
        raw_request("GET", "/api/v2/status", headers=wish),
        raw_request("POST", QUERY, body, wish),
        CHUNKED + wish.encode() + b"\r\n" + chunks_of(body, 50) + b"0\r\n\r\n",
        raw_request("POST", QUERY, body),
    )
    with node.connect() as connection, connection.makefile("rb") as stream:
        connection.sendall(b"".join(requests))
        assert read_one(stream).status_code == 200
        for _ in requests[1:]:
            assert decode_query_response(read_one(stream).content).answer == QueryReplied(b"java")
    closing = raw_request("POST", QUERY, body, wish.replace("Upgrade,", "Upgrade, close,"))
    with node.connect() as connection, connection.makefile("rb") as stream:
        connection.sendall(closing)
        assert read_one(stream).headers["connection"] == "close"
        assert stream.read() == b""


def test_more_requests_may_wait_than_one_read_holds(node: Node) -> None:
    with node.connect() as connection, connection.makefile("rb") as stream:
        connection.settimeout(60)
        connection.sendall(STATUS * 2_000)
        for _ in range(2_000):
            assert read_one(stream).status_code == 200


def test_what_is_no_request_is_counted(node: Node) -> None:
    def count() -> int:
        return dict(node.gateway.tallies.own.answered("other")).get(400, 0)

    before = count()
    assert node.send(b"BREW /pot HTTP/1.1\r\n\r\n").status_code == 400
    assert count() == before + 1
