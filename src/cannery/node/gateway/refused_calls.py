"""The drain attack's limit: who is refused by a canister again and again is not heard for a while.

A refused call costs its canister nothing and its sender nothing, but the node has to check a signature and
often to run the canister. So each address has a bucket of refusals at each canister; while it is empty, calls
from there to that canister get 429 before they are read. Other callers, and the same caller's other
canisters, are not concerned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec

from cannery.errors import RejectCode
from cannery.node.gateway.http import too_many
from cannery.node.gateway.rate_limit import Table, TokenBuckets, address_key
from cannery.node.gateway.settings import GatewaySettings
from cannery.node.gateway.tally_page import Cell
from cannery.node.handover import Refused
from cannery.node.subnet_port import SettledAnswer
from cannery.protocol.principal import Principal

# The node's own doing, and so not counted.
_TRANSIENT = frozenset({RejectCode.SYS_TRANSIENT, RejectCode.SYS_UNKNOWN})


class Door(msgspec.Struct, frozen=True):
    """Where a call knocks: from an address, at a canister (that of the URL)."""

    address: str
    canister_id: bytes

    @property
    def key(self) -> bytes:
        return self.canister_id + address_key(self.address).encode()


class RefusedCalls:
    """Counts refused and rejected calls by address and canister."""

    def __init__(
        self, settings: GatewaySettings, monotonic_ns: Callable[[], int], table: Table, refused: Cell
    ) -> None:
        """`table` holds the buckets, `refused` counts the calls that are not heard."""
        self._monotonic_ns = monotonic_ns
        self._buckets = TokenBuckets(
            settings.refused_calls_per_address_per_s, settings.refused_calls_per_address_burst, table, refused
        )

    def check(self, address: str, canister: Principal) -> None:
        """Raise `Refusal` (429) where this address was refused by this canister too often."""
        wait_ns = self._buckets.wait_ns(Door(address, canister.raw).key, self._monotonic_ns())
        if wait_ns:
            what = f"canister {canister} refused too many calls from address {address}"
            raise too_many(what, wait_ns, "and send what it accepts")

    def note(self, door: Door, end: SettledAnswer | Refused) -> None:
        """Count a call that came to its end, if it was refused or rejected."""
        code = end.reject_code if isinstance(end, Refused) else end.answer.reject_code
        if code and code not in _TRANSIENT:
            self._buckets.charge(door.key, self._monotonic_ns())

    def follow(self, door: Door, settled: asyncio.Future[SettledAnswer | Refused]) -> None:
        """Count a call whose sender does not wait for its end."""
        settled.add_done_callback(partial(self._note_future, door))

    def _note_future(self, door: Door, settled: asyncio.Future[SettledAnswer | Refused]) -> None:
        if not settled.cancelled() and settled.exception() is None:
            self.note(door, settled.result())
