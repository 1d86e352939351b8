"""Delivery between canisters: what was accepted arrives once, in order, or ends with its reason in a list.

A parcel is (created_ns, id, value); ids rise within a canister, so (created_ns, id) rises even over a
reinstallation, and the receiver's `Inbox` takes each once. For each destination parcels wait in one queue,
first in first out; one batch at the most is in flight. A batch that fails stays at the front, and `retry`
says by the error's type when it is tried again: a durable timer waits, no call stays open, so a queue never
keeps a canister from stopping. What cannot be delivered goes to a bounded list of dead letters.

State: `.queue` (destination, id) -> (created_ns, value); `.lanes` destination -> lane, while something is
queued for it; `.state` next id and number of queued parcels; `.dead` the log of dead letters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from cannery import limits
from cannery.candid import types as ct
from cannery.candid.codec import decoder, encoder
from cannery.candid.python import nat32, nat64, record, type_of
from cannery.cdk.calls import Outcome, Pending, encode_arguments, read_outcome
from cannery.cdk.failure import failure_text
from cannery.cdk.hints import DeclarationError, method_hints, result_types
from cannery.cdk.part import NO_ANSWER, CollectionSpec, InternalHandler, Part, bound_view
from cannery.cdk.refusal import Refusal
from cannery.cdk.retry import retry_class, retry_delay_ns
from cannery.cdk.stable_cell import CellView, StableCell
from cannery.cdk.stable_log import LogView, StableLog
from cannery.cdk.stable_map import MapView, StableMap
from cannery.cdk.stable_values import ValueCodec
from cannery.errors import CanneryError, Reject
from cannery.ports import CallRequest, System
from cannery.protocol.principal import Principal

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from cannery.cdk.context import Context
    from cannery.cdk.declare import Canister

V = TypeVar("V")
R = TypeVar("R")
Method = TypeVar("Method", bound=Callable[..., object])

GIVE_UP_NS = 7 * 24 * 3_600 * 1_000_000_000
STUCK_NS = 600 * 1_000_000_000


class DeliveryFull(CanneryError):
    """Too much is queued already: nothing was accepted."""


@dataclass(frozen=True, slots=True)
class Posted:
    """A parcel that is accepted: its id, and the call where one was started at once (return it to answer
    later)."""

    id: int
    pending: Pending[Any] | None  # what it answers is what the method under @on_attempt returns


@dataclass(frozen=True, slots=True)
class Attempt(Generic[V, R]):
    """What became of a parcel: delivered with a receipt, waiting for another try, or dead, with the
    reason."""

    to: Principal
    id: int
    created_ns: int
    value: V
    state: Literal["delivered", "waiting", "dead"]
    receipt: R | None
    reason: str
    tries: int


@dataclass(frozen=True, slots=True)
class DeadLetter(Generic[V]):
    """A parcel that could not be delivered, and why."""

    index: int
    to: Principal
    id: int
    created_ns: int
    value: V
    reason: str
    at_ns: int


@record
class Lane:
    """Where a destination's queue stands: parcels in it, parcels in flight since when, failed tries, the
    timer."""

    queued: nat32
    in_flight: nat32
    sent_ns: nat64
    tries: nat32
    timer: nat64 | None


_Parcel = tuple[int, int, V]
_IDLE = Lane(0, 0, 0, 0, None)


class DeliveryView(Generic[V, R]):
    """A delivery as a method sees it."""

    def __init__(self, system: System, delivery: Delivery[V, R]) -> None:
        self._system = system
        self._delivery = delivery
        self._queue: MapView[tuple[Principal, int], tuple[int, V]] = delivery.queue_map.bind(system)
        self._lanes: MapView[Principal, Lane] = delivery.lanes_map.bind(system)
        self._state: CellView[tuple[int, int]] = delivery.state_cell.bind(system)
        self._dead: LogView[Any] = delivery.dead_log.bind(system)  # a tuple, taken apart in dead_letters

    def post(self, to: Principal, value: V) -> Posted:
        """Accept a parcel for a destination, and send it at once where nothing is under way to it.

        Raises DeliveryFull where too much is queued; then nothing was accepted.
        """
        id, queued = self._state.get()
        lane = self._lanes.get(to, _IDLE)
        if queued >= self._delivery.queue_count_max:
            raise DeliveryFull(f"{queued} parcels are queued already, the most that are kept")
        now_ns = self._system.now_ns
        self._queue.put((to, id), (now_ns, value))
        self._state.set((id + 1, queued + 1))
        lane = replace(lane, queued=lane.queued + 1)
        is_stuck = lane.in_flight > 0 and now_ns - lane.sent_ns > STUCK_NS
        if (lane.in_flight and not is_stuck) or lane.timer is not None:
            self._lanes.put(to, lane)
            return Posted(id, None)
        parcels = [(id, now_ns, value)] if lane.queued == 1 else self._front(to)
        return Posted(id, self._send(to, lane, parcels, posted=id))

    @property
    def queued(self) -> int:
        """The number of parcels that are not settled."""
        return self._state.get()[1]

    def queued_for(self, to: Principal) -> int:
        """Return the number of parcels for one destination that are not settled."""
        return self._lanes.get(to, _IDLE).queued

    def dead_letters(
        self, *, limit: int, after: int | None = None, reverse: bool = True
    ) -> list[DeadLetter[V]]:
        """Return parcels that could not be delivered, latest first."""
        page = self._dead.page(limit=limit, after=after, reverse=reverse)
        return [DeadLetter(index, *entry) for index, entry in page.items]

    def clear_dead_letters(self, *, before: int) -> int:
        """Drop dead letters with an index under `before`; return how many."""
        return self._dead.prune(before=before)

    def recover(self, *, limit: int = 100) -> int:
        """Send again what is in flight for over ten minutes (a forced stop drops answers); return how many
        lanes."""
        stuck = [
            (to, lane)
            for to, lane in self._lanes.items()
            if lane.in_flight and self._system.now_ns - lane.sent_ns > STUCK_NS
        ]
        for to, lane in stuck[:limit]:
            self._send(to, lane, self._front(to), posted=None)
        return min(len(stuck), limit)

    # sending

    def _front(self, to: Principal) -> list[_Parcel[V]]:
        """Return the parcels of the next batch: a number and a size, always one."""
        parcels: list[_Parcel[V]] = []
        size = 0
        for (_, id), (created_ns, value) in self._queue.items(
            prefix=(to,), limit=limits.DELIVERY_BATCH_COUNT_MAX
        ):
            size += self._delivery.size_of(value)
            if parcels and size > limits.DELIVERY_BATCH_SIZE_BYTES_MAX:
                break
            parcels.append((id, created_ns, value))
        return parcels

    def _send(
        self, to: Principal, lane: Lane, parcels: list[_Parcel[V]], *, posted: int | None
    ) -> Pending[Any] | None:
        """Start a batch and keep the lane; where the call is refused, wait and try again."""
        delivery = self._delivery
        answers = posted is not None and any(id == posted for id, _, _ in parcels)
        now_ns = self._system.now_ns
        saved = delivery.saved_codec.write((to, len(parcels), posted if answers else None, now_ns))
        request = CallRequest(
            to.raw, delivery.method, delivery.encode_batch(parcels), 0, delivery.settled_name, saved
        )
        try:
            call = self._system.call(request)
        except Reject as reject:
            delay_ns = max(
                1, retry_delay_ns(retry_class(int(reject.code), reject.error_code), lane.tries + 1)
            )
            self._wait(to, replace(lane, in_flight=0, tries=lane.tries + 1), delay_ns)
            return None
        self._lanes.put(to, replace(lane, in_flight=len(parcels), sent_ns=now_ns, timer=None))
        return Pending(call, delivery.results) if answers else None

    def _wait(self, to: Principal, lane: Lane, delay_ns: int) -> None:
        saved = self._delivery.destination_codec.write(to)
        timer = self._system.timer_set(self._delivery.retry_name, self._system.now_ns + delay_ns, 0, saved)
        self._lanes.put(to, replace(lane, timer=timer))

    # what the continuation and the timer do

    def settle(self, canister: Canister, ctx: Context) -> object:
        """Book what a batch brought back and send the next; return the answer to whoever waits."""
        to, count, posted, sent_ns = self._delivery.saved_codec.read(self._system.saved, self._system)
        lane = self._lanes.get(to)
        parcels = [
            (id, created_ns, value)
            for (_, id), (created_ns, value) in self._queue.items(prefix=(to,), limit=count)
        ]
        if lane is None or not parcels:
            return NO_ANSWER
        if not lane.in_flight or lane.sent_ns != sent_ns:
            # The batch was taken for lost and sent again: its late answer says nothing of what stands in
            # front now, and the later batch brings receipts for all of it.
            waiting = [parcel for parcel in parcels if parcel[0] == posted]
            attempts = self._attempts(to, waiting, "waiting", [None] * len(waiting), "sent again", lane.tries)
            return self._report(canister, ctx, attempts, posted)
        outcome = read_outcome(self._system.outcome, self._delivery.decode_receipts)
        receipts, reason = _receipts(outcome, len(parcels))
        if receipts is not None:
            self._take_off(to, parcels)
            attempts = self._attempts(to, parcels, "delivered", receipts, "", lane.tries + 1)
            answer = self._report(canister, ctx, attempts, posted)
            self._go_on(to)
            return answer
        how = retry_class(self._system.outcome.reject_code, self._system.outcome.error_code)
        is_too_old = self._system.now_ns - parcels[0][1] > self._delivery.give_up_ns
        if how == "none" or is_too_old:
            self._bury(to, parcels, reason)
            attempts = self._attempts(to, parcels, "dead", [None] * len(parcels), reason, lane.tries + 1)
            answer = self._report(canister, ctx, attempts, posted)
            self._go_on(to)
            return answer
        lane = replace(lane, in_flight=0, tries=lane.tries + 1)
        delay_ns = retry_delay_ns(how, lane.tries)
        if delay_ns == 0:
            self._send(to, lane, parcels, posted=None)
        else:
            self._wait(to, lane, delay_ns)
        waiting = [p for p in parcels if p[0] == posted]
        attempts = self._attempts(to, waiting, "waiting", [None] * len(waiting), reason, lane.tries)
        return self._report(canister, ctx, attempts, posted)

    def retry(self) -> None:
        """Send what waits for a destination."""
        to = self._delivery.destination_codec.read(self._system.saved, self._system)
        lane = self._lanes.get(to)
        if lane is not None and not lane.in_flight:
            self._send(to, replace(lane, timer=None), self._front(to), posted=None)

    def _take_off(self, to: Principal, parcels: list[_Parcel[V]]) -> None:
        for id, _, _ in parcels:
            self._queue.delete((to, id))
        next_id, queued = self._state.get()
        self._state.set((next_id, queued - len(parcels)))
        lane = self._lanes[to]
        # Still in flight, so that a post out of a report only joins the queue.
        self._lanes.put(to, replace(lane, queued=lane.queued - len(parcels), tries=0))

    def _bury(self, to: Principal, parcels: list[_Parcel[V]], reason: str) -> None:
        self._take_off(to, parcels)
        for id, created_ns, value in parcels:
            self._dead.append((to, id, created_ns, value, reason[:500], self._system.now_ns))
        kept_from = self._dead.next - self._delivery.dead_count_max
        if kept_from > 0:
            self._dead.prune(before=kept_from)

    def _go_on(self, to: Principal) -> None:
        lane = self._lanes[to]
        if lane.queued == 0:
            self._lanes.delete(to)
        else:
            self._send(to, replace(lane, in_flight=0), self._front(to), posted=None)

    def _attempts(
        self,
        to: Principal,
        parcels: list[_Parcel[V]],
        state: Literal["delivered", "waiting", "dead"],
        receipts: list[Any],  # of type R, or None where there is none
        reason: str,
        tries: int,
    ) -> list[Attempt[V, R]]:
        return [
            Attempt(to, id, created_ns, value, state, receipt, reason, tries)
            for (id, created_ns, value), receipt in zip(parcels, receipts, strict=True)
        ]

    def _report(
        self, canister: Canister, ctx: Context, attempts: list[Attempt[V, R]], posted: int | None
    ) -> object:
        """Tell the author's method; its failure is logged, and never undoes what was booked."""
        answer: object = NO_ANSWER
        for attempt in attempts:
            is_awaited = attempt.id == posted
            value: object = None
            try:
                if self._delivery.function is not None:
                    value = self._delivery.function(canister, ctx, attempt)
            except Refusal as refusal:
                self._fail(ctx, str(refusal), is_awaited)
            except Exception as error:  # noqa: BLE001 (around a canister: the author's method)
                self._fail(ctx, failure_text(error), is_awaited)
            else:
                answer = value if is_awaited else answer
        return answer

    def _fail(self, ctx: Context, text: str, is_awaited: bool) -> None:
        if is_awaited:
            self._system.reject(text)
        else:
            ctx.log(f"{self._delivery.name}: reporting an attempt failed: {text}")


