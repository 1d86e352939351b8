"""Invitations as text: the zone's code, and in an encrypted zone its key and what vouches for it.

Whoever has the text can join and, where it holds a key, read: send it where nobody else reads.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field

from cannery.client.errors import ClientError
from cannery.client.zone_seal import KEY_BYTES, ZoneKey

CODE_SIZE_BYTES = 16
_VERSION_BYTES = 4
# In front of a text that a command line would take for an option.
_MARK = "."
_SIZE_BYTES = CODE_SIZE_BYTES + _VERSION_BYTES + 3 * KEY_BYTES


class BadInvitation(ClientError):
    """A text is no invitation."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """A code that makes people members; of an encrypted zone the newest key, and the hash of its record."""

    code: bytes = field(repr=False)
    key: ZoneKey | None = None
    record_hash: bytes | None = None

    def __str__(self) -> str:
        if self.key is None or self.record_hash is None:
            return self.code.hex()
        version = self.key.version.to_bytes(_VERSION_BYTES, "big")
        data = self.code + version + self.key.key + self.key.topics + self.record_hash
        text = urlsafe_b64encode(data).rstrip(b"=").decode()
        return _MARK + text if text.startswith("-") else text

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """Read an invitation. Raises `BadInvitation`."""
        text = text.strip().removeprefix(_MARK)
        try:
            if len(text) == 2 * CODE_SIZE_BYTES:
                return cls(bytes.fromhex(text))
            data = urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        except ValueError:
            data = b""
        if len(data) != _SIZE_BYTES:
            raise BadInvitation(f"{text[:40]!r} is no invitation: it is what 'cannery zone invite' printed")
        head, keys = data[: -3 * KEY_BYTES], data[-3 * KEY_BYTES :]
        version = int.from_bytes(head[CODE_SIZE_BYTES:], "big")
        key = ZoneKey(version, keys[:KEY_BYTES], keys[KEY_BYTES : 2 * KEY_BYTES])
        return cls(head[:CODE_SIZE_BYTES], key, keys[2 * KEY_BYTES :])
