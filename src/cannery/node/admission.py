"""Whether an update call is let in: the room there is, the canister's own say, and what has come before.

Whoever submits a request that waits or runs already joins it; one that has run is answered; one that is
refused is remembered for a while, for clients that poll. It reads the last durable round and fills the pool;
it runs no round.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from cannery.errors import Reject, RejectCode, StoreError
from cannery.node.condemned import Condemned
from cannery.node.durable_state import DurableState
from cannery.node.metrics import SubnetMetrics
from cannery.node.pool import IngressPool, Refusals
from cannery.node.store_health import StoreHealth
from cannery.node.submitted import Known, Refusing, Submitted, Waiting
from cannery.node.subnet_doors import Doors
from cannery.replica.block import Ingress
from cannery.replica.ingress import Admitted, Duplicate, admit
from cannery.replica.request_status import answer_of


class Admission:
    """The door of updates. `block_time_ns` gives the time of the last block, durable or not."""

    def __init__(
        self,
        doors: Doors,
        state: DurableState,
        pool: IngressPool,
        refusals: Refusals,
        health: StoreHealth,
        condemned: Condemned,
        metrics: SubnetMetrics,
        block_time_ns: Callable[[], int],
    ) -> None:
        self._doors = doors
        self._state = state
        self._pool = pool
        self._refusals = refusals
        self._health = health
        self._condemned = condemned
        self._metrics = metrics
        self._block_time_ns = block_time_ns

    def submit(self, ingress: Ingress, ticket: object) -> Submitted:
        """Take an authenticated update call; `ticket` comes back with its acceptance and its answer."""
        try:
            # Before any refusal: what waits here already will run, so nobody may read that it was refused.
            joined = self._pool.join(ingress.request_id, ticket)
            if joined is not None:
                return Waiting(joined.is_accepted)
            self._health.check()
            self._pool.check_room(ingress)
            return self._admit(ingress, ticket)
        except Reject as reject:
            return self._refuse(ingress, reject.with_traceback(None))

    def _admit(self, ingress: Ingress, ticket: object) -> Submitted:
        doors, state = self._doors, self._state
        now_ns = doors.clock.now_ns()
        if self._condemned.holds(ingress.request_id, now_ns):
            # Not even its inspect_message runs again: the block rejects it (`Block.poisoned`).
            self._pool.add(ingress, ticket, now_ns)
            return Waiting(is_accepted=False)
        admission = admit(state.reader, ingress, doors.programs, doors.watch, state.time_ns, state.known)
        if isinstance(admission, Admitted):
            self._check_clock(ingress)
            self._pool.add(ingress, ticket, doors.clock.now_ns())
            self._refusals.forget(ingress.request_id)
            return Waiting(is_accepted=False)
        if isinstance(admission, Duplicate):
            self._metrics.duplicates.add()
            answer = answer_of(ingress.request_id, admission.status)
            if answer is not None:
                return Known(state.time_ns, answer)
            self._pool.wait_for(ingress, ticket)
            return Waiting(is_accepted=True)
        return self._refuse(ingress, admission.reject)

    def _refuse(self, ingress: Ingress, reject: Reject) -> Refusing | Known:
        """Remember and count a refusal. A traceback in it would keep its whole message in memory.

        What an earlier block has is never refused: when its status is pruned nobody may read that it was.
        """
        with suppress(StoreError):
            status = self._state.find_status(ingress)
            answer = None if status is None else answer_of(ingress.request_id, status)
            if answer is not None:
                return Known(self._state.time_ns, answer)
            if status is None:
                self._refusals.remember(ingress, reject)
        self._metrics.refused.add()
        return Refusing(reject)

    def _check_clock(self, ingress: Ingress) -> None:
        """Raise `Reject` for a call that no block could still run: the time of blocks only rises, so a clock
        that was set back leaves it ahead.
        """
        block_time_ns = self._block_time_ns()
        ahead_ns = block_time_ns - self._doors.clock.now_ns()
        if ingress.expiry_ns > block_time_ns or ahead_ns <= 0:
            return
        raise Reject(
            RejectCode.SYS_TRANSIENT,
            f"the node's clock is {ahead_ns // 1_000_000_000} s behind its last block: it was ahead before, "
            "and updates are refused until it has caught up; tell the node's operator",
            "CNRY0205",
        )
