"""BLS signatures on BLS12-381, signatures in G1 and keys in G2: how a subnet signs its certificates.

IC interface specification, section "Certificate"; IETF draft-irtf-cfrg-bls-signature-04, ciphersuite
BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_. What is signed stands in `certificate`.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha512

from pyblst import BlstP1Element, BlstP2Element, final_verify, miller_loop

from cannery.errors import DecodeError
from cannery.limits import BLS_KEY_CACHE_COUNT_MAX

SECRET_SIZE_BYTES = 32
SIGNATURE_SIZE_BYTES = 48
PUBLIC_KEY_SIZE_BYTES = 96

_DOMAIN = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
_GROUP_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
_GENERATOR = BlstP2Element.uncompress(
    bytes.fromhex(
        "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
        "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
    )
)
_IDENTITY_G2 = b"\xc0" + bytes(PUBLIC_KEY_SIZE_BYTES - 1)

# SubjectPublicKeyInfo with OIDs 1.3.6.1.4.1.44668.5.3.1.2.1 and 1.3.6.1.4.1.44668.5.3.2.1, up to the key.
_DER_PREFIX = bytes.fromhex("308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100")


class BlsKeyError(DecodeError):
    """Bytes are not a BLS key of a subnet."""


class BlsKey:
    """Hold a subnet's secret key and sign with it."""

    __slots__ = ("_secret", "public_key")

    public_key: bytes

    def __init__(self, secret: bytes) -> None:
        """Take 32 bytes, a number between 1 and the group's order, big end first; see `from_seed`."""
        number = int.from_bytes(secret, "big")
        if len(secret) != SECRET_SIZE_BYTES or not 0 < number < _GROUP_ORDER:
            raise BlsKeyError(
                "a BLS secret is 32 bytes below the group's order, make it with BlsKey.from_seed"
            )
        self._secret = number
        self.public_key = _GENERATOR.scalar_mul(number).compress()

    @classmethod
    def from_seed(cls, seed: bytes) -> BlsKey:
        """Make a key from at least 32 random bytes."""
        return cls(seed_to_secret(seed))

    @property
    def public_key_der(self) -> bytes:
        return root_key_der(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Return the 48-byte signature of a message."""
        signature: bytes = BlstP1Element.hash_to_group(message, _DOMAIN).scalar_mul(self._secret).compress()
        return signature

    def __repr__(self) -> str:
        return f"BlsKey(public_key={self.public_key.hex()})"


def seed_to_secret(seed: bytes) -> bytes:
    """Map at least 32 random bytes to a secret, the same each time."""
    if len(seed) < SECRET_SIZE_BYTES:
        raise BlsKeyError(f"a seed has at least {SECRET_SIZE_BYTES} bytes, not {len(seed)}")
    number = 1 + int.from_bytes(sha512(seed).digest(), "big") % (_GROUP_ORDER - 1)
    return number.to_bytes(SECRET_SIZE_BYTES, "big")


def verify_bls(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether a signature of a message is right; malformed keys and signatures are wrong ones."""
    if len(signature) != SIGNATURE_SIZE_BYTES:
        return False
    try:
        key = uncompress_key(public_key)
        point = BlstP1Element.uncompress(signature)
    except (ValueError, BlsKeyError):
        return False
    hashed = BlstP1Element.hash_to_group(message, _DOMAIN)
    return bool(final_verify(miller_loop(point, _GENERATOR), miller_loop(hashed, key)))


@lru_cache(maxsize=BLS_KEY_CACHE_COUNT_MAX)
def uncompress_key(public_key: bytes) -> BlstP2Element:
    """Read a public key's point, which must be in the group and not its identity; raise `BlsKeyError`."""
    if len(public_key) != PUBLIC_KEY_SIZE_BYTES or public_key == _IDENTITY_G2:
        raise BlsKeyError(
            f"a BLS public key is {PUBLIC_KEY_SIZE_BYTES} bytes of a point other than the identity"
        )
    try:
        return BlstP2Element.uncompress(public_key)
    except ValueError as error:
        raise BlsKeyError(f"the bytes are no point of the group: {error}") from None


def root_key_der(public_key: bytes) -> bytes:
    """Wrap a 96-byte public key in its 133-byte DER form."""
    if len(public_key) != PUBLIC_KEY_SIZE_BYTES:
        raise BlsKeyError(f"a BLS public key has {PUBLIC_KEY_SIZE_BYTES} bytes, not {len(public_key)}")
    return _DER_PREFIX + public_key


def parse_root_key_der(der: bytes) -> bytes:
    """Take the 96-byte public key out of its DER form."""
    if len(der) != len(_DER_PREFIX) + PUBLIC_KEY_SIZE_BYTES or not der.startswith(_DER_PREFIX):
        raise BlsKeyError("a root key is the 133-byte DER form of a BLS12-381 key")
    return der[len(_DER_PREFIX) :]
