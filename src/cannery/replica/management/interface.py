"""The interface of the management canister as one value: what `docs/management.did` shows."""

from __future__ import annotations

from cannery.candid.did import Interface
from cannery.candid.types import Func
from cannery.replica.management.dispatch import METHODS


def management_interface() -> Interface:
    """Give every method that is present with its types."""
    return Interface.of(
        {m.name: Func(m.args, m.results, ("query",) if m.query is not None else ()) for m in METHODS.values()}
    )
