"""Public keys: the specification's example, WebAuthn assertions, and forms that are no key."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from hashlib import sha256

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from cannery.protocol.der import BIT_STRING, SEQUENCE, DerError, DerReader, encode_der
from cannery.protocol.principal import Principal
from cannery.protocol.public_key import (
    ALGORITHM_CANISTER,
    ALGORITHM_COSE,
    ALGORITHM_ED25519,
    ALGORITHM_P256,
    ALGORITHM_SECP256K1,
    CanisterKey,
    Ed25519Key,
    P256Key,
    PublicKeyError,
    RsaKey,
    Secp256k1Key,
    WebAuthnKey,
    encode_public_key,
    parse_public_key,
)
from tests.protocol.requests import KEYS

SPECIFICATION_COSE_KEY = bytes.fromhex(
    "305E300C060A2B0601040183B8430101034E00A50102032620012158207FFD83632072FD1BFEAF3FBAA43146E0EF95C3F55E39"
    "94A41BBF2B5174D771DA22582032497EED0A7F6F000928765B8318162CFD80A94E525A6A368C2363063D04E6ED"
)
P256 = ec.derive_private_key(7, ec.SECP256R1())
ED25519 = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
RSA = rsa.generate_private_key(65537, 2048)
MESSAGE = b"\x0aic-request" + bytes(range(32))


def cose_key(private: object) -> dict[int, object]:
    if isinstance(private, ec.EllipticCurvePrivateKey):
        point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]}
    if isinstance(private, rsa.RSAPrivateKey):
        numbers = private.public_key().public_numbers()
        return {1: 3, 3: -257, -1: numbers.n.to_bytes(256, "big"), -2: numbers.e.to_bytes(3, "big")}
    assert isinstance(private, Ed25519PrivateKey)
    return {1: 1, 3: -8, -1: 6, -2: private.public_key().public_bytes_raw()}


def cose_der(fields: object) -> bytes:
    return encode_public_key(ALGORITHM_COSE, cbor2.dumps(fields))


def assertion(private: object, message: bytes = MESSAGE, **changes: object) -> bytes:
    """Sign as an authenticator and browser do."""
    client_data: dict[str, object] = {
        "type": "webauthn.get",
        "challenge": urlsafe_b64encode(message).rstrip(b"=").decode(),
        "origin": "https://example.org",
        "crossOrigin": False,
    }
    client_data.update({name: value for name, value in changes.items() if name in client_data})
    text = json.dumps(client_data)
    authenticator_data = changes.get("authenticator_data", bytes(37))
    assert isinstance(authenticator_data, bytes)
    signed = authenticator_data + sha256(text.encode()).digest()
    if isinstance(private, ec.EllipticCurvePrivateKey):
        signature = private.sign(signed, ec.ECDSA(SHA256()))
    elif isinstance(private, rsa.RSAPrivateKey):
        signature = private.sign(signed, padding.PKCS1v15(), SHA256())
    else:
        assert isinstance(private, Ed25519PrivateKey)
        signature = private.sign(signed)
    fields = {"authenticator_data": authenticator_data, "client_data_json": text, "signature": signature}
    return cbor2.dumps(cbor2.CBORTag(55799, fields))


# --- DER ------------------------------------------------------------------------------------------


def test_each_kind_of_key_is_read() -> None:
    kinds = [type(parse_public_key(key.public_key_der)) for key in KEYS]
    assert kinds == [Ed25519Key, Secp256k1Key, P256Key]
    cose = parse_public_key(SPECIFICATION_COSE_KEY)
    assert isinstance(cose, WebAuthnKey)
    assert isinstance(cose.key, P256Key)
    canister = parse_public_key(encode_public_key(ALGORITHM_CANISTER, b"\x02ab" + b"seed"))
    assert canister == CanisterKey(Principal(b"ab"), b"seed")
    assert parse_public_key(encode_public_key(ALGORITHM_CANISTER, b"\x00")) == CanisterKey(
        Principal(b""), b""
    )


POINT = KEYS[1].public_key_der[-65:]
NO_KEYS = {
    "nothing": b"",
    "a short Ed25519 key": encode_public_key(ALGORITHM_ED25519, bytes(31)),
    "a long Ed25519 key": encode_public_key(ALGORITHM_ED25519, bytes(33)),
    "a byte too many": KEYS[0].public_key_der + b"\0",
    "a byte too few": KEYS[1].public_key_der[:-1],
    "no point of secp256k1": encode_public_key(ALGORITHM_SECP256K1, b"\x04" + b"\x01" * 64),
    "no point of P-256": encode_public_key(ALGORITHM_P256, POINT),
    "a compressed point": encode_public_key(ALGORITHM_SECP256K1, b"\x02" + POINT[1:33]),
    "a hybrid point": encode_public_key(ALGORITHM_SECP256K1, b"\x06" + POINT[1:]),
    "the point at infinity": encode_public_key(ALGORITHM_P256, b"\x00"),
    "another curve": encode_public_key(bytes.fromhex("06072a8648ce3d020106052b81040022"), POINT),
    "RSA outside WebAuthn": RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "bits that fill no byte": encode_der(
        SEQUENCE, encode_der(SEQUENCE, ALGORITHM_SECP256K1), encode_der(BIT_STRING, b"\1", POINT)
    ),
    "no bits": encode_der(SEQUENCE, encode_der(SEQUENCE, ALGORITHM_ED25519), encode_der(BIT_STRING)),
    "a length in a longer form": b"\x30\x81" + KEYS[1].public_key_der[1:],
    "a length with a zero in front": b"\x30\x83\x00" + cose_der(cose_key(RSA))[2:],
    "an endless length": b"\x30\x84\xff\xff\xff\xff",
    "an indefinite length": b"\x30\x80" + KEYS[0].public_key_der[2:] + b"\0\0",
    "a long key": encode_public_key(ALGORITHM_CANISTER, b"\0" * 5000),
    "a canister key without canister": encode_public_key(ALGORITHM_CANISTER, b""),
    "a canister key cut short": encode_public_key(ALGORITHM_CANISTER, b"\x0aabc"),
    "a canister id too long": encode_public_key(ALGORITHM_CANISTER, b"\x1e" + bytes(30)),
    "COSE that is no CBOR": encode_public_key(ALGORITHM_COSE, b"\xff"),
    "COSE that is no map": cose_der([1]),
    "COSE with nothing": cose_der({}),
    "COSE of another curve": cose_der(cose_key(P256) | {-1: 2}),
    "COSE of another algorithm": cose_der(cose_key(P256) | {3: -35}),
    "COSE with a short x": cose_der(cose_key(P256) | {-2: bytes(31)}),
    "COSE of no point": cose_der(cose_key(P256) | {-2: bytes(32)}),
    "COSE without y": cose_der({k: v for k, v in cose_key(P256).items() if k != -3}),
    "COSE RSA of 8 bits": cose_der({1: 3, 3: -257, -1: b"\xff", -2: b"\3"}),
    "COSE RSA of 8192 bits": cose_der({1: 3, 3: -257, -1: b"\xff" * 1024, -2: b"\3"}),
    "COSE RSA with an even exponent": cose_der(cose_key(RSA) | {-2: b"\2"}),
    "COSE RSA with a huge exponent": cose_der(cose_key(RSA) | {-2: b"\xff" * 100}),
}


@pytest.mark.parametrize("der", NO_KEYS.values(), ids=NO_KEYS.keys())
def test_forms_that_are_no_key(der: bytes) -> None:
    with pytest.raises(PublicKeyError):
        parse_public_key(der)


def test_the_rsa_key_above_is_right_but_for_its_length() -> None:
    assert cose_der(cose_key(RSA))[:2] == b"\x30\x82"
    parse_public_key(cose_der(cose_key(RSA)))


@pytest.mark.parametrize("size", [0, 127, 128, 255, 256, 65_535, 65_536])
def test_der_lengths(size: int) -> None:
    reader = DerReader(encode_der(SEQUENCE, bytes(size)))
    assert reader.read(SEQUENCE) == bytes(size)
    reader.end()


def test_der_demands_its_tag() -> None:
    reader = DerReader(encode_der(SEQUENCE))
    with pytest.raises(DerError):
        reader.read(BIT_STRING)
    with pytest.raises(DerError):
        reader.end()


# --- Ed25519 --------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.binary(min_size=32, max_size=32), st.data())
def test_an_ed25519_signature_holds_for_its_message_and_key_alone(
    message: bytes, seed: bytes, data: st.DataObject
) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key = Ed25519Key(private.public_key().public_bytes_raw())
    signature = private.sign(message)
    assert key.verify(message, signature)
    assert not key.verify(message + b"x", signature)
    bit = data.draw(st.integers(0, 511))
    bent = bytearray(signature)
    bent[bit // 8] ^= 1 << bit % 8
    assert not key.verify(message, bytes(bent))
    assert not key.verify(message, signature[: data.draw(st.integers(0, 63))])
    assert not key.verify(message, signature + b"x")
    order = 2**252 + 27742317777372353535851937790883648493
    larger = int.from_bytes(signature[32:], "little") + order
    assert not key.verify(message, signature[:32] + larger.to_bytes(32, "little"))


def test_ed25519_keys_that_are_no_point_verify_nothing() -> None:
    for raw in (b"\xff" * 32, b"\x02" + bytes(31), bytes(31), bytes(33)):
        assert not Ed25519Key(raw).verify(MESSAGE, ED25519.sign(MESSAGE))


def test_points_of_small_order_are_taken_as_zip_215_says() -> None:
    # The neutral element as key and as R, and s = 0: the equation holds for each message.
    neutral = b"\x01" + bytes(31)
    assert Ed25519Key(neutral).verify(MESSAGE, neutral + bytes(32))
    assert not Ed25519Key(neutral).verify(MESSAGE, neutral + b"\x01" + bytes(31))


# --- Web Authentication ---------------------------------------------------------------------------

AUTHENTICATORS = [P256, ED25519, RSA]
AUTHENTICATOR_NAMES = ["P-256", "Ed25519", "RSA"]


def webauthn_key(private: object) -> WebAuthnKey:
    key = parse_public_key(cose_der(cose_key(private)))
    assert isinstance(key, WebAuthnKey)
    return key


@pytest.mark.parametrize("private", AUTHENTICATORS, ids=AUTHENTICATOR_NAMES)
def test_an_authenticator_signs(private: object) -> None:
    key = webauthn_key(private)
    assert isinstance(key.key, P256Key | Ed25519Key | RsaKey)
    assert key.verify(MESSAGE, assertion(private))
    assert not key.verify(MESSAGE + b"x", assertion(private))
    for other in AUTHENTICATORS:
        if other is not private:
            assert not key.verify(MESSAGE, assertion(other))


@pytest.mark.parametrize("private", AUTHENTICATORS, ids=AUTHENTICATOR_NAMES)
def test_each_part_of_an_assertion_counts(private: object) -> None:
    key = webauthn_key(private)
    good = dict(cbor2.loads(assertion(private)))
    padded = urlsafe_b64encode(MESSAGE).decode()
    assert key.verify(MESSAGE, cbor2.dumps(good))
    assert key.verify(MESSAGE, cbor2.dumps(good | {"client_data_json": good["client_data_json"].encode()}))
    assert key.verify(MESSAGE, assertion(private, challenge=padded))
    for bad in (
        good | {"authenticator_data": b"\1" + bytes(36)},
        good | {"client_data_json": good["client_data_json"].replace("example", "elsewhere")},
        good | {"client_data_json": "{}"},
        good | {"client_data_json": "[" * 4000},
        good | {"client_data_json": '{"type": "webauthn.get", "challenge": ' + "[" * 3000},
        good | {"client_data_json": good["client_data_json"] + " " * 10_000},
        good | {"client_data_json": 7},
        good | {"signature": b""},
        good | {"signature": good["signature"] + b"\0"},
        {"signature": good["signature"]},
    ):
        assert not key.verify(MESSAGE, cbor2.dumps(bad))
    assert not key.verify(MESSAGE, assertion(private, type="webauthn.create"))
    assert not key.verify(MESSAGE, assertion(private, message=b"another"))
    assert not key.verify(MESSAGE, assertion(private, authenticator_data=bytes(36)))
    for raw in (b"", b"\x01", b"x" * 64, good["signature"]):
        assert not key.verify(MESSAGE, raw)
