"""A subnet in memory for tests of the management canister: rounds on a memory store, canister classes as
modules.

Time is the test's: each block is one second later than the one before. After every block the law of cycles is
checked: what was minted and not burned lies in balances, in waiting messages, in open calls or with those who
wait for a stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from cannery import (
    Call,
    Canister,
    Context,
    Pending,
    Principal,
    RawOutcome,
    StableCell,
    composite_query,
    continuation,
    nat,
    nat64,
    query,
    record,
    timer,
    update,
)
from cannery.candid.codec import decoder, encoder
from cannery.candid.python import type_of
from cannery.candid.types import Nat64
from cannery.cdk.archive import build_archive
from cannery.cdk.interface import did_of, manifest_of
from cannery.cdk.module_file import ModuleFile, parse_module
from cannery.cdk.program import PythonProgram
from cannery.errors import Reject, RejectCode
from cannery.limits import HISTORY_CHANGE_COUNT_MAX
from cannery.ports import Program, Watch
from cannery.protocol.identity import AnonymousIdentity
from cannery.replica import keys, records
from cannery.replica.block import (
    Block,
    BlockInput,
    Configure,
    Ingress,
    PriceSchedule,
    ReplicaConfig,
    Route,
    state_hash,
)
from cannery.replica.ingress import Refused, admit
from cannery.replica.management import types as t
from cannery.replica.management.dispatch import METHODS
from cannery.replica.management.running import STOP_WAITER
from cannery.replica.management.upgrade_batch import UPGRADE_BATCH
from cannery.replica.queries import Query, run_query
from cannery.replica.records import CallMessage, ResponseMessage, decode_message
from cannery.replica.rounds import RoundOutcome, run_round
from cannery.replica.state import Answer
from cannery.testing.store import MemoryStore
from tests.replica.laws import check_counts, check_fleets, check_memory, check_snapshots

SECOND_NS = 1_000_000_000
START_NS = 1_800_000_000 * SECOND_NS
MANAGEMENT = Principal(b"")
OPERATOR = Principal.self_authenticating(b"operator")
OWNER = Principal.self_authenticating(b"owner")
FAR = Principal(keys.canister_id(1 << 40))
"""A canister of another subnet."""
STRANGER = Principal.self_authenticating(b"stranger")
ANONYMOUS = AnonymousIdentity().principal
EMPTY_ARG = b"DIDL\x00\x00"


class Rejected(Exception):
    """A call was rejected."""

    def __init__(self, code: int, text: str, error_code: str | None) -> None:
        super().__init__(f"{code} {error_code}: {text}")
        self.code = code
        self.text = text
        self.error_code = error_code


class ClassPrograms:
    """Programs of canister classes, found by the entry name in their module's manifest."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Canister]] = {}
        self._loaded: dict[bytes, Program] = {}

    def module_of(self, cls: type[Canister], tag: str = "") -> bytes:
        """Make a module of a class; another tag makes another module of the same class."""
        entry = f"tests.{cls.__name__}{tag}:{cls.__name__}"
        self._classes[entry] = cls
        description = PythonProgram(cls).description
        path = entry.partition(":")[0].replace(".", "/") + ".py"
        module = ModuleFile(
            did_of(description), manifest_of(description, entry), build_archive({path: b"# " + tag.encode()})
        )
        return module.encode()

    def load(self, module_hash: bytes, module: bytes) -> Program:
        entry = parse_module(module).manifest.entry
        if entry not in self._classes:
            raise Reject(RejectCode.CANISTER_ERROR, f"{entry} cannot be imported")
        program = self._loaded[module_hash] = PythonProgram(self._classes[entry])
        return program

    def loaded(self, module_hash: bytes) -> Program | None:
        return self._loaded.get(module_hash)


