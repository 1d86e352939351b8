"""The changes of a round and of a message over the state.

`RoundState` holds a round's changes over the store; `MessageOverlay` holds one message's over the round's.
A trap drops the overlay, `commit` merges it down. What a message sends stays in its overlay until then too.
Rules stand in the modules named after them: `cycles`, `calls`, `timers`, `ingress`, `logs`.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from cannery.limits import ROUND_WORK_BYTES_PER_COUNT
from cannery.ports import Program, Programs, StoreReader
from cannery.replica import keys, records
from cannery.replica.block import Block, Ingress
from cannery.replica.overlay import CachedReader, Layer
from cannery.replica.records import (
    AccountRecord,
    CallMessage,
    CallOrigin,
    CanisterRecord,
    EventRecord,
    FanOrigin,
    IngressOrigin,
    ModuleRecord,
    NoticeKind,
    Origin,
    ResponseMessage,
    StreamHead,
    SubnetRecord,
    UpgradeMessage,
)
from cannery.replica.view import StateView, load_program

if TYPE_CHECKING:
    from cannery.replica.run import Runner
    from cannery.replica.scheduler import Scheduler

MANAGEMENT_ID = b""


class Outcome(msgspec.Struct, frozen=True):
    """How a call ended: a reply (`reject_code` 0) or a reject, and the cycles that go back to the caller."""

    reply: bytes = b""
    reject_code: int = 0
    reject_message: str = ""
    error_code: str | None = None
    refund: int = 0


class Answer(msgspec.Struct, frozen=True):
    """The end of a call from outside, for its sender; `reply` None means a reject."""

    request_id: bytes
    sender: bytes
    reply: bytes | None
    reject_code: int = 0
    reject_message: str = ""
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event that leaves with its round, for whoever watches the canister."""

    canister_id: bytes
    number: int
    record: EventRecord


@dataclass(slots=True)
class RoundEvents:
    """Counts of one round, for metrics; no part of the state."""

    activations: int = 0
    work: int = 0
    ingress: int = 0
    duplicates: int = 0
    calls: int = 0
    responses: int = 0
    timers: int = 0
    traps: int = 0
    rejects: int = 0
    verdicts: int = 0


class RoundState:
    """A round's changes over the store, and what its messages share: block, configuration, counters,
    scheduler.
    """

    __slots__ = (
        "accepted",
        "answers",
        "block",
        "changed_accounts",
        "emitted",
        "events",
        "fan_answers",
        "layer",
        "outcalls",
        "reader",
        "runner",
        "scheduler",
        "settling",
        "stamps",
        "stream_heads",
        "subnet",
        "time_ns",
        "view",
    )

    runner: Runner
    scheduler: Scheduler

    def __init__(self, reader: StoreReader, block: Block, programs: Programs) -> None:
        self.reader = CachedReader(reader)
        self.layer = Layer(self.reader)
        self.view = StateView(self.layer, programs)
        self.block = block
        self.time_ns = block.time_ns
        self.subnet = self.view.subnet()
        self.changed_accounts: dict[bytes, None] = {}
        self.settling: dict[bytes, None] = {}
        self.stamps: dict[bytes, bytes] = {}
        self.answers: list[Answer] = []
        self.emitted: list[Emitted] = []
        self.accepted: dict[bytes, Ingress] = {}
        self.stream_heads: dict[int, StreamHead] = {}
        self.outcalls: list[tuple[bytes, int]] = []
        self.fan_answers: list[tuple[FanOrigin, Outcome]] = []
        self.events = RoundEvents()

    def account_for_change(self, canister_id: bytes) -> AccountRecord | None:
        """Give the round's own account of a canister, to change in place: what no trap takes back."""
        account = self.view.account(canister_id)
        if account is not None:
            self.changed_accounts[canister_id] = None
        return account

    def queue_account(self, receiver: bytes) -> AccountRecord | None:
        """Give the round's own account of who may have a queue: a canister, or the management canister."""
        account = self.account_for_change(receiver)
        if account is None and receiver == MANAGEMENT_ID:
            account = self.view.accounts[receiver] = AccountRecord()
            self.changed_accounts[receiver] = None
        return account

    def stream_head(self, subnet: int) -> StreamHead:
        """Give the counters of the streams to and from a subnet."""
        head = self.stream_heads.get(subnet)
        if head is None:
            data = self.layer.get(keys.stream_head_key(subnet))
            head = StreamHead() if data is None else records.STREAM_HEAD.decode(data)
            self.stream_heads[subnet] = head
        return head

    def put_stream_head(self, subnet: int, head: StreamHead) -> None:
        """Set the counters of the streams to and from a subnet."""
        self.stream_heads[subnet] = head

    def note_work(self, touched: int, bytes_moved: int) -> None:
        """Count work towards the bound of the round: an activation, keys, and bytes by the kibibyte."""
        self.events.work += 1 + touched + bytes_moved // ROUND_WORK_BYTES_PER_COUNT


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that leaves with the commit: to a canister's queue, through the stream to its subnet."""

    receiver: bytes
    sender: bytes
    message: CallMessage | ResponseMessage


