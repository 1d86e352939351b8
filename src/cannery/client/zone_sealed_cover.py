"""The cover of an encrypted zone: bodies, names and contents sealed with the zone's key, messages signed by
their sender inside the seal, topics known to the zone by what stands for their names alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256

import msgspec

from cannery.client.zone_cover import ContentOpener, CoverFault, Opened
from cannery.client.zone_seal import (
    MESSAGE,
    NAME,
    KeyOf,
    SealedContent,
    ZoneKey,
    seal,
    seal_content,
    topic_key,
    unseal,
    version_of,
)
from cannery.client.zone_values import KEY_SIZE_BYTES, BadTopic
from cannery.limits import ZONE_TOPIC_NAMES_COUNT_MAX
from cannery.protocol.identity import Identity
from cannery.protocol.principal import Principal
from cannery.protocol.public_key import CanisterKey, PublicKeyError, parse_public_key

TOPIC_SIZE_BYTES_MAX = 255
_MESSAGE_DOMAIN = b"\x16cannery-zone-message-1"


class _Letter(msgspec.Struct, frozen=True, array_like=True):
    """What lies in a sealed message; the signature is over the other three and the message's place."""

    topic: str
    body: bytes
    sender: bytes
    signature: bytes


class _Name(msgspec.Struct, frozen=True, array_like=True):
    """What lies in a sealed name of a file or directory."""

    name: str
    digest: bytes


class SealedCover:
    """Seal with the newest key, open with the key that a value names."""

    is_repeatable = False

    def __init__(
        self,
        zone: Principal,
        identity: Identity,
        newest: Callable[[], ZoneKey],
        any_key: Callable[[], ZoneKey],
        key_of: KeyOf,
    ) -> None:
        self._zone = zone
        self._identity = identity
        self._newest = newest
        self._any_key = any_key
        self._key_of = key_of
        self._names: OrderedDict[bytes, str] = OrderedDict()

    # topics

    def topic_key(self, name: str) -> bytes:
        if not 0 < len(name.encode()) <= TOPIC_SIZE_BYTES_MAX:
            raise BadTopic(f"a topic has 1 to {TOPIC_SIZE_BYTES_MAX} bytes, not {len(name.encode())}")
        key = topic_key(self._any_key(), name)
        self._note(key, name)
        return key

    def topic_name(self, key: bytes) -> str:
        return self._names.get(key) or key.hex()

    def _note(self, key: bytes, name: str) -> None:
        self._names[key] = name
        if len(self._names) > ZONE_TOPIC_NAMES_COUNT_MAX:
            self._names.popitem(last=False)

    # messages

    def seal_message(self, key: bytes, name: str, body: bytes) -> bytes:
        sender = self._identity.public_key_der or b""
        name = name or self._names.get(key, "")
        signature = self._identity.sign(self._signed(key, name, body))
        letter = msgspec.msgpack.encode(_Letter(name, body, sender, signature))
        return seal(MESSAGE, self._newest(), self._zone, key, letter)

    def open_message(self, key: bytes, stored: bytes) -> Opened:
        zone_key = self._key_of(version_of(MESSAGE, stored))
        plain = unseal(MESSAGE, zone_key, self._zone, key, stored)
        try:
            letter = msgspec.msgpack.decode(plain, type=_Letter)
            sender = parse_public_key(letter.sender)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, PublicKeyError):
            raise CoverFault("its sender wrote something that is no message") from None
        signed = self._signed(key, letter.topic, letter.body)
        if isinstance(sender, CanisterKey) or not sender.verify(signed, letter.signature):
            raise CoverFault("it is not signed by whom it names as its sender")
        if letter.topic and topic_key(zone_key, letter.topic) == key:
            self._note(key, letter.topic)
        elif letter.topic:
            raise CoverFault("it names another topic than the one that it lies in")
        return Opened(letter.body, letter.topic or None, Principal.self_authenticating(letter.sender))

    def _signed(self, key: bytes, name: str, body: bytes) -> bytes:
        place = bytes([len(self._zone.raw)]) + self._zone.raw + key.rjust(KEY_SIZE_BYTES, b"\x00")
        return _MESSAGE_DOMAIN + place + sha256(name.encode()).digest() + sha256(body).digest()

    # files

    def seal_name(self, directory: bytes, name: str, digest: bytes) -> bytes:
        plain = msgspec.msgpack.encode(_Name(name, digest))
        return seal(NAME, self._newest(), self._zone, directory, plain)

    def open_name(self, directory: bytes, stored: bytes, digest: bytes) -> str:
        plain = unseal(NAME, self._key_of(version_of(NAME, stored)), self._zone, directory, stored)
        try:
            found = msgspec.msgpack.decode(plain, type=_Name)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise CoverFault("whoever wrote it wrote something that is no name") from None
        if found.digest != digest:
            raise CoverFault("it is the name of another content")
        return found.name

    def seal_content(self, data: bytes) -> bytes:
        return seal_content(self._newest(), self._zone, data)

    def content_opener(self) -> ContentOpener:
        return SealedContent(self._key_of, self._zone)
