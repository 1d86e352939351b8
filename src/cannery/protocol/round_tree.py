"""The tree that all answers of a round share: one root hash to sign, one small certificate for each answer.

IC interface specification, sections "Certification" and "Request status". Yields the same bytes as pruning
a tree of `hash_tree` would, and spends on each answer one pass from its leaf to the root instead of
building nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

from cannery.protocol.cbor import SELF_DESCRIBE_PREFIX
from cannery.protocol.hash_tree import (
    EMPTY,
    build_tree,
    encode_blob,
    encode_tree,
    fork_digest,
    labeled_digest,
    leaf_digest,
)
from cannery.protocol.representation import encode_leb128
from cannery.protocol.request_status import Replied, RequestStatus, status_data

_FORK = b"\x83\x01"
_LABELED = b"\x83\x02"
_LEAF = b"\x82\x03"
_PRUNED = b"\x82\x04\x58\x20"
_REQUEST_STATUS = encode_blob(b"request_status")
_TIME = encode_blob(b"time")
_REPLY_HEAD = _FORK + _LABELED + encode_blob(b"reply") + _LEAF
_REPLIED_TAIL = _LABELED + encode_blob(b"status") + _LEAF + encode_blob(b"replied")
_REPLIED_STATUS_DIGEST = labeled_digest(b"status", leaf_digest(b"replied"))

# A map of two fields, "tree" first; "signature" with its 48 bytes ends it.
_CERTIFICATE_HEAD = SELF_DESCRIBE_PREFIX + b"\xa2\x64tree"
_DELEGATED_HEAD = SELF_DESCRIBE_PREFIX + b"\xa3\x64tree"
_CERTIFICATE_SIGNATURE = b"\x69signature\x58\x30"
_SIGNATURE_SIZE_BYTES = 48


class RoundTree:
    """Hold a round's time and answers, hashed once."""

    __slots__ = ("_answers", "_levels", "_places", "_tail", "root_hash")

    root_hash: bytes

    def __init__(self, time_ns: int, answers: Sequence[tuple[bytes, RequestStatus]]) -> None:
        """Take pairs of request id and status, in any order, each id once."""
        order = sorted(range(len(answers)), key=lambda i: answers[i][0])
        self._places = [0] * len(answers)
        for place, index in enumerate(order):
            self._places[index] = place
        self._answers = answers
        digests = [_answer_digest(*answers[index]) for index in order]
        self._levels = _merge_levels(digests)
        time_leaf = encode_leb128(time_ns)
        self._tail = _LABELED + _TIME + _LEAF + encode_blob(time_leaf)
        statuses = self._levels[-1][0] if digests else EMPTY.digest
        self.root_hash = fork_digest(
            labeled_digest(b"request_status", statuses), labeled_digest(b"time", leaf_digest(time_leaf))
        )

    def encoded_tree(self, index: int) -> bytes:
        """Encode the tree pruned to /time and to the answer at `index`, counted as the answers were given."""
        request_id, status = self._answers[index]
        place = self._places[index]
        heads: list[bytes] = []
        tails: list[bytes] = []
        for level in self._levels[:-1]:
            sibling = place ^ 1
            if sibling < len(level):
                heads.append(_FORK if place < sibling else _FORK + _PRUNED + level[sibling])
                if place < sibling:
                    tails.append(_PRUNED + level[sibling])
            place >>= 1
        heads.reverse()
        return b"".join(
            (
                _FORK + _LABELED + _REQUEST_STATUS,
                *heads,
                _LABELED + encode_blob(request_id),
                _encode_status(status),
                *tails,
                self._tail,
            )
        )

    def certificate(self, index: int, signature: bytes, delegation: bytes = b"") -> bytes:
        """Encode the whole certificate of one answer, given the signature of `root_hash`.

        `delegation` is the encoded field of that name (`certificate.encode_delegation_field`), if any.
        """
        assert len(signature) == _SIGNATURE_SIZE_BYTES, "a BLS signature in G1 has 48 bytes"
        head = _DELEGATED_HEAD if delegation else _CERTIFICATE_HEAD
        return head + self.encoded_tree(index) + _CERTIFICATE_SIGNATURE + signature + delegation


def _answer_digest(request_id: bytes, status: RequestStatus) -> bytes:
    if type(status) is Replied:
        reply = labeled_digest(b"reply", leaf_digest(status.reply))
        return labeled_digest(request_id, fork_digest(reply, _REPLIED_STATUS_DIGEST))
    return labeled_digest(request_id, build_tree(status_data(status)).digest)


def _encode_status(status: RequestStatus) -> bytes:
    if type(status) is Replied:
        return _REPLY_HEAD + encode_blob(status.reply) + _REPLIED_TAIL
    return encode_tree(build_tree(status_data(status)))


def _merge_levels(digests: list[bytes]) -> list[list[bytes]]:
    """Pair digests level by level up to one; an odd one out rises unchanged."""
    levels = [digests]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = [fork_digest(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        if len(below) % 2:
            above.append(below[-1])
        levels.append(above)
    return levels
