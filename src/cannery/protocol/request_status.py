"""What became of a call: its status as values, and as the subtree under /request_status/ID.

IC interface specification, section "Request status". How long a status is kept is for the node to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from cannery.errors import DecodeError
from cannery.protocol.hash_tree import Absent, Found, HashTree, lookup
from cannery.protocol.representation import RepresentationError, decode_leb128, encode_leb128


class RequestStatusError(DecodeError):
    """A certified tree does not tell what became of a request."""


class Received(msgspec.Struct, frozen=True, tag=True):
    """The call is in the node's state and has not run."""


class Processing(msgspec.Struct, frozen=True, tag=True):
    """The call has begun."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The call was answered, and the answer is no longer kept."""


class Replied(msgspec.Struct, frozen=True, tag=True):
    """The call succeeded with this Candid reply."""

    reply: bytes


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """The call was refused or failed."""

    reject_code: int
    reject_message: str
    error_code: str | None = None


RequestStatus: TypeAlias = Received | Processing | Done | Replied | Rejected

_PLAIN_STATUSES: Mapping[bytes, RequestStatus] = {
    b"received": Received(),
    b"processing": Processing(),
    b"done": Done(),
}


def status_data(status: RequestStatus) -> Mapping[bytes, bytes]:
    """Lay a status out as labels and values, to stand under /request_status/ID."""
    if isinstance(status, Replied):
        return {b"reply": status.reply, b"status": b"replied"}
    if isinstance(status, Rejected):
        data = {
            b"reject_code": encode_leb128(status.reject_code),
            b"reject_message": status.reject_message.encode("utf-8"),
            b"status": b"rejected",
        }
        if status.error_code is not None:
            data[b"error_code"] = status.error_code.encode("utf-8")
        return data
    return {b"status": type(status).__name__.lower().encode("ascii")}


def read_request_status(tree: HashTree, request_id: bytes) -> RequestStatus | None:
    """Read a request's status from a verified tree; None where the tree proves that there is none."""
    root = (b"request_status", request_id)
    status = lookup(tree, (*root, b"status"))
    if isinstance(status, Absent):
        return None
    if not isinstance(status, Found):
        raise RequestStatusError("the certificate does not show the status of this request")
    plain = _PLAIN_STATUSES.get(status.value)
    if plain is not None:
        return plain
    if status.value == b"replied":
        return Replied(_value(tree, (*root, b"reply")))
    if status.value == b"rejected":
        return _read_rejected(tree, root)
    raise RequestStatusError(f"the certificate shows an unknown status {status.value[:32]!r}")


def _read_rejected(tree: HashTree, root: tuple[bytes, bytes]) -> Rejected:
    error_code = lookup(tree, (*root, b"error_code"))
    try:
        return Rejected(
            decode_leb128(_value(tree, (*root, b"reject_code"))),
            _value(tree, (*root, b"reject_message")).decode("utf-8"),
            error_code.value.decode("utf-8") if isinstance(error_code, Found) else None,
        )
    except (RepresentationError, UnicodeDecodeError) as error:
        raise RequestStatusError(f"the certificate shows a malformed reject: {error}") from None


def _value(tree: HashTree, path: tuple[bytes, ...]) -> bytes:
    found = lookup(tree, path)
    if not isinstance(found, Found):
        raise RequestStatusError(f"the certificate lacks {path[-1].decode('ascii')}")
    return found.value
