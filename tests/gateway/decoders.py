"""What a gateway reads by itself: parts of requests, and what a subnet tells it.

`tests/test_fuzz.py` has the laws; requests as a whole have theirs in `test_fuzz.py` of this room.
"""

from __future__ import annotations

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.node.gateway.bodies import parse_size
from cannery.node.gateway.http import Refusal
from cannery.node.gateway.names import NameListError, decode_name_list
from cannery.node.gateway.push.wire import WireError, parse_message
from cannery.node.gateway.routes import parse_route, parse_sha256
from cannery.protocol import cbor
from cannery.protocol.principal import Principal
from cannery.replica.management import types as t
from tests.fuzzing import Decoder

CANISTER = str(Principal(b"\x00\x00\x00\x00\x00\x10\x00\x00\x01\x01"))
NAMES = encoder((type_of(list[t.NamedCanister]),))
SUBSCRIBE = cbor.encode({"type": "subscribe", "envelope": b"x"}, self_describe=False)
UNSUBSCRIBE = cbor.encode({"type": "unsubscribe", "canister": b"\x01"}, self_describe=False)


def _digest(data: bytes) -> None:
    assert len(parse_sha256(data.decode("latin-1"))) == 32


DECODERS = {
    "path": Decoder(
        lambda data: parse_route(data.decode("latin-1"), "POST"),
        Refusal,
        (f"/api/v4/canister/{CANISTER}/call".encode(), f"/api/v3/subnet/{CANISTER}/query".encode()),
        (b"/api/v2/status", b"/cannery/body/" + b"ab" * 32),
        (b"", b"/", b"/api/v2/canister/"),
    ),
    "size in a header": Decoder(lambda data: parse_size(data, "upload-offset"), Refusal, (b"0", b"1048576")),
    "name of a body": Decoder(_digest, Refusal, (b"ab" * 32,), (b"ab " * 20 + b"abcd",)),
    "message of a subscriber": Decoder(parse_message, WireError, (SUBSCRIBE, UNSUBSCRIBE)),
    "list of names": Decoder(
        decode_name_list,
        NameListError,
        (NAMES(([t.NamedCanister("user_index", Principal.parse(CANISTER))],)),),
    ),
}
