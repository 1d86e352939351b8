"""The state of a subnet's last durable round, as everybody outside reads it: queries, certified paths,
events, and what may go out to other subnets.

It moves on when a sync has ended (`Subnet`), never before: nothing that a crash could take back is shown. It
writes nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from cannery.errors import Reject, RejectCode
from cannery.node.canister_metrics import fill_latency
from cannery.node.condemned import Condemned
from cannery.node.latency import Latencies
from cannery.node.links import find_stream_head, read_slice
from cannery.node.metrics import SubnetMetrics
from cannery.node.pool import Refusals
from cannery.node.read_cache import ReadCache
from cannery.node.submitted import Denied
from cannery.node.subnet_doors import Doors
from cannery.node.written import Executed
from cannery.ports import Store, StoreReader, StoreSnapshot
from cannery.replica import view
from cannery.replica.block import Ingress, StreamSlice
from cannery.replica.events import EventPage, read_events
from cannery.replica.queries import Query, QueryResult, run_query
from cannery.replica.reading import read_path
from cannery.replica.records import HeadRecord, RequestStatus, StreamHead, SubnetRecord
from cannery.replica.request_status import find_status


class DurableState:
    """What was durable last. `open` comes first; used by one thread, between rounds."""

    head: HeadRecord
    reader: StoreSnapshot
    known: view.Known
    _cache: ReadCache

    def __init__(
        self,
        doors: Doors,
        condemned: Condemned,
        refusals: Refusals,
        metrics: SubnetMetrics,
        latencies: Latencies,
    ) -> None:
        self._doors = doors
        self._condemned = condemned
        self._refusals = refusals
        self._metrics = metrics
        self._latencies = latencies

    # --- which state it is

    def open(self, store: Store, head: HeadRecord) -> None:
        """Begin with what a store has, all of which is durable."""
        self.reader = store.snapshot()
        self._cache = ReadCache(self.reader)
        self.head = head
        # What is known of records holds for a store as it was opened: another one may have other rounds.
        self.known = view.Known()

    def move(self, executed: Executed) -> None:
        """Go on to the state of a round that has become durable."""
        self.reader.close()
        self.reader = executed.snapshot
        self._cache.moved(executed.snapshot, executed.outcome.batch)
        self.head = executed.outcome.head

    def close(self) -> None:
        """Let the state go."""
        self.reader.close()

    @property
    def time_ns(self) -> int:
        """The time of certified answers: never before the last durable round's."""
        return max(self._doors.clock.now_ns(), self.head.time_ns)

    # --- what is read of it

    def query(self, query: Query, trace: Callable[[StoreReader], StoreReader] | None = None) -> QueryResult:
        """Run a query; `trace` may stand between and see what it reads."""
        self._metrics.queries.add()
        doors = self._doors
        if self._condemned.holds(query.request_id, doors.clock.now_ns()):
            text = "this query brought the node's process down by its time or memory: it is not run again"
            return QueryResult(b"", Reject(RejectCode.CANISTER_ERROR, text, "CNRY0203"))
        reader = self._cache if trace is None else trace(self._cache)
        # Who wants to see what is read sees nothing of what is recalled.
        memory = self._cache if trace is None else None
        result = run_query(
            reader, query, self.time_ns, doors.programs, doors.watch, doors.certify, self.known, memory
        )
        return fill_latency(query, result, self._latencies)

    def read(self, sender: bytes, paths: tuple[tuple[bytes, ...], ...]) -> tuple[bytes | None, ...] | Denied:
        """Read certified state; None where a path is absent."""
        self._metrics.reads.add()
        values: list[bytes | None] = []
        for path in paths:
            try:
                value = read_path(self.reader, path, sender)
            except Reject as reject:
                return Denied(reject.message)
            if value is None and path and path[0] == b"request_status":
                value = self._refused_value(path, sender)
            values.append(value)
        return tuple(values)

    def _refused_value(self, path: tuple[bytes, ...], sender: bytes) -> bytes | None:
        """Answer for a request that is in no block because it was refused: some clients poll for those
        too.
        """
        refusal = self._refusals.find(path[1], sender) if len(path) == 3 else None
        return None if refusal is None else refusal.leaf(path[2])

    def find_status(self, ingress: Ingress) -> RequestStatus | None:
        """Give the status of a request; None where no block has it, or its status is pruned."""
        return find_status(self.reader, ingress.expiry_ns, ingress.request_id)

    def events(self, canister_id: bytes, since: int, count_max: int, size_bytes_max: int) -> EventPage | None:
        """Read a canister's events; None where there is no such canister."""
        return read_events(self.reader, canister_id, since, count_max, size_bytes_max)

    def counts(self) -> SubnetRecord:
        """Give what the subnet counts of itself. Raises `StoreError`."""
        return view.StateView(self.reader, self._doors.programs).subnet()

    # --- other subnets

    def slice_for(self, subnet: int, peer: int, first: int) -> StreamSlice:
        """Give messages of `subnet`, whose state this is, for another one from a number on, as many as fit
        into a slice.
        """
        return read_slice(self.reader, subnet, peer, first)

    def stream(self, peer: int) -> StreamHead:
        """Give the counters of the streams to and from another subnet."""
        return find_stream_head(self.reader, peer)
