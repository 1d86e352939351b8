"""What a composite query wants of another subnet, and what is known of it.

A query waits for nobody: where it asks a canister of another subnet, its run ends with the question. Whoever
runs it (a gateway, the test node) asks the other subnet and runs it again with the answer.
"""

from __future__ import annotations

import msgspec


class AskedBy(msgspec.Struct, frozen=True, array_like=True):
    """A canister of another subnet asks: the fleet that it speaks for, and how deep its query is nested."""

    fleet: bytes
    depth: int


class Elsewhere(msgspec.Struct, frozen=True, array_like=True):
    """A query for a canister of subnet `subnet`; `caller` is the canister that asks."""

    subnet: int
    caller: bytes
    canister_id: bytes
    method: str
    arg: bytes
    asked_by: AskedBy


class KnownAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What a canister of another subnet said to a query: a reply (`reject_code` 0), or a reject."""

    canister_id: bytes
    method: str
    arg: bytes
    reply: bytes = b""
    reject_code: int = 0
    reject_message: str = ""
    error_code: str | None = None
