"""Cursors of history requests: a position, bound to its request and signed with the zone's secret.

    version (1) ‖ topic (4) ‖ id (8) ‖ taken (4) ‖ flags (1) ‖ first 16 bytes of an HMAC-SHA256

The HMAC covers the position and a digest of the request, so that a cursor of another zone or another request,
or one that somebody made up, is refused. A cursor holds ids and no places: it outlives pruning and upgrades.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from struct import Struct

from cannery import Variant
from cannery.cdk.topic_pages import TopicPosition
from cannery.errors import CanneryError

_BODY = Struct(">BIQIB")
_VERSION = 1
_MAC_SIZE_BYTES = 16
_HAS_ID, _HAS_GAP = 1, 2


class CursorError(CanneryError):
    """A cursor that this zone did not give for this request."""


def digest_of(
    topics: list[bytes], range: Variant, order: Variant, merged: bool, per_topic: int | None
) -> bytes:
    """Hash what must stay the same from page to page."""
    digest = sha256()
    for topic in topics:
        digest.update(len(topic).to_bytes(4, "big") + topic)
    bounds = getattr(range.value, "first", None), getattr(range.value, "last", None)
    digest.update(repr((range.tag, bounds, order.tag, merged, per_topic)).encode())
    return digest.digest()


def encode_cursor(key: bytes, digest: bytes, position: TopicPosition) -> bytes:
    """Write a cursor."""
    flags = (_HAS_ID if position.id is not None else 0) | (_HAS_GAP if position.has_gap else 0)
    body = _BODY.pack(_VERSION, position.topic, position.id or 0, position.taken, flags)
    return body + _mac(key, digest, body)


def decode_cursor(key: bytes, digest: bytes, cursor: bytes) -> TopicPosition:
    """Read a cursor. Raises CursorError."""
    body, mac = cursor[: _BODY.size], cursor[_BODY.size :]
    if len(body) != _BODY.size or not hmac.compare_digest(mac, _mac(key, digest, body)):
        raise CursorError(
            "this cursor is not of this zone and this request: ask with the topics, range and order of the"
            " page that gave it, or begin anew without one"
        )
    _, topic, id, taken, flags = _BODY.unpack(body)
    return TopicPosition(topic, id if flags & _HAS_ID else None, taken, bool(flags & _HAS_GAP))


def _mac(key: bytes, digest: bytes, body: bytes) -> bytes:
    return hmac.digest(key, digest + body, "sha256")[:_MAC_SIZE_BYTES]
