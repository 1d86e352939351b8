"""Principals: who sends, owns or answers, as 0 to 29 bytes with a textual form.

IC interface specification, sections "Principals" and "Textual representation of principals". This module
does not decide who may do what, and it holds no keys: see `identity` for those.
"""

from __future__ import annotations

from base64 import b32decode, b32encode
from binascii import Error as BinasciiError
from binascii import crc32
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha224

from cannery.errors import DecodeError
from cannery.limits import PRINCIPAL_CACHE_COUNT_MAX, PRINCIPAL_TEXT_CACHE_COUNT_MAX

PRINCIPAL_SIZE_BYTES_MAX = 29
TEXT_SIZE_CHARS_MAX = 63

_GROUP_SIZE_CHARS = 5
_CHECKSUM_SIZE_BYTES = 4
_CLASS_OPAQUE = 0x01
_CLASS_SELF_AUTHENTICATING = 0x02
_ANONYMOUS_RAW = b"\x04"


class PrincipalError(DecodeError):
    """Bytes or text are not a principal."""


@dataclass(frozen=True, slots=True, order=True)
class Principal:
    """Name a user or a canister by its raw bytes; ordered by those bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if type(self.raw) is not bytes:
            raise PrincipalError(f"a principal is made of bytes, not of {type(self.raw).__name__}")
        if len(self.raw) > PRINCIPAL_SIZE_BYTES_MAX:
            raise PrincipalError(
                f"a principal has at most {PRINCIPAL_SIZE_BYTES_MAX} bytes, this one has {len(self.raw)}"
            )

    def __str__(self) -> str:
        return _format_raw(self.raw)

    def __repr__(self) -> str:
        return f"Principal({_format_raw(self.raw)!r})"

    @classmethod
    def parse(cls, text: str) -> Principal:
        """Read the textual form in upper or lower case; raise `PrincipalError` for any other text."""
        return _parse_text(text)

    @classmethod
    def management(cls) -> Principal:
        """Return the management canister's id, `aaaaa-aa`."""
        return MANAGEMENT

    @classmethod
    def anonymous(cls) -> Principal:
        """Return the anonymous principal, `2vxsx-fae`."""
        return ANONYMOUS

    @classmethod
    def self_authenticating(cls, public_key_der: bytes) -> Principal:
        """Derive the principal of a public key in DER form."""
        return _of_public_key(public_key_der)

    @classmethod
    def opaque(cls, body: bytes) -> Principal:
        """Make an opaque id (a canister, a subnet's canister range) out of at most 28 bytes."""
        return cls(body + b"\x01")

    @property
    def is_management(self) -> bool:
        return not self.raw

    @property
    def is_anonymous(self) -> bool:
        return self.raw == _ANONYMOUS_RAW

    @property
    def is_self_authenticating(self) -> bool:
        return len(self.raw) == PRINCIPAL_SIZE_BYTES_MAX and self.raw[-1] == _CLASS_SELF_AUTHENTICATING

    @property
    def is_opaque(self) -> bool:
        return bool(self.raw) and self.raw[-1] == _CLASS_OPAQUE


@lru_cache(maxsize=PRINCIPAL_CACHE_COUNT_MAX)
def principal_of(raw: bytes) -> Principal:
    """Make a principal of its bytes, or give the one that was made of them before: requests repeat theirs.

    Raises `PrincipalError`.
    """
    return Principal(raw)


@lru_cache(maxsize=PRINCIPAL_CACHE_COUNT_MAX)
def _of_public_key(public_key_der: bytes) -> Principal:
    return Principal(sha224(public_key_der).digest() + b"\x02")


@lru_cache(maxsize=PRINCIPAL_TEXT_CACHE_COUNT_MAX)
def _format_raw(raw: bytes) -> str:
    checked = crc32(raw).to_bytes(_CHECKSUM_SIZE_BYTES, "big") + raw
    text = b32encode(checked).decode("ascii").rstrip("=").lower()
    return "-".join([text[i : i + _GROUP_SIZE_CHARS] for i in range(0, len(text), _GROUP_SIZE_CHARS)])


@lru_cache(maxsize=PRINCIPAL_TEXT_CACHE_COUNT_MAX)
def _parse_text(text: str) -> Principal:
    if len(text) > TEXT_SIZE_CHARS_MAX:
        raise PrincipalError(
            f"a principal's text has at most {TEXT_SIZE_CHARS_MAX} characters, not {len(text)}"
        )
    if not text.isascii():
        raise PrincipalError(f"{text!r} is not a principal: it holds characters outside a-z, 2-7 and '-'")
    letters = text.replace("-", "").upper()
    try:
        checked = b32decode(letters + "=" * (-len(letters) % 8))
    except BinasciiError:
        raise PrincipalError(f"{text!r} is not a principal: it is not base32 in groups of five") from None
    if len(checked) < _CHECKSUM_SIZE_BYTES:
        raise PrincipalError(f"{text!r} is not a principal: it is too short to hold a checksum")
    raw = checked[_CHECKSUM_SIZE_BYTES:]
    if crc32(raw).to_bytes(_CHECKSUM_SIZE_BYTES, "big") != checked[:_CHECKSUM_SIZE_BYTES]:
        raise PrincipalError(
            f"{text!r} is not a principal: its checksum is wrong, look for a mistyped character"
        )
    principal = Principal(raw)
    if str(principal) != text.lower():
        raise PrincipalError(f"{text!r} is not in canonical form, write {str(principal)!r}")
    return principal


MANAGEMENT = Principal(b"")
ANONYMOUS = Principal(_ANONYMOUS_RAW)
