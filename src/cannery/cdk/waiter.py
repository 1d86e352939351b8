"""Waiters: a continuation and its saved value, kept for later.

A component that makes a call for somebody else's method books the outcome in a continuation of its own, and
then lets the waiter go on: it answers the caller as if its method had made the call.
"""

from __future__ import annotations

from dataclasses import dataclass

from cannery.candid.python import record
from cannery.cdk.calls import Outcome


@record
class Waiter:
    """A continuation by name, and its saved value (8-byte type number, then Candid bytes)."""

    name: str
    saved: bytes


@dataclass(frozen=True, slots=True)
class Continued:
    """What a continuation returns that leaves the answer to a waiter, with the outcome the waiter gets."""

    waiter: Waiter
    outcome: Outcome[object]
