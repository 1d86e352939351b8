"""A client's request from its first sending to its certain end, and the network that loses, repeats and
reorders it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from cannery.client.actor import MethodShape
from cannery.protocol.principal import Principal
from cannery.replica.block import Ingress
from cannery.replica.state import Answer
from tests.sim.failure import Broken


def person(name: str) -> Principal:
    """Give the principal that has this name."""
    return Principal(sha256(b"sim " + name.encode()).digest()[:28] + b"\x02")


@dataclass(slots=True)
class Request:
    """One signed call. `state`: open; replied or rejected (certified answers); refused (never let in);
    unknown. `is_forgotten`: its client comes back when all is calm; `is_gone`: never.
    """

    ingress: Ingress
    sender: Principal
    shape: MethodShape | None
    state: str = "open"
    answer: Answer | None = None
    value: object = None
    sent_after: int = -1
    known_at: int = -1
    is_forgotten: bool = False
    is_gone: bool = False
    was_read: bool = False
    retry_step: int = 0
    notes: dict[str, object] = field(default_factory=dict)
    on_end: Callable[[Request], None] | None = None

    @property
    def id(self) -> bytes:
        return self.ingress.request_id

    def end(self, answer: Answer, head_number: int) -> bool:
        """Take an answer; say whether it is the first. Raises `Broken` where it differs from an earlier
        one.
        """
        if self.answer is not None:
            if self.answer != answer:
                raise Broken("a request has one answer", f"{self.answer} and then {answer}")
            return False
        if self.state == "refused":
            raise Broken("a refused request has no effect", f"{self.ingress.method} was answered: {answer}")
        self.answer = answer
        self.known_at = head_number
        self.state = "rejected" if answer.reply is None else "replied"
        if answer.reply is not None and self.shape is not None:
            self.value = self.shape.decode_results(answer.reply)
        if self.on_end is not None:
            self.on_end(self)
        return True
