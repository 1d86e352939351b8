"""How what a zone keeps looks from inside: the names of topics and files, the bodies of messages.

A `Cover` stands between a client and what goes to the zone. This one covers nothing: a topic's name is its
key, filled up with zero bytes; bodies and names go over as they are. `zone_seal` has the one that encrypts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cannery.client.zone_values import KEY_SIZE_BYTES, BadTopic
from cannery.protocol.principal import Principal


@dataclass(frozen=True, slots=True)
class Opened:
    """What a stored message says: `topic` where it names its own."""

    body: bytes
    topic: str | None = None
    sender: Principal | None = None


class CoverFault(Exception):
    """A stored value cannot be opened; the text says why. `lacks_key`: a newer key may help."""

    def __init__(self, text: str, *, lacks_key: bool = False) -> None:
        super().__init__(text)
        self.lacks_key = lacks_key


class ContentOpener(Protocol):
    """Turns one kept content back, piece by piece."""

    def take(self, piece: bytes) -> bytes:
        """Take the next piece, of any size; give what can be read by now. Raises `CoverFault`."""
        ...

    def end(self) -> bytes:
        """Give the rest, once this was all. Raises `CoverFault` where it was not."""
        ...


class Cover(Protocol):
    """Turn what people write into what a zone keeps, and back. `is_repeatable`: the same content is kept as
    the same bytes each time, so that an upload that broke off is found again.
    """

    is_repeatable: bool

    def topic_key(self, name: str) -> bytes:
        """Give the key of 41 bytes under which a topic's messages are kept."""
        ...

    def topic_name(self, key: bytes) -> str:
        """Give a key's name as far as the key tells it."""
        ...

    def seal_message(self, key: bytes, name: str, body: bytes) -> bytes: ...

    def open_message(self, key: bytes, stored: bytes) -> Opened:
        """Read a stored message. Raises `CoverFault`."""
        ...

    def seal_name(self, directory: bytes, name: str, digest: bytes) -> bytes:
        """Give the name of a file with this content in a directory as it is kept; of a directory: b""."""
        ...

    def open_name(self, directory: bytes, stored: bytes, digest: bytes) -> str:
        """Read a kept name. Raises `CoverFault`, also where it belongs to another content or directory."""
        ...

    def seal_content(self, data: bytes) -> bytes:
        """Turn a content into what is kept of it."""
        ...

    def content_opener(self) -> ContentOpener:
        """Give what turns a kept content back."""
        ...


class PlainCover:
    """Cover nothing."""

    is_repeatable = True

    def topic_key(self, name: str) -> bytes:
        raw = name.encode()
        if not 0 < len(raw) <= KEY_SIZE_BYTES or "\x00" in name:
            raise BadTopic(f"a topic has 1 to {KEY_SIZE_BYTES} bytes without a zero byte, not {len(raw)}")
        return raw.ljust(KEY_SIZE_BYTES, b"\x00")

    def topic_name(self, key: bytes) -> str:
        return name_of_key(key)

    def seal_message(self, key: bytes, name: str, body: bytes) -> bytes:  # noqa: ARG002
        return body

    def open_message(self, key: bytes, stored: bytes) -> Opened:  # noqa: ARG002
        return Opened(stored)

    def seal_name(self, directory: bytes, name: str, digest: bytes) -> bytes:  # noqa: ARG002
        return name.encode()

    def open_name(self, directory: bytes, stored: bytes, digest: bytes) -> str:  # noqa: ARG002
        return stored.decode("utf-8", "backslashreplace")

    def seal_content(self, data: bytes) -> bytes:
        return data

    def content_opener(self) -> ContentOpener:
        return _AsItIs()


class _AsItIs:
    def take(self, piece: bytes) -> bytes:
        return piece

    def end(self) -> bytes:
        return b""


def name_of_key(key: bytes) -> str:
    """Write a key as the name that it is made of, or in hex where it is made of none."""
    raw = key.rstrip(b"\x00")
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        return key.hex()
    return name if name and name.isprintable() else key.hex()
