"""When to ask a node again: pauses that grow to a bound, and the requests that may be repeated as they are.

A request is repeated byte for byte, so that a call keeps its request id and runs once however often it is
sent.
"""

from __future__ import annotations

from collections.abc import Callable

from cannery.client.exchange import Answer, Lost, Pause, Result
from cannery.limits import CLIENT_PAUSE_S_MAX, CLIENT_RETRY_AFTER_S_MAX

TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
_PAUSE_S_FIRST = 0.05


class Backoff:
    """Growing pauses of one conversation, until a deadline."""

    def __init__(self, now_ns: Callable[[], int], deadline_ns: int) -> None:
        self._now_ns = now_ns
        self._deadline_ns = deadline_ns
        self._next_s = _PAUSE_S_FIRST

    def pause(self, result: Result, reason: str) -> Pause | None:
        """Give the next pause, or None where it would go past the deadline."""
        seconds = self._next_s
        self._next_s = min(self._next_s * 2, CLIENT_PAUSE_S_MAX)
        if isinstance(result, Answer):
            seconds = max(seconds, retry_after_s(result))
        if self._now_ns() + int(seconds * 1e9) > self._deadline_ns:
            return None
        return Pause(seconds, reason)


def retry_after_s(answer: Answer) -> float:
    """Read the header Retry-After in seconds; 0 where there is none."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), CLIENT_RETRY_AFTER_S_MAX) if text.isdecimal() else 0.0


def describe(result: Result) -> str:
    """Say in a few words why a request is sent again."""
    if isinstance(result, Lost):
        return f"no answer from the node ({result.reason})"
    if isinstance(result, Answer):
        return (
            "the node asks to wait"
            if result.status == 429
            else f"the node is not ready (HTTP {result.status})"
        )
    return "waiting"


def is_transient(result: Result) -> bool:
    """Say whether the same request may succeed a moment later."""
    return isinstance(result, Lost) or (isinstance(result, Answer) and result.status in TRANSIENT_STATUSES)
