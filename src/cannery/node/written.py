"""A round that is written and not durable yet, and the sync that makes it so."""

from __future__ import annotations

from dataclasses import dataclass

from cannery.errors import StoreError
from cannery.node.links import StreamInput
from cannery.ports import Store, StoreSnapshot
from cannery.replica.block import Ingress, OutcallAnswer
from cannery.replica.rounds import RoundOutcome


@dataclass(frozen=True, slots=True)
class Executed:
    """A round that is written and not durable yet."""

    outcome: RoundOutcome
    inputs: tuple[Ingress, ...]
    snapshot: StoreSnapshot
    fetched: tuple[OutcallAnswer, ...] = ()
    carried: tuple[StreamInput, ...] = ()


class Sync:
    """One sync of the store, to be run on any one thread."""

    __slots__ = ("_store", "covers", "error")

    def __init__(self, store: Store, covers: int) -> None:
        self._store = store
        self.covers = covers
        self.error: StoreError | None = None

    def run(self) -> None:
        """Wait until everything written so far is durable; an error is kept for `finish_sync`."""
        try:
            self._store.sync()
        except StoreError as error:
            self.error = error
