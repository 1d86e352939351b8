"""A subnet at work: it cuts blocks, executes rounds, makes them durable and lets the answers out (the output
gate).

`Subnet` is synchronous and owns store, programs, pool and clock; whoever drives it (`subnet_process`,
`local_subnet`, `cannery.testing`) decides when. A block takes whatever is in the pool, bounded by count and
bytes, never by the clock. Rounds are pipelined: the next one may execute while a thread syncs the last;
answers leave in order, after the sync that covers their round, and queries read the last durable round. Where
the store fails, what is not durable yet waits, new updates are refused with the reason, queries go on, and
`recover` starts again from what the store kept.

It opens no socket, starts no thread and rules over no canister: that is `replica`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cannery.errors import Reject, RejectCode, StoreError
from cannery.node.canister_metrics import fill_latency
from cannery.node.latency import Latencies
from cannery.node.metrics import SubnetMetrics, render_metrics
from cannery.node.outcalls import Fetch, Outcall, Outcalls
from cannery.node.pool import IngressPool, Refusals
from cannery.node.subnet_doors import Doors, SubnetLimits
from cannery.node.vitals import Vitals
from cannery.node.written import Executed, Sync
from cannery.ports import Store, StoreReader, StoreSnapshot, WriteBatch
from cannery.replica import view
from cannery.replica.block import (
    GENESIS_HASH,
    Block,
    BlockInput,
    Configure,
    Ingress,
    OutcallAnswer,
    ReplicaConfig,
    decode_config,
)
from cannery.replica.events import EventPage, read_events
from cannery.replica.ingress import Admitted, Duplicate, admit
from cannery.replica.keys import CONFIG_KEY, HEAD_KEY
from cannery.replica.outcall_records import list_outcalls
from cannery.replica.queries import Query, QueryResult, run_query
from cannery.replica.reading import read_path
from cannery.replica.records import HEAD, HeadRecord, SubnetRecord
from cannery.replica.request_status import answer_of, find_status
from cannery.replica.rounds import run_round
from cannery.replica.state import Answer, Emitted

_SEED_BYTES: Final = 32
_FORGET_EVERY_ROUNDS: Final = 1024


@dataclass(frozen=True, slots=True)
class Durable:
    """What one sync let out: tickets whose request is accepted, answers with the ticket they go to, events.

    `batches` are the writes of its rounds. `is_resumed`: rounds before these may have become durable unseen.
    """

    time_ns: int
    accepted: tuple[object, ...] = ()
    settled: tuple[tuple[object, Answer], ...] = ()
    emitted: tuple[Emitted, ...] = ()
    batches: tuple[WriteBatch, ...] = ()
    is_resumed: bool = False


@dataclass(frozen=True, slots=True)
class Refusing:
    """A submission was not let in."""

    reject: Reject


@dataclass(frozen=True, slots=True)
class Waiting:
    """A submission waits with its ticket; `is_accepted`: it is durable already."""

    is_accepted: bool


@dataclass(frozen=True, slots=True)
class Known:
    """A submission repeats a request whose durable answer is this."""

    time_ns: int
    answer: Answer


Submitted = Refusing | Waiting | Known


@dataclass(frozen=True, slots=True)
class Denied:
    """A read that its sender may not do."""

    text: str


class Subnet:
    """One subnet. All calls come from one thread; only `Sync.run` may run on another."""

    _store: Store
    _head: HeadRecord
    _durable: StoreSnapshot
    _durable_head: HeadRecord
    _pending_config: ReplicaConfig | None
    _has_work: bool
    _next_timer_ns: int | None
    _known: view.Known

    def __init__(
        self,
        doors: Doors,
        config: ReplicaConfig,
        limits: SubnetLimits | None = None,
        condemned: Mapping[bytes, int] | None = None,
    ) -> None:
        """Open the store and go on where it stands. `condemned`: identities not to run again, until when."""
        self._doors = doors
        self._limits = limits if limits is not None else SubnetLimits()
        self._config = config
        self._condemned = dict(condemned or {})
        self._pool = IngressPool()
        self._refusals = Refusals()
        self._unsynced: deque[Executed] = deque()
        self._recognized: list[tuple[bytes, Answer | None]] = []
        self._syncing = False
        self._is_resumed = False
        self._failure: StoreError | None = None
        self.metrics = SubnetMetrics()
        self.latencies = Latencies()
        self.outcalls = Outcalls()
        self._counts = SubnetRecord()
        self._started_ns = doors.clock.now_ns()
        self._open()

    # --- what there is to do

    def is_ready(self) -> bool:
        """Say whether a round should run now."""
        if self._failure is not None or len(self._unsynced) >= self._limits.unsynced_round_count_max:
            return False
        if self._has_work or self.outcalls.has_answers:
            return True
        return len(self._pool) > 0 or self._is_timer_due()

    def next_wake_ns(self) -> int | None:
        """Give the time at which a timer makes the subnet ready; None where none is set."""
        return self._next_timer_ns

    def wait_ns(self) -> int | None:
        """Give how long it is until `next_wake_ns`; None where nothing is set."""
        next_ns = self._next_timer_ns
        return None if next_ns is None else max(0, next_ns - self._doors.clock.now_ns())

    @property
    def failure(self) -> StoreError | None:
        """Why no updates are taken, or None."""
        return self._failure

    @property
    def head(self) -> HeadRecord:
        """The last durable round."""
        return self._durable_head

    @property
    def time_ns(self) -> int:
        """The time of certified answers: never before the last durable round's."""
        return max(self._doors.clock.now_ns(), self._durable_head.time_ns)

    # --- updates

    def submit(self, ingress: Ingress, ticket: object) -> Submitted:
        """Take an authenticated update call; `ticket` comes back with its acceptance and its answer."""
        try:
            # Before any refusal: what waits here already will run, so nobody may read that it was refused.
            joined = self._pool.join(ingress.request_id, ticket)
            if joined is not None:
                return Waiting(joined.is_accepted)
            self._check_store()
            self._pool.check_room(ingress)
            return self._admit(ingress, ticket)
        except Reject as reject:
            self.metrics.refused.add()
            self._refusals.remember(ingress, reject)
            return Refusing(reject)

    def _check_store(self) -> None:
        """Raise `Reject` where nothing can be written: the first to come then hears so as well."""
        failure = self._failure
        if failure is None:
            try:
                return self._check_disk()
            except StoreError as error:
                failure = error
        raise Reject(RejectCode.SYS_TRANSIENT, f"no updates for now: {failure}", "CNRY0202")

    def _admit(self, ingress: Ingress, ticket: object) -> Submitted:
        if self._is_condemned(ingress.request_id):
            # Not even its inspect_message runs again: the block rejects it (`Block.poisoned`).
            self._pool.add(ingress, ticket, self._doors.clock.now_ns())
            return Waiting(is_accepted=False)
        doors = self._doors
        admission = admit(self._durable, ingress, doors.programs, doors.watch, self.time_ns, self._known)
        if isinstance(admission, Admitted):
            self._check_clock(ingress)
            self._pool.add(ingress, ticket, self._doors.clock.now_ns())
            self._refusals.forget(ingress.request_id)
            return Waiting(is_accepted=False)
        if isinstance(admission, Duplicate):
            self.metrics.duplicates.add()
            answer = answer_of(ingress.request_id, admission.status)
            if answer is not None:
                return Known(self.time_ns, answer)
            self._pool.wait_for(ingress, ticket)
            return Waiting(is_accepted=True)
        raise admission.reject

    def _check_clock(self, ingress: Ingress) -> None:
        """Raise `Reject` for a call that no block could still run: the time of blocks only rises, so a clock
        that was set back leaves it ahead.
        """
        ahead_ns = self._head.time_ns - self._doors.clock.now_ns()
        if ingress.expiry_ns > self._head.time_ns or ahead_ns <= 0:
            return
        raise Reject(
            RejectCode.SYS_TRANSIENT,
            f"the node's clock is {ahead_ns // 1_000_000_000} s behind its last block: it was ahead before, "
            "and updates are refused until it has caught up; tell the node's operator",
            "CNRY0205",
        )

    # --- rounds

    def run_round(self) -> None:
        """Cut a block, execute it and write it. Its answers come out of the sync that covers it."""
        started_ns = self._doors.clock.now_ns()
        fetched = self.outcalls.take_answers(self._limits.block_input_size_bytes_max)
        inputs = self._pool.take(self._limits.block_input_count_max, self._limits.block_input_size_bytes_max)
        try:
            self._check_disk()
            block = self._cut_block(inputs, fetched)
            outcome = run_round(self._store, block, self._doors.programs, self._doors.watch)
            self._store.write(outcome.batch)
            snapshot = self._store.snapshot()
        except StoreError as error:
            self._pool.put_back(inputs)
            self.outcalls.put_back(fetched)
            self._fail(error)
            return
        self._unsynced.append(Executed(outcome, inputs, snapshot, fetched))
        self._head = outcome.head
        self._pending_config = None
        self._has_work = outcome.backlog
        self._next_timer_ns = outcome.next_timer_ns
        self.metrics.note_round(outcome.events, len(inputs), self._doors.clock.now_ns() - started_ns)

    def _cut_block(self, inputs: tuple[Ingress, ...], fetched: tuple[OutcallAnswer, ...]) -> Block:
        head, now_ns = self._head, self._doors.clock.now_ns()
        all_inputs: tuple[BlockInput, ...] = (*fetched, *inputs)
        if self._pending_config is not None:
            all_inputs = (Configure(self._pending_config), *all_inputs)
        return Block(
            number=head.number + 1,
            previous_hash=head.block_hash,
            time_ns=max(now_ns, head.time_ns + 1),
            seed=self._doors.entropy.random_bytes(_SEED_BYTES),
            inputs=all_inputs,
            poisoned=self._poisoned(now_ns),
        )

    def _poisoned(self, now_ns: int) -> tuple[bytes, ...]:
        if not self._condemned:
            return ()
        self._condemned = {identity: until for identity, until in self._condemned.items() if until > now_ns}
        return tuple(sorted(self._condemned))

    # --- durability

    def begin_sync(self) -> Sync | None:
        """Give the sync that covers all rounds written so far; None where there is nothing or one is under
        way.
        """
        if not self._unsynced or self._syncing or self._failure is not None:
            return None
        self._syncing = True
        return Sync(self._store, len(self._unsynced))

    def finish_sync(self, sync: Sync) -> Durable:
        """Let out what the finished `sync` covers: acceptances and answers, in the order of their rounds."""
        self._syncing = False
        if sync.error is not None:
            self._fail(sync.error)
        if self._failure is not None:
            self._abandon_rounds()
            return Durable(self.time_ns)
        accepted: list[object] = []
        settled: list[tuple[object, Answer]] = []
        emitted: list[Emitted] = []
        batches: list[WriteBatch] = []
        self._let_out_recognized(accepted, settled)
        for _ in range(sync.covers):
            executed = self._unsynced.popleft()
            emitted += executed.outcome.emitted
            batches.append(executed.outcome.batch)
            self._publish(executed)
            self._collect(executed, accepted, settled)
        self.metrics.syncs.add()
        self._note_durable()
        if self._durable_head.number % _FORGET_EVERY_ROUNDS < sync.covers:
            self._pool.forget_old(self.time_ns)
        is_resumed, self._is_resumed = self._is_resumed, False
        out = tuple(accepted), tuple(settled), tuple(emitted), tuple(batches)
        return Durable(self._durable_head.time_ns, *out, is_resumed)

    def _let_out_recognized(self, accepted: list[object], settled: list[tuple[object, Answer]]) -> None:
        """Add what `recover` found to have run to the lists."""
        for request_id, answer in self._recognized:
            if answer is None:
                accepted += self._pool.accept(request_id)
            else:
                self._settle(answer, settled)
        self._recognized.clear()

    def _publish(self, executed: Executed) -> None:
        """Make a round's state the one that queries, reads and admission see."""
        self._durable.close()
        self._durable = executed.snapshot
        self._durable_head = executed.outcome.head
        self.outcalls.note(executed.outcome.outcalls)

    def _collect(
        self, executed: Executed, accepted: list[object], settled: list[tuple[object, Answer]]
    ) -> None:
        """Add a durable round's news to the lists. An input that is in none of them had run before."""
        pool, outcome = self._pool, executed.outcome
        told: set[bytes] = set(outcome.accepted)
        for request_id in outcome.accepted:
            accepted += pool.accept(request_id)
        for answer in outcome.answers:
            told.add(answer.request_id)
            self._settle(answer, settled)
        for ingress in executed.inputs:
            if ingress.request_id in told:
                continue
            known = self._known_answer(ingress)
            if known is None:
                accepted += pool.accept(ingress.request_id)
            else:
                self._settle(known, settled)

    def _settle(self, answer: Answer, settled: list[tuple[object, Answer]]) -> None:
        """Add the tickets that wait for a durable answer to the list, and note how long it took."""
        pending = self._pool.settle(answer.request_id)
        if pending is not None:
            settled += [(ticket, answer) for ticket in pending.tickets]
            if pending.submitted_ns is not None:
                took_ns = self._doors.clock.now_ns() - pending.submitted_ns
                self.latencies.observe(pending.ingress.canister_id, took_ns)

    def _known_answer(self, ingress: Ingress) -> Answer | None:
        status = find_status(self._durable, ingress.expiry_ns, ingress.request_id)
        return answer_of(ingress.request_id, status) if status is not None else None

    def checkpoint(self, path: str) -> int:
        """Copy the store to `path`, by hard links where it can be; give the number of the copy's last block,
        which is durable then. Raises `StoreError`.
        """
        if self._failure is not None:
            raise self._failure
        self._store.checkpoint(path)
        return self._head.number

    # --- outcalls

    @property
    def fetch(self) -> Fetch | None:
        """What performs HTTP requests, if anything does."""
        return self._doors.fetch

    def take_outcalls(self) -> list[Outcall]:
        """Give HTTP requests whose round is durable and that nobody performs yet; each gets an answer by
        `outcalls.answer`, or is given out again after the next start.
        """
        return self.outcalls.take(self._durable)

    # --- queries and reads

    def query(self, query: Query, trace: Callable[[StoreReader], StoreReader] | None = None) -> QueryResult:
        """Run a query on the last durable round; `trace` may stand between and see what it reads."""
        self.metrics.queries.add()
        doors = self._doors
        if self._is_condemned(query.request_id):
            text = "this query brought the node's process down by its time or memory: it is not run again"
            return QueryResult(b"", Reject(RejectCode.CANISTER_ERROR, text, "CNRY0203"))
        reader = self._durable if trace is None else trace(self._durable)
        result = run_query(
            reader, query, self.time_ns, doors.programs, doors.watch, doors.certify, self._known
        )
        return fill_latency(query, result, self.latencies)

    def _is_condemned(self, identity: bytes) -> bool:
        """Say whether this request brought an earlier process down, not long ago."""
        return self._condemned.get(identity, 0) > self._doors.clock.now_ns()

    def read(self, sender: bytes, paths: tuple[tuple[bytes, ...], ...]) -> tuple[bytes | None, ...] | Denied:
        """Read certified state of the last durable round; None where a path is absent."""
        self.metrics.reads.add()
        values: list[bytes | None] = []
        for path in paths:
            try:
                value = read_path(self._durable, path, sender)
            except Reject as reject:
                return Denied(reject.message)
            if value is None and path and path[0] == b"request_status":
                value = self._refused_value(path, sender)
            values.append(value)
        return tuple(values)

    def events(self, canister_id: bytes, since: int, count_max: int, size_bytes_max: int) -> EventPage | None:
        """Read a canister's events of the last durable round; None where there is no such canister."""
        return read_events(self._durable, canister_id, since, count_max, size_bytes_max)

    def _refused_value(self, path: tuple[bytes, ...], sender: bytes) -> bytes | None:
        """Answer for a request that is in no block because it was refused: some clients poll for those
        too.
        """
        refusal = self._refusals.find(path[1], sender) if len(path) == 3 else None
        if refusal is None:
            return None
        return refusal.leaf(path[2])

    # --- how it is

    def vitals(self) -> Vitals:
        """Tell how this subnet is; the state's part is that of the last durable round."""
        # A store that fails is told of, with the counts that were read last.
        with suppress(StoreError):
            self._counts = view.StateView(self._durable, self._doors.programs).subnet()
        subnet, refusing = self._counts, None
        try:
            self._check_store()
        except Reject as reject:
            refusing = reject.message
        return Vitals(
            block_number=self._durable_head.number,
            block_time_ns=self._durable_head.time_ns,
            time_ns=self.time_ns,
            uptime_ns=max(0, self._doors.clock.now_ns() - self._started_ns),
            waiting=len(self._pool),
            under_way=self._pool.under_way_count,
            unsynced_rounds=len(self._unsynced),
            busy_count=subnet.ring_next - subnet.ring_first,
            canister_count=subnet.canister_count,
            minted=subnet.minted,
            burned=subnet.burned,
            refusing=refusing,
            machine=self._doors.machine() if self._doors.machine is not None else None,
        )

    def measure(self) -> str:
        """Give the metrics in Prometheus' text format."""
        self.metrics.note_vitals(self.vitals())
        return self.metrics.render() + render_metrics([self.latencies.total])

    # --- failure and recovery

    def recover(self) -> bool:
        """After a failure of the store: open it again and go on, if it can be. Say whether it could."""
        if self._failure is None:
            return True
        if self._syncing:
            return False
        try:
            self._check_disk()
            self._durable.close()
            self._store.close()
            self._open()
            self._recognize()
        except StoreError as error:
            self._failure = error
            return False
        self._failure = None
        self._is_resumed = True
        return True

    def close(self) -> None:
        """Close the store. What waits is not lost for its senders: they submit it again."""
        for executed in self._unsynced:
            executed.snapshot.close()
        self._unsynced.clear()
        self._durable.close()
        self._store.close()

    def _open(self) -> None:
        self._store = self._doors.open_store()
        self._known = view.Known()
        record = self._store.get(HEAD_KEY)
        self._head = (
            HEAD.decode(record) if record is not None else HeadRecord(0, GENESIS_HASH, GENESIS_HASH, 0, 1)
        )
        self._check_nothing_is_lost()
        stored = self._store.get(CONFIG_KEY)
        is_new = stored is None or decode_config(stored) != self._config
        self._pending_config = self._config if is_new else None
        # What an earlier process wrote may not be durable yet, and is shown to queries from now on.
        self._store.sync()
        self._durable = self._store.snapshot()
        self._durable_head = self._head
        self.outcalls.note(list_outcalls(self._durable))
        self._note_durable()
        # The first round finds out what waits in the queues and when the next timer is due.
        self._has_work = True
        self._next_timer_ns = None

    def _note_durable(self) -> None:
        if self._doors.durable_mark is not None:
            self._doors.durable_mark.note_durable(self._durable_head.number)

    def _check_nothing_is_lost(self) -> None:
        """Raise `StoreError` where the store ends before a block that was durable.

        The engine takes a damaged record of its log for the torn end of it, and drops what stands behind.
        """
        mark = self._doors.durable_mark
        number = mark.durable_number() if mark is not None else 0
        if self._head.number < number:
            self._store.close()
            raise StoreError(
                f"the store is damaged: it ends at block {self._head.number}, and block {number} was "
                "durable. Restore a backup; if an older copy of the store stands here on purpose, remove "
                "the file 'running' beside it"
            )

    def _fail(self, error: StoreError) -> None:
        self.metrics.store_failures.add()
        self._failure = error
        if not self._syncing:
            self._abandon_rounds()

    def _abandon_rounds(self) -> None:
        """Take back the rounds that are not durable: after `recover` their messages are ordered again, unless
        what their round wrote has survived.
        """
        while self._unsynced:
            executed = self._unsynced.pop()
            executed.snapshot.close()
            self._pool.put_back(executed.inputs)
            self.outcalls.put_back(executed.fetched)
        self._head = self._durable_head

    def _recognize(self) -> None:
        """Take requests whose abandoned round has survived out of the pool: they have run.

        Ordered again, after a long failure even their statuses might be pruned, and they would be rejected as
        too late.
        """
        for ingress in tuple(self._pool.waiting()):
            status = find_status(self._durable, ingress.expiry_ns, ingress.request_id)
            if status is not None:
                self._pool.take_one(ingress.request_id)
                answer = answer_of(ingress.request_id, status)
                self._recognized.append((ingress.request_id, answer))

    def _check_disk(self) -> None:
        free_bytes = self._doors.free_bytes
        if free_bytes is not None and free_bytes() < self._limits.disk_reserve_bytes:
            raise StoreError(
                f"the disk is full: less than {self._limits.disk_reserve_bytes // 2**20} MiB are free"
                " where the node's data stands; make room there, the node goes on by itself"
            )

    def _is_timer_due(self) -> bool:
        next_ns = self._next_timer_ns
        return next_ns is not None and next_ns <= self._doors.clock.now_ns()
