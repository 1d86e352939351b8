"""Keys as PEM text, interchangeable with the files of `icp`, `dfx` and OpenSSL.

RFC 7468 (the text), RFC 5208 and 5958 (PKCS#8), RFC 5915 (SEC 1), RFC 8410 (Ed25519). Reads PKCS#8 in both
versions and SEC 1 with its curve inside or in a block before; writes PKCS#8. Keys under a password are
refused.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as BinasciiError

from cannery.limits import PEM_BLOCK_COUNT_MAX, PEM_SIZE_CHARS_MAX
from cannery.protocol.der import (
    BIT_STRING,
    INTEGER,
    OBJECT_ID,
    OCTET_STRING,
    SEQUENCE,
    DerError,
    DerReader,
    encode_der,
)
from cannery.protocol.identity import (
    SECRET_SIZE_BYTES,
    Ed25519Identity,
    IdentityError,
    KeyIdentity,
    P256Identity,
    Secp256k1Identity,
)
from cannery.protocol.public_key import ALGORITHM_ED25519, ALGORITHM_P256, ALGORITHM_SECP256K1

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_LINE_SIZE_CHARS = 64

_ED25519 = bytes.fromhex("2b6570")
_EC_PUBLIC_KEY = bytes.fromhex("2a8648ce3d0201")
_SECP256K1 = bytes.fromhex("2b8104000a")
_P256 = bytes.fromhex("2a8648ce3d030107")

# Context tags: [0] and [1] of an EC private key, and the two forms of a public key in PKCS#8 version 2.
_TAG_0, _TAG_1, _TAG_1_IMPLICIT = 0xA0, 0xA1, 0x81


# --- reading --------------------------------------------------------------------------------------


def parse_pem(text: str) -> KeyIdentity:
    """Read the one private key of a PEM file; raise `IdentityError` and nothing else."""
    if len(text) > PEM_SIZE_CHARS_MAX:
        raise IdentityError(f"a key file has at most {PEM_SIZE_CHARS_MAX} characters, not {len(text)}")
    blocks = _parse_blocks(text)
    if "ENCRYPTED PRIVATE KEY" in blocks:
        raise IdentityError("the key is under a password: export it as plain text first (openssl pkcs8)")
    try:
        if "PRIVATE KEY" in blocks:
            return _parse_pkcs8(blocks["PRIVATE KEY"])
        if "EC PRIVATE KEY" in blocks:
            parameters = blocks.get("EC PARAMETERS")
            curve = None if parameters is None else _only(parameters, OBJECT_ID)
            return _parse_sec1(blocks["EC PRIVATE KEY"], curve)
    except DerError as error:
        raise IdentityError(f"the key file is damaged: {error}") from None
    raise IdentityError('no private key found: a PEM block "PRIVATE KEY" or "EC PRIVATE KEY" is needed')


def _parse_blocks(text: str) -> dict[str, bytes]:
    blocks: dict[str, bytes] = {}
    for count, match in enumerate(_BLOCK.finditer(text)):
        label = match.group(1)
        if count >= PEM_BLOCK_COUNT_MAX or label in blocks:
            raise IdentityError("the file holds more than one key: leave one in it")
        try:
            blocks[label] = b64decode("".join(match.group(2).split()), validate=True)
        except BinasciiError:
            raise IdentityError(f"the PEM block {label} is not base64: the file is damaged") from None
    return blocks


def _parse_pkcs8(der: bytes) -> KeyIdentity:
    info = DerReader(_only(der, SEQUENCE))
    version = info.read(INTEGER)
    if version not in (b"\0", b"\1"):
        raise IdentityError("the key file has a version of PKCS#8 that does not exist")
    algorithm = DerReader(info.read(SEQUENCE))
    private_key = info.read(OCTET_STRING)
    kind = algorithm.read(OBJECT_ID)
    if kind == _EC_PUBLIC_KEY:
        curve = algorithm.read(OBJECT_ID)
        algorithm.end()
        return _parse_sec1(private_key, curve)
    if kind != _ED25519:
        raise IdentityError("the key is of a kind that cannot sign here: use Ed25519, secp256k1 or P-256")
    algorithm.end()
    identity = Ed25519Identity(_only(private_key, OCTET_STRING))
    if info.peek_tag() == _TAG_0:
        info.read(_TAG_0)
    _check_public_key(identity, _read_public_key(info))
    return identity


def _read_public_key(info: DerReader) -> bytes | None:
    """Read the public key of PKCS#8 version 2: as RFC 5958 has it, or wrapped once more as some write it."""
    public_key: bytes | None = None
    if info.peek_tag() == _TAG_1_IMPLICIT:
        public_key = info.read(_TAG_1_IMPLICIT)[1:]
    elif info.peek_tag() == _TAG_1:
        public_key = _only(info.read(_TAG_1), BIT_STRING)[1:]
    info.end()
    return public_key


