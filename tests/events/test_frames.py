"""Any bytes at all on an events connection: a close with its code, never a fault of the node."""

from __future__ import annotations

import socket
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from cannery.errors import DecodeError
from cannery.node.gateway.push.wire import Subscribe, Unsubscribe, parse_message
from cannery.protocol import cbor
from tests.events.test_events_socket import node  # noqa: F401  (a fixture)
from tests.node.process_node import ProcessNode
from tests.waiting import NEVER_S

HANDSHAKE = (
    b"GET /api/cannery/v1/events HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MODEST = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
FRAMES = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda first, data: bytes((first, 0x80 | len(data))) + bytes(4) + data,
            st.integers(0, 255),
            st.binary(max_size=120),
        ),
        st.dictionaries(
            st.sampled_from(["type", "envelope", "canister"]),
            st.one_of(st.sampled_from(["subscribe", "unsubscribe"]), st.binary(max_size=40), st.integers()),
        ).map(
            lambda value: Frame(Opcode.BINARY, cbor.encode(value, self_describe=False)).serialize(mask=True)
        ),
    ),
    max_size=6,
)


@given(data=st.binary(max_size=300))
def test_fuzz_messages_are_read_or_refused(data: bytes) -> None:
    with suppress(DecodeError):
        assert isinstance(parse_message(data), Subscribe | Unsubscribe)


@MODEST
@given(frames=FRAMES)
def test_fuzz_frames_end_in_a_close_or_are_answered(node: ProcessNode, frames: list[bytes]) -> None:  # noqa: F811
    address = ("127.0.0.1", int(node.url.rpartition(":")[2]))
    with socket.create_connection(address) as connection:
        connection.settimeout(NEVER_S)
        connection.sendall(HANDSHAKE + b"".join(frames))
        closing = Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True)
        try:
            connection.sendall(closing)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while part := connection.recv(65_536):
                received += part
            assert received.startswith(b"HTTP/1.1 101 ")
        except OSError:
            # The node may have closed before all was sent.
            pass
    assert node.agent.status().health == "healthy"
    assert node.child("cannery.node.gateway").is_running()