class Delivery(Part, Generic[V, R]):
    """Declare a delivery: `outbox = Delivery(Envelope, Receipt, method="receive")`.

    `method` is an update of the receivers, `(batch: Batch[Envelope]) -> list[Receipt]`, as `Inbox.take`
    serves it. A method decorated with `@outbox.on_attempt` learns what became of each parcel: `(self, ctx,
    attempt: Attempt[Envelope, Receipt]) -> T`; what it returns answers the caller whose method returned
    `Posted.pending`.
    """

    def __init__(
        self,
        value: TypeForm[V],
        receipt: TypeForm[R],
        *,
        method: str,
        queue_count_max: int = limits.DELIVERY_QUEUE_COUNT_MAX,
        dead_count_max: int = limits.DELIVERY_DEAD_LETTER_COUNT_MAX,
        give_up_ns: int = GIVE_UP_NS,
    ) -> None:
        self.name = self.settled_name = self.retry_name = ""
        self.method = method
        self.queue_count_max = queue_count_max
        self.dead_count_max = dead_count_max
        self.give_up_ns = give_up_ns
        self.function: Callable[..., object] | None = None
        self.results: tuple[ct.Type, ...] = ()
        self._reporter = ""
        parcel_type = ct.tuple_record(ct.Nat64(), ct.Nat64(), type_of(value))
        self._encode_batch = encoder((ct.Vec(parcel_type),))
        self.decode_receipts = decoder((ct.Vec(type_of(receipt)),))
        self._encode_value = encoder((type_of(value),))
        # Hints made at run time; the views' annotations above say the same to type checkers.
        queued: Any = tuple[nat64, value]  # type: ignore[valid-type]
        dead: Any = tuple[Principal, nat64, nat64, value, str, nat64]  # type: ignore[valid-type]
        self.queue_map: StableMap[Any, Any] = StableMap(tuple[Principal, nat64], queued)
        self.lanes_map = StableMap(Principal, Lane)
        self.state_cell = StableCell(tuple[nat64, nat64], (0, 0))
        self.dead_log: StableLog[Any] = StableLog(dead)
        self.saved_codec: ValueCodec[tuple[Principal, int, int | None, int]] = ValueCodec(
            "a batch in flight", type_of(tuple[Principal, nat32, nat64 | None, nat64])
        )
        self.destination_codec: ValueCodec[Principal] = ValueCodec("a retry", ct.PrincipalType())

    def __set_name__(self, owner: type, name: str) -> None:
        if self.name:
            return
        self.name = name
        self.settled_name, self.retry_name = f"{name}.settled", f"{name}.retry"
        for suffix, part in self._parts():
            part.name = f"{name}.{suffix}"

    def on_attempt(self, method: Method) -> Method:
        """Decorate the method that learns what became of each parcel."""
        self._reporter = method.__name__
        return method

    def encode_batch(self, parcels: list[_Parcel[V]]) -> bytes:
        """Encode a batch as the argument of the receivers' method."""
        batch = [(created_ns, id, value) for id, created_ns, value in parcels]
        return encode_arguments(self.method, self._encode_batch, (batch,))

    def size_of(self, value: V) -> int:
        """Return the size of a value in a batch, near enough to keep batches below their bound."""
        return len(self._encode_value((value,)))

    def _parts(self) -> tuple[tuple[str, StableMap[Any, Any] | StableCell[Any] | StableLog[Any]], ...]:
        # parts of several types
        return (
            ("queue", self.queue_map),
            ("lanes", self.lanes_map),
            ("state", self.state_cell),
            ("dead", self.dead_log),
        )

    def collections(self) -> tuple[CollectionSpec, ...]:
        return tuple(spec for _, part in self._parts() for spec in part.collections())

    def continuations(self, cls: type[Canister]) -> tuple[InternalHandler, ...]:
        if self._reporter:
            function: Callable[..., object] = getattr(cls, self._reporter)
            where = f"{cls.__name__}.{self._reporter}"
            hints = method_hints(function, where, getattr(cls, "__cannery_namespace__", None))
            if "return" not in hints or function.__code__.co_argcount != 3:
                raise DeclarationError(
                    f"{where}: it takes (self, ctx, attempt: Attempt[...]) and has a return hint"
                )
            self.function, self.results = function, result_types(hints["return"], where)
        return (
            InternalHandler(
                self.settled_name,
                self.saved_codec.type,
                lambda canister, ctx, _: self._view(canister).settle(canister, ctx),
                self.results,
            ),
        )

    def timers(self, cls: type[Canister]) -> tuple[InternalHandler, ...]:  # noqa: ARG002 (the same for every class)
        return (
            InternalHandler(
                self.retry_name,
                self.destination_codec.type,
                lambda canister, _, __: self._view(canister).retry(),
            ),
        )

    def bind(self, system: System) -> DeliveryView[V, R]:
        """Make the view of one activation."""
        return DeliveryView(system, self)

    def _view(self, canister: Canister) -> DeliveryView[V, R]:
        """Make the view that the canister's own methods see too."""
        return bound_view(canister, self.attribute or self.name, self.bind)

    @overload
    def __get__(self, instance: None, owner: type) -> Delivery[V, R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> DeliveryView[V, R]: ...
    def __get__(self, instance: object | None, owner: type) -> Delivery[V, R] | DeliveryView[V, R]:
        return self if instance is None else bound_view(instance, self.attribute or self.name, self.bind)


def _receipts(outcome: Outcome[object], count: int) -> tuple[list[Any] | None, str]:  # receipts of type R
    if not outcome.ok:
        return None, f"rejected with code {outcome.reject_code}: {outcome.reject_message}"
    receipts = outcome.value
    if not isinstance(receipts, list) or len(receipts) != count:
        return None, "the receiver gave another number of receipts than it got parcels"
    return receipts, ""