def _parse_sec1(der: bytes, outer_curve: bytes | None) -> KeyIdentity:
    info = DerReader(_only(der, SEQUENCE))
    if info.read(INTEGER) != b"\1":
        raise IdentityError("the key file has a version of SEC 1 that does not exist")
    secret = info.read(OCTET_STRING)
    curve = outer_curve
    if info.peek_tag() == _TAG_0:
        curve = _only(info.read(_TAG_0), OBJECT_ID)
        if outer_curve is not None and curve != outer_curve:
            raise IdentityError("the key file names two different curves")
    public_key = _only(info.read(_TAG_1), BIT_STRING)[1:] if info.peek_tag() == _TAG_1 else None
    info.end()
    if len(secret) > SECRET_SIZE_BYTES:
        raise IdentityError(f"the secret has {len(secret)} bytes, a key of this kind has {SECRET_SIZE_BYTES}")
    secret = secret.rjust(SECRET_SIZE_BYTES, b"\0")
    identity: KeyIdentity
    if curve == _SECP256K1:
        identity = Secp256k1Identity(secret)
    elif curve == _P256:
        identity = P256Identity(secret)
    elif curve is None:
        raise IdentityError("the key file does not name its curve: add its EC PARAMETERS block")
    else:
        raise IdentityError("the key's curve cannot sign here: use secp256k1 or P-256")
    if public_key is not None and public_key[:1] == b"\4":
        _check_public_key(identity, public_key)
    return identity


def _check_public_key(identity: KeyIdentity, public_key: bytes | None) -> None:
    if public_key is not None and not identity.public_key_der.endswith(public_key):
        raise IdentityError("the public key in the file is not that of its private key: the file is damaged")


def _only(der: bytes, tag: int) -> bytes:
    reader = DerReader(der)
    content = reader.read(tag)
    reader.end()
    return content


# --- writing --------------------------------------------------------------------------------------


def format_pem(identity: KeyIdentity) -> str:
    """Write a key as the text of a PEM file (PKCS#8, without a password)."""
    encoded = b64encode(_encode_pkcs8(identity)).decode("ascii")
    lines = [encoded[i : i + _LINE_SIZE_CHARS] for i in range(0, len(encoded), _LINE_SIZE_CHARS)]
    return "\n".join(("-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""))


def _encode_pkcs8(identity: KeyIdentity) -> bytes:
    if isinstance(identity, Ed25519Identity):
        # Version 1, without the public key: OpenSSL does not read the version that has it.
        return encode_der(
            SEQUENCE,
            encode_der(INTEGER, b"\0"),
            encode_der(SEQUENCE, ALGORITHM_ED25519),
            encode_der(OCTET_STRING, encode_der(OCTET_STRING, identity.seed)),
        )
    algorithm = ALGORITHM_SECP256K1 if isinstance(identity, Secp256k1Identity) else ALGORITHM_P256
    point = identity.public_key_der[-65:]
    key = encode_der(
        SEQUENCE,
        encode_der(INTEGER, b"\1"),
        encode_der(OCTET_STRING, identity.secret),
        encode_der(_TAG_1, encode_der(BIT_STRING, b"\0", point)),
    )
    return encode_der(
        SEQUENCE, encode_der(INTEGER, b"\0"), encode_der(SEQUENCE, algorithm), encode_der(OCTET_STRING, key)
    )
