"""DER: the few shapes that keys come in, read strictly.

ITU-T X.690 (short and long definite lengths in their shortest form), for the `SubjectPublicKeyInfo` of RFC
5280 and the private keys of RFC 5208, 5915 and 8410. Object identifiers stay bytes: they are compared,
never printed.
"""

from __future__ import annotations

from cannery.errors import DecodeError

INTEGER, BIT_STRING, OCTET_STRING, OBJECT_ID, SEQUENCE = 0x02, 0x03, 0x04, 0x06, 0x30
_LENGTH_SIZE_BYTES_MAX = 3


class DerError(DecodeError):
    """Bytes are not DER of the shape asked for."""


class DerReader:
    """Read one item after the other out of some bytes."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def at_end(self) -> bool:
        return self._position >= len(self._data)

    def peek_tag(self) -> int | None:
        """Return the next item's tag, None at the end."""
        return None if self.at_end else self._data[self._position]

    def read(self, tag: int) -> bytes:
        """Return the content of the next item, which has this tag."""
        data, position = self._data, self._position
        if position + 2 > len(data) or data[position] != tag:
            raise DerError(f"DER: no item with tag 0x{tag:02x} at byte {position}")
        length = data[position + 1]
        position += 2
        if length >= 0x80:
            size = length & 0x7F
            if not 0 < size <= _LENGTH_SIZE_BYTES_MAX or position + size > len(data):
                raise DerError(f"DER: a length that cannot be at byte {position - 1}")
            length = int.from_bytes(data[position : position + size], "big")
            if length < 0x80 or data[position] == 0:
                raise DerError(f"DER: a length that is not in its shortest form at byte {position - 1}")
            position += size
        if position + length > len(data):
            raise DerError(f"DER: {position + length - len(data)} bytes are missing at the end")
        self._position = position + length
        return data[position : position + length]

    def end(self) -> None:
        """Demand that nothing follows."""
        if not self.at_end:
            raise DerError(f"DER: {len(self._data) - self._position} bytes too many at the end")


def encode_der(tag: int, *parts: bytes) -> bytes:
    """Encode an item out of the parts of its content."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
