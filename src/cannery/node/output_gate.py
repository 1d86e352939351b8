"""The output gate: what a sync lets out, and to whom. Nothing leaves before its round is durable.

Rounds are let out in their order, each once the durable state has moved to it: after the sync that covers it,
or after a failure of the store that it has survived.
"""

from __future__ import annotations

from cannery.node.durable_state import DurableState
from cannery.node.latency import Latencies
from cannery.node.pool import IngressPool
from cannery.node.submitted import Durable
from cannery.node.written import Executed
from cannery.ports import Clock, WriteBatch
from cannery.replica.block import Ingress
from cannery.replica.request_status import answer_of
from cannery.replica.state import Answer, Emitted


class OutputGate:
    """Collects acceptances, answers and events of durable rounds until they are taken."""

    def __init__(self, pool: IngressPool, state: DurableState, latencies: Latencies, clock: Clock) -> None:
        self._pool = pool
        self._state = state
        self._latencies = latencies
        self._clock = clock
        self._clear()

    def _clear(self) -> None:
        self._accepted: list[object] = []
        self._settled: list[tuple[object, Answer]] = []
        self._emitted: list[Emitted] = []
        self._batches: list[WriteBatch] = []

    def let_out(self, executed: Executed) -> None:
        """Let out a durable round. An input that is in none of its news had run before."""
        pool, outcome = self._pool, executed.outcome
        told = {*outcome.accepted, *(answer.request_id for answer in outcome.answers)}
        before = [(each, self._known_answer(each)) for each in executed.inputs if each.request_id not in told]
        self._emitted += outcome.emitted
        self._batches.append(outcome.batch)
        for request_id in outcome.accepted:
            self._accepted += pool.accept(request_id)
        for answer in outcome.answers:
            self._settle(answer)
        for ingress, known in before:
            if known is None:
                self._accepted += pool.accept(ingress.request_id)
            else:
                self._settle(known)

    def take(self) -> Durable:
        """Give what was let out since the last time."""
        out = tuple(self._accepted), tuple(self._settled), tuple(self._emitted), tuple(self._batches)
        self._clear()
        return Durable(self._state.head.time_ns, *out)

    def _settle(self, answer: Answer) -> None:
        """Add the tickets that wait for a durable answer, and note how long it took."""
        pending = self._pool.settle(answer.request_id)
        if pending is not None:
            self._settled += [(ticket, answer) for ticket in pending.tickets]
            if pending.submitted_ns is not None:
                took_ns = self._clock.now_ns() - pending.submitted_ns
                self._latencies.observe(pending.ingress.canister_id, took_ns)

    def _known_answer(self, ingress: Ingress) -> Answer | None:
        status = self._state.find_status(ingress)
        return None if status is None else answer_of(ingress.request_id, status)
