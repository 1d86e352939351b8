"""Identities: known keys, signatures that verify, delegation, and PEM files of other tools."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from cannery.limits import DELEGATION_COUNT_MAX
from cannery.protocol.der import INTEGER, OCTET_STRING, SEQUENCE, encode_der
from cannery.protocol.identity import (
    AnonymousIdentity,
    DelegatedIdentity,
    Ed25519Identity,
    Identity,
    IdentityError,
    KeyIdentity,
    P256Identity,
    Secp256k1Identity,
    delegate,
    delegated,
)
from cannery.protocol.pem import format_pem, parse_pem
from cannery.protocol.principal import ANONYMOUS, Principal
from cannery.protocol.public_key import ALGORITHM_ED25519, CanisterKey, parse_public_key
from tests.protocol.requests import CANISTER, EXPIRY_NS, KEYS, SESSION

KEY_NAMES = [type(key).__name__ for key in KEYS]
secrets = st.binary(min_size=32, max_size=32).filter(lambda raw: 0 < int.from_bytes(raw, "big") < 2**255)


def verifies(identity: Identity, message: bytes, signature: bytes) -> bool:
    assert identity.public_key_der is not None
    key = parse_public_key(identity.public_key_der)
    assert not isinstance(key, CanisterKey)
    return key.verify(message, signature)


@pytest.mark.parametrize("make", [Ed25519Identity, Secp256k1Identity, P256Identity])
@given(secret=secrets, message=st.binary(max_size=99))
def test_any_secret_signs(make: type[KeyIdentity], secret: bytes, message: bytes) -> None:
    identity = make(secret)
    signature = identity.sign(message)
    assert len(signature) == 64
    assert identity.sign(message) == signature, "signing is deterministic"
    assert verifies(identity, message, signature)
    assert not verifies(identity, message + b"x", signature)
    assert identity.principal == Principal.self_authenticating(identity.public_key_der)
    assert parse_pem(format_pem(identity)) == identity


def test_a_known_ed25519_key() -> None:
    # RFC 8032, section 7.1, test 2.
    identity = Ed25519Identity(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    assert identity.public_key_raw.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert identity.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


@pytest.mark.parametrize("make", [Ed25519Identity, Secp256k1Identity, P256Identity])
def test_secrets_are_checked_and_hidden(make: type[KeyIdentity]) -> None:
    for wrong in (b"", b"\1" * 31, b"\1" * 33):
        with pytest.raises(IdentityError):
            make(wrong)
    secret = b"\x5a" * 32
    assert "Z" * 8 not in repr(make(secret))
    assert secret.hex() not in repr(make(secret))


@pytest.mark.parametrize("make", [Secp256k1Identity, P256Identity])
@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_numbers_outside_the_group_are_refused(make: type[KeyIdentity], secret: bytes) -> None:
    with pytest.raises(IdentityError):
        make(secret)


def test_the_anonymous_identity() -> None:
    identity = AnonymousIdentity()
    assert identity.principal == ANONYMOUS
    assert identity.public_key_der is None
    with pytest.raises(IdentityError):
        identity.sign(b"x")
    pairs: list[tuple[Identity, Identity]] = [(identity, SESSION), (SESSION, identity)]
    for owner, session in pairs:
        with pytest.raises(IdentityError):
            delegated(owner, session, EXPIRY_NS)


def test_delegated_identities_are_checked() -> None:
    link = delegate(KEYS[0], SESSION.public_key_der, EXPIRY_NS, [CANISTER])
    whole = DelegatedIdentity(SESSION, (link,), KEYS[0].public_key_der)
    assert whole == delegated(KEYS[0], SESSION, EXPIRY_NS, [CANISTER])
    assert whole.principal == KEYS[0].principal
    assert verifies(SESSION, b"x", whole.sign(b"x"))
    for chain, session in (
        ((), SESSION),
        ((link,), KEYS[1]),
        ((link,) * (DELEGATION_COUNT_MAX + 1), SESSION),
    ):
        with pytest.raises(IdentityError):
            DelegatedIdentity(session, chain, KEYS[0].public_key_der)


# --- PEM ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", KEYS, ids=KEY_NAMES)
def test_other_tools_read_what_is_written(identity: KeyIdentity) -> None:
    load_pem_private_key(format_pem(identity).encode(), password=None)


OTHERS_KEYS: dict[str, ec.EllipticCurvePrivateKey | Ed25519PrivateKey] = {
    "secp256k1": ec.derive_private_key(7, ec.SECP256K1()),
    "P-256": ec.derive_private_key(7, ec.SECP256R1()),
    "Ed25519": Ed25519PrivateKey.from_private_bytes(b"\x07" * 32),
}
SMALL_SECRET = (7).to_bytes(32, "big")


def others_pem(name: str, form: PrivateFormat) -> str:
    """Write a key as OpenSSL does, which is what `cryptography` stands on."""
    return OTHERS_KEYS[name].private_bytes(Encoding.PEM, form, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("secp256k1", PrivateFormat.TraditionalOpenSSL, Secp256k1Identity(SMALL_SECRET)),
        ("secp256k1", PrivateFormat.PKCS8, Secp256k1Identity(SMALL_SECRET)),
        ("P-256", PrivateFormat.TraditionalOpenSSL, P256Identity(SMALL_SECRET)),
        ("P-256", PrivateFormat.PKCS8, P256Identity(SMALL_SECRET)),
        ("Ed25519", PrivateFormat.PKCS8, Ed25519Identity(b"\x07" * 32)),
    ],
)
def test_what_other_tools_write_is_read(name: str, form: PrivateFormat, expected: KeyIdentity) -> None:
    assert parse_pem(others_pem(name, form)) == expected


def test_the_block_of_parameters_that_openssl_writes_first() -> None:
    key = others_pem("secp256k1", PrivateFormat.TraditionalOpenSSL)
    text = block("EC PARAMETERS", SECP256K1_PARAMETERS) + key
    assert parse_pem(text) == Secp256k1Identity(SMALL_SECRET)


def block(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{b64encode(der).decode()}\n-----END {label}-----\n"


ED25519 = Ed25519Identity(b"\x11" * 32)
V2_HEAD = (
    encode_der(INTEGER, b"\1")
    + encode_der(SEQUENCE, ALGORITHM_ED25519)
    + encode_der(OCTET_STRING, encode_der(OCTET_STRING, ED25519.seed))
)
SEC1_KEY = encode_der(SEQUENCE, encode_der(INTEGER, b"\1"), encode_der(OCTET_STRING, b"\x22" * 32))
SECP256K1_PARAMETERS = bytes.fromhex("06052b8104000a")
P256_PARAMETERS = bytes.fromhex("06082a8648ce3d030107")
SEC1_WITH_CURVE = encode_der(
    SEQUENCE,
    encode_der(INTEGER, b"\1"),
    encode_der(OCTET_STRING, b"\x22" * 32),
    encode_der(0xA0, SECP256K1_PARAMETERS),
)


@pytest.mark.parametrize(
    "public_key",
    [
        encode_der(0x81, b"\0", ED25519.public_key_raw),
        encode_der(0xA1, encode_der(0x03, b"\0", ED25519.public_key_raw)),
        b"",
    ],
    ids=["as the RFC has it", "wrapped once more", "without"],
)
def test_pkcs8_version_2_is_read(public_key: bytes) -> None:
    assert parse_pem(block("PRIVATE KEY", encode_der(SEQUENCE, V2_HEAD, public_key))) == ED25519


def test_sec1_with_its_curve_before_it() -> None:
    text = block("EC PARAMETERS", SECP256K1_PARAMETERS) + block("EC PRIVATE KEY", SEC1_KEY)
    assert parse_pem(text) == Secp256k1Identity(b"\x22" * 32)
    assert parse_pem(block("EC PRIVATE KEY", SEC1_WITH_CURVE)) == Secp256k1Identity(b"\x22" * 32)


BAD_FILES = {
    "nothing": ("", "no private key"),
    "text": ("hello", "no private key"),
    "a public key": (block("PUBLIC KEY", ED25519.public_key_der), "no private key"),
    "a password": (block("ENCRYPTED PRIVATE KEY", b"\x30\x00"), "password"),
    "two keys": (format_pem(KEYS[0]) + format_pem(KEYS[1]), "more than one"),
    "bad base64": ("-----BEGIN PRIVATE KEY-----\nAB=C\n-----END PRIVATE KEY-----\n", "base64"),
    "empty": (block("PRIVATE KEY", b""), "damaged"),
    "a byte too many": (block("PRIVATE KEY", encode_der(SEQUENCE, V2_HEAD, b"\0")), "damaged"),
    "the wrong public key": (
        block("PRIVATE KEY", encode_der(SEQUENCE, V2_HEAD, encode_der(0x81, b"\0", bytes(32)))),
        "public key",
    ),
    "no curve": (block("EC PRIVATE KEY", SEC1_KEY), "curve"),
    "another curve": (
        block("EC PARAMETERS", bytes.fromhex("06052b81040022")) + block("EC PRIVATE KEY", SEC1_KEY),
        "curve",
    ),
    "two curves": (
        block("EC PARAMETERS", bytes.fromhex("06082a8648ce3d030107"))
        + block("EC PRIVATE KEY", SEC1_WITH_CURVE),
        "two different curves",
    ),
    "version 3": (block("PRIVATE KEY", encode_der(SEQUENCE, encode_der(INTEGER, b"\2"))), "version"),
    "too long": ("x" * 1_000_000, "characters"),
}


@pytest.mark.parametrize(("text", "words"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_are_refused_with_a_reason(text: str, words: str) -> None:
    with pytest.raises(IdentityError, match=words):
        parse_pem(text)


def test_rsa_is_refused() -> None:
    key = rsa.generate_private_key(65537, 2048)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(IdentityError, match="cannot sign"):
        parse_pem(text)


@pytest.mark.parametrize("identity", KEYS, ids=KEY_NAMES)
def test_windows_line_ends_and_text_around(identity: KeyIdentity) -> None:
    assert parse_pem("a comment\r\n" + format_pem(identity).replace("\n", "\r\n") + "more") == identity
