"""Requests for the tests: a point in time, keys, contents, and bodies built field by field."""

from __future__ import annotations

from collections.abc import Mapping

import cbor2

from cannery.protocol.envelope import REQUEST_DOMAIN, CallContent, QueryContent, ReadStateContent
from cannery.protocol.identity import (
    Ed25519Identity,
    Identity,
    KeyIdentity,
    P256Identity,
    Secp256k1Identity,
)
from cannery.protocol.principal import Principal
from cannery.protocol.representation import hash_map

NOW_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000
EXPIRY_NS = NOW_NS + 60 * SECOND_NS
CANISTER = Principal.parse("rkp4c-7iaaa-aaaaa-aaaca-cai")
OTHER_CANISTER = Principal.parse("um5iw-rqaaa-aaaaq-qaaba-cai")

KEYS: list[KeyIdentity] = [
    Ed25519Identity(b"\x11" * 32),
    Secp256k1Identity(b"\x22" * 32),
    P256Identity(b"\x33" * 32),
]
SESSION = Ed25519Identity(b"\x44" * 32)


def call_content(sender: Principal, **changes: object) -> CallContent:
    fields: dict[str, object] = {
        "sender": sender,
        "canister_id": CANISTER,
        "method_name": "greet",
        "arg": b"DIDL\x00\x00",
        "ingress_expiry_ns": EXPIRY_NS,
        "nonce": b"n" * 16,
    }
    return CallContent(**{**fields, **changes})  # type: ignore[arg-type]


def query_content(sender: Principal, **changes: object) -> QueryContent:
    call = call_content(sender, **changes)
    return QueryContent(
        call.sender, call.canister_id, call.method_name, call.arg, call.ingress_expiry_ns, call.nonce
    )


def read_state_content(sender: Principal, expiry_ns: int = EXPIRY_NS) -> ReadStateContent:
    return ReadStateContent(sender, ((b"time",), (b"request_status", bytes(32))), expiry_ns)


def call_fields(sender: Principal) -> dict[str, object]:
    """Return the content map of a call, to be changed and signed by hand."""
    return {
        "request_type": "call",
        "sender": sender.raw,
        "canister_id": CANISTER.raw,
        "method_name": "greet",
        "arg": b"DIDL\x00\x00",
        "ingress_expiry": EXPIRY_NS,
    }


def signed_body(content: Mapping[str, object], identity: Identity, **extra: object) -> bytes:
    """Sign a content map as it stands, unknown fields included."""
    envelope = {
        "content": dict(content),
        "sender_pubkey": identity.public_key_der,
        "sender_sig": identity.sign(REQUEST_DOMAIN + hash_map(content)),
        **extra,
    }
    return cbor2.dumps(envelope)
