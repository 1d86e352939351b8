"""Records of the state machine: what stands under the keys of `keys`, and how it becomes bytes.

A record on disk is one version byte, then MessagePack with fields in the order written here: a field once
released keeps its place, new ones are added at the end with a default. `tests/formats/records.json` holds
examples that must open for ever. Principals are raw bytes, times nanoseconds, cycles whole numbers under
`CYCLES_MINTED_MAX`. This module reads no state.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import sha256
from typing import Generic, TypeVar

import msgspec

from cannery.errors import StoreError

RECORD_VERSION = b"\x01"

R = TypeVar("R")


class CanisterStatus(IntEnum):
    """Where a canister stands between running and stopped."""

    RUNNING = 1
    STOPPING = 2
    STOPPED = 3


class VisibilityKind(IntEnum):
    """Who may see logs, status or snapshots."""

    CONTROLLERS = 0
    PUBLIC = 1
    ALLOWED_VIEWERS = 2


class Visibility(msgspec.Struct, frozen=True, array_like=True):
    """Who may see a part of a canister; `viewers` counts for `ALLOWED_VIEWERS` alone."""

    kind: VisibilityKind = VisibilityKind.CONTROLLERS
    viewers: tuple[bytes, ...] = ()


class Settings(msgspec.Struct, frozen=True, array_like=True):
    """Settings of a canister as in `ic.did` 0.66, controllers apart."""

    freezing_threshold_s: int = 2_592_000
    compute_allocation: int = 0
    memory_allocation: int = 0
    reserved_cycles_limit: int = 5_000_000_000_000
    minimum_incoming_canister_call_cycles: int = 0
    log_visibility: Visibility = Visibility()
    log_memory_limit: int = 4096
    snapshot_visibility: Visibility = Visibility()
    status_visibility: Visibility = Visibility()
    wasm_memory_limit: int = 0
    wasm_memory_threshold: int = 0
    environment_variables: tuple[tuple[str, str], ...] = ()


class CanisterRecord(msgspec.Struct, frozen=True, array_like=True):
    """The cold half of a canister: what messages read and only management changes.

    `installed_ns` is the time of the last installation; 0 while no module is installed. `fleet` is the index
    whose member it is, empty for none; `replaced_by` the canister that took its place, if one did.
    """

    controllers: tuple[bytes, ...]
    creator: bytes
    created_ns: int
    status: CanisterStatus = CanisterStatus.RUNNING
    module_hash: bytes | None = None
    schema_id: bytes = b""
    settings: Settings = Settings()
    change_count: int = 0
    installed_ns: int = 0
    fleet: bytes = b""
    replaced_by: bytes = b""


class AccountRecord(msgspec.Struct, array_like=True):
    """The hot half of a canister: what nearly each message changes.

    It alone among the records is mutable, as the busiest one: an overlay works on its own copy
    (`copy.copy`). `memory_bytes` counts live stable keys and values, `queued_bytes` waiting messages and
    saved values. `lanes` is empty where nothing waits, else (first, next) of each lane in the order of
    `Lane`. `snapshot_bytes` counts the canister's snapshots with their full sizes. `key_count` counts live
    stable keys; `messages` counts what the canister has run (methods, continuations, timers), `rejects` those
    that refused their caller, `traps` those that failed; in a store of an older version all four begin at 0.
    Its fleet is told once when the balance falls under `alarm_cycles`; `alarm_told` until it is above again.
    Its events from `event_first` up to `event_next` are kept; `event_bytes` counts their topics and payloads.
    """

    cycles: int = 0
    version: int = 0
    memory_bytes: int = 0
    queued_bytes: int = 0
    chunk_bytes: int = 0
    charged_ns: int = 0
    charged_rest: int = 0
    burned: int = 0
    active_ns: int = 0
    next_number: int = 1
    contexts_open: int = 0
    calls_open: int = 0
    timers_open: int = 0
    timers_parked: int = 0
    log_first: int = 0
    log_next: int = 0
    log_bytes: int = 0
    canisters_created: int = 0
    lane_turn: int = 0
    lanes: tuple[int, ...] = ()
    snapshot_bytes: int = 0
    key_count: int = 0
    messages: int = 0
    rejects: int = 0
    traps: int = 0
    alarm_cycles: int = 0
    alarm_told: bool = False
    event_first: int = 0
    event_next: int = 0
    event_bytes: int = 0


class ModuleRecord(msgspec.Struct, frozen=True, array_like=True):
    """What messages need to know of a module without opening its file; never changes for a hash.

    `methods` maps a name to an `EntryKind` (UPDATE, QUERY or COMPOSITE_QUERY). `schema_id` is the schema of a
    canister that begins with this module.
    """

    size_bytes: int
    added_ns: int
    name: str
    kit_version: str
    methods: dict[str, int]
    hooks: tuple[str, ...] = ()
    continuations: tuple[str, ...] = ()
    timers: tuple[str, ...] = ()
    schema_id: bytes = b""


class SubnetRecord(msgspec.Struct, array_like=True):
    """Counters of the whole subnet; mutable like `AccountRecord`, and for the same reason.

    `cycles_in` and `cycles_out` count what came from other subnets and went to them.
    """

    next_canister: int = 0
    canister_count: int = 0
    minted: int = 0
    burned: int = 0
    ring_first: int = 0
    ring_next: int = 0
    pruned_minute: int = 0
    updates_total: int = 0
    priced_from_ns: int = 0
    cycles_in: int = 0
    cycles_out: int = 0

    @property
    def held(self) -> int:
        """What canisters and messages of this subnet hold, and calls under way."""
        return self.minted - self.burned + self.cycles_in - self.cycles_out


class HeadRecord(msgspec.Struct, frozen=True, array_like=True):
    """The last round: block number, block hash, root, block time, and the oldest block still kept."""

    number: int
    block_hash: bytes
    root: bytes
    time_ns: int
    oldest_block: int


# --- who is answered ---------------------------------------------------------------------------------------


class IngressOrigin(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A signed call from outside waits."""

    request_id: bytes
    sender: bytes
    expiry_ns: int
    canister_id: bytes


