"""Keys and records on disk are what the golden files say, for ever; an idle canister is small."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import msgspec
import msgspec.structs
import pytest

from cannery.errors import StoreError
from cannery.replica import keys, records
from cannery.replica.block import (
    Block,
    Configure,
    Ingress,
    OutcallAnswer,
    PeerLost,
    PriceSchedule,
    ReplicaConfig,
    Route,
    StreamAck,
    StreamSlice,
    Verdict,
    decode_block,
    decode_config,
    encode_block,
    encode_config,
)
from cannery.replica.outcall_records import OUTCALL, OutcallRecord
from cannery.replica.records import (
    AccountRecord,
    AnsweredMessage,
    Callback,
    CallContext,
    CallMessage,
    CallOrigin,
    CanisterRecord,
    CanisterStatus,
    EventRecord,
    HeadRecord,
    IngressMessage,
    IngressOrigin,
    LogEntry,
    ModuleRecord,
    NoOrigin,
    Notice,
    NoticeKind,
    PeerRecord,
    RequestState,
    RequestStatus,
    ResponseMessage,
    SchemaRecord,
    Settings,
    StreamEntry,
    StreamHead,
    SubnetRecord,
    TimerMessage,
    TimerRecord,
    UpgradeMessage,
    Visibility,
    VisibilityKind,
    encode_record,
)

FORMATS = Path(__file__).parents[1] / "formats"
ID = keys.canister_id(0x100000)
USER = b"\x11" * 28 + b"\x02"
HASH = bytes(range(32))

KEYS = {
    "config": keys.CONFIG_KEY,
    "subnet": keys.SUBNET_KEY,
    "head": keys.HEAD_KEY,
    "canister": keys.owned(keys.CANISTERS, ID),
    "account": keys.owned(keys.ACCOUNTS, ID),
    "stable": keys.owned(keys.STABLE, ID, b"\x01key"),
    "schema": keys.hashed(keys.SCHEMAS, HASH[:16]),
    "type": keys.hashed(keys.TYPES, HASH[:8]),
    "module": keys.hashed(keys.MODULES, HASH),
    "module_file": keys.hashed(keys.MODULE_FILES, HASH),
    "module_uses": keys.hashed(keys.MODULE_USES, HASH),
    "chunk": keys.owned(keys.CHUNKS, ID, HASH),
    "history": keys.numbered(keys.HISTORY, ID, 1),
    "log": keys.numbered(keys.LOGS, ID, 2),
    "certified": keys.owned(keys.CERTIFIED, ID),
    "queue": keys.queue_key(ID, 1, 3),
    "ready": keys.ready_key(4),
    "context": keys.numbered(keys.CONTEXTS, ID, 5),
    "callback": keys.numbered(keys.CALLBACKS, ID, 6),
    "pair": keys.pair_key(ID, b""),
    "stream_head": keys.stream_head_key(1),
    "stream": keys.stream_key(1, 7),
    "timer": keys.numbered(keys.TIMERS, ID, 8),
    "event": keys.numbered(keys.EVENTS, ID, 9),
    "due_timer": keys.due_key(1_700_000_000_000_000_000, keys.DUE_TIMER, ID, 8),
    "due_stop": keys.due_key(1_700_000_000_000_000_000, keys.DUE_STOP, ID, 9),
    "stop": keys.numbered(keys.STOPS, ID, 9),
    "request": keys.request_key(1_700_000_000_000_000_000, HASH),
    "operator": keys.hashed(keys.OPERATORS, USER),
    "name": keys.hashed(keys.NAMES, b"guestbook"),
    "snapshot": keys.numbered(keys.SNAPSHOTS, ID, 11),
    "snapshot_page": keys.snapshot_page_key(ID, 11, 1, 2),
    "fleet": keys.owned(keys.FLEETS, ID),
    "fleet_module": keys.owned(keys.FLEET_MODULES, ID, HASH),
    "fleet_member": keys.owned(keys.FLEET_MEMBERS, ID, keys.canister_id(0x100001)),
    "fleet_role": keys.fleet_role_key(ID, "moderator", USER),
    "fleet_value": keys.owned(keys.FLEET_VALUES, ID, b"signups"),
    "upgrade_batch": keys.numbered(keys.UPGRADE_BATCHES, ID, 12),
    "upgrade_result": keys.numbered(keys.UPGRADE_RESULTS, ID, 12) + keys.u64(3),
    "outcall": keys.numbered(keys.OUTCALLS, ID, 12),
    "outcall_count": keys.owned(keys.OUTCALL_COUNTS, ID),
    "sent_module": keys.sent_module_key(1, HASH),
    "creations": keys.owned(keys.CREATIONS, ID),
    "peer": keys.peer_key(1),
    "fleet_away": keys.owned(keys.FLEETS_AWAY, ID, keys.u64(1)),
    "fleet_local": keys.owned(keys.FLEET_LOCALS, ID, keys.canister_id(0x100001)),
    "fleet_wait": keys.numbered(keys.FLEET_WAITS, ID, 2),
    "fan": keys.numbered(keys.FANS, b"", 3),
    "fan_part": keys.owned(keys.FAN_PARTS, keys.u64(3), keys.u64(1)),
    "due_outcall": keys.due_key(17, keys.DUE_OUTCALL, ID, 12),
    "block": keys.block_key(10),
}

SETTINGS = Settings(
    freezing_threshold_s=86_400,
    log_visibility=Visibility(VisibilityKind.ALLOWED_VIEWERS, (USER,)),
    environment_variables=(("PUBLIC_CANISTER_ID:x", "aaaaa-aa"),),
)
RECORDS: dict[str, tuple[msgspec.Struct, records.RecordDecoder]] = {
    "canister": (
        CanisterRecord(
            (USER, ID), USER, 17, CanisterStatus.STOPPED, HASH, HASH[:16], SETTINGS, 3, 18, ID, USER
        ),
        records.CANISTER,
    ),
    "canister_default": (CanisterRecord((USER,), USER, 17), records.CANISTER),
    "account": (
        AccountRecord(*range(1, 20), (0, 1, 0, 0, 2, 5, 0, 0), *range(20, 26), True, 26, 27, 28),
        records.ACCOUNT,
    ),
    "account_default": (AccountRecord(), records.ACCOUNT),
    "module": (
        ModuleRecord(
            100, 17, "guestbook", "0.1.0", {"sign": 6, "latest": 7}, ("init",), ("then",), ("tick",)
        ),
        records.MODULE,
    ),
    "subnet": (SubnetRecord(*range(1, 12)), records.SUBNET),
    "head": (HeadRecord(10, HASH, HASH, 17, 1), records.HEAD),
    "context_ingress": (
        CallContext(IngressOrigin(HASH, USER, 17, ID), "sign", 16, 5, False, 7, 1),
        records.CONTEXT,
    ),
    "context_call": (CallContext(CallOrigin(ID, 4, USER), "sign", 16), records.CONTEXT),
    "context_timer": (CallContext(NoOrigin(), "tick", 16, answered=True), records.CONTEXT),
    "callback": (Callback(5, ID, "sign", "then", b"12345678saved", 9, 16), records.CALLBACK),
    "callback_one_way": (Callback(5, b"", "start_canister", None, b"", 0, 16), records.CALLBACK),
    "timer": (TimerRecord("tick", 17, 5, b"12345678saved", True, False), records.TIMER),
    "request": (
        RequestStatus(USER, ID, RequestState.REJECTED, b"", 5, "text", "IC0503", 17),
        records.REQUEST,
    ),
    "log": (LogEntry(17, b"line", True), records.LOG),
    "event": (EventRecord(17, "chat", b"payload"), records.EVENT),
    "outcall": (
        OutcallRecord(
            "https", "rpc.example.org", 443, "/", "POST", (("a", "b"),), b"{}", 100, "strip", b"c", 5, 16, 17
        ),
        OUTCALL,
    ),
    "stream_head": (StreamHead(1, 2, 3, 4), records.STREAM_HEAD),
    "stream_notice": (StreamEntry(b"", b"", Notice(NoticeKind.MODULE, b"file")), records.STREAM_ENTRY),
    "peer": (PeerRecord(1, 2), records.PEER),
    "stream_entry": (StreamEntry(ID, b"", CallMessage(ID, 1, "m", b"arg", 2, USER)), records.STREAM_ENTRY),
    "schema": (SchemaRecord({"entries": b"\x01"}, b"opaque"), records.SCHEMA),
}
OLDER: dict[str, tuple[msgspec.Struct, records.RecordDecoder]] = {
    "log_before_traps": (LogEntry(17, b"line"), records.LOG),
    "account_before_snapshots": (
        AccountRecord(*range(1, 20), lanes=(0, 1, 0, 0, 2, 5, 0, 0)),
        records.ACCOUNT,
    ),
    "canister_before_fleets": (
        CanisterRecord((USER, ID), USER, 17, CanisterStatus.STOPPED, HASH, HASH[:16], SETTINGS, 3, 18),
        records.CANISTER,
    ),
    "canister_default_before_fleets": (CanisterRecord((USER,), USER, 17), records.CANISTER),
    "account_before_fleets": (
        AccountRecord(*range(1, 20), lanes=(0, 1, 0, 0, 2, 5, 0, 0), snapshot_bytes=20),
        records.ACCOUNT,
    ),
    "account_before_events": (
        AccountRecord(*range(1, 20), (0, 1, 0, 0, 2, 5, 0, 0), *range(20, 26), True),
        records.ACCOUNT,
    ),
    "account_default_before_events": (AccountRecord(), records.ACCOUNT),
    "account_default_before_fleets": (AccountRecord(), records.ACCOUNT),
    "subnet_before_subnets": (SubnetRecord(*range(1, 10)), records.SUBNET),
    "stream_head_before_subnets": (StreamHead(1, 2, 3), records.STREAM_HEAD),
    "context_call_before_fleets": (CallContext(CallOrigin(ID, 4), "sign", 16), records.CONTEXT),
    "stream_entry_before_fleets": (
        StreamEntry(ID, b"", CallMessage(ID, 1, "m", b"arg", 2)),
        records.STREAM_ENTRY,
    ),
}
OLDER_OF_OTHER_SHAPES = (
    "message_call_before_fleets",
    "config_before_ingress_prices",
    "block_before_ingress_prices",
    "config_before_outcalls",
    "block_before_outcalls",
    "config_before_subnets",
    "block_before_subnets",
)
MESSAGES = {
    "ingress": IngressMessage(HASH, USER, "sign", b"arg", 17),
    "call": CallMessage(ID, 4, "sign", b"arg", 5, USER),
    "response": ResponseMessage(4, b"reply", 0, "", 3),
    "timer": TimerMessage(8),
    "upgrade": UpgradeMessage(ID, 12, 3),
    "answered": AnsweredMessage(4, 5, "strip", b"context", 100, 200, (("date", "now"),), b"body"),
}
CONFIG = ReplicaConfig(
    subnet=1,
    operators=(USER,),
    routes=(Route(0, 5, 1, HASH[:29]),),
    prices=PriceSchedule(*range(1, 13)),
    outcall_hosts=("rpc.example.org",),
    spreads=True,
    query_cpu_ns_max=200_000_000,
)
BEFORE_SUBNETS = msgspec.structs.replace(CONFIG, routes=(Route(0, 5, 1),), spreads=False)
BEFORE_INGRESS_PRICES = msgspec.structs.replace(
    BEFORE_SUBNETS, prices=PriceSchedule(1, 2, 3, 4, 5, 6), outcall_hosts=()
)
BEFORE_OUTCALLS = msgspec.structs.replace(
    BEFORE_SUBNETS, prices=PriceSchedule(*range(1, 10)), outcall_hosts=()
)
BLOCK = Block(
    10,
    HASH,
    17,
    HASH,
    (
        Configure(CONFIG),
        Ingress(HASH, USER, ID, "sign", b"arg", 18),
        OutcallAnswer(ID, 12, 200, (("date", "now"),), b"body"),
        OutcallAnswer(ID, 13, reject_code=2, reject_message="down"),
        StreamSlice(1, 7, (b"entry",), 3, 8),
        StreamAck(1, 8),
        PeerLost(1),
    ),
    (HASH,),
    (Verdict(2, "stopped"),),
)


def _golden(name: str) -> dict[str, str]:
    stored: dict[str, str] = json.loads((FORMATS / name).read_text())
    return stored


def test_keys_are_those_of_the_golden_file() -> None:
    assert {name: key.hex() for name, key in KEYS.items()} == _golden("keys.json")


def test_records_are_written_and_read_as_in_the_golden_file() -> None:
    encoded = {name: encode_record(record) for name, (record, _) in RECORDS.items()}
    encoded |= {f"message_{name}": records.encode_message(message) for name, message in MESSAGES.items()}
    encoded |= {"config": encode_config(CONFIG), "block": encode_block(BLOCK)}
    stored = _golden("records.json")
    assert {name: data.hex() for name, data in encoded.items()} == {
        name: data for name, data in stored.items() if name not in OLDER and name not in OLDER_OF_OTHER_SHAPES
    }
    for name, (record, decoder) in (RECORDS | OLDER).items():
        assert decoder.decode(bytes.fromhex(stored[name])) == record
    for name, message in MESSAGES.items():
        assert records.decode_message(bytes.fromhex(stored[f"message_{name}"])) == message
    before_fleets = records.decode_message(bytes.fromhex(stored["message_call_before_fleets"]))
    assert before_fleets == CallMessage(ID, 4, "sign", b"arg", 5)
    assert decode_config(bytes.fromhex(stored["config"])) == CONFIG
    assert decode_config(bytes.fromhex(stored["config_before_ingress_prices"])) == BEFORE_INGRESS_PRICES
    assert decode_block(bytes.fromhex(stored["block"])) == BLOCK
    before_prices = decode_block(bytes.fromhex(stored["block_before_ingress_prices"]))
    assert before_prices.inputs == (Configure(BEFORE_INGRESS_PRICES), BLOCK.inputs[1])
    assert decode_config(bytes.fromhex(stored["config_before_outcalls"])) == BEFORE_OUTCALLS
    before_outcalls = decode_block(bytes.fromhex(stored["block_before_outcalls"]))
    assert before_outcalls.inputs == (Configure(BEFORE_OUTCALLS), BLOCK.inputs[1])
    assert decode_config(bytes.fromhex(stored["config_before_subnets"])) == BEFORE_SUBNETS
    before_subnets = decode_block(bytes.fromhex(stored["block_before_subnets"]))
    assert before_subnets.inputs == (Configure(BEFORE_SUBNETS), *BLOCK.inputs[1:4])


def test_a_record_with_fewer_fields_still_opens() -> None:
    data = records.RECORD_VERSION + msgspec.msgpack.encode([[USER], USER, 17])
    assert records.CANISTER.decode(data) == CanisterRecord((USER,), USER, 17)


@pytest.mark.parametrize("data", [b"", b"\x02\x90", b"\x01", b"\x01\xc0", b"\x01\x91\x01"])
def test_what_does_not_decode_is_a_store_error_that_says_what_to_do(data: bytes) -> None:
    for decode in (records.CANISTER.decode, records.decode_message, decode_block, decode_config):
        with suppress(StoreError):
            decode(data)
    with pytest.raises(StoreError, match="version that wrote it"):
        records.CANISTER.decode(b"\x07")


def test_keys_of_one_canister_never_lie_among_those_of_another() -> None:
    for one, other in ((b"\x01", b"\x01\x00"), (b"", b"\x00"), (ID, keys.canister_id(0x100001))):
        low, high = keys.owned_range(keys.STABLE, one)
        assert not low <= keys.owned(keys.STABLE, other, b"key") < high
        assert low <= keys.owned(keys.STABLE, one, b"\xff" * 9) < high


def test_keys_are_taken_apart_as_they_were_made() -> None:
    key = keys.due_key(2**63 - 1, keys.DUE_STOP, USER, 2**64 - 1)
    assert keys.parse_due_key(key) == (2**63 - 1, keys.DUE_STOP, USER, 2**64 - 1)
    assert keys.owner_of(keys.numbered(keys.TIMERS, ID, 5)) == ID
    assert keys.number_of(keys.numbered(keys.TIMERS, ID, 5)) == 5
    assert keys.canister_counter(ID) == 0x100000
    assert keys.canister_counter(USER) is None
    assert keys.canister_id(0x100000).hex() == "00000000001000000101"


def test_an_idle_canister_is_small() -> None:
    canister = CanisterRecord(
        (ID, USER), ID, 1_700_000_000_000_000_000, module_hash=HASH, schema_id=HASH[:16]
    )
    account = AccountRecord(
        cycles=10**12,
        version=100,
        memory_bytes=10_000,
        active_ns=1_700_000_000_000_000_000,
        next_number=1000,
        log_next=10,
        log_bytes=400,
    )
    size = len(KEYS["canister"]) + len(KEYS["account"])
    size += len(encode_record(canister)) + len(encode_record(account))
    assert size < 260
