"""The one error of the format's decoders."""

from __future__ import annotations

from cannery.errors import DecodeError


class BackupFormatError(DecodeError):
    """Bytes are not what this version writes into a backup repository; the text says where and what."""
