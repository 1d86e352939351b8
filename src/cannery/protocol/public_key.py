"""Public keys of senders, out of their DER form, and what their signatures must be.

IC interface specification, section "Signatures": Ed25519, ECDSA on P-256 and secp256k1, Web Authentication
(a COSE key in DER). Canister signatures, whose check needs certificates, are in `canister_signature`.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Protocol, TypeAlias

import coincurve
import msgspec
from coincurve.ecdsa import cdata_to_der, deserialize_compact, signature_normalize
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from ed25519_zebra import ed_verify

from cannery.errors import DecodeError
from cannery.limits import (
    PUBLIC_KEY_CACHE_COUNT_MAX,
    PUBLIC_KEY_SIZE_BYTES_MAX,
    RSA_KEY_SIZE_BITS_MAX,
    RSA_KEY_SIZE_BITS_MIN,
    WEBAUTHN_CLIENT_DATA_SIZE_BYTES_MAX,
)
from cannery.protocol.cbor import CborError, decode_any_keys
from cannery.protocol.der import BIT_STRING, SEQUENCE, DerError, DerReader, encode_der
from cannery.protocol.principal import PRINCIPAL_SIZE_BYTES_MAX, Principal

ALGORITHM_ED25519 = bytes.fromhex("06032b6570")
ALGORITHM_SECP256K1 = bytes.fromhex("06072a8648ce3d020106052b8104000a")
ALGORITHM_P256 = bytes.fromhex("06072a8648ce3d020106082a8648ce3d030107")
ALGORITHM_COSE = bytes.fromhex("060a2b0601040183b8430101")
ALGORITHM_CANISTER = bytes.fromhex("060a2b0601040183b8430102")

_ED25519_DER_PREFIX = bytes.fromhex("302a300506032b6570032100")
_RAW_SIGNATURE_SIZE_BYTES = 64
_POINT_SIZE_BYTES = 65
_AUTHENTICATOR_DATA_SIZE_BYTES_MIN = 37
_COSE_DEPTH_MAX = 2

# RFC 8152 and 8230: labels of a COSE key, its types, algorithms and curves.
_COSE_TYPE, _COSE_ALGORITHM, _COSE_CURVE, _COSE_X, _COSE_Y, _COSE_N, _COSE_E = 1, 3, -1, -2, -3, -1, -2
_COSE_ED25519 = (1, -8, 6)
_COSE_P256 = (2, -7, 1)
_COSE_RSA = (3, -257)


class PublicKeyError(DecodeError):
    """Bytes are not a public key of a kind that may sign."""


class VerifyingKey(Protocol):
    """Check signatures of plain messages."""

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Tell whether the signature is right; a malformed one is a wrong one."""
        ...


class Ed25519Key(msgspec.Struct, frozen=True):
    """Check 64-byte signatures of RFC 8032, by the rules of ZIP 215, as the Internet Computer does."""

    raw: bytes

    def verify(self, message: bytes, signature: bytes) -> bool:
        return bool(ed_verify(signature, message, self.raw))


