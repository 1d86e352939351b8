"""Futures of a gateway's submissions, settled round by round; shared by both sides of the subnet port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from cannery.errors import RejectCode
from cannery.node.answers import discard_spooled
from cannery.node.handover import Answered, IngressMessage, Refused
from cannery.node.subnet_port import SettledAnswer, SettledRound, Submission

CLOSED = "the node is stopping: ask again when it is back"


class Submissions:
    """Submissions under way by their number."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: dict[int, tuple[IngressMessage, Submission]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, id: int, ingress: IngressMessage) -> Submission:
        """Open a submission."""
        submission = Submission(self._loop.create_future(), self._loop.create_future())
        self._open[id] = ingress, submission
        return submission

    def refused_at_once(self, refused: Refused) -> Submission:
        """Give a submission that is refused already."""
        submission = Submission(self._loop.create_future(), self._loop.create_future())
        submission.accepted.set_result(refused)
        submission.settled.set_result(refused)
        return submission

    def accept(self, id: int) -> None:
        found = self._open.get(id)
        if found is not None and not found[1].accepted.done():
            found[1].accepted.set_result(True)

    def refuse(self, refused: Refused) -> None:
        found = self._open.pop(refused.id, None)
        if found is not None:
            _finish(found[1], refused)

    def settle(self, time_ns: int, answers: Iterable[tuple[int, Answered]]) -> None:
        """Settle what came with one sync: one `SettledRound` for all, once each whose reply is in it."""
        places: dict[bytes, int] = {}
        rows: list[tuple[bytes, Answered]] = []
        finished: list[tuple[Submission, int]] = []
        for id, answer in answers:
            found = self._open.pop(id, None)
            if found is None:
                discard_spooled(answer.spooled)
                continue
            ingress, submission = found
            # A reply that stands in a file has one for each who waits: who has read his deletes it.
            is_shared = answer.spooled is None
            place = places.setdefault(ingress.request_id, len(rows)) if is_shared else len(rows)
            if place == len(rows):
                rows.append((ingress.request_id, answer))
            finished.append((submission, place))
        if finished:
            settled = SettledRound(time_ns, tuple(rows))
            for submission, place in finished:
                _finish(submission, SettledAnswer(settled, place))

    def unanswered(self) -> list[tuple[int, IngressMessage]]:
        """Give what is under way, in order, for sending it again."""
        return [(id, ingress) for id, (ingress, _) in self._open.items()]

    def refuse_all(self) -> None:
        """Refuse what is under way: nobody will answer it here."""
        for id in list(self._open):
            self.refuse(Refused(id, int(RejectCode.SYS_TRANSIENT), CLOSED))


def _finish(submission: Submission, result: SettledAnswer | Refused) -> None:
    # A waiter that went away has cancelled its future; there is nobody to tell.
    if not submission.accepted.done():
        submission.accepted.set_result(result if isinstance(result, Refused) else True)
    if not submission.settled.done():
        submission.settled.set_result(result)
