"""A subnet at work: it cuts blocks, executes rounds, makes them durable and lets the answers out (the output
gate).

`Subnet` is synchronous and owns store, programs, pool and clock; whoever drives it (`subnet_process`,
`local_subnet`, `cannery.testing`) decides when. A block takes whatever is in the pool, bounded by count and
bytes, never by the clock. Rounds are pipelined: the next one may execute while a thread syncs the last;
answers leave in order, after the sync that covers their round. Where the store fails, what is not durable yet
waits, new updates are refused with the reason, queries go on, and `recover` starts again from what the store
kept.

Here are the rounds and what makes them durable. Which updates come in is `admission`'s, what is read of the
last durable round `durable_state`'s, what a sync lets out `output_gate`'s, whether the store takes writes
`store_health`'s. None of them opens a socket, starts a thread or rules over canisters: that is `replica`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from cannery.errors import Reject, StoreError
from cannery.node.admission import Admission
from cannery.node.condemned import Condemned
from cannery.node.durable_state import DurableState
from cannery.node.head import find_head
from cannery.node.latency import Latencies
from cannery.node.links import Links
from cannery.node.metrics import SubnetMetrics, render_metrics
from cannery.node.outcalls import Fetch, Outcall, Outcalls
from cannery.node.output_gate import OutputGate
from cannery.node.pool import IngressPool, Refusals
from cannery.node.store_health import StoreHealth
from cannery.node.submitted import Denied, Durable, Submitted
from cannery.node.subnet_doors import Doors, SubnetLimits
from cannery.node.vitals import Vitals
from cannery.node.written import Executed, Sync
from cannery.ports import Store, StoreReader
from cannery.replica.block import (
    Block,
    BlockInput,
    Configure,
    Ingress,
    PeerLost,
    ReplicaConfig,
    StreamSlice,
    decode_config,
)
from cannery.replica.events import EventPage
from cannery.replica.keys import CONFIG_KEY
from cannery.replica.outcall_records import list_outcalls
from cannery.replica.queries import Query, QueryResult
from cannery.replica.records import HeadRecord, StreamHead, SubnetRecord
from cannery.replica.rounds import run_round

_SEED_BYTES: Final = 32
_FORGET_EVERY_ROUNDS: Final = 1024


class Subnet:
    """One subnet. All calls come from one thread; only `Sync.run` may run on another."""

    _store: Store
    _head: HeadRecord
    _pending_config: ReplicaConfig | None
    _has_work: bool
    _is_rejoining: bool
    _next_timer_ns: int | None

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
        self._pool = IngressPool()
        self._unsynced: deque[Executed] = deque()
        self._abandoned: deque[Executed] = deque()
        self._syncing = False
        self._marked_number = 0
        self.metrics = SubnetMetrics()
        self.latencies = Latencies()
        self.outcalls = Outcalls()
        self.links = Links()
        self._counts = SubnetRecord()
        self._started_ns = doors.clock.now_ns()
        self._condemned, refusals = Condemned(condemned or {}), Refusals()
        self._health = StoreHealth(doors, self._limits.disk_reserve_bytes)
        self._durable = DurableState(doors, self._condemned, refusals, self.metrics, self.latencies)
        self._admission = Admission(
            doors,
            self._durable,
            self._pool,
            refusals,
            self._health,
            self._condemned,
            self.metrics,
            lambda: self._head.time_ns,
        )
        self._gate = OutputGate(self._pool, self._durable, self.latencies, doors.clock)
        self._open()

    # --- what there is to do

    def is_ready(self) -> bool:
        """Say whether a round should run now."""
        if self._health.failure is not None or len(self._unsynced) >= self._limits.unsynced_round_count_max:
            return False
        if self._has_work or self.outcalls.has_answers or len(self.links):
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
        return self._health.failure

    @property
    def head(self) -> HeadRecord:
        """The last durable round."""
        return self._durable.head

    @property
    def time_ns(self) -> int:
        """The time of certified answers: never before the last durable round's."""
        return self._durable.time_ns

    # --- updates

    def submit(self, ingress: Ingress, ticket: object) -> Submitted:
        """Take an authenticated update call; `ticket` comes back with its acceptance and its answer."""
        return self._admission.submit(ingress, ticket)

    # --- rounds

    def run_round(self) -> None:
        """Cut a block, execute it and write it. Its answers come out of the sync that covers it."""
        started_ns = self._doors.clock.now_ns()
        fetched = self.outcalls.take_answers(self._limits.block_input_size_bytes_max)
        carried = self.links.take(self._limits.block_input_size_bytes_max)
        inputs = self._pool.take(self._limits.block_input_count_max, self._limits.block_input_size_bytes_max)
        try:
            self._health.check_room()
            block = self._cut_block((*fetched, *carried, *inputs))
            outcome = run_round(self._store, block, self._doors.programs, self._doors.watch)
            self._store.write(outcome.batch)
            snapshot = self._store.snapshot()
        except StoreError as error:
            self._pool.put_back(inputs)
            self.outcalls.put_back(fetched)
            self.links.put_back(carried)
            self._fail(error)
            return
        self._unsynced.append(Executed(outcome, inputs, snapshot, fetched, carried))
        self._head = outcome.head
        self._pending_config = None
        self._has_work = outcome.backlog
        self._next_timer_ns = outcome.next_timer_ns
        self.metrics.note_round(outcome.events, len(inputs), self._doors.clock.now_ns() - started_ns)

    def _cut_block(self, inputs: tuple[BlockInput, ...]) -> Block:
        head, now_ns = self._head, self._doors.clock.now_ns()
        if self._pending_config is not None:
            inputs = (Configure(self._pending_config), *inputs)
        return Block(
            number=head.number + 1,
            previous_hash=head.block_hash,
            time_ns=max(now_ns, head.time_ns + 1),
            seed=self._doors.entropy.random_bytes(_SEED_BYTES),
            inputs=inputs,
            poisoned=self._condemned.poisoned(now_ns),
        )

    # --- durability

    def begin_sync(self) -> Sync | None:
        """Give the sync that covers all rounds written so far; None where there is nothing or one is under
        way.
        """
        if not self._unsynced or self._syncing or self._health.failure is not None:
            return None
        self._syncing = True
        return Sync(self._store, len(self._unsynced))

    def finish_sync(self, sync: Sync) -> Durable:
        """Let out what the finished `sync` covers: acceptances and answers, in the order of their rounds."""
        self._syncing = False
        if sync.error is not None:
            self._fail(sync.error)
        if self._health.failure is not None:
            self._abandon_rounds()
            return Durable(self.time_ns)
        for _ in range(sync.covers):
            executed = self._unsynced.popleft()
            self._is_rejoining = False
            self._durable.move(executed)
            self.outcalls.note(executed.outcome.outcalls)
            self._gate.let_out(executed)
        self.metrics.syncs.add()
        self._note_durable(self._durable.head.number)
        if self._durable.head.number % _FORGET_EVERY_ROUNDS < sync.covers:
            self._pool.forget_old(self.time_ns)
        return self._gate.take()

    def checkpoint(self, path: str) -> int:
        """Copy the store to `path`, by hard links where it can be; give the number of the copy's last block,
        which is durable then. Raises `StoreError`.
        """
        if self._health.failure is not None:
            raise self._health.failure
        self._store.checkpoint(path)
        # Whoever has the copy may count on the block: the store must not go on without it.
        self._note_durable(self._head.number)
        return self._head.number

    # --- other subnets

    @property
    def number(self) -> int:
        """Which of the node's subnets this is."""
        return self._config.subnet

    @property
    def is_rejoining(self) -> bool:
        """Say whether reads must wait: no block has yet noted that other subnets were not heard meanwhile."""
        return self._is_rejoining

    @property
    def peers(self) -> tuple[int, ...]:
        """The node's other subnets."""
        return tuple(route.subnet for route in self._config.routes if route.subnet != self._config.subnet)

    def slice_for(self, peer: int, first: int) -> StreamSlice:
        """Give durable messages for another subnet from a number on, as many as fit into a slice."""
        return self._durable.slice_for(self._config.subnet, peer, first)

    def received_from(self, peer: int) -> int:
        """Give the number of the next message expected of another subnet; those before it are durable."""
        return self._durable.stream(peer).received

    def sent_to(self, peer: int) -> StreamHead:
        """Give the counters of the stream to another subnet, as they are durable."""
        return self._durable.stream(peer)

    def is_unacknowledged(self, peer: int, received: int) -> bool:
        """Say whether it is news that another subnet has received its stream up to this number."""
        return self.sent_to(peer).first < received

    # --- outcalls

    @property
    def fetch(self) -> Fetch | None:
        """What performs HTTP requests, if anything does."""
        return self._doors.fetch

    def take_outcalls(self) -> list[Outcall]:
        """Give HTTP requests whose round is durable and that nobody performs yet; each gets an answer by
        `outcalls.answer`, or is given out again after the next start.
        """
        return self.outcalls.take(self._durable.reader)

    # --- queries and reads of the last durable round

    def query(self, query: Query, trace: Callable[[StoreReader], StoreReader] | None = None) -> QueryResult:
        """Run a query; `trace` may stand between and see what it reads."""
        return self._durable.query(query, trace)

    def read(self, sender: bytes, paths: tuple[tuple[bytes, ...], ...]) -> tuple[bytes | None, ...] | Denied:
        """Read certified state; None where a path is absent."""
        return self._durable.read(sender, paths)

    def events(self, canister_id: bytes, since: int, count_max: int, size_bytes_max: int) -> EventPage | None:
        """Read a canister's events; None where there is no such canister."""
        return self._durable.events(canister_id, since, count_max, size_bytes_max)

    # --- how it is

    def vitals(self) -> Vitals:
        """Tell how this subnet is; the state's part is that of the last durable round."""
        # A store that fails is told of, with the counts that were read last.
        with suppress(StoreError):
            self._counts = self._durable.counts()
        subnet, refusing = self._counts, None
        try:
            self._health.check()
        except Reject as reject:
            refusing = reject.message
        return Vitals(
            block_number=self._durable.head.number,
            block_time_ns=self._durable.head.time_ns,
            time_ns=self.time_ns,
            uptime_ns=max(0, self._doors.clock.now_ns() - self._started_ns),
            waiting=len(self._pool),
            under_way=self._pool.under_way_count,
            unsynced_rounds=len(self._unsynced),
            busy_count=subnet.ring_next - subnet.ring_first,
            canister_count=subnet.canister_count,
            minted=subnet.minted,
            burned=subnet.burned,
            held=subnet.held,
            refusing=refusing or self.links.fault,
            machine=self._doors.machine() if self._doors.machine is not None else None,
        )

    def measure(self) -> str:
        """Give the metrics in Prometheus' text format."""
        self.metrics.note_vitals(self.vitals())
        self.metrics.outcalls_waiting.set(self.outcalls.waiting)
        self.metrics.outcalls_under_way.set(self.outcalls.under_way)
        return self.metrics.render() + render_metrics([self.latencies.total])

    # --- failure and recovery

    def recover(self) -> Durable | None:
        """After a failure of the store: open it again and go on; give what has become durable meanwhile, None
        where it cannot go on yet.

        What was abandoned and has survived all the same is let out like any durable round, and whoever
        watches hears of it before anything else is read: what it changed shows from now on. Its calls are
        known by their rounds, not by their statuses, which a later round may have pruned.
        """
        if self._health.failure is None:
            return self._gate.take()
        if self._syncing:
            return None
        try:
            self._health.check_room()
            self._durable.close()
            self._store.close()
            self._open()
            while self._abandoned:
                self._gate.let_out(self._abandoned[0])
                self._abandoned.popleft()
        except StoreError as error:
            self._health.failure = error
            return None
        self._health.failure = None
        return self._gate.take()

    def close(self) -> None:
        """Close the store. What waits is not lost for its senders: they submit it again."""
        for executed in self._unsynced:
            executed.snapshot.close()
        self._unsynced.clear()
        self._durable.close()
        self._store.close()

    def _open(self) -> None:
        self._store = self._doors.open_store()
        self._head = find_head(self._store, self._doors.durable_mark)
        stored = self._store.get(CONFIG_KEY)
        is_new = stored is None or decode_config(stored) != self._config
        self._pending_config = self._config if is_new else None
        # What an earlier process wrote may not be durable yet, and is shown to queries from now on.
        self._store.sync()
        self._durable.open(self._store, self._head)
        self._take_back_lost()
        self.outcalls.note(list_outcalls(self._durable.reader))
        self._note_durable(self._head.number)
        # What was said while nobody listened here is not known yet.
        for peer in self.peers:
            self.links.put(PeerLost(peer))
        self._is_rejoining = bool(self.peers)
        # The first round finds out what waits in the queues and when the next timer is due.
        self._has_work = True
        self._next_timer_ns = None

    def _note_durable(self, number: int) -> None:
        self._marked_number = max(self._marked_number, number)
        if self._doors.durable_mark is not None:
            self._doors.durable_mark.note_durable(self._marked_number)

    def _fail(self, error: StoreError) -> None:
        self.metrics.store_failures.add()
        self._health.failure = error
        if not self._syncing:
            self._abandon_rounds()

    def _abandon_rounds(self) -> None:
        """Set the rounds that are not durable aside: `recover` finds out which of them have survived."""
        while self._unsynced:
            executed = self._unsynced.popleft()
            executed.snapshot.close()
            self._abandoned.append(executed)
        self._head = self._durable.head

    def _take_back_lost(self) -> None:
        """Put back what was in the abandoned rounds that the store has not kept: it is ordered again."""
        while self._abandoned and self._abandoned[-1].outcome.head.number > self._head.number:
            executed = self._abandoned.pop()
            self._pool.put_back(executed.inputs)
            self.outcalls.put_back(executed.fetched)
            self.links.put_back(executed.carried)

    def _is_timer_due(self) -> bool:
        next_ns = self._next_timer_ns
        return next_ns is not None and next_ns <= self._doors.clock.now_ns()
