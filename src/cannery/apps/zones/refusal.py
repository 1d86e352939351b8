"""What a zone answers where it refuses: the reason, and when to come back."""

from __future__ import annotations

from typing import NoReturn

from cannery import Context

from .bounds import KEY_ID_SIZE_BYTES

NS_PER_S = 1_000_000_000


def refuse(ctx: Context, reason: str, *, retry_ns: int | None = None) -> NoReturn:
    """Reject with the reason; `retry_ns` is the time from now after which the same may be asked again."""
    ctx.reject(refusal_text(reason, retry_ns))


def check_key_id(ctx: Context, key_id: bytes) -> None:
    """Refuse what cannot be a key of messages."""
    if len(key_id) != KEY_ID_SIZE_BYTES:
        refuse(ctx, f"key_id must be {KEY_ID_SIZE_BYTES} bytes, not {len(key_id)}")


def refusal_text(reason: str, retry_ns: int | None) -> str:
    """Give a refusal's text: `...; retry after 12 s`, or that retrying does not help."""
    if retry_ns is None:
        return f"{reason}; retrying does not help"
    return f"{reason}; retry after {max(1, -(-retry_ns // NS_PER_S))} s"
