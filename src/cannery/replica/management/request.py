"""What every method of the management canister gets: who asks, over which state, and what they attached.

A `Request` is enough to decide who may do what and to read; a `Change` adds the overlay that an update writes
into. This module decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cannery.errors import Reject, RejectCode
from cannery.ports import StoreReader
from cannery.replica.block import ReplicaConfig
from cannery.replica.records import AccountRecord, CanisterRecord, ModuleRecord, Origin, SubnetRecord
from cannery.replica.state import MessageOverlay
from cannery.replica.view import show


class ReadableState(Protocol):
    """Typed reads, of a fixed state or of a state with a message's changes."""

    def canister(self, canister_id: bytes) -> CanisterRecord | None: ...
    def account(self, canister_id: bytes) -> AccountRecord | None: ...
    def module(self, module_hash: bytes) -> ModuleRecord | None: ...
    def is_operator(self, principal: bytes) -> bool: ...
    def subnet(self) -> SubnetRecord: ...


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what. `from_user`: a signed call or query from outside, not a canister."""

    method: str
    caller: bytes
    from_user: bool
    now_ns: int
    config: ReplicaConfig
    state: ReadableState
    reader: StoreReader

    def canister(self, canister_id: bytes) -> CanisterRecord:
        """Give a canister; raises `Reject` where there is none."""
        found = self.state.canister(canister_id)
        if found is None:
            raise canister_not_found(canister_id)
        return found

    def account(self, canister_id: bytes) -> AccountRecord:
        """Give a canister's account; raises `Reject` where there is none."""
        found = self.state.account(canister_id)
        if found is None:
            raise canister_not_found(canister_id)
        return found


@dataclass(slots=True)
class Change:
    """An update under way: the overlay it writes into, who is answered, attached cycles not yet accepted."""

    request: Request
    message: MessageOverlay
    origin: Origin
    cycles: int

    @property
    def caller(self) -> bytes:
        return self.request.caller

    def canister(self, canister_id: bytes) -> CanisterRecord:
        """Give a canister; raises `Reject` where there is none."""
        return self.request.canister(canister_id)

    def account(self, canister_id: bytes) -> AccountRecord:
        """Give this message's copy of an account to change in place; raises `Reject` where there is none."""
        return self.request.account(canister_id)

    def accept(self) -> int:
        """Take all attached cycles; the caller owes them a place."""
        taken, self.cycles = self.cycles, 0
        return taken


@dataclass(frozen=True, slots=True)
class Pending:
    """The answer comes later, through `MessageOverlay.answer`."""


def canister_not_found(canister_id: bytes) -> Reject:
    """Make the reject for an id without a canister."""
    return Reject(RejectCode.DESTINATION_INVALID, f"Canister {show(canister_id)} not found", "IC0301")
