"""Ingress messages between their submission and their answer: the pool, what is under way, and what was
refused.

A message waits in the pool until a block takes it, and is under way from then until its answer is durable.
Whoever submits it again meanwhile joins the first one: one run, an answer for each. Everything is bounded;
refusals are remembered for a while, so that clients that poll for them find them (they are in no block).

It orders nothing and decides nothing about canisters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from cannery.errors import Reject, RejectCode
from cannery.limits import (
    POOL_COUNT_MAX,
    POOL_SIZE_BYTES_MAX,
    REFUSAL_COUNT_MAX,
    TICKETS_PER_REQUEST_COUNT_MAX,
    UNDER_WAY_COUNT_MAX,
    UNDER_WAY_NS_MAX,
)
from cannery.protocol.representation import encode_leb128
from cannery.replica.block import Ingress


@dataclass(slots=True)
class Pending:
    """One request and everybody who waits for it. Tickets are the shell's own; equal tickets are kept
    apart. `submitted_ns` is None where an earlier process took the request.
    """

    ingress: Ingress
    tickets: list[object]
    is_accepted: bool = False
    submitted_ns: int | None = None


@dataclass(slots=True)
class IngressPool:
    """Requests that wait for a block (`_waiting`, in order) and those that a block has taken
    (`_under_way`).
    """

    _waiting: OrderedDict[bytes, Pending] = field(default_factory=OrderedDict)
    _under_way: dict[bytes, Pending] = field(default_factory=dict)
    _size_bytes: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def under_way_count(self) -> int:
        return len(self._under_way)

    def join(self, request_id: bytes, ticket: object) -> Pending | None:
        """Let a repeated submission wait with the first one; None where there is none.

        Where too many wait for one request, the one that has waited longest is forgotten: it is most likely
        gone (a gateway submits again when it has lost its connection), and it can still ask for the status.
        """
        pending = self._waiting.get(request_id) or self._under_way.get(request_id)
        if pending is not None:
            if len(pending.tickets) >= TICKETS_PER_REQUEST_COUNT_MAX:
                del pending.tickets[0]
            pending.tickets.append(ticket)
        return pending

    def check_room(self, ingress: Ingress) -> None:
        """Raise `Reject` where the pool is full."""
        is_full = (
            len(self._waiting) >= POOL_COUNT_MAX
            or self._size_bytes + len(ingress.arg) > POOL_SIZE_BYTES_MAX
            or len(self._under_way) >= UNDER_WAY_COUNT_MAX
        )
        if is_full:
            raise Reject(RejectCode.SYS_TRANSIENT, "the node is busy: try again in a moment", "CNRY0201")

    def add(self, ingress: Ingress, ticket: object, submitted_ns: int | None = None) -> None:
        """Put a request into the pool."""
        self._waiting[ingress.request_id] = Pending(ingress, [ticket], submitted_ns=submitted_ns)
        self._size_bytes += len(ingress.arg)

    def wait_for(self, ingress: Ingress, ticket: object) -> None:
        """Wait for a request that an earlier block has taken (before this process started)."""
        self._under_way[ingress.request_id] = Pending(ingress, [ticket], is_accepted=True)

    def take(self, count_max: int, size_bytes_max: int) -> tuple[Ingress, ...]:
        """Take the next requests for a block: at least one, if there is any, whatever its size."""
        taken: list[Ingress] = []
        size = 0
        while self._waiting and len(taken) < count_max:
            request_id, pending = next(iter(self._waiting.items()))
            size += len(pending.ingress.arg)
            if taken and size > size_bytes_max:
                break
            del self._waiting[request_id]
            self._size_bytes -= len(pending.ingress.arg)
            self._under_way[request_id] = pending
            taken.append(pending.ingress)
        return tuple(taken)

    def put_back(self, requests: Iterable[Ingress]) -> None:
        """Put requests whose block came to nothing back to the front, in their order."""
        back = [self._under_way.pop(ingress.request_id, None) for ingress in requests]
        for pending in reversed([pending for pending in back if pending is not None]):
            self._waiting[pending.ingress.request_id] = pending
            self._waiting.move_to_end(pending.ingress.request_id, last=False)
            self._size_bytes += len(pending.ingress.arg)

    def accept(self, request_id: bytes) -> list[object]:
        """Note that a request is durable without an answer; give the tickets to tell."""
        pending = self._under_way.get(request_id)
        if pending is None or pending.is_accepted:
            return []
        pending.is_accepted = True
        return list(pending.tickets)

    def settle(self, request_id: bytes) -> Pending | None:
        """Forget a request that has its durable answer; give it, to tell its tickets."""
        return self._under_way.pop(request_id, None)

    def forget_old(self, now_ns: int) -> None:
        """Drop requests under way whose status is long pruned: nobody can ask for them any more."""
        old = [
            request_id
            for request_id, pending in self._under_way.items()
            if pending.ingress.expiry_ns + UNDER_WAY_NS_MAX < now_ns
        ]
        for request_id in old:
            del self._under_way[request_id]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A non-replicated rejection: the message is in no block."""

    sender: bytes
    code: int
    text: str
    error_code: str | None

    def leaf(self, name: bytes) -> bytes | None:
        """Give a field of the request's status as the state tree has it."""
        error_code = self.error_code
        leaves = {
            b"status": b"rejected",
            b"reject_code": encode_leb128(self.code),
            b"reject_message": self.text.encode(),
            b"error_code": error_code.encode() if error_code is not None else None,
        }
        return leaves.get(name)


class Refusals:
    """The last refusals by request id."""

    __slots__ = ("_by_request",)

    def __init__(self) -> None:
        self._by_request: OrderedDict[bytes, Refusal] = OrderedDict()

    def remember(self, ingress: Ingress, reject: Reject) -> None:
        refusal = Refusal(ingress.sender, int(reject.code), reject.message, reject.error_code)
        self._by_request[ingress.request_id] = refusal
        self._by_request.move_to_end(ingress.request_id)
        if len(self._by_request) > REFUSAL_COUNT_MAX:
            self._by_request.popitem(last=False)

    def forget(self, request_id: bytes) -> None:
        """Forget a refusal because the request was let in after all."""
        self._by_request.pop(request_id, None)

    def find(self, request_id: bytes, sender: bytes) -> Refusal | None:
        """Give the refusal of a request to its sender, and to nobody else."""
        found = self._by_request.get(request_id)
        return found if found is not None and found.sender == sender else None