class World:
    """A subnet with one operator. `far`: there is another subnet, which never answers."""

    def __init__(
        self,
        prices: PriceSchedule | None = None,
        watch: Watch | None = None,
        quota: int = 1_000,
        far: bool = False,
    ) -> None:
        self.store = MemoryStore()
        self.programs = ClassPrograms()
        self.watch = watch
        self.number = 0
        self.time_ns = START_NS
        self.previous_hash = bytes(32)
        self.requests = 0
        self.outcome: RoundOutcome | None = None
        self.answers: dict[bytes, Answer] = {}
        self.blocks: list[Block] = []
        self.config = ReplicaConfig(
            operators=(OPERATOR.raw,),
            prices=prices or PriceSchedule(),
            canister_quota_count=quota,
            routes=(Route(1 << 40, (2 << 40) - 1, 1),) if far else (),
        )
        self.block(Configure(self.config))

    # rounds

    def block(self, *inputs: BlockInput, seconds: float = 1) -> None:
        """Run a block with these inputs, and empty ones until nothing is left to do."""
        self._round(inputs, seconds)
        while self.outcome is not None and self.outcome.backlog:
            self._round((), 0.001)

    def _round(self, inputs: Sequence[BlockInput], seconds: float) -> None:
        self.number += 1
        self.time_ns += int(seconds * SECOND_NS)
        seed = sha256(b"seed %d" % self.number).digest()
        block = Block(self.number, self.previous_hash, self.time_ns, seed, tuple(inputs))
        outcome = run_round(self.store.snapshot(), block, self.programs, self.watch)
        again = run_round(self.store.snapshot(), outcome.block, self.programs, None)
        assert again.root == outcome.root
        self.store.write(outcome.batch)
        self.previous_hash = outcome.head.block_hash
        self.outcome = outcome
        self.blocks.append(outcome.block)
        for answer in outcome.answers:
            assert answer.request_id not in self.answers, "a call is answered once"
            self.answers[answer.request_id] = answer
        check_cycles(self.store)
        check_memory(self.store)
        check_counts(self.store)
        check_snapshots(self.store)
        check_fleets(self.store)
        check_modules(self.store)

    def wait(self, seconds: float) -> None:
        """Let time go by and run a block."""
        self.block(seconds=seconds)

    # calls

    def ingress(self, sender: Principal, callee: Principal, method: str, arg: bytes) -> Ingress:
        """Make a signed call."""
        self.requests += 1
        request_id = sha256(b"request %d" % self.requests).digest()
        expiry_ns = self.time_ns + 300 * SECOND_NS
        return Ingress(request_id, sender.raw, callee.raw, method, arg, expiry_ns)

    def submit(self, sender: Principal, callee: Principal, method: str, arg: bytes = EMPTY_ARG) -> bytes:
        """Put a call into a block of its own and give its request id; it may be left unanswered."""
        ingress = self.ingress(sender, callee, method, arg)
        self.block(ingress)
        return ingress.request_id

    def answer(self, request_id: bytes) -> bytes:
        """Give the reply to a call; raises `Rejected`."""
        answer = self.answers[request_id]
        if answer.reply is None:
            raise Rejected(answer.reject_code, answer.reject_message, answer.error_code)
        return answer.reply

    def call(self, sender: Principal, callee: Principal, method: str, arg: bytes = EMPTY_ARG) -> bytes:
        """Call a canister; raises `Rejected`."""
        return self.answer(self.submit(sender, callee, method, arg))

    def manage(self, sender: Principal, method: str, value: Any = None) -> Any:
        """Call the management canister over HTTP, admission included; raises `Rejected`."""
        arg = encode_argument(method, value)
        ingress = self.ingress(sender, MANAGEMENT, method, arg)
        admitted = admit(self.store.snapshot(), ingress, self.programs, None, self.time_ns)
        if isinstance(admitted, Refused):
            reject = admitted.reject
            raise Rejected(int(reject.code), reject.message, reject.error_code)
        self.block(ingress)
        return decode_result(method, self.answer(ingress.request_id))

    def manage_unadmitted(self, sender: Principal, method: str, value: Any = None) -> Any:
        """Call the management canister in a block that its node's admission never saw; raises `Rejected`."""
        return decode_result(method, self.call(sender, MANAGEMENT, method, encode_argument(method, value)))

    def submit_manage(self, sender: Principal, method: str, value: Any = None) -> bytes:
        """Begin a call of the management canister and give its request id."""
        return self.submit(sender, MANAGEMENT, method, encode_argument(method, value))

    def ask(self, sender: Principal, method: str, value: Any = None) -> Any:
        """Query the management canister; raises `Rejected`."""
        return decode_result(method, self.query(sender, MANAGEMENT, method, encode_argument(method, value)))

    def query(self, sender: Principal, callee: Principal, method: str, arg: bytes = EMPTY_ARG) -> bytes:
        """Query a canister; raises `Rejected`."""
        asked = Query(bytes(32), sender.raw, callee.raw, method, arg)
        result = run_query(
            self.store.snapshot(), asked, self.time_ns, self.programs, None, lambda _i, _d: b""
        )
        if result.reject is not None:
            raise Rejected(int(result.reject.code), result.reject.message, result.reject.error_code)
        return result.reply

    # the state

    def account(self, canister: Principal) -> records.AccountRecord:
        """Give a canister's account."""
        stored = self.store.get(keys.owned(keys.ACCOUNTS, canister.raw))
        assert stored is not None
        return records.ACCOUNT.decode(stored)

    def state_hash(self) -> bytes:
        """Hash the replicated state."""
        return state_hash(self.store.snapshot())

    def traces(self) -> dict[bytes, bytes]:
        """Give the state without what each call leaves: statuses, counters of the subnet, blocks."""
        skipped = (keys.REQUESTS, keys.META, keys.BLOCKS, keys.HEAD, keys.STREAM_HEADS)
        return {k: v for k, v in self.store.scan(b"", b"\xff") if k[0] not in skipped}


