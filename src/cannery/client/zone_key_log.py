"""The log of a zone's keys, and members' cards: signed, chained by hash, checked without believing the zone.

Each key has a record: the hash of the record before, a commitment to the key, the key before sealed with it
(where it is linked), and who may make the next one. A record is signed by one whom the record before names.
Whoever knows the hash of one record, as an invitation tells it, knows all before and can check all after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import msgspec

from cannery.client.errors import Unverified
from cannery.protocol.identity import Identity
from cannery.protocol.principal import Principal
from cannery.protocol.public_key import CanisterKey, PublicKeyError, parse_public_key

_RECORD_DOMAIN = b"\x15cannery-zone-record-1"
_CARD_DOMAIN = b"\x13cannery-zone-card-1"
NO_RECORD = bytes(32)


class RecordBody(msgspec.Struct, frozen=True, array_like=True):
    """What a record says; principals are bytes."""

    version: int
    previous: bytes
    commitment: bytes
    link: bytes | None
    signers: list[bytes]


class _Signed(msgspec.Struct, frozen=True, array_like=True):
    format: int
    body: bytes
    key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A record whose signature is right: who signed it, and its hash."""

    body: RecordBody
    signer: Principal
    hash: bytes


def make_record(identity: Identity, zone: Principal, body: RecordBody) -> bytes:
    """Sign a record."""
    return _sign(identity, _RECORD_DOMAIN, zone, msgspec.msgpack.encode(body))


def read_record(zone: Principal, data: bytes) -> KeyRecord:
    """Read a record and check its signature. Raises `Unverified`."""
    body, signer = _read(_RECORD_DOMAIN, zone, data, "a record of a zone key")
    try:
        decoded = msgspec.msgpack.decode(body, type=RecordBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unverified(f"a record of a zone key is malformed: {error}") from None
    return KeyRecord(decoded, signer, sha256(data).digest())


def check_next(before: KeyRecord | None, record: KeyRecord) -> None:
    """See that a record follows another. Raises `Unverified`."""
    version = 1 if before is None else before.body.version + 1
    previous = NO_RECORD if before is None else before.hash
    if (record.body.version, record.body.previous) != (version, previous):
        raise Unverified(f"the zone's record {version} of its keys does not follow the one before")
    if before is not None and record.signer.raw not in before.body.signers:
        raise Unverified(
            f"the zone's key {version} was made by {record.signer}, who was no admin of it: do not use it"
        )


def make_card(identity: Identity, zone: Principal, public: bytes) -> bytes:
    """Sign that a key is one's own in a zone."""
    return _sign(identity, _CARD_DOMAIN, zone, public)


def read_card(zone: Principal, member: Principal, data: bytes) -> bytes:
    """Give the key that a member's card names. Raises `Unverified` where the member did not sign it."""
    public, signer = _read(_CARD_DOMAIN, zone, data, f"the card of {member}")
    if signer != member or len(public) != 32:
        raise Unverified(f"the card of {member} is signed by {signer}")
    return public


def _sign(identity: Identity, domain: bytes, zone: Principal, body: bytes) -> bytes:
    key = identity.public_key_der
    assert key is not None, "an anonymous caller is no member"
    signature = identity.sign(_message(domain, zone, body))
    return msgspec.msgpack.encode(_Signed(1, body, key, signature))


def _read(domain: bytes, zone: Principal, data: bytes, what: str) -> tuple[bytes, Principal]:
    try:
        signed = msgspec.msgpack.decode(data, type=_Signed)
        key = parse_public_key(signed.key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, PublicKeyError) as error:
        raise Unverified(f"{what} is malformed: {error}") from None
    if signed.format != 1:
        raise Unverified(f"{what} has format {signed.format}: a newer client reads it")
    message = _message(domain, zone, signed.body)
    if isinstance(key, CanisterKey) or not key.verify(message, signed.signature):
        raise Unverified(f"{what} is not signed as it says")
    return signed.body, Principal.self_authenticating(signed.key)


def _message(domain: bytes, zone: Principal, body: bytes) -> bytes:
    return domain + bytes([len(zone.raw)]) + zone.raw + body