class CallOrigin(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A canister's call waits: the caller, its callback's number, the fleet it was a member of then."""

    caller: bytes
    callback: int
    fleet: bytes = b""


class NoOrigin(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Nobody waits: a timer."""


class FanOrigin(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A call about canisters of several subnets waits on this subnet, under this number, for one's part."""

    subnet: int
    number: int


Origin = IngressOrigin | CallOrigin | NoOrigin | FanOrigin


# --- messages ----------------------------------------------------------------------------------------------


class IngressMessage(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A call from outside that waits for its turn."""

    request_id: bytes
    sender: bytes
    method: str
    arg: bytes
    expiry_ns: int


class CallMessage(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A canister's call that waits at the callee; `fleet`: whose member the caller was when it called."""

    caller: bytes
    callback: int
    method: str
    arg: bytes
    cycles: int
    fleet: bytes = b""


class ResponseMessage(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """What came back from a call; waits for its turn at the caller."""

    callback: int
    reply: bytes
    reject_code: int
    reject_message: str
    cycles_refunded: int
    error_code: str | None = None


class TimerMessage(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A timer that is due and waits for its turn."""

    timer: int


class UpgradeMessage(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """An upgrade that waits for its turn at its target: whose batch it belongs to, and its place in it."""

    caller: bytes
    batch: int
    place: int


class AnsweredMessage(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The response to an HTTP outcall that waits for its transform: the call in flight, the cycles that go
    back, what the transform is given beside the response, and how large its result may be.
    """

    callback: int
    cycles: int
    transform: str
    context: bytes
    size_bytes_max: int
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


Message = IngressMessage | CallMessage | ResponseMessage | TimerMessage | UpgradeMessage | AnsweredMessage


class Lane(IntEnum):
    """The queues of one canister; each has its own bound, and they take turns.

    Upgrades, and responses from outside, wait among timers.
    """

    INGRESS = 0
    CALLS = 1
    RESPONSES = 2
    TIMERS = 3


class StreamHead(msgspec.Struct, frozen=True, array_like=True):
    """Counters of the streams between this subnet and another.

    `first` to `next` (exclusive) are the messages sent and not yet acknowledged, `size_bytes` what they
    take; `received` is the number of the next message expected from the other side.
    """

    first: int = 0
    next: int = 0
    received: int = 0
    size_bytes: int = 0


class NoticeKind(IntEnum):
    """What a subnet tells another one, beside the messages of canisters."""

    MODULE = 1
    OPERATORS = 2
    FLEET = 3
    FLEET_HAS = 4
    FLEET_JOINED = 5
    FLEET_LEFT = 6
    FLEET_GONE = 7
    FAN_ASK = 8
    FAN_ANSWER = 9
    FLEET_DISMISSED = 10


class Notice(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Word from subnet to subnet, in its place among the messages of canisters."""

    kind: NoticeKind
    data: bytes


class StreamEntry(msgspec.Struct, frozen=True, array_like=True):
    """A message on its way from canister to canister, or a notice (without sender and receiver)."""

    sender: bytes
    receiver: bytes
    message: CallMessage | ResponseMessage | Notice


class PeerRecord(msgspec.Struct, frozen=True, array_like=True):
    """What a subnet knows of another: its canisters when it was heard last, and creations sent since then."""

    canister_count: int = 0
    creations: int = 0


# --- calls in flight ---------------------------------------------------------------------------------------


class CallContext(msgspec.Struct, frozen=True, array_like=True):
    """An incoming call that is not at its end: who waits, what is left of its cycles, what it waits for.

    `answering_call` is the callback whose continuation answers; 0: whichever continuation does.
    """

    origin: Origin
    method: str
    created_ns: int
    cycles_available: int = 0
    answered: bool = False
    answering_call: int = 0
    calls_open: int = 0


class Callback(msgspec.Struct, frozen=True, array_like=True):
    """A call in flight: what was called, and what goes on when the response is there."""

    context: int
    callee: bytes
    method: str
    continuation: str | None
    saved: bytes
    cycles: int
    created_ns: int


class TimerRecord(msgspec.Struct, frozen=True, array_like=True):
    """A durable timer. `queued`: its message waits; `parked`: not in the index of due times (stopped or
    frozen).
    """

    method: str
    due_ns: int
    every_ns: int
    saved: bytes
    queued: bool = False
    parked: bool = False


# --- requests and logs -------------------------------------------------------------------------------------


class RequestState(IntEnum):
    """How far a signed call has come."""

    PROCESSING = 1
    REPLIED = 2
    REJECTED = 3


class RequestStatus(msgspec.Struct, frozen=True, array_like=True):
    """What `read_state` tells the sender of a call."""

    sender: bytes
    canister_id: bytes
    state: RequestState
    reply: bytes = b""
    code: int = 0
    text: str = ""
    error_code: str | None = None
    time_ns: int = 0


class LogEntry(msgspec.Struct, frozen=True, array_like=True):
    """One line of a canister's log; `is_trap`: the node wrote it, about a message of it that failed."""

    time_ns: int
    content: bytes
    is_trap: bool = False


class EventRecord(msgspec.Struct, frozen=True, array_like=True):
    """An event that a canister emitted, for whoever watches its topic."""

    time_ns: int
    topic: str
    payload: bytes


# --- bytes -------------------------------------------------------------------------------------------------

_ENCODER = msgspec.msgpack.Encoder()


def encode_record(record: msgspec.Struct) -> bytes:
    """Encode a record for the disk."""
    return RECORD_VERSION + _ENCODER.encode(record)


class RecordDecoder(Generic[R]):
    """Decodes records of one shape; raises `StoreError` for what this version cannot read."""

    __slots__ = ("_decoder", "_name")

    def __init__(self, shape: type[R], name: str) -> None:
        self._decoder = msgspec.msgpack.Decoder(shape)
        self._name = name

    def decode(self, data: bytes) -> R:
        """Decode one record."""
        if data[:1] != RECORD_VERSION:
            raise StoreError(
                f"a {self._name} record has format {data[:1].hex() or 'none'}, this version reads "
                f"{RECORD_VERSION.hex()}: open the data with the version that wrote it"
            )
        try:
            return self._decoder.decode(memoryview(data)[1:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(
                f"a {self._name} record does not decode ({error}): restore from a checkpoint"
            ) from error


CANISTER = RecordDecoder(CanisterRecord, "canister")
ACCOUNT = RecordDecoder(AccountRecord, "account")
MODULE = RecordDecoder(ModuleRecord, "module")
SUBNET = RecordDecoder(SubnetRecord, "subnet")
HEAD = RecordDecoder(HeadRecord, "head")
CONTEXT = RecordDecoder(CallContext, "call context")
CALLBACK = RecordDecoder(Callback, "callback")
TIMER = RecordDecoder(TimerRecord, "timer")
REQUEST = RecordDecoder(RequestStatus, "request status")
LOG = RecordDecoder(LogEntry, "log")
EVENT = RecordDecoder(EventRecord, "event")
STREAM_HEAD = RecordDecoder(StreamHead, "stream head")
PEER = RecordDecoder(PeerRecord, "peer")


class _Queued(msgspec.Struct, frozen=True, array_like=True):
    """A waiting message inside its envelope on disk (a tagged union needs a field to stand in)."""

    message: Message


_QUEUED = RecordDecoder(_Queued, "queued message")
STREAM_ENTRY = RecordDecoder(StreamEntry, "stream entry")


def encode_message(message: Message) -> bytes:
    """Encode a waiting message."""
    return encode_record(_Queued(message))


def decode_message(data: bytes) -> Message:
    """Decode a waiting message."""
    return _QUEUED.decode(data).message


def message_size_bytes(message: Message) -> int:
    """Give the bytes that a waiting message counts in its receiver's memory."""
    if isinstance(message, ResponseMessage):
        return len(message.reply) + len(message.reject_message)
    if isinstance(message, (TimerMessage, UpgradeMessage)):
        return 0
    if isinstance(message, AnsweredMessage):
        return len(message.body) + len(message.context)
    return len(message.arg) + len(message.method)


def cycles_of(message: CallMessage | ResponseMessage) -> int:
    """Give the cycles that travel with a message."""
    return message.cycles if isinstance(message, CallMessage) else message.cycles_refunded


def memory_size_bytes(account: AccountRecord) -> int:
    """Give a canister's memory size: stable state, chunk store, snapshots, events, waiting messages, saved
    values.
    """
    state_bytes = account.memory_bytes + account.chunk_bytes + account.snapshot_bytes
    return state_bytes + account.event_bytes + account.queued_bytes


class SchemaRecord(msgspec.Struct, frozen=True, array_like=True):
    """Where collections lie: key prefix by collection name, and the kit's own description of them (opaque
    here).

    Stored once under the first 16 bytes of the SHA-256 of its encoding, whatever the number of canisters on
    it.
    """

    slots: dict[str, bytes]
    description: bytes = b""


SCHEMA = RecordDecoder(SchemaRecord, "schema")


def schema_id(encoded: bytes) -> bytes:
    """Give the id under which an encoded `SchemaRecord` is stored."""
    return sha256(encoded).digest()[:16]
