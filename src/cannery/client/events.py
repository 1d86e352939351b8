"""Following a canister's events: one connection after the other, each event once, gaps told.

The client proves itself on each connection by a signed query that holds the node's challenge. It knows the
number of the next event that it waits for, and asks for that one when it connects again: nothing is lost or
repeated, and what has left the canister's log meanwhile comes as a `Gap`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.event_request import EVENTS_METHOD, EventRequest
from cannery.client.conversation import Conversation
from cannery.client.errors import ClientError, Refused, Unreachable, Unverified
from cannery.client.exchange import Lost, WaitReport
from cannery.client.retry import Backoff
from cannery.errors import DecodeError
from cannery.limits import (
    CLIENT_EVENT_SIZE_BYTES_MAX,
    CLIENT_EVENT_WAIT_S_MAX,
    CLIENT_EVENTS_AHEAD_COUNT_MAX,
    CLIENT_INGRESS_EXPIRY_NS,
)
from cannery.protocol import cbor
from cannery.protocol.envelope import QueryContent, build_envelope
from cannery.protocol.principal import Principal

EVENTS_PATH: Final = "/api/cannery/v1/events"
_HTTP_ERROR_FIRST: Final = 400
_NUMBERS: Final = ("number", "time_ns", "from", "first", "next")
_HTTP_TRANSIENT: Final = frozenset((429, 500, 502, 503, 504))
_encode_request: Final = encoder((type_of(EventRequest),))


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a canister."""

    number: int
    time_ns: int
    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """Events from `first_lost` to before `next` have left the canister's log: ask it for its state."""

    first_lost: int
    next: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A connection has begun to tell: whatever happens from here on comes, from event `next` on."""

    next: int


class EventsEnded(ClientError):
    """The node gives no events: the canister denies them, or the delegation has expired.

    `reason` is one word of docs/events.md; `next` the number to go on from, None where nothing had begun.
    """

    def __init__(self, reason: str, text: str, next_number: int | None) -> None:
        super().__init__(text)
        self.reason = reason
        self.next = next_number


class _Again(Exception):
    """Connect again, after a pause."""


class Follower:
    """What one iteration over events knows."""

    def __init__(
        self, url: str, conversation: Conversation, canister_id: Principal, topics: Sequence[str]
    ) -> None:
        self._url = "ws" + url.removeprefix("http") + EVENTS_PATH
        self._conversation = conversation
        self._canister_id = canister_id
        self._topics = list(topics)
        self.next: int | None = None

    async def follow(self, *, uses_proxies: bool, on_wait: WaitReport | None) -> AsyncIterator[Event | Gap]:
        """Give events and gaps, on as many connections as it takes."""
        steps = self.steps(uses_proxies=uses_proxies, on_wait=on_wait)
        async with aclosing(steps):
            async for step in steps:
                if not isinstance(step, Subscribed):
                    yield step

    async def steps(
        self, *, uses_proxies: bool, on_wait: WaitReport | None
    ) -> AsyncGenerator[Event | Gap | Subscribed]:
        """Give events and gaps, and say when each connection has begun to tell."""
        backoff = self._backoff()
        while True:
            reason = "the connection was closed"
            try:
                async with connect(
                    self._url,
                    proxy=True if uses_proxies else None,
                    compression=None,
                    max_size=CLIENT_EVENT_SIZE_BYTES_MAX,
                    max_queue=CLIENT_EVENTS_AHEAD_COUNT_MAX,
                    open_timeout=CLIENT_EVENT_WAIT_S_MAX,
                    close_timeout=1.0,
                ) as connection:
                    await self._subscribe(connection)
                    async for data in connection:
                        item = self._take(data)
                        backoff = self._backoff()
                        if item is not None:
                            yield item
            except InvalidStatus as error:
                status = error.response.status_code
                if status >= _HTTP_ERROR_FIRST and status not in _HTTP_TRANSIENT:
                    raise Refused(
                        status, bytes(error.response.body or b"").decode(errors="replace")
                    ) from None
                reason = f"the node is not ready (HTTP {status})"
            except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, _Again) as error:
                reason = f"no events from the node ({error})"
            pause = backoff.pause(Lost(sent=False, reason=reason), reason)
            if pause is None:
                raise Unreachable(f"{self._url}: {reason}")
            if on_wait is not None:
                on_wait(reason)
            await asyncio.sleep(pause.seconds)

    def _backoff(self) -> Backoff:
        now_ns = self._conversation.now_ns
        return Backoff(now_ns, now_ns() + self._conversation.patience_ns)

    async def _subscribe(self, connection: ClientConnection) -> None:
        async with asyncio.timeout(CLIENT_EVENT_WAIT_S_MAX):
            fields = _fields(await connection.recv())
        challenge = fields.get("challenge")
        if fields.get("type") != "challenge" or not isinstance(challenge, bytes):
            raise Unverified("the node begins with something else than a challenge")
        talk = self._conversation
        content = QueryContent(
            sender=talk.identity.principal,
            canister_id=self._canister_id,
            method_name=EVENTS_METHOD,
            arg=_encode_request((EventRequest(challenge, "", self._topics, self.next),)),
            ingress_expiry_ns=talk.now_ns() + CLIENT_INGRESS_EXPIRY_NS,
            nonce=talk.nonce(),
        )
        envelope = build_envelope(content, talk.identity)
        await connection.send(cbor.encode({"type": "subscribe", "envelope": envelope}, self_describe=False))

    def _take(self, data: str | bytes) -> Event | Gap | Subscribed | None:
        """Take a message of the node's: give what is for the caller, remember the rest."""
        fields = _fields(data)
        if any(isinstance(fields.get(name), int) and not _is_nat64(fields[name]) for name in _NUMBERS):
            raise Unverified("the node gives a number that is none of an event, nor a time")
        match fields:
            case {
                "type": "event",
                "number": int(number),
                "time_ns": int(time_ns),
                "topic": str(topic),
                "payload": bytes(payload),
            }:
                if self.next is not None and number < self.next:
                    raise Unverified(f"the node repeats event {number}")
                self.next = number + 1
                return Event(number, time_ns, topic, payload)
            case {"type": "gap", "from": int(first_lost), "first": int(next_number)}:
                self.next = next_number
                return Gap(first_lost, next_number)
            case {"type": "subscribed", "next": int(next_number)}:
                self.next = next_number
                return Subscribed(next_number)
            case {"type": "mark", "next": int(next_number)}:
                self.next = next_number
            case {"type": "refused" | "ended", "reason": str(reason), "text": str(text)}:
                if reason == "busy":
                    raise _Again(text)
                raise EventsEnded(reason, text, self.next)
        return None


def _is_nat64(value: cbor.CborValue) -> bool:
    return isinstance(value, int) and 0 <= value < 2**64


def _fields(data: str | bytes) -> dict[str, cbor.CborValue]:
    try:
        value, _ = cbor.decode(data if isinstance(data, bytes) else data.encode())
    except DecodeError as error:
        raise Unverified(f"the node sent something else than a message: {error}") from None
    return value if isinstance(value, dict) else {}
