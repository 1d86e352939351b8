"""The one error of this room.

Encoders, decoders and parsers of Candid raise `CandidError` and nothing else for input they do not accept.
This module decides nothing; it only names.
"""

from __future__ import annotations

from cannery.errors import DecodeError


class CandidError(DecodeError):
    """A value, message, type or text is not what Candid demands; the text says what and where."""


class CoercionError(CandidError):
    """A well-formed value does not fit the type that its reader expects; under `opt` it reads as null."""
