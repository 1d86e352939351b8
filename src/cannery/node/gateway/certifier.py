"""Certificates for update calls: one BLS signature for all answers that became durable with one sync.

IC interface specification, section "Certification". A round is signed when its first certificate is
asked for, and remembered as long as the round itself is held by anyone. Answers whose reply stands in a
spool file get a tree of their own, so that nobody waits for somebody else's hundred megabytes.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from cannery.node.gateway.tally_page import Cell
from cannery.node.handover import Answered
from cannery.node.subnet_port import SettledAnswer, SettledRound
from cannery.protocol.bls import BlsKey
from cannery.protocol.certificate import CertificateDelegation, encode_delegation_field, state_root_message
from cannery.protocol.request_status import Rejected, Replied, RequestStatus
from cannery.protocol.round_tree import RoundTree


def status_of(answer: Answered, reply: bytes) -> RequestStatus:
    """Give the request status that an answer leads to; `reply` is the reply's bytes, wherever they stood."""
    if answer.reject_code:
        return Rejected(answer.reject_code, answer.reject_message, answer.error_code)
    return Replied(reply)


class _SignedRound:
    """A round's tree and signature, and where each of its answers stands in the tree."""

    __slots__ = ("places", "signature", "tree")

    def __init__(self, settled: SettledRound, time_ns: int, key: BlsKey) -> None:
        inline = [
            (request_id, status_of(answer, answer.reply))
            for request_id, answer in settled.answers
            if answer.spooled is None
        ]
        self.places = {request_id: place for place, (request_id, _) in enumerate(inline)}
        self.tree = RoundTree(time_ns, inline)
        self.signature = key.sign(state_root_message(self.tree.root_hash))


class Certifier:
    """Signs rounds with the subnet's key.

    A certificate's time is that of its making, at which its answers are as true as in their round:
    clients refuse certificates of the past.
    """

    def __init__(
        self,
        key: BlsKey,
        now_ns: Callable[[], int],
        delegation: CertificateDelegation | None = None,
        signatures: Cell | None = None,
    ) -> None:
        """`signatures` counts the rounds that were signed."""
        self._key = key
        self._delegation = encode_delegation_field(delegation)
        self._now_ns = now_ns
        self._rounds: WeakKeyDictionary[SettledRound, _SignedRound] = WeakKeyDictionary()
        self._signatures = Cell() if signatures is None else signatures

    @property
    def signature_count(self) -> int:
        """How many rounds were signed."""
        return self._signatures.value

    def certify(self, settled: SettledAnswer) -> bytes:
        """Give the certificate of an answer whose reply is in memory."""
        signed = self._rounds.get(settled.round)
        if signed is None:
            signed = _SignedRound(settled.round, self._time_ns(settled.round), self._key)
            self._rounds[settled.round] = signed
            self._signatures.add()
        request_id = settled.round.answers[settled.index][0]
        return signed.tree.certificate(signed.places[request_id], signed.signature, self._delegation)

    def certify_large(self, settled: SettledAnswer, reply: bytes) -> bytes:
        """Give the certificate of an answer whose reply was read from its spool file."""
        request_id, answer = settled.round.answers[settled.index]
        tree = RoundTree(self._time_ns(settled.round), [(request_id, status_of(answer, reply))])
        return tree.certificate(0, self._key.sign(state_root_message(tree.root_hash)), self._delegation)

    def _time_ns(self, settled: SettledRound) -> int:
        return max(settled.time_ns, self._now_ns())
