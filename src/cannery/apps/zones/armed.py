"""A timer that is set, as a zone keeps it."""

from __future__ import annotations

from cannery import nat64, record


@record
class Armed:
    """The timer that is set, and when it fires."""

    timer: nat64
    due_ns: nat64
