"""Any request at all: an answer with a reason, never a fault of the node, and the node goes on."""

from __future__ import annotations

import logging
import socket

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cannery.protocol import cbor
from tests.gateway.conftest import (
    ALICE,
    CANISTER,
    SUBNET,
    Node,
    call_content,
    envelope,
    query_content,
    read_one,
)

MODEST = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

PATHS = st.one_of(
    st.builds(
        "/api/{}/{}/{}/{}".format,
        st.sampled_from(["v2", "v3", "v4", "v9", ""]),
        st.sampled_from(["canister", "subnet", "node"]),
        st.sampled_from([str(CANISTER), str(SUBNET), "aaaaa-aa", "2vxsx-fae", "x", ""]),
        st.sampled_from(["call", "query", "read_state", "x"]),
    ),
    st.sampled_from(["/api/v2/status", "/cannery.json", "/health", "/metrics", f"/cannery/body/{'ab' * 32}"]),
    st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=60).map(
        lambda text: "/" + text
    ),
)
METHODS = st.sampled_from(["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "content-type",
            "content-encoding",
            "cannery-body",
            "upload-offset",
            "upload-length",
            "range",
            "expect",
            "x-forwarded-for",
            "origin",
        ]
    ),
    st.one_of(
        st.sampled_from(
            ["application/cbor", "gzip", "ab" * 32, "0", "5", "bytes=0-1", "bytes=-", "100-continue"]
        ),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    ),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.binary(max_size=40),
    st.text(max_size=20),
    st.floats(),
)
NAMES = st.sampled_from(
    [
        "content", "sender_pubkey", "sender_sig", "sender_delegation", "delegation", "signature", "pubkey",
        "expiration", "targets", "permissions", "request_type", "canister_id", "method_name", "arg", "sender",
        "ingress_expiry", "nonce", "paths", "sender_info", "info", "signer", "sig",
    ]
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=8)),
    max_leaves=25,
)
GOOD = [
    envelope(call_content("echo", b"hello")),
    envelope(query_content("echo", b"hello")),
    envelope(call_content("echo", b"x"), tagged=False),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw an envelope with a few bytes changed, cut, or put in."""
    body = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(body) - 1))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            body[place] = draw(st.integers(0, 255))
        elif kind == 1:
            del body[place : place + draw(st.integers(1, 20))]
        else:
            body[place:place] = draw(st.binary(max_size=10))
        if not body:
            break
    return bytes(body)


BODIES = st.one_of(
    st.binary(max_size=200), damaged(), TREES.map(lambda tree: cbor.encode(tree, self_describe=False))
)


def _check(response: httpx.Response) -> None:
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"


@MODEST
@given(METHODS, PATHS, HEADERS, BODIES)
def test_no_request_is_a_fault_of_the_node(
    node: Node, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}"
    head += f"content-length: {len(body)}\r\n\r\n"
    connection = node.connect()
    with connection, connection.makefile("rb") as stream:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        if headers.get("expect", "").lower() == "100-continue" and stream.peek(12)[:12] == b"HTTP/1.1 100":
            stream.readline()
            stream.readline()
        _check(read_one(stream, has_body=method != "HEAD"))


@MODEST
@given(st.sampled_from(["call", "query", "read_state"]), st.sampled_from(["v2", "v3"]), BODIES)
def test_no_body_is_a_fault_of_the_node(node: Node, verb: str, version: str, body: bytes) -> None:
    _check(node.post(f"/api/{version}/canister/{CANISTER}/{verb}", body))


@MODEST
@given(st.lists(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(
    [b"time", b"subnet", b"canister", b"request_status", b"canister_ranges", b"metadata", b"node", b"status",
     CANISTER.raw, SUBNET.raw, bytes(32)])), max_size=6), max_size=5), st.booleans())  # fmt: skip
def test_no_path_is_a_fault_of_the_node(node: Node, paths: list[list[bytes]], at_subnet: bool) -> None:
    place = f"subnet/{SUBNET}" if at_subnet else ""
    _check(node.read(*map(tuple, paths), who=ALICE, place=place))


@MODEST
@given(st.lists(st.binary(max_size=300), max_size=4))
def test_no_bytes_are_a_fault_of_the_node(node: Node, parts: list[bytes]) -> None:
    connection = node.connect()
    with connection, connection.makefile("rb") as stream:
        try:
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            line = stream.readline()
        except (BrokenPipeError, ConnectionResetError, OSError):
            return
        assert not line or b" 4" in line or b" 2" in line


@pytest.fixture(autouse=True)
def _nothing_unforeseen(caplog: pytest.LogCaptureFixture) -> object:
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_the_node_goes_on(node: Node) -> None:
    assert node.call("echo").status_code == 200
    assert 'status="500"' not in node.http.get("/metrics").text
