"""Cursors of a zone, which come back from clients: a zone takes its own for the same request, or says no."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cannery.apps.zones.cursor import CursorError, decode_cursor, encode_cursor
from cannery.cdk.topic_pages import TopicPosition
from tests.fuzzing import Decoder, accepts_or_raises_its_error, damaged

SECRET, DIGEST = bytes(32), bytes(range(32))
POSITIONS = st.builds(
    TopicPosition,
    st.integers(0, 999),
    st.none() | st.integers(1, 2**63),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)


@given(POSITIONS, st.data())
def test_a_cursor_of_any_bytes_is_read_or_refused_with_one_error(
    position: TopicPosition, data: st.DataObject
) -> None:
    cursor = encode_cursor(SECRET, DIGEST, position)
    assert decode_cursor(SECRET, DIGEST, cursor) == position
    read = Decoder(lambda raw: decode_cursor(SECRET, DIGEST, raw), CursorError, (cursor,))
    changed = data.draw(st.binary(max_size=80)) if data.draw(st.booleans()) else damaged(data, cursor)
    accepts_or_raises_its_error(read, changed)
    if changed != cursor:
        for secret, digest in ((SECRET, DIGEST), (b"x" * 32, DIGEST), (SECRET, b"x" * 32)):
            try:
                decode_cursor(secret, digest, changed)
            except CursorError:
                continue
            raise AssertionError("a zone took a cursor that it never gave")
