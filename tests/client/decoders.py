"""What clients read of nodes, zones and other members; `tests/test_fuzz.py` has the laws.

Whoever writes into an encrypted zone has its key: what stands inside a seal is a stranger's all the same.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cannery.apps.zones.arrivals import Arrival
from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.topic_records import TopicMessage
from cannery.client.errors import ClientError, Unverified
from cannery.client.events import Event, Follower
from cannery.client.zone_cover import CoverFault
from cannery.client.zone_invitation import BadInvitation, Invitation
from cannery.client.zone_key_log import NO_RECORD, RecordBody, make_card, make_record, read_card, read_record
from cannery.client.zone_live import arrival_of
from cannery.client.zone_seal import (
    MESSAGE,
    NAME,
    SealedContent,
    exchange_of,
    make_box,
    new_zone_key,
    open_box,
    seal,
    seal_content,
    topic_key,
)
from cannery.client.zone_sealed_cover import SealedCover
from cannery.protocol import cbor
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from tests.fuzzing import Decoder

ZONE = Principal(b"\x01\x01")
KEY = new_zone_key(3)
ANN = Ed25519Identity(bytes(31) + b"\x01")
COVER = SealedCover(ZONE, ANN, lambda: KEY, lambda: KEY, lambda _: KEY)
TOPIC = topic_key(KEY, "chat")
EXCHANGE = exchange_of(ANN, ZONE)
RECORD = make_record(ANN, ZONE, RecordBody(1, NO_RECORD, bytes(32), None, [ANN.principal.raw]))
DIGEST = bytes(32)
LETTER = msgspec.msgpack.encode(("chat", b"hello", ANN.public_key_der, bytes(64)))
EVENT = {"type": "event", "canister": b"\x01", "number": 3, "time_ns": 5, "topic": "chat", "payload": b"x"}
MESSAGES: tuple[dict[str, cbor.CborSource], ...] = (
    {**EVENT},
    {"type": "gap", "canister": b"\x01", "from": 3, "first": 9},
    {"type": "subscribed", "canister": b"\x01", "topics": ["chat"], "next": 3},
    {"type": "mark", "canister": b"\x01", "next": 9},
    {"type": "ended", "canister": b"\x01", "reason": "denied", "text": "no"},
)
ARRIVAL = encoder((type_of(Arrival),))((Arrival(bytes(41), TopicMessage(1, 2, bytes(32), 5, b"hello")),))


def _content(data: bytes) -> None:
    opener = SealedContent(lambda _: KEY, ZONE)
    for start in range(0, len(data), 100):
        opener.take(data[start : start + 100])
    opener.end()


def _take(data: bytes) -> None:
    follower = Follower("http://node", None, ZONE, ["chat"])  # type: ignore[arg-type]
    follower.next = 3
    try:
        follower._take(data)
    except Exception as error:
        # That it is to connect again, the one other thing that a message may say, is no public error.
        if not isinstance(error, ClientError) and type(error).__name__ != "_Again":
            raise
        raise Unverified(str(error) or "again") from None


def _inside(kind: bytes, place: bytes, open_it: Callable[[bytes], object]) -> Callable[[bytes], object]:
    return lambda data: open_it(seal(kind, KEY, ZONE, place, data))


def _arrival(data: bytes) -> None:
    arrival_of(Event(0, 0, "messages", data))


DECODERS = {
    "key record": Decoder(lambda data: read_record(ZONE, data), Unverified, (RECORD,)),
    "card": Decoder(
        lambda data: read_card(ZONE, ANN.principal, data), Unverified, (make_card(ANN, ZONE, bytes(32)),)
    ),
    "box": Decoder(
        lambda data: open_box(3, EXCHANGE, data),
        CoverFault,
        (make_box(KEY, ZONE, ANN.principal, EXCHANGE.public),),
    ),
    "message": Decoder(
        lambda data: COVER.open_message(TOPIC, data),
        CoverFault,
        (COVER.seal_message(TOPIC, "chat", b"hello"),),
    ),
    "letter in a message": Decoder(
        _inside(MESSAGE, TOPIC, lambda data: COVER.open_message(TOPIC, data)), CoverFault, (), (LETTER,)
    ),
    "name": Decoder(
        lambda data: COVER.open_name(b"d", data, DIGEST),
        CoverFault,
        (COVER.seal_name(b"d", "a.txt", DIGEST),),
    ),
    "name in a seal": Decoder(
        _inside(NAME, b"d", lambda data: COVER.open_name(b"d", data, DIGEST)),
        CoverFault,
        (msgspec.msgpack.encode(("a.txt", DIGEST)),),
    ),
    "content": Decoder(_content, CoverFault, (seal_content(KEY, ZONE, bytes(300)),)),
    "invitation": Decoder(
        lambda data: Invitation.parse(data.decode("latin-1")),
        BadInvitation,
        (str(Invitation(bytes(16), KEY, bytes(32))).encode(), str(Invitation(bytes(16))).encode()),
    ),
    "arrival": Decoder(_arrival, Unverified, (ARRIVAL,)),
    "message of an event connection": Decoder(
        _take,
        Unverified,
        tuple(cbor.encode(each, self_describe=False) for each in MESSAGES[:4]),
        (cbor.encode({**EVENT, "number": 2**40_000}, self_describe=False),),
    ),
}