def encode_argument(method: str, value: Any) -> bytes:
    """Encode a management method's argument."""
    types = METHODS[method].args if method in METHODS else ()
    return encoder(types)((value,) if types else ())


def decode_result(method: str, reply: bytes) -> Any:
    """Decode a management method's result."""
    values = decoder(METHODS[method].results)(reply)
    return values[0] if values else None


def check_cycles(store: MemoryStore) -> None:
    """Check that minted minus burned equals what is held anywhere."""
    stored = store.get(keys.SUBNET_KEY)
    subnet = records.SubnetRecord() if stored is None else records.SUBNET.decode(stored)
    held = sum(records.ACCOUNT.decode(v).cycles for _, v in store.scan(*keys.space_range(keys.ACCOUNTS)))
    for _, data in store.scan(*keys.space_range(keys.CONTEXTS)):
        held += records.CONTEXT.decode(data).cycles_available
    for _, data in store.scan(*keys.space_range(keys.STOPS)):
        held += STOP_WAITER.decode(data).cycles
    for _, data in store.scan(*keys.space_range(keys.UPGRADE_BATCHES)):
        held += UPGRADE_BATCH.decode(data).cycles
    sent = [records.STREAM_ENTRY.decode(v).message for _, v in store.scan(*keys.space_range(keys.STREAMS))]
    queued = [decode_message(v) for _, v in store.scan(*keys.space_range(keys.QUEUES))]
    for message in sent + queued:
        if isinstance(message, CallMessage):
            held += message.cycles
        elif isinstance(message, ResponseMessage):
            held += message.cycles_refunded
    assert subnet.minted - subnet.burned == held, "cycles are neither made nor lost"


def check_modules(store: MemoryStore) -> None:
    """Check uses of modules, bytes of chunks, histories and schemas against a full count."""
    stored = store.get(keys.SUBNET_KEY)
    assert stored is not None
    count = sum(1 for _ in store.scan(*keys.space_range(keys.CANISTERS)))
    assert records.SUBNET.decode(stored).canister_count == count
    uses: dict[bytes, int] = {}
    for key, data in store.scan(*keys.space_range(keys.CANISTERS)):
        canister_id, canister = keys.owner_of(key), records.CANISTER.decode(data)
        if canister.module_hash is not None:
            uses[canister.module_hash] = uses.get(canister.module_hash, 0) + 1
            assert store.get(keys.hashed(keys.SCHEMAS, canister.schema_id)) is not None
        history = list(store.scan(*keys.owned_range(keys.HISTORY, canister_id)))
        assert len(history) == min(canister.change_count, HISTORY_CHANGE_COUNT_MAX)
        stored = store.get(keys.owned(keys.ACCOUNTS, canister_id))
        assert stored is not None
        chunks = store.scan(*keys.owned_range(keys.CHUNKS, canister_id))
        assert records.ACCOUNT.decode(stored).chunk_bytes == sum(len(v) for _, v in chunks)
    for key, data in store.scan(*keys.space_range(keys.MODULE_USES)):
        assert int.from_bytes(data, "big") == uses.pop(key[1:], 0)
    assert not uses


