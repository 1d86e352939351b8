"""The states of a node's subnets as one: where each key is, and whether copies made one after the other fit.

Copies fit if each subnet has received no more of another's stream than that one has sent, and that one has
forgotten nothing that was not received: then messages under way are in the sender's copy, and what was
executed is in the receiver's, so that a node which goes on from them loses nothing and repeats nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

from cannery.node.backup.format.units import MODULE_SPACES, OWNED_SPACES
from cannery.node.links import find_stream_head
from cannery.ports import StoreReader
from cannery.replica import keys
from cannery.replica.places import SUBNET_BITS
from cannery.replica.snapshot_build import Readable


def subnet_of_canister(canister_id: bytes) -> int:
    """Give the number of the subnet that gave a canister's id."""
    counter = keys.canister_counter(canister_id)
    return 0 if counter is None else counter >> SUBNET_BITS


class States:
    """Behind `Readable`: what canisters own is on their own subnets, everything else on the first; modules
    are wherever they are needed.
    """

    def __init__(self, states: Sequence[Readable]) -> None:
        self._states = states

    def of(self, canister_id: bytes) -> Readable:
        """Give the state of the subnet that a canister is on."""
        number = subnet_of_canister(canister_id)
        return self._states[number if number < len(self._states) else 0]

    def get(self, key: bytes) -> bytes | None:
        if key[0] in MODULE_SPACES:
            return next((found for state in self._states if (found := state.get(key)) is not None), None)
        return self._of_key(key).get(key)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._of_key(start).scan(start, end)

    def _of_key(self, key: bytes) -> Readable:
        return self.of(keys.owner_of(key)) if key[0] in OWNED_SPACES else self._states[0]


def find_cut_fault(readers: Sequence[StoreReader]) -> str | None:
    """Say where the states of a node's subnets do not fit each other; None where they do."""
    for sender, receiver in permutations(range(len(readers)), 2):
        sent = find_stream_head(readers[sender], receiver)
        received = find_stream_head(readers[receiver], sender).received
        if not sent.first <= received <= sent.next:
            return (
                f"subnet {receiver} has received {received} messages of subnet {sender}, which has sent "
                f"{sent.next} and forgotten the first {sent.first}"
            )
    return None
