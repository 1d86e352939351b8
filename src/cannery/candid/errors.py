"""The one error of this room.

Encoders, decoders and parsers of Candid raise `CandidError` and nothing else for input they do not accept.
This module decides nothing; it only names them.
"""

from __future__ import annotations

from typing import Final

from cannery.errors import DecodeError

_TEXT_SIZE_CHARS_MAX: Final = 1_000


class CandidError(DecodeError):
    """A value, message, type or text is not what Candid demands; the text says what and where, and is cut
    where it would repeat much of what it is about.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text if len(text) <= _TEXT_SIZE_CHARS_MAX else f"{text[:_TEXT_SIZE_CHARS_MAX]}...")


class CoercionError(CandidError):
    """A well-formed value does not fit the type that its reader expects; under `opt` it reads as null."""
