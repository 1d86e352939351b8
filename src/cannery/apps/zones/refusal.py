"""What a zone answers where it refuses: the reason, and when to come back."""

from __future__ import annotations

from typing import NoReturn

from cannery import Context

NS_PER_S = 1_000_000_000


def refuse(ctx: Context, reason: str, *, retry_ns: int | None = None) -> NoReturn:
    """Reject with the reason; `retry_ns` is the time from now after which the same may be asked again."""
    ctx.reject(refusal_text(reason, retry_ns))


def refusal_text(reason: str, retry_ns: int | None) -> str:
    """Give a refusal's text: `...; retry after 12 s`, or that retrying does not help."""
    if retry_ns is None:
        return f"{reason}; retrying does not help"
    return f"{reason}; retry after {max(1, -(-retry_ns // NS_PER_S))} s"
