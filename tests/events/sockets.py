"""A WebSocket client for tests, which can say anything: the library's, with the messages made here."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from websockets.sync.client import ClientConnection, connect

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.event_request import EventRequest
from cannery.protocol import cbor
from cannery.protocol.envelope import QueryContent, build_envelope
from cannery.protocol.identity import Identity
from cannery.protocol.principal import Principal
from tests.waiting import NEVER_S

WAIT_S = NEVER_S
_encode = encoder((type_of(EventRequest),))


class Socket:
    """One connection; `challenge` is what the node began with."""

    def __init__(self, url: str, origin: str | None = None) -> None:
        self._open = ExitStack()
        self.connection: ClientConnection = self._open.enter_context(
            connect(
                "ws" + url.removeprefix("http") + "/api/cannery/v1/events",
                origin=origin,  # type: ignore[arg-type]
                proxy=None,
                compression=None,
                max_size=2**21,
                max_queue=4,
            )
        )
        self.origin = origin or ""
        first = self.receive()
        assert first["type"] == "challenge"
        self.challenge = first["challenge"]
        assert isinstance(self.challenge, bytes)
        assert len(self.challenge) == 32

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def envelope(
        self,
        who: Identity,
        canister: Principal,
        topics: list[str],
        since: int | None = None,
        *,
        challenge: bytes | None = None,
        origin: str | None = None,
        method: str = "events_allowed",
        arg: bytes | None = None,
        expiry_ns: int | None = None,
    ) -> bytes:
        """Sign a subscription, right or wrong."""
        request = EventRequest(
            self.challenge if challenge is None else challenge,
            self.origin if origin is None else origin,
            topics,
            since,
        )
        content = QueryContent(
            who.principal,
            canister,
            method,
            _encode((request,)) if arg is None else arg,
            expiry_ns or time.time_ns() + 200 * 10**9,
            b"",
        )
        return build_envelope(content, who)

    def send(self, message: dict[str, cbor.CborSource]) -> None:
        self.connection.send(cbor.encode(message, self_describe=False))

    def subscribe(self, *args: object, **options: object) -> dict[str, cbor.CborValue]:
        """Subscribe and give the node's answer."""
        self.send({"type": "subscribe", "envelope": self.envelope(*args, **options)})  # type: ignore[arg-type]
        return self.receive()

    def receive(self) -> dict[str, cbor.CborValue]:
        """Give the next message."""
        data = self.connection.recv(timeout=WAIT_S)
        value, _ = cbor.decode(data)  # type: ignore[arg-type]
        assert isinstance(value, dict)
        return value

    def events(self, count: int) -> list[tuple[int, str, bytes]]:
        """Give the next events; whatever else comes is a failure."""
        found = []
        for _ in range(count):
            message = self.receive()
            assert message["type"] == "event", message
            found.append((message["number"], message["topic"], message["payload"]))
        return found  # type: ignore[return-value]
