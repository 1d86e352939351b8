"""HTTP outcalls between two rounds: which wait to be performed, which are on their way, which have an answer.

The requests themselves are in the state; here stand their names alone. A request is given out once its round
is durable, and never twice by one process. Nothing is kept over a restart: what has no answer in the log then
is performed again. This module performs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from cannery.errors import StoreError
from cannery.limits import OUTCALL_ANSWERS_PER_BLOCK_COUNT_MAX, OUTCALL_RUNNING_COUNT_MAX
from cannery.ports import StoreReader
from cannery.replica.block import OutcallAnswer
from cannery.replica.outcall_records import OutcallRecord, find_outcall

Name = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Outcall:
    """A request to perform: the canister and the number of its call in flight, and what was asked."""

    canister_id: bytes
    callback: int
    record: OutcallRecord

    def refused(self, code: int, text: str) -> OutcallAnswer:
        """Make the answer that says why there is no response."""
        return OutcallAnswer(self.canister_id, self.callback, reject_code=code, reject_message=text)


Fetch = Callable[[Outcall], Awaitable[OutcallAnswer]]
"""Performs a request; whatever goes wrong is an answer, never an exception."""


class Outcalls:
    """The outcalls of one subnet, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._waiting: dict[Name, None] = {}
        self._running: set[Name] = set()
        self._answers: deque[OutcallAnswer] = deque()

    @property
    def has_answers(self) -> bool:
        """Say whether a block could bring an answer in."""
        return bool(self._answers)

    @property
    def under_way(self) -> int:
        """Give how many requests are on their way."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Give how many requests have not begun."""
        return len(self._waiting)

    def note(self, names: Iterable[Name]) -> None:
        """Note requests whose round is durable."""
        answered = {(answer.canister_id, answer.callback) for answer in self._answers}
        for name in names:
            if name not in self._running and name not in answered:
                self._waiting[name] = None

    def take(self, reader: StoreReader) -> list[Outcall]:
        """Give what may be performed now, within the bound on what is on its way; expired ones go, and what
        cannot be read waits.
        """
        taken: list[Outcall] = []
        for name in tuple(self._waiting):
            if len(self._running) >= OUTCALL_RUNNING_COUNT_MAX:
                break
            try:
                record = find_outcall(reader, *name)
            except StoreError:
                continue
            del self._waiting[name]
            if record is not None:
                self._running.add(name)
                taken.append(Outcall(*name, record))
        return taken

    def answer(self, answer: OutcallAnswer) -> None:
        """Take the answer of a request that was given out."""
        self._running.discard((answer.canister_id, answer.callback))
        self._answers.append(answer)

    def give_up(self, outcall: Outcall) -> None:
        """Forget a request that was given out and gets no answer: it expires in the state."""
        self._running.discard((outcall.canister_id, outcall.callback))

    def take_answers(self, size_bytes_max: int) -> tuple[OutcallAnswer, ...]:
        """Give the answers for the next block, oldest first: at least one where there is any."""
        taken: list[OutcallAnswer] = []
        size_bytes = 0
        while self._answers and len(taken) < OUTCALL_ANSWERS_PER_BLOCK_COUNT_MAX:
            size_bytes += len(self._answers[0].body)
            if taken and size_bytes > size_bytes_max:
                break
            taken.append(self._answers.popleft())
        return tuple(taken)

    def put_back(self, answers: tuple[OutcallAnswer, ...]) -> None:
        """Take answers back whose round is not kept."""
        self._answers.extendleft(reversed(answers))
