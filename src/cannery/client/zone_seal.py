"""What of an encrypted zone is sealed and how: bodies, names and contents with the zone's key, that key for
its members. docs/zones.md, section "Encryption"; libsodium's XChaCha20-Poly1305, sealed boxes and BLAKE2b.

A sealed value is `magic (4) ‖ version of the key (4) ‖ nonce (24) ‖ ciphertext`. It opens in its own zone and
at its own place alone: both are authenticated. Every use of a zone key has a key of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from struct import Struct
from typing import TypeAlias

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_ABYTES,
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_box_seal,
    crypto_box_seal_open,
    crypto_scalarmult_base,
    crypto_secretstream_xchacha20poly1305_ABYTES,
    crypto_secretstream_xchacha20poly1305_HEADERBYTES,
    crypto_secretstream_xchacha20poly1305_init_pull,
    crypto_secretstream_xchacha20poly1305_init_push,
    crypto_secretstream_xchacha20poly1305_pull,
    crypto_secretstream_xchacha20poly1305_push,
    crypto_secretstream_xchacha20poly1305_state,
    crypto_secretstream_xchacha20poly1305_TAG_FINAL,
    crypto_secretstream_xchacha20poly1305_TAG_MESSAGE,
)
from nacl.exceptions import CryptoError

from cannery.client.zone_cover import CoverFault
from cannery.client.zone_values import KEY_SIZE_BYTES
from cannery.protocol.identity import Identity
from cannery.protocol.principal import Principal

KEY_BYTES = 32
NONCE_BYTES = 24
MESSAGE, NAME, CONTENT, LINK = b"cz1m", b"cz1n", b"cz1c", b"cz1k"
_HEAD = Struct(">4sI")
_BOX_SIZE_BYTES = 2 * KEY_BYTES + 48 + 2 * KEY_BYTES
_PART_SIZE_BYTES = 64 * 1024
_SEALED_PART_SIZE_BYTES = _PART_SIZE_BYTES + crypto_secretstream_xchacha20poly1305_ABYTES
_EXCHANGE_DOMAIN = b"\x1bcannery-zone-exchange-key-1"


@dataclass(frozen=True, slots=True)
class ZoneKey:
    """A zone's key of one version, and the secret of its topics' names, which stays the same throughout."""

    version: int
    key: bytes = field(repr=False)
    topics: bytes = field(repr=False)

    def of(self, use: bytes) -> bytes:
        """Give the key for one use."""
        return blake2b(digest_size=KEY_BYTES, key=self.key, person=use.ljust(16, b"\x00")).digest()

    def commitment(self, zone: Principal) -> bytes:
        """Give 32 bytes that stand for this key and tell nothing of it."""
        about = b"cannery zone key" + _framed(zone) + _HEAD.pack(LINK, self.version)
        return sha256(about + self.key + self.topics).digest()


KeyOf: TypeAlias = Callable[[int], ZoneKey]
"""Gives the key of a version. Raises `CoverFault`."""


def new_zone_key(version: int, topics: bytes | None = None) -> ZoneKey:
    """Draw a zone key."""
    return ZoneKey(version, secrets.token_bytes(KEY_BYTES), topics or secrets.token_bytes(KEY_BYTES))


def _framed(zone: Principal) -> bytes:
    return bytes([len(zone.raw)]) + zone.raw


# --- values ---------------------------------------------------------------------------------------


def seal(kind: bytes, key: ZoneKey, zone: Principal, place: bytes, plain: bytes) -> bytes:
    """Seal a value for its place in a zone."""
    head, nonce = _HEAD.pack(kind, key.version), secrets.token_bytes(NONCE_BYTES)
    about = head + _framed(zone) + place
    return head + nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(plain, about, nonce, key.of(kind))


def version_of(kind: bytes, stored: bytes) -> int:
    """Give the version of the key that a value is sealed with. Raises `CoverFault`."""
    if len(stored) < _HEAD.size + NONCE_BYTES or stored[:4] != kind:
        raise CoverFault("it is not encrypted: whoever wrote it does not have the zone's key")
    version: int = _HEAD.unpack_from(stored)[1]
    return version


def unseal(kind: bytes, key: ZoneKey, zone: Principal, place: bytes, stored: bytes) -> bytes:
    """Open a value. Raises `CoverFault` where it is not what somebody with the key sealed for this place."""
    if len(stored) < _HEAD.size + NONCE_BYTES + crypto_aead_xchacha20poly1305_ietf_ABYTES:
        raise CoverFault("it was cut")
    about = stored[: _HEAD.size] + _framed(zone) + place
    nonce, sealed = stored[_HEAD.size : _HEAD.size + NONCE_BYTES], stored[_HEAD.size + NONCE_BYTES :]
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, about, nonce, key.of(kind))
    except CryptoError:
        raise CoverFault("it was changed, or sealed for another place") from None


def topic_key(key: ZoneKey, name: str) -> bytes:
    """Give the 41 bytes that stand for a topic's name."""
    digest = blake2b(name.encode(), digest_size=KEY_SIZE_BYTES, key=key.topics, person=b"cannery topic")
    return digest.digest()


# --- contents -------------------------------------------------------------------------------------