class MessageOverlay:
    """One message's changes over the round's: committed whole or dropped whole.

    Reads give the state with this message's changes. Canisters, accounts and the subnet's counters are read
    and written by their typed methods alone; every other space by raw keys. `account` and `subnet` give
    copies that belong to this message and are changed in place.
    """

    __slots__ = (
        "_accounts",
        "_canisters",
        "_ends_stamps",
        "_subnet",
        "answers",
        "delete_range",
        "emitted",
        "get",
        "layer",
        "new_modules",
        "new_operators",
        "notices",
        "outbox",
        "put",
        "scan",
        "state",
        "upgrades",
    )

    def __init__(self, state: RoundState) -> None:
        self.state = state
        self.upgrades: list[tuple[bytes, UpgradeMessage]] | None = None
        self.emitted: list[Emitted] | None = None
        self.layer = layer = Layer(state.layer)
        self.get = layer.get
        self.put = layer.put
        self.delete_range = layer.delete_range
        self.scan = layer.scan
        self._accounts: dict[bytes, AccountRecord | None] = {}
        self._canisters: dict[bytes, CanisterRecord | None] = {}
        self._subnet: SubnetRecord | None = None
        self._ends_stamps = False
        self.outbox: list[Sent] = []
        self.answers: list[tuple[IngressOrigin, Outcome]] = []
        self.new_modules: list[bytes] | None = None
        self.new_operators = False
        self.notices: list[tuple[int, NoticeKind, bytes]] | None = None

    # reads and writes of typed records

    def canister(self, canister_id: bytes) -> CanisterRecord | None:
        """Give a canister's record; None where there is no such canister."""
        if canister_id in self._canisters:
            return self._canisters[canister_id]
        return self.state.view.canister(canister_id)

    def put_canister(self, canister_id: bytes, record: CanisterRecord | None) -> None:
        """Set a canister's record; None deletes it."""
        self._canisters[canister_id] = record

    def account(self, canister_id: bytes) -> AccountRecord | None:
        """Give this message's copy of an account; changes to it are kept at commit."""
        try:
            return self._accounts[canister_id]
        except KeyError:
            below = self.state.view.account(canister_id)
            own = None if below is None else copy(below)
            self._accounts[canister_id] = own
            return own

    def put_account(self, canister_id: bytes, account: AccountRecord | None) -> None:
        """Set a canister's account; None deletes it."""
        self._accounts[canister_id] = account

    def subnet(self) -> SubnetRecord:
        """Give this message's copy of the subnet's counters; changes to it are kept at commit."""
        if self._subnet is None:
            self._subnet = copy(self.state.subnet)
        return self._subnet

    def put_trust(self, key: bytes, value: bytes | None) -> None:
        """Set a key that stamps of fleets hang on: an operator's, a module's in a fleet's registry."""
        self.put(key, value)
        self._ends_stamps = True

    # reads of what never changes under its name

    def module(self, module_hash: bytes) -> ModuleRecord | None:
        """Give what is known of a module."""
        known = self.state.view.module(module_hash)
        if known is not None:
            return known
        data = self.get(keys.hashed(keys.MODULES, module_hash))
        return None if data is None else records.MODULE.decode(data)

    def program(self, module_hash: bytes) -> Program:
        """Give a module's program; raises `Reject` where it is unknown or does not load."""
        return load_program(self.layer, self.state.view.programs, module_hash)

    def slots(self, schema_id: bytes) -> dict[str, bytes]:
        """Give the key prefix of each collection under a schema."""
        known = self.state.view.slots(schema_id)
        if known:
            return known
        data = self.get(keys.hashed(keys.SCHEMAS, schema_id))
        return {} if data is None else records.SCHEMA.decode(data).slots

    def type_bytes(self, number: bytes) -> bytes | None:
        """Give the encoded Candid type with this number."""
        return self.get(keys.hashed(keys.TYPES, number))

    def is_operator(self, principal: bytes) -> bool:
        """Say whether a principal is one of the node's operators."""
        return self.get(keys.hashed(keys.OPERATORS, principal)) is not None

    def is_controller(self, canister_id: bytes, principal: bytes) -> bool:
        """Say whether a principal controls a canister."""
        canister = self.canister(canister_id)
        return canister is not None and principal in canister.controllers

    # what leaves with the commit

    def send(self, receiver: bytes, sender: bytes, message: CallMessage | ResponseMessage) -> None:
        """Send a message to a canister when this overlay is committed."""
        self.outbox.append(Sent(receiver, sender, message))

    def answer(self, origin: Origin, outcome: Outcome, responder: bytes = MANAGEMENT_ID) -> None:
        """Answer whoever waits, when this overlay is committed. `outcome.refund` goes back with it."""
        if isinstance(origin, CallOrigin):
            response = ResponseMessage(
                origin.callback,
                outcome.reply,
                outcome.reject_code,
                outcome.reject_message,
                outcome.refund,
                outcome.error_code,
            )
            self.outbox.append(Sent(origin.caller, responder, response))
        elif isinstance(origin, IngressOrigin):
            self.answers.append((origin, outcome))
        elif isinstance(origin, FanOrigin):
            self.state.fan_answers.append((origin, outcome))

    def tell(self, subnet: int, kind: NoticeKind, data: bytes) -> None:
        """Tell another subnet something when this overlay is committed."""
        self.notices = [*(self.notices or ()), (subnet, kind, data)]

    def wait_for_upgrade(self, target: bytes, waiting: UpgradeMessage) -> None:
        """Let an upgrade wait at a canister that is there, when this overlay is committed."""
        if self.upgrades is None:
            self.upgrades = []
        self.upgrades.append((target, waiting))

    def emit(self, emitted: Emitted) -> None:
        """Let an event leave when this overlay is committed and durable."""
        if self.emitted is None:
            self.emitted = []
        self.emitted.append(emitted)

    def touched_canisters(self) -> list[bytes]:
        """Give the canisters whose records this message set."""
        return list(self._canisters)

    def merge(self) -> None:
        """Merge the changes into the round's. `calls.commit` does this and then delivers what leaves."""
        state = self.state
        self.layer.merge_into(state.layer)
        view = state.view
        for canister_id, account in self._accounts.items():
            view.accounts[canister_id] = account
            state.changed_accounts[canister_id] = None
        for canister_id, record in self._canisters.items():
            view.canisters[canister_id] = record
            state.layer.put(
                keys.owned(keys.CANISTERS, canister_id),
                None if record is None else records.encode_record(record),
            )
        if self._canisters or self._ends_stamps:
            state.stamps.clear()
        if self.emitted is not None:
            state.emitted += self.emitted
        if self._subnet is not None:
            state.subnet = self._subnet
