"""A replica in memory for tests: scripted programs, rounds on demand, laws checked after each.

Every round is executed twice, the second time as a replay of the block with its verdicts: both must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256

from cannery.errors import Reject
from cannery.ports import EntryKind, Program, System, Watch, WriteBatch
from cannery.replica import keys, records
from cannery.replica.block import (
    GENESIS_HASH,
    Block,
    BlockInput,
    Configure,
    Ingress,
    PriceSchedule,
    ReplicaConfig,
)
from cannery.replica.calls import commit
from cannery.replica.overlay import batch_of
from cannery.replica.places import first_counter
from cannery.replica.queries import Query, QueryResult, run_query
from cannery.replica.records import (
    AccountRecord,
    CanisterRecord,
    CanisterStatus,
    ModuleRecord,
    SchemaRecord,
    Settings,
    encode_record,
)
from cannery.replica.rounds import RoundOutcome, run_round, write_accounts
from cannery.replica.scheduler import Scheduler
from cannery.replica.state import Answer, Emitted, MessageOverlay, RoundState
from tests.replica.laws import check_laws
from tests.replica.memory import MemoryReader

START_NS = 1_700_000_000 * 1_000_000_000
ALICE = b"\x01" * 28 + b"\x02"
BOB = b"\x02" * 28 + b"\x02"
OPERATOR = b"\x03" * 28 + b"\x02"
CONTROLLER = b"\x04" * 28 + b"\x02"

Handler = Callable[[System], None]


class Script:
    """A program made of functions by name; hooks are named by their kind."""

    def __init__(
        self,
        updates: Mapping[str, Handler] | None = None,
        queries: Mapping[str, Handler] | None = None,
        composites: Mapping[str, Handler] | None = None,
        others: Mapping[str, Handler] | None = None,
    ) -> None:
        self.methods: dict[str, int] = {}
        self.handlers: dict[str, Handler] = {}
        for kind, group in (
            (EntryKind.UPDATE, updates),
            (EntryKind.QUERY, queries),
            (EntryKind.COMPOSITE_QUERY, composites),
        ):
            for name, handler in (group or {}).items():
                self.methods[name] = int(kind)
                self.handlers[name] = handler
        self.handlers.update(others or {})

    def run(self, system: System) -> None:
        name = "inspect_message" if system.kind is EntryKind.INSPECT else system.name
        self.handlers[name or system.kind.name.lower()](system)


class Shelf:
    """`Programs` for tests: every program is loaded."""

    def __init__(self) -> None:
        self.programs: dict[bytes, Program] = {}

    def loaded(self, module_hash: bytes) -> Program | None:
        return self.programs.get(module_hash)

    def load(self, module_hash: bytes, module: bytes) -> Program:
        raise Reject(5, f"module {module_hash.hex()} cannot be loaded")


class World:
    """One subnet and its history."""

    def __init__(self, config: ReplicaConfig | None = None) -> None:
        self.store = MemoryReader()
        self.shelf = Shelf()
        self.number = 0
        self.previous_hash = GENESIS_HASH
        self.time_ns = START_NS
        self.answers: dict[bytes, Answer] = {}
        self.blocks: list[Block] = []
        self.roots: list[bytes] = []
        self.emitted: list[Emitted] = []
        self._requests = 0
        self.watch: Watch | None = None
        self.config = config or ReplicaConfig(operators=(OPERATOR,))
        self._counter = first_counter(self.config.subnet) + 0x100000
        self.last = self.round(Configure(self.config))

    # canisters

    def add(
        self,
        script: Script,
        *,
        cycles: int = 0,
        settings: Settings | None = None,
        status: CanisterStatus = CanisterStatus.RUNNING,
        slots: dict[str, bytes] | None = None,
    ) -> bytes:
        """Put a canister with this program into the store, as if it had been created and installed."""
        canister_id = keys.canister_id(self._counter)
        self._counter += 1
        module_hash = sha256(b"%d" % self._counter).digest()
        self.shelf.programs[module_hash] = script
        schema = encode_record(SchemaRecord(slots or {"data": b"\x01", "more": b"\x02"}))
        others = [name for name in script.handlers if name not in script.methods]
        module = ModuleRecord(1, 0, "test", "0", script.methods, tuple(others), tuple(others), tuple(others))
        batch = WriteBatch()
        batch.puts[keys.hashed(keys.MODULES, module_hash)] = encode_record(module)
        batch.puts[keys.hashed(keys.SCHEMAS, records.schema_id(schema))] = schema
        record = CanisterRecord(
            (CONTROLLER,),
            CONTROLLER,
            0,
            status,
            module_hash,
            records.schema_id(schema),
            settings or Settings(),
        )
        batch.puts[keys.owned(keys.CANISTERS, canister_id)] = encode_record(record)
        account = AccountRecord(cycles=cycles, charged_ns=self.time_ns)
        batch.puts[keys.owned(keys.ACCOUNTS, canister_id)] = encode_record(account)
        stored = self.store.get(keys.SUBNET_KEY)
        subnet = records.SubnetRecord() if stored is None else records.SUBNET.decode(stored)
        subnet.minted += cycles
        batch.puts[keys.SUBNET_KEY] = encode_record(subnet)
        self.store.write(batch)
        return canister_id

    def account(self, canister_id: bytes) -> AccountRecord:
        data = self.store.get(keys.owned(keys.ACCOUNTS, canister_id))
        assert data is not None
        return records.ACCOUNT.decode(data)

    def canister(self, canister_id: bytes) -> CanisterRecord:
        data = self.store.get(keys.owned(keys.CANISTERS, canister_id))
        assert data is not None
        return records.CANISTER.decode(data)

    def put_canister(self, canister_id: bytes, record: CanisterRecord) -> None:
        self.store.write(WriteBatch({keys.owned(keys.CANISTERS, canister_id): encode_record(record)}))

    def value(self, canister_id: bytes, key: bytes) -> bytes | None:
        return self.store.get(keys.owned(keys.STABLE, canister_id, key))

    def edit(self, change: Callable[[MessageOverlay], object]) -> None:
        """Apply a change as a management message would, and write it."""
        state = RoundState(self.store, Block(0, b"", self.time_ns, b""), self.shelf)
        state.scheduler = Scheduler(state)
        message = MessageOverlay(state)
        change(message)
        commit(message)
        self.write(state)

    def write(self, state: RoundState) -> None:
        """Write what a round that was made by hand has changed."""
        state.scheduler.flush()
        write_accounts(state)
        state.layer.put(keys.SUBNET_KEY, encode_record(state.subnet))
        self.store.write(batch_of(state.layer, state.reader))

    # rounds

    def ingress(
        self,
        canister_id: bytes,
        method: str,
        arg: bytes = b"",
        *,
        sender: bytes = ALICE,
        expires_in_s: int = 240,
        request_id: bytes | None = None,
    ) -> Ingress:
        self._requests += 1
        if request_id is None:
            request_id = sha256(b"request %d" % self._requests).digest()
        expiry_ns = self.time_ns + expires_in_s * 1_000_000_000
        return Ingress(request_id, sender, canister_id, method, arg, expiry_ns)

    def round(
        self, *inputs: BlockInput, seconds: float = 0.001, poisoned: tuple[bytes, ...] = ()
    ) -> RoundOutcome:
        """Execute one block, replay it, check the laws, and keep the result."""
        self.number += 1
        self.time_ns += max(1, int(seconds * 1_000_000_000))
        seed = sha256(b"seed %d" % self.number).digest()
        block = Block(self.number, self.previous_hash, self.time_ns, seed, inputs, poisoned)
        outcome = run_round(self.store, block, self.shelf, self.watch)
        replay = run_round(self.store, outcome.block, self.shelf, None)
        assert replay.root == outcome.root
        assert replay.batch == outcome.batch
        assert replay.answers == outcome.answers
        assert replay.emitted == outcome.emitted
        self.emitted += outcome.emitted
        self.store.write(outcome.batch)
        self.previous_hash = outcome.head.block_hash
        self.blocks.append(outcome.block)
        self.roots.append(outcome.root)
        for answer in outcome.answers:
            assert answer.request_id not in self.answers, "a call is answered once"
            self.answers[answer.request_id] = answer
        check_laws(self.store)
        self.last = outcome
        return outcome

    def settle(self, limit: int = 1000) -> None:
        """Run rounds until no work is left in the queues."""
        for _ in range(limit):
            if not self.last.backlog:
                return
            self.round(seconds=0.000_001)
        raise AssertionError("the backlog does not end")

    def call(
        self, canister_id: bytes, method: str, arg: bytes = b"", *, sender: bytes = ALICE
    ) -> Answer | None:
        """Send one call and run rounds until nothing waits; None where it is not answered then."""
        ingress = self.ingress(canister_id, method, arg, sender=sender)
        self.round(ingress)
        self.settle()
        return self.answers.get(ingress.request_id)

    def query(
        self, canister_id: bytes, method: str, arg: bytes = b"", *, sender: bytes = ALICE
    ) -> QueryResult:
        query = Query(b"q" * 32, sender, canister_id, method, arg)
        certify = lambda canister, data: b"certified " + data  # noqa: E731
        return run_query(self.store, query, self.time_ns, self.shelf, self.watch, certify)


PRICES = PriceSchedule(
    per_message=100, per_byte=1, per_key=5, per_call=50, storage_per_gib_second=10**12, creation=1000
)
