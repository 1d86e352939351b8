"""What goes over an events connection: one CBOR map in each binary message (docs/events.md).

Clients send `subscribe` and `unsubscribe`; everything else is the node's.
"""

from __future__ import annotations

from dataclasses import dataclass

from websockets.frames import Frame, Opcode

from cannery.errors import DecodeError
from cannery.node.handover import EventItem
from cannery.protocol import cbor


class WireError(DecodeError):
    """A client's message is none of those that there are."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A signed query envelope for a canister's `events_allowed`."""

    envelope: bytes


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """The canister whose events are no longer wanted."""

    canister_id: bytes


def parse_message(data: bytes) -> Subscribe | Unsubscribe:
    """Read a client's message. Raises `WireError`."""
    try:
        value, _ = cbor.decode(data)
    except DecodeError as error:
        raise WireError(str(error)) from None
    if isinstance(value, dict):
        kind = value.get("type")
        envelope, canister_id = value.get("envelope"), value.get("canister")
        if kind == "subscribe" and isinstance(envelope, bytes) and len(value) == 2:
            return Subscribe(envelope)
        if kind == "unsubscribe" and isinstance(canister_id, bytes) and len(value) == 2:
            return Unsubscribe(canister_id)
    raise WireError(
        'send {"type": "subscribe", "envelope": bytes} or {"type": "unsubscribe", "canister": bytes}'
    )


def message_frame(kind: str, **fields: cbor.CborSource) -> bytes:
    """Encode a message of the node's as a frame."""
    return _frame({"type": kind, **fields})


def event_frame(canister_id: bytes, event: EventItem) -> bytes:
    """Encode an event as a frame; the same bytes go to all who watch."""
    return _frame(
        {
            "type": "event",
            "canister": canister_id,
            "number": event.number,
            "time_ns": event.time_ns,
            "topic": event.topic,
            "payload": event.payload,
        }
    )


def _frame(value: cbor.CborSource) -> bytes:
    return Frame(Opcode.BINARY, cbor.encode(value, self_describe=False)).serialize(mask=False)
