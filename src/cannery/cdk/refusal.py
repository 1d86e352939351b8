"""How `ctx.reject` ends a method: an exception that the program turns into a reject, with the writes kept."""

from __future__ import annotations

from cannery.errors import CanneryError


class Refusal(CanneryError):
    """Ends a method with a reject for its caller; what it wrote before is kept."""
