"""What a subnet reads of messages, of the blocks that order them, and of its own state.

`tests/test_fuzz.py` has the laws.
"""

from __future__ import annotations

import importlib
import pkgutil

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.errors import Reject, StoreError
from cannery.protocol.principal import Principal
from cannery.replica import places
from cannery.replica import records as record_room
from cannery.replica.management import types as t
from cannery.replica.management.dispatch import METHODS
from cannery.replica.outcall_url import line_fault, parse_url
from cannery.replica.records import RecordDecoder
from cannery.testing.streams import make_routes
from tests.fuzzing import Decoder, NeverRefused, accepts_or_raises_its_error

ROUTES = make_routes(2)
CANISTER = Principal(b"\x00\x00\x00\x00\x00\x10\x00\x00\x01\x01")
ARGUMENTS = (
    encoder((type_of(t.CanisterIdRecord),))((t.CanisterIdRecord(CANISTER),)),
    encoder((type_of(t.ProvisionalCreateArgs),))((t.ProvisionalCreateArgs(amount=5),)),
    encoder((type_of(t.InstallCodeArgs),))(
        (t.InstallCodeArgs(t.InstallMode.install(), CANISTER, b"module", b"DIDL\x00\x00"),)
    ),
)


def _of_all_methods(data: bytes) -> None:
    for method in METHODS.values():
        accepts_or_raises_its_error(Decoder(method.decode, Reject, ()), data)


def _places(data: bytes) -> None:
    for method in METHODS:
        places.place_of_management(ROUTES, method, data)


def _record_decoders() -> tuple[RecordDecoder[object], ...]:
    """Find the decoders of all records that there are."""
    found: dict[int, RecordDecoder[object]] = {}
    room = importlib.import_module("cannery.replica")
    for each in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
        for value in vars(importlib.import_module(each.name)).values():
            if isinstance(value, RecordDecoder):
                found[id(value)] = value
    return tuple(found.values())


RECORDS = _record_decoders()


def _of_all_records(data: bytes) -> None:
    for decoder in RECORDS:
        accepts_or_raises_its_error(Decoder(decoder.decode, StoreError, ()), data)


DECODERS = {
    "argument of a management call": Decoder(_of_all_methods, NeverRefused, ARGUMENTS, heads=(b"", b"DIDL")),
    "place of a management call": Decoder(_places, NeverRefused, ARGUMENTS, heads=(b"", b"DIDL")),
    "records": Decoder(
        _of_all_records, NeverRefused, (b"\x01\x90", b"\x01\x80"), heads=(b"", record_room.RECORD_VERSION)
    ),
    "address of an outcall": Decoder(
        lambda data: parse_url(data.decode("latin-1")),
        NeverRefused,
        (b"https://[::1]:8080/a?b#c", b"http://example.org:80/"),
    ),
    "line of the list of hosts": Decoder(
        lambda data: line_fault(data.decode("latin-1")), NeverRefused, (b"http://*.example.org:80", b"*")
    ),
}