# --- canisters -----------------------------------------------------------------------------------------


@record
class Order:
    """A call that a puppet makes."""

    callee: Principal
    method: str
    arg: bytes
    cycles: nat


@record
class Result:
    """What a puppet's call brought back."""

    reply: bytes
    reject_code: nat64
    reject_message: str
    refunded: nat


class Puppet(Canister):
    """Calls what it is told to, holds calls open, and keeps a number."""

    number = StableCell(nat64, 0)

    @update
    def order(self, ctx: Context, order: Order) -> Pending[Result]:
        """Make a call and answer with what it brought back."""
        call = Call.raw(order.callee, order.method, order.arg)
        return ctx.call(call, then=self.got, cycles=order.cycles)

    @continuation
    def got(self, ctx: Context, outcome: RawOutcome) -> Result:
        """Answer with what a call brought back."""
        reply = outcome.unwrap() if outcome.ok else b""
        return Result(reply, outcome.reject_code, outcome.reject_message, outcome.refunded)

    @composite_query
    def ask(self, ctx: Context, order: Order) -> Result:
        """Ask a query and answer with what it brought back."""
        outcome = ctx.query(Call.raw(order.callee, order.method, order.arg))
        reply = outcome.unwrap() if outcome.ok else b""
        return Result(reply, outcome.reject_code, outcome.reject_message, 0)

    @update
    def set(self, ctx: Context, value: nat64) -> None:
        """Keep a number."""
        self.number.set(value)
        ctx.log(f"set to {value}")
        ctx.certified_data_set(b"%d" % value)

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the number."""
        return self.number.get()

    @update
    def fail(self, ctx: Context) -> None:
        """Trap."""
        ctx.trap("told to fail")

    @update
    def accept_and_set(self, ctx: Context, value: nat64) -> None:
        """Take the cycles that came with the call."""
        ctx.accept(ctx.available)
        self.number.set(value)

    @update
    def tick_after(self, ctx: Context, seconds: nat64) -> None:
        """Set a timer."""
        ctx.timer_set(self.tick, after_s=seconds)

    @timer
    def tick(self, ctx: Context) -> None:
        """Count."""
        self.number.set(self.number.get() + 1)


def int_argument(value: int) -> bytes:
    """Encode a nat64."""
    return encoder((Nat64(),))((value,))


def int_result(reply: bytes) -> int:
    """Decode a nat64."""
    (value,) = decoder((Nat64(),))(reply)
    assert isinstance(value, int)
    return value


def order_argument(callee: Principal, method: str, arg: bytes, cycles: int = 0) -> bytes:
    """Encode what a puppet is told."""
    return encoder((type_of(Order),))((Order(callee, method, arg, cycles),))


def order_result(reply: bytes) -> Result:
    """Decode what a puppet tells."""
    (result,) = decoder((type_of(Result),))(reply)
    assert isinstance(result, Result)
    return result


def puppet_manage(world: World, puppet: Principal, method: str, value: Any = None, cycles: int = 0) -> Any:
    """Let a puppet call the management canister; raises `Rejected`."""
    result = puppet_call(world, puppet, MANAGEMENT, method, encode_argument(method, value), cycles)
    return decode_result(method, result.reply)


def puppet_call(
    world: World, puppet: Principal, callee: Principal, method: str, arg: bytes = EMPTY_ARG, cycles: int = 0
) -> Result:
    """Let a puppet call; raises `Rejected` where its call was rejected."""
    reply = world.call(OWNER, puppet, "order", order_argument(callee, method, arg, cycles))
    result = order_result(reply)
    if result.reject_code:
        raise Rejected(result.reject_code, result.reject_message, None)
    return result


def make_puppet(
    world: World, cls: type[Canister] = Puppet, cycles: int = 10**12, owner: Principal = OWNER
) -> Principal:
    """Create a canister of the owner's that runs a class, with cycles."""
    module_hash = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(cls))
    args = t.CreateInstalledArgs(module_hash, b"", [owner])
    made = world.manage(OPERATOR, "cannery_create_installed", args)
    assert isinstance(made, t.CanisterIdRecord)
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(made.canister_id, cycles))
    return made.canister_id
