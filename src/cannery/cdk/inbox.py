"""The receiving side of `delivery`: every parcel is taken once, in the order of its sender.

A sender's parcels carry (created_ns, id), which only rises. What is not above the last one taken is a repeat
and is answered with the receipt that it got the first time. For each sender the receipts of the last batch
are kept, and those of later parcels: a sender that has waited for long sends what stands in front again while
its earlier batch is still on the way, and a shorter one of the two may be taken last.

State: `.senders` sender -> (created_ns and id of the last parcel, receipts of the last batch and of what came
behind it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from cannery import limits
from cannery.candid.python import nat64
from cannery.cdk.part import CollectionSpec, Part, bound_view
from cannery.cdk.stable_map import MapView, StableMap
from cannery.errors import Trap
from cannery.ports import System
from cannery.protocol.principal import Principal

if TYPE_CHECKING:
    from typing_extensions import TypeForm

V = TypeVar("V")
R = TypeVar("R")

Batch = list[tuple[nat64, nat64, V]]
"""What a receiving method takes: `batch: Batch[Envelope]`, parcels as (created_ns, id, value)."""

_Stamp = tuple[int, int]
_Known = tuple[int, int, list[tuple[int, int, R]]]


class InboxView(Generic[R]):
    """An inbox as a method sees it."""

    def __init__(self, senders: MapView[Principal, _Known[R]]) -> None:
        self._senders = senders

    def take(self, sender: Principal, batch: Batch[V], receive: Callable[[V], R]) -> list[R]:
        """Hand each new parcel to `receive` once, in order; return a receipt for every parcel of the
        batch."""
        if len(batch) > limits.DELIVERY_BATCH_COUNT_MAX:
            raise Trap(f"a batch holds at most {limits.DELIVERY_BATCH_COUNT_MAX} parcels, not {len(batch)}")
        created_ns, id, kept = self._senders.get(sender, (0, -1, []))
        last: _Stamp = (created_ns, id)
        known = {(at_ns, number): receipt for at_ns, number, receipt in kept}
        receipts: list[tuple[int, int, R]] = []
        for at_ns, number, value in batch:
            stamp = (at_ns, number)
            if stamp > last:
                receipts.append((at_ns, number, receive(value)))
                last = stamp
            elif stamp in known:
                receipts.append((at_ns, number, known[stamp]))
            else:
                raise Trap(f"parcel {number} of {sender} was taken long ago, and its receipt is gone")
        if batch:
            behind = [kept_one for kept_one in kept if kept_one[:2] > batch[-1][:2]]
            self._senders.put(sender, (last[0], max(last[1], 0), [*receipts, *behind]))
        return [receipt for _, _, receipt in receipts]

    def forget(self, sender: Principal) -> bool:
        """Forget a sender; a repeat of an old parcel would be taken as new. Say whether it was known."""
        return self._senders.delete(sender)


class Inbox(Part, Generic[R]):
    """Declare an inbox: `inbox = Inbox(Receipt)`, with the type of what every parcel is answered with."""

    def __init__(self, receipt: TypeForm[R]) -> None:
        self.name = ""
        hint: Any = tuple[nat64, nat64, list[tuple[nat64, nat64, receipt]]]  # type: ignore[valid-type] # a hint at run time
        self._senders: StableMap[Principal, _Known[R]] = StableMap(Principal, hint)

    def __set_name__(self, owner: type, name: str) -> None:
        if not self.name:
            self.name = name
            self._senders.name = f"{name}.senders"

    def collections(self) -> tuple[CollectionSpec, ...]:
        return self._senders.collections()

    def bind(self, system: System) -> InboxView[R]:
        """Make the view of one activation."""
        return InboxView(self._senders.bind(system))

    @overload
    def __get__(self, instance: None, owner: type) -> Inbox[R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> InboxView[R]: ...
    def __get__(self, instance: object | None, owner: type) -> Inbox[R] | InboxView[R]:
        return self if instance is None else bound_view(instance, self.attribute or self.name, self.bind)