def seal_content(key: ZoneKey, zone: Principal, data: bytes) -> bytes:
    """Seal a content in parts of 64 KiB, each of which can be opened when all before it were."""
    head, state = _HEAD.pack(CONTENT, key.version), crypto_secretstream_xchacha20poly1305_state()
    sealed = [head, crypto_secretstream_xchacha20poly1305_init_push(state, key.of(CONTENT))]
    about = head + _framed(zone)
    for start in range(0, max(1, len(data)), _PART_SIZE_BYTES):
        is_last = start + _PART_SIZE_BYTES >= len(data)
        tag = (
            crypto_secretstream_xchacha20poly1305_TAG_FINAL
            if is_last
            else crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
        )
        part = data[start : start + _PART_SIZE_BYTES]
        sealed.append(crypto_secretstream_xchacha20poly1305_push(state, part, about, tag))
    return b"".join(sealed)


class SealedContent:
    """Opens a sealed content, piece by piece."""

    def __init__(self, key_of: KeyOf, zone: Principal) -> None:
        self._key_of = key_of
        self._zone = zone
        self._state = crypto_secretstream_xchacha20poly1305_state()
        self._about = b""
        self._held = b""
        self._is_whole = False

    def take(self, piece: bytes) -> bytes:
        """Take the next piece; give what can be read by now. Raises `CoverFault`."""
        self._held += piece
        if not self._about and not self._begin():
            return b""
        opened = []
        # The last part may be as long as any other: it is opened when nothing more comes.
        while len(self._held) > _SEALED_PART_SIZE_BYTES:
            opened.append(self._open(self._held[:_SEALED_PART_SIZE_BYTES]))
            self._held = self._held[_SEALED_PART_SIZE_BYTES:]
        return b"".join(opened)

    def end(self) -> bytes:
        """Give the rest. Raises `CoverFault` where this was not all of it."""
        opened = self._open(self._held) if self._about else b""
        if not self._is_whole:
            raise CoverFault("its end is missing")
        return opened

    def _begin(self) -> bool:
        size = _HEAD.size + crypto_secretstream_xchacha20poly1305_HEADERBYTES
        if len(self._held) < size:
            return False
        head = self._held[: _HEAD.size]
        key = self._key_of(version_of(CONTENT, self._held[:size].ljust(_HEAD.size + NONCE_BYTES)))
        self._about = head + _framed(self._zone)
        header, self._held = self._held[_HEAD.size : size], self._held[size:]
        crypto_secretstream_xchacha20poly1305_init_pull(self._state, header, key.of(CONTENT))
        return True

    def _open(self, sealed: bytes) -> bytes:
        if self._is_whole or len(sealed) < crypto_secretstream_xchacha20poly1305_ABYTES:
            raise CoverFault("something stands after its end" if self._is_whole else "its end is missing")
        try:
            part, tag = crypto_secretstream_xchacha20poly1305_pull(self._state, sealed, self._about)
        except (CryptoError, RuntimeError):
            raise CoverFault("it was changed") from None
        self._is_whole = tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL
        return part


# --- members --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exchange:
    """A member's key pair for one zone, to which zone keys are sealed."""

    secret: bytes = field(repr=False)
    public: bytes


def exchange_of(identity: Identity, zone: Principal) -> Exchange:
    """Derive a member's key pair from their identity: the same one each time, another one for each zone.

    The signature that it is made of is of a message that is never sent, and that begins with a domain of its
    own; keys of identities sign deterministically.
    """
    secret = sha256(b"cannery zone exchange" + identity.sign(_EXCHANGE_DOMAIN + _framed(zone))).digest()
    return Exchange(secret, crypto_scalarmult_base(secret))


def make_box(key: ZoneKey, zone: Principal, member: Principal, public: bytes) -> bytes:
    """Seal a zone key for a member: `their key (32) ‖ vouch (32) ‖ sealed key and secret of topics`."""
    return public + vouch(key, zone, member, public) + crypto_box_seal(key.key + key.topics, public)


def vouch(key: ZoneKey, zone: Principal, member: Principal, public: bytes) -> bytes:
    """Give what shows that somebody who has the zone key counts a member's key among its holders."""
    data = _framed(zone) + _framed(member) + public
    return blake2b(data, digest_size=KEY_BYTES, key=key.of(b"vouch")).digest()


def is_vouched(key: ZoneKey, zone: Principal, member: Principal, public: bytes, box: bytes) -> bool:
    """Tell whether who made a box had the zone key, and made it for this member and this key of theirs."""
    wanted = public + vouch(key, zone, member, public)
    return len(box) == _BOX_SIZE_BYTES and secrets.compare_digest(box[: len(wanted)], wanted)


def open_box(version: int, exchange: Exchange, box: bytes) -> ZoneKey:
    """Open a box; whether it holds the zone's key is for its record to say. Raises `CoverFault`."""
    try:
        if len(box) != _BOX_SIZE_BYTES:
            raise CoverFault("a box with a zone key has another size")
        opened = crypto_box_seal_open(box[2 * KEY_BYTES :], exchange.public, exchange.secret)
    except CryptoError:
        raise CoverFault("a box with a zone key is not for this identity") from None
    return ZoneKey(version, opened[:KEY_BYTES], opened[KEY_BYTES:])
