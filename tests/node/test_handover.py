"""Frames between processes: every message comes back, cut anywhere; nonsense is the one error."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.limits import FRAME_ROOM_SIZE_BYTES, FRAME_SIZE_BYTES_MAX, FRAME_TARGET_SIZE_BYTES
from cannery.node.handover import (
    Accepted,
    Answered,
    Ask,
    FrameError,
    FrameSplitter,
    IngressMessage,
    Measure,
    Measured,
    QueryDone,
    QueryMessage,
    Read,
    Refused,
    Settled,
    Spooled,
    StateRead,
    Submit,
    ToGateway,
    ToSubnet,
    Values,
    decode_to_gateway,
    decode_to_subnet,
    encode_frames,
)

BYTES = st.binary(max_size=40)
IDS = st.integers(0, 2**63)
SPOOLED = st.none() | st.builds(Spooled, st.text(max_size=9), IDS, IDS)
TEXT = st.text(max_size=20)
INGRESS = st.builds(IngressMessage, BYTES, BYTES, BYTES, TEXT, BYTES, IDS, SPOOLED)
QUERY = st.builds(QueryMessage, BYTES, BYTES, BYTES, TEXT, BYTES, SPOOLED)
PATHS = st.lists(st.lists(BYTES, max_size=3).map(tuple), max_size=3).map(tuple)
ANSWER = st.builds(Answered, BYTES, st.integers(0, 6), TEXT, st.none() | TEXT, SPOOLED)
TO_SUBNET: st.SearchStrategy[ToSubnet] = st.one_of(
    st.builds(Submit, IDS, INGRESS),
    st.builds(Ask, IDS, QUERY),
    st.builds(Read, IDS, st.builds(StateRead, BYTES, BYTES, PATHS)),
    st.builds(Measure, IDS),
)
TO_GATEWAY: st.SearchStrategy[ToGateway] = st.one_of(
    st.builds(Accepted, IDS),
    st.builds(Settled, IDS, IDS, ANSWER),
    st.builds(Refused, IDS, st.integers(0, 6), TEXT, st.none() | TEXT),
    st.builds(QueryDone, IDS, IDS, ANSWER),
    st.builds(Values, IDS, IDS, st.lists(st.none() | BYTES, max_size=3).map(tuple), st.none() | TEXT),
    st.builds(Measured, IDS, TEXT),
)


@given(to_subnet=st.lists(TO_SUBNET), to_gateway=st.lists(TO_GATEWAY), cut=st.integers(1, 50))
def test_messages_come_back_however_the_stream_is_cut(
    to_subnet: list[ToSubnet], to_gateway: list[ToGateway], cut: int
) -> None:
    stream = b"".join(encode_frames(to_subnet))
    splitter = FrameSplitter()
    pieces = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    bodies = [body for piece in pieces for body in splitter.feed(piece)]
    assert [message for body in bodies for message in decode_to_subnet(body)] == to_subnet
    stream = b"".join(encode_frames(to_gateway))
    bodies = list(FrameSplitter().feed(stream))
    assert [message for body in bodies for message in decode_to_gateway(body)] == to_gateway


@given(
    sizes=st.lists(
        st.sampled_from([0, 1, 1000, FRAME_ROOM_SIZE_BYTES - 4, FRAME_ROOM_SIZE_BYTES, 3_000_000]), max_size=5
    ),
    reads=st.lists(st.integers(1, 2_000_000), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=30)
def test_frames_of_any_size_come_whole_out_of_what_a_socket_reads(sizes: list[int], reads: list[int]) -> None:
    replies = [bytes((number + 1,)) * size for number, size in enumerate(sizes)]
    stream = b"".join(b"".join(encode_frames([Settled(1, 2, Answered(reply))])) for reply in replies)
    splitter, found, at = FrameSplitter(), [], 0
    for read in itertools.cycle(reads):
        room = splitter.room()
        assert len(room) > 0
        count = min(read, len(room), len(stream) - at)
        room[:count] = stream[at : at + count]
        at += count
        for body in splitter.took(count):
            found += decode_to_gateway(body)
        if at == len(stream):
            break
    assert found == [Settled(1, 2, Answered(reply)) for reply in replies]
    assert len(splitter.room()) == FRAME_ROOM_SIZE_BYTES


@given(st.binary(max_size=60))
def test_nonsense_is_a_frame_error(data: bytes) -> None:
    for decode in (decode_to_subnet, decode_to_gateway):
        with suppress(FrameError):
            assert isinstance(decode(data), list)


def test_large_batches_are_split_and_too_large_frames_refused() -> None:
    large = Settled(1, 2, Answered(bytes(FRAME_TARGET_SIZE_BYTES // 2)))
    headers = encode_frames([large] * 4)[::2]
    assert [len(header) for header in headers] == [4, 4]
    header = (FRAME_SIZE_BYTES_MAX + 1).to_bytes(4, "big")
    with pytest.raises(FrameError, match="larger than"):
        list(FrameSplitter().feed(header))
