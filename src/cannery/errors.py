"""Errors of Cannery: who is told what went wrong.

An error has one of three fates (ARCHITECTURE.md, "Three fates of an error"): a `Reject` goes to the caller
of a message, a `Trap` rolls the message back and becomes a reject, anything else is a bug and stops the
node. `DecodeError` is what every decoder raises, and the only thing, for input that it does not accept.

Reject codes are those of the IC interface specification, section "Reject codes".
"""

from __future__ import annotations

from enum import IntEnum


class RejectCode(IntEnum):
    """Reject codes of the IC interface specification."""

    SYS_FATAL = 1
    SYS_TRANSIENT = 2
    DESTINATION_INVALID = 3
    CANISTER_REJECT = 4
    CANISTER_ERROR = 5
    SYS_UNKNOWN = 6


class CanneryError(Exception):
    """Base of every error that Cannery raises on purpose."""


class DecodeError(CanneryError):
    """Input from outside is not what its format demands; the text says what and where."""


class StoreError(CanneryError):
    """The store could not read or write; the text says what to do."""


class Reject(CanneryError):
    """A refusal for the caller of a message: a code, a text that says what to do, an optional machine-
    readable code.
    """

    def __init__(self, code: RejectCode, message: str, error_code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.error_code = error_code


class Trap(CanneryError):
    """A message failed: its writes are dropped and its caller gets a reject with this text."""


class BadArgument(Trap):
    """A message's argument is not what its method expects: a trap that its sender pays for, not the
    canister.
    """
