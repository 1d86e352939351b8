"""What one process of the node reads of another, of its own disk, and of the world outside.

`tests/test_fuzz.py` has the laws.
"""

from __future__ import annotations

from cannery.errors import StoreError
from cannery.node.handover import (
    Answered,
    Ask,
    Decided,
    EventItem,
    Events,
    EventsRead,
    Follow,
    FrameError,
    FrameSplitter,
    IngressMessage,
    QueryMessage,
    Read,
    ReadEvents,
    Received,
    Settled,
    Slice,
    Stale,
    StateRead,
    Submit,
    ToGateway,
    ToSubnet,
    Unwatch,
    Watch,
    decode_to_gateway,
    decode_to_subnet,
    encode_frames,
)
from cannery.replica import records
from cannery.replica.block import (
    Block,
    Configure,
    Ingress,
    OutcallAnswer,
    PeerLost,
    ReplicaConfig,
    StreamAck,
    StreamSlice,
    decode_block,
    decode_config,
    encode_block,
    encode_config,
)
from cannery.replica.outcall_records import OUTCALL, OutcallRecord
from cannery.replica.records import CallMessage, EventRecord, StreamEntry, encode_record
from tests.fuzzing import Decoder

ID, PRINCIPAL = bytes(range(32)), b"\x00\x00\x00\x00\x00\x10\x00\x00\x01\x01"
QUERY = QueryMessage(ID, PRINCIPAL, PRINCIPAL, "events_allowed", b"DIDL\x00\x00")
ENTRY = encode_record(
    StreamEntry(PRINCIPAL, PRINCIPAL, CallMessage(PRINCIPAL, 7, "take", b"DIDL\x00\x00", 5))
)
SLICE = StreamSlice(1, 4, (ENTRY, ENTRY), 3, 6)
EVENT = EventItem(3, 5, "chat", b"hello")
TO_SUBNET: tuple[ToSubnet, ...] = (
    Submit(1, IngressMessage(ID, PRINCIPAL, PRINCIPAL, "say", b"DIDL\x00\x00", 5)),
    Ask(2, QUERY),
    Read(3, StateRead(PRINCIPAL, ID, ((b"time",), (b"request_status", ID)))),
    Watch(4, QUERY),
    Unwatch(4),
    ReadEvents(5, PRINCIPAL, 8),
    Follow(6, 1, 9),
    Received(1, 12),
)
TO_GATEWAY: tuple[ToGateway, ...] = (
    Settled(1, 2, Answered(b"DIDL\x00\x00", 0, "", None)),
    Decided(4, Answered(b"", 4, "no member", "CNRY0001"), 2),
    EventsRead(5, 1, 4, (EVENT,), None),
    Stale((4, 5)),
    Events(PRINCIPAL, (EVENT,)),
    Slice(6, SLICE),
)
BLOCK = Block(
    number=7,
    previous_hash=bytes(32),
    time_ns=5,
    seed=bytes(32),
    inputs=(
        Ingress(ID, PRINCIPAL, PRINCIPAL, "say", b"DIDL\x00\x00", 9),
        OutcallAnswer(PRINCIPAL, 3, 200, (("server", "x"),), b"42"),
        SLICE,
        StreamAck(1, 4),
        PeerLost(1),
        Configure(ReplicaConfig(operators=(PRINCIPAL,))),
    ),
    poisoned=(ID,),
)
ASKED = OutcallRecord(
    "https", "example.org", 443, "/rate", "GET", (("accept", "*"),), b"", 100, "", b"", 5, 1, 2
)


def _body(messages: tuple[ToSubnet, ...] | tuple[ToGateway, ...]) -> bytes:
    _, body = encode_frames(messages)
    return body


def _split(data: bytes) -> None:
    for body in FrameSplitter().feed(data):
        decode_to_subnet(body)


VERSIONS = (b"", b"\x01", b"\x02")
DECODERS = {
    "to a subnet": Decoder(decode_to_subnet, FrameError, (_body(TO_SUBNET),)),
    "to a gateway": Decoder(decode_to_gateway, FrameError, (_body(TO_GATEWAY),)),
    "frames": Decoder(_split, FrameError, (b"".join(encode_frames(TO_SUBNET)),)),
    "block": Decoder(decode_block, StoreError, (encode_block(BLOCK),), heads=VERSIONS),
    "configuration": Decoder(
        decode_config,
        StoreError,
        (encode_config(ReplicaConfig(outcall_hosts=("example.org",))),),
        heads=VERSIONS,
    ),
    "stream entry": Decoder(records.STREAM_ENTRY.decode, StoreError, (ENTRY,), heads=VERSIONS),
    "event": Decoder(
        records.EVENT.decode,
        StoreError,
        (encode_record(EventRecord(5, "chat", b"hello")),),
        heads=VERSIONS,
    ),
    "outcall": Decoder(OUTCALL.decode, StoreError, (encode_record(ASKED),), heads=VERSIONS),
}