@dataclass(frozen=True, slots=True)
class Secp256k1Key:
    """Check 64-byte signatures r, s; of the two equivalent values of s both are taken: clients send both."""

    key: coincurve.PublicKey

    def verify(self, message: bytes, signature: bytes) -> bool:
        if len(signature) != _RAW_SIGNATURE_SIZE_BYTES:
            return False
        try:
            _changed, low = signature_normalize(deserialize_compact(signature))
            return self.key.verify(cdata_to_der(low), message)
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class P256Key:
    """Check 64-byte signatures r, s."""

    key: ec.EllipticCurvePublicKey

    def verify(self, message: bytes, signature: bytes) -> bool:
        if len(signature) != _RAW_SIGNATURE_SIZE_BYTES:
            return False
        half = _RAW_SIGNATURE_SIZE_BYTES // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        return self.verify_der(message, encode_dss_signature(r, s))

    def verify_der(self, message: bytes, signature: bytes) -> bool:
        """Check a signature in DER, the form that authenticators give."""
        try:
            self.key.verify(signature, message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class RsaKey:
    """Check PKCS#1 v1.5 signatures with SHA-256."""

    key: rsa.RSAPublicKey

    def verify(self, message: bytes, signature: bytes) -> bool:
        try:
            self.key.verify(signature, message, padding.PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class WebAuthnKey:
    """Check assertions of an authenticator whose challenge is the message."""

    key: Ed25519Key | P256Key | RsaKey

    def verify(self, message: bytes, signature: bytes) -> bool:
        assertion = _parse_assertion(signature)
        if assertion is None or not _challenge_is(assertion.client_data_json, message):
            return False
        signed = assertion.authenticator_data + sha256(assertion.client_data_json).digest()
        if isinstance(self.key, P256Key):
            return self.key.verify_der(signed, assertion.signature)
        return self.key.verify(signed, assertion.signature)


@dataclass(frozen=True, slots=True)
class CanisterKey:
    """Name a canister that signs through its certified data, and the seed that tells its keys apart."""

    canister_id: Principal
    seed: bytes


PublicKey: TypeAlias = Ed25519Key | Secp256k1Key | P256Key | WebAuthnKey | CanisterKey


# --- reading keys ---------------------------------------------------------------------------------


def parse_public_key(der: bytes) -> PublicKey:
    """Read a public key; raise `PublicKeyError` and nothing else."""
    # Most keys are Ed25519, and this form has no other encoding.
    if len(der) == 44 and der.startswith(_ED25519_DER_PREFIX):
        return Ed25519Key(der[12:])
    if len(der) > PUBLIC_KEY_SIZE_BYTES_MAX:
        raise PublicKeyError(f"a public key has at most {PUBLIC_KEY_SIZE_BYTES_MAX} bytes, not {len(der)}")
    return _parse_cached(der)


@lru_cache(maxsize=PUBLIC_KEY_CACHE_COUNT_MAX)
def _parse_cached(der: bytes) -> PublicKey:
    try:
        algorithm, key = _split_key_info(der)
    except DerError as error:
        raise PublicKeyError(f"a public key is a SubjectPublicKeyInfo in DER: {error}") from None
    if algorithm == ALGORITHM_SECP256K1:
        return _parse_secp256k1(key)
    if algorithm == ALGORITHM_P256:
        return _parse_p256(key)
    if algorithm == ALGORITHM_COSE:
        return WebAuthnKey(_parse_cose(key))
    if algorithm == ALGORITHM_CANISTER:
        return _parse_canister_key(key)
    if algorithm == ALGORITHM_ED25519:
        raise PublicKeyError(f"an Ed25519 key has 32 bytes, not {len(key)}")
    raise PublicKeyError(
        "the key's algorithm is none of Ed25519, secp256k1, P-256, WebAuthn, canister signature"
    )


def encode_public_key(algorithm: bytes, key: bytes) -> bytes:
    """Wrap a key in a SubjectPublicKeyInfo; `algorithm` is one of the constants of this module."""
    return encode_der(SEQUENCE, encode_der(SEQUENCE, algorithm), encode_der(BIT_STRING, b"\0", key))


def _split_key_info(der: bytes) -> tuple[bytes, bytes]:
    outer = DerReader(der)
    info = DerReader(outer.read(SEQUENCE))
    outer.end()
    algorithm, bits = info.read(SEQUENCE), info.read(BIT_STRING)
    info.end()
    if not bits or bits[0] != 0:
        raise DerError("DER: the key does not fill whole bytes")
    return algorithm, bits[1:]


def _parse_secp256k1(point: bytes) -> Secp256k1Key:
    _check_point(point)
    try:
        return Secp256k1Key(coincurve.PublicKey(point))
    except ValueError:
        raise PublicKeyError("the key is no point of secp256k1") from None


def _parse_p256(point: bytes) -> P256Key:
    _check_point(point)
    try:
        return P256Key(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point))
    except ValueError:
        raise PublicKeyError("the key is no point of P-256") from None


def _check_point(point: bytes) -> None:
    if len(point) != _POINT_SIZE_BYTES or point[0] != 4:
        raise PublicKeyError(
            "an ECDSA key is an uncompressed point: the byte 4, then x and y of 32 bytes each"
        )


def _parse_canister_key(body: bytes) -> CanisterKey:
    size = body[0] if body else PRINCIPAL_SIZE_BYTES_MAX + 1
    if size > PRINCIPAL_SIZE_BYTES_MAX or len(body) < 1 + size:
        raise PublicKeyError("a canister key is a length, the canister id of that length, and a seed")
    return CanisterKey(Principal(body[1 : 1 + size]), body[1 + size :])


def _parse_cose(data: bytes) -> Ed25519Key | P256Key | RsaKey:
    try:
        fields, _tagged = decode_any_keys(data, _COSE_DEPTH_MAX, binary_keys=False)
    except CborError as error:
        raise PublicKeyError(f"a COSE key is CBOR: {error}") from None
    if type(fields) is not dict:
        raise PublicKeyError("a COSE key is a map")
    kind = (fields.get(_COSE_TYPE), fields.get(_COSE_ALGORITHM), fields.get(_COSE_CURVE))
    if kind == _COSE_P256:
        x, y = _cose_blob(fields, _COSE_X, 32), _cose_blob(fields, _COSE_Y, 32)
        return _parse_p256(b"\x04" + x + y)
    if kind == _COSE_ED25519:
        return Ed25519Key(_cose_blob(fields, _COSE_X, 32))
    if kind[:2] == _COSE_RSA:
        return _parse_rsa(_cose_blob(fields, _COSE_N, None), _cose_blob(fields, _COSE_E, None))
    raise PublicKeyError("the COSE key is none of P-256 with ES256, Ed25519 with EdDSA, RSA with RS256")


def _cose_blob(fields: dict[object, object], label: int, size_bytes: int | None) -> bytes:
    value = fields.get(label)
    if type(value) is not bytes or (size_bytes is not None and len(value) != size_bytes):
        raise PublicKeyError(f"the COSE key has no blob of the right length at label {label}")
    return value


def _parse_rsa(modulus: bytes, exponent: bytes) -> RsaKey:
    n, e = int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big")
    if not RSA_KEY_SIZE_BITS_MIN <= n.bit_length() <= RSA_KEY_SIZE_BITS_MAX or e.bit_length() > 32:
        raise PublicKeyError(f"an RSA key has {RSA_KEY_SIZE_BITS_MIN} to {RSA_KEY_SIZE_BITS_MAX} bits")
    try:
        return RsaKey(rsa.RSAPublicNumbers(e, n).public_key())
    except ValueError:
        raise PublicKeyError("the numbers are no RSA key") from None


# --- Web Authentication ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Assertion:
    authenticator_data: bytes
    client_data_json: bytes
    signature: bytes


class _ClientData(msgspec.Struct):
    type: str
    challenge: str


_CLIENT_DATA = msgspec.json.Decoder(_ClientData)


def _parse_assertion(data: bytes) -> _Assertion | None:
    try:
        fields, _tagged = decode_any_keys(data, _COSE_DEPTH_MAX)
    except CborError:
        return None
    if type(fields) is not dict:
        return None
    authenticator_data, client_data, signature = (
        fields.get("authenticator_data"),
        fields.get("client_data_json"),
        fields.get("signature"),
    )
    # The specification says text; a client that sends the same bytes as a blob signs the same thing.
    if type(client_data) is str:
        client_data = client_data.encode("utf-8")
    if (
        type(authenticator_data) is not bytes
        or type(client_data) is not bytes
        or type(signature) is not bytes
    ):
        return None
    if len(authenticator_data) < _AUTHENTICATOR_DATA_SIZE_BYTES_MIN:
        return None
    if len(client_data) > WEBAUTHN_CLIENT_DATA_SIZE_BYTES_MAX:
        return None
    return _Assertion(authenticator_data, client_data, signature)


def _challenge_is(client_data_json: bytes, message: bytes) -> bool:
    try:
        client_data = _CLIENT_DATA.decode(client_data_json)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    expected = urlsafe_b64encode(message).rstrip(b"=").decode("ascii")
    return client_data.type == "webauthn.get" and client_data.challenge.rstrip("=") == expected
