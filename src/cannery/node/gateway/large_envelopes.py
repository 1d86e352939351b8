"""Large requests: read from disk, the argument left there.

A body above `GATEWAY_INLINE_BODY_SIZE_BYTES_MAX` stands in a spool file. It is read once, for its
envelope and request id; what travels on is the place of its argument in that file. Reads files, so it
runs on a thread.
"""

from __future__ import annotations

import msgspec

from cannery.limits import INLINE_SIZE_BYTES_MAX
from cannery.node.gateway.effective import management_target
from cannery.node.handover import Spooled
from cannery.protocol.envelope import Envelope, ReadStateContent, RequestKind, parse_envelope

# CBOR: a byte string whose length follows in four bytes.
_BLOB_HEAD = b"\x5a"
_TRY_COUNT_MAX = 16


class Loaded(msgspec.Struct, frozen=True):
    """An envelope; where its argument stands, if not in it; and the canister that a management call is
    about.
    """

    envelope: Envelope
    spooled: Spooled | None = None
    target: bytes | None = None


def load_envelope(path: str, kind: RequestKind) -> Loaded:
    """Read an envelope from a file; a large argument becomes its place there. Raise `EnvelopeError`."""
    with open(path, "rb") as file:
        body = file.read()
    envelope = parse_envelope(body, kind)
    content = envelope.content
    if isinstance(content, ReadStateContent):
        return Loaded(envelope)
    target = management_target(content)
    offset = find_blob(body, content.arg) if len(content.arg) > INLINE_SIZE_BYTES_MAX else None
    if offset is None:
        return Loaded(envelope, None, target)
    spooled = Spooled(path, offset, len(content.arg))
    bare = msgspec.structs.replace(envelope, content=msgspec.structs.replace(content, arg=b""))
    return Loaded(bare, spooled, target)


def find_blob(body: bytes, blob: bytes) -> int | None:
    """Find where the bytes of a large CBOR blob begin; None where that takes more than a few tries.

    Without a place the argument travels in the message itself: slower, and as right.
    """
    head = _BLOB_HEAD + len(blob).to_bytes(4, "big")
    start = -1
    for _ in range(_TRY_COUNT_MAX):
        start = body.find(head, start + 1)
        if start < 0:
            return None
        if body.startswith(blob, start + len(head)):
            return start + len(head)
    return None
