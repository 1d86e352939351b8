"""A scripted subnet in memory: what a method does is in its name. Runs no programs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field

from cannery.node.handover import (
    Answered,
    IngressMessage,
    QueryDone,
    QueryMessage,
    Refused,
    Spooled,
    StateRead,
    Values,
)
from cannery.node.subnet_port import SettledAnswer, SettledRound, Submission
from cannery.node.vitals import Vitals
from cannery.protocol.representation import encode_leb128

# vec record { name : text; canister_id : principal } with nothing in it.
NO_NAMES = b"DIDL\x02\x6d\x01\x6c\x02\xf1\xfe\xe1\x8d\x03\x71\xb3\xb0\xda\xc3\x03\x68\x01\x00\x00"


@dataclass
class Script:
    """What the subnet saw, and what tests tell it."""

    time_ns: int
    submitted: list[IngressMessage] = field(default_factory=list)
    asked: list[QueryMessage] = field(default_factory=list)
    reads: list[StateRead] = field(default_factory=list)
    statuses: dict[bytes, tuple[bytes, Answered | None]] = field(default_factory=dict)
    values: dict[tuple[bytes, ...], bytes] = field(default_factory=dict)
    denied: dict[tuple[bytes, ...], str] = field(default_factory=dict)
    names_reply: bytes = NO_NAMES
    silent: bool = False
    vitals: Vitals = field(default_factory=lambda: Vitals(7, 1, 2, 10**9, 0, 0, 0, 0, 3, 5, 2, 3))
    args: list[bytes] = field(default_factory=list)
    round_count: int = 0
    waiting: list[Callable[[], None]] = field(default_factory=list)

    def release(self) -> None:
        """Settle the calls that are held; on the loop."""
        for settle in self.waiting:
            settle()
        self.waiting.clear()


class ScriptedSubnet:
    """Implements `SubnetPort`. Calls that arrive in one turn of the loop settle in one round."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._waiting: list[tuple[IngressMessage, Answered, Submission]] = []

    def submit(self, ingress: IngressMessage) -> Submission:
        loop = asyncio.get_running_loop()
        self.script.submitted.append(ingress)
        self.script.args.append(_argument(ingress))
        submission = Submission(loop.create_future(), loop.create_future())
        known = self.script.statuses.get(ingress.request_id)
        if known is not None and known[1] is not None:
            _settle(submission, SettledRound(self.script.time_ns, ((ingress.request_id, known[1]),)), 0)
            return submission
        if ingress.method == "refuse":
            refused = Refused(0, 3, "no such canister here", "IC0301")
            submission.accepted.set_result(refused)
            submission.settled.set_result(refused)
        elif ingress.method == "slow":
            self.script.statuses[ingress.request_id] = (ingress.sender, None)
            submission.accepted.set_result(True)
        elif ingress.method == "held":
            submission.accepted.set_result(True)
            settled = SettledRound(self.script.time_ns, ((ingress.request_id, Answered(b"late")),))
            self.script.waiting.append(lambda: submission.settled.set_result(SettledAnswer(settled, 0)))
        elif ingress.method != "never":
            if not self._waiting:
                loop.call_soon(self._round)
            self._waiting.append((ingress, _answer(ingress.method, self.script.args[-1]), submission))
        return submission

    def _round(self) -> None:
        waiting, self._waiting = self._waiting, []
        self.script.round_count += 1
        answers = tuple((ingress.request_id, answer) for ingress, answer, _ in waiting)
        settled = SettledRound(self.script.time_ns, answers)
        for index, (ingress, answer, submission) in enumerate(waiting):
            self.script.statuses[ingress.request_id] = (ingress.sender, answer)
            _settle(submission, settled, index)

    async def ask(self, query: QueryMessage) -> QueryDone:
        self.script.asked.append(query)
        if self.script.silent:
            await asyncio.get_running_loop().create_future()
        if query.method == "bug":
            raise RuntimeError("a bug on purpose")
        if query.method == "cannery_name_list":
            return QueryDone(0, self.script.time_ns, Answered(self.script.names_reply))
        return QueryDone(0, self.script.time_ns, _answer(query.method, _argument(query)))

    async def read(self, read: StateRead) -> Values:
        self.script.reads.append(read)
        if self.script.silent:
            await asyncio.get_running_loop().create_future()
        values = []
        for path in read.paths:
            if path in self.script.denied:
                return Values(0, self.script.time_ns, (), self.script.denied[path])
            if path[0] == b"request_status":
                sender, answer = self.script.statuses.get(path[1], (read.sender, None))
                if sender != read.sender:
                    return Values(0, self.script.time_ns, (), "this request was sent by somebody else")
                known = path[1] in self.script.statuses
                values.append(_status_leaf(path[2], answer) if known else None)
            else:
                values.append(self.script.values.get(path))
        return Values(0, self.script.time_ns, tuple(values))

    async def measure(self) -> str:
        return "# HELP cannery_rounds_total R.\n# TYPE cannery_rounds_total counter\ncannery_rounds_total 1\n"

    async def examine(self) -> Vitals:
        if self.script.silent:
            await asyncio.get_running_loop().create_future()
        return self.script.vitals

    async def close(self) -> None:
        return None


def _settle(submission: Submission, settled: SettledRound, index: int) -> None:
    submission.accepted.set_result(True)
    submission.settled.set_result(SettledAnswer(settled, index))


def _argument(message: IngressMessage | QueryMessage) -> bytes:
    if message.spooled is None:
        return message.arg
    with open(message.spooled.path, "rb") as file:
        file.seek(message.spooled.offset)
        return file.read(message.spooled.size_bytes)


def _answer(method: str, arg: bytes) -> Answered:
    if method == "reject":
        return Answered(reject_code=4, reject_message="no, says the canister", error_code="IC0406")
    if method.startswith("large:"):
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(bytes(int(method[6:])))
        return Answered(spooled=Spooled(file.name, 0, int(method[6:])))
    return Answered(arg)


def _status_leaf(leaf: bytes, answer: Answered | None) -> bytes | None:
    if answer is None:
        return b"processing" if leaf == b"status" else None
    if answer.reject_code:
        return {
            b"status": b"rejected",
            b"reject_code": encode_leb128(answer.reject_code),
            b"reject_message": answer.reject_message.encode(),
            b"error_code": (answer.error_code or "").encode() or None,
        }.get(leaf)
    return {b"status": b"replied", b"reply": answer.reply}.get(leaf)
