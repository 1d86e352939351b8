"""Thousands of idle connections, each with a subscription: what one costs, and that all of them hear."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from websockets.frames import Frame, Opcode

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.event_request import EventRequest
from cannery.protocol import cbor
from cannery.protocol.envelope import QueryContent, build_envelope
from cannery.protocol.identity import AnonymousIdentity
from cannery.protocol.principal import Principal
from tests.events.test_events_socket import Club, club_module
from tests.events.test_frames import HANDSHAKE
from tests.node.process_node import ProcessNode
from tests.waiting import NEVER_S

COUNT = 2_000
BYTES_MAX = 40 * 1024
_request = encoder((type_of(EventRequest),))


def _open(port: int, club: Principal) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(NEVER_S)
    connection.sendall(HANDSHAKE)
    received = b""
    while b"challenge" not in received or len(received.partition(b"\r\n\r\n")[2]) < 62:
        received += connection.recv(4_096)
    value, _ = cbor.decode(received.partition(b"\r\n\r\n")[2][2:])
    assert isinstance(value, dict)
    challenge = value["challenge"]
    assert isinstance(challenge, bytes)
    who = AnonymousIdentity()
    arg = _request((EventRequest(challenge, "", ["open"], None),))
    expiry_ns = time.time_ns() + 200 * 10**9
    body = build_envelope(QueryContent(who.principal, club, "events_allowed", arg, expiry_ns, b""), who)
    message = cbor.encode({"type": "subscribe", "envelope": body}, self_describe=False)
    connection.sendall(Frame(Opcode.BINARY, message).serialize(mask=True))
    assert b"subscribed" in connection.recv(4_096)
    return connection


def test_thousands_of_idle_connections_cost_little_and_all_hear(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    settings = "[gateway]\nevent_connections_per_address_count_max = 5000\nevent_ping_ms = 3600000\n"
    (data / "cannery.toml").write_text(settings + "requests_per_address_burst = 1000000\n")
    node = ProcessNode(data)
    connections: list[socket.socket] = []
    try:
        club = Club(node, club_module())
        port = int(node.url.rpartition(":")[2])
        gateway, subnet = node.child("cannery.node.gateway"), node.child("cannery.node.subnet_process")
        connections += [_open(port, club.id) for _ in range(100)]
        before = gateway.memory_info().rss, subnet.memory_info().rss
        connections += [_open(port, club.id) for _ in range(COUNT)]
        after = gateway.memory_info().rss, subnet.memory_info().rss
        each = [(now - then) // COUNT for now, then in zip(after, before, strict=True)]
        print(f"one idle connection: {each[0]:,} bytes in the gateway, {each[1]:,} in the subnet's process")
        assert sum(each) < BYTES_MAX
        started = time.monotonic()
        club.say("open", "all of you")
        for connection in connections:
            assert b"all of you" in connection.recv(4_096)
        print(f"{len(connections):,} connections heard an event in {time.monotonic() - started:.2f} s")
    finally:
        for connection in connections:
            connection.close()
        node.stop()
