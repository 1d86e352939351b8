"""Whether and when a delivery that failed is tried again: by typed error, never by its text.

Reject codes as in the IC interface specification; the error codes are the node's (IC0508 stopped, and so on).
"""

from __future__ import annotations

from typing import Literal

from cannery.errors import RejectCode

RetryClass = Literal["none", "at_once", "short", "long"]

SECOND_NS = 1_000_000_000
DELAY_SHORT_NS = 10 * SECOND_NS
DELAY_LONG_NS = 300 * SECOND_NS
DELAY_MAX_NS = 3_600 * SECOND_NS
AT_ONCE_TRIES_MAX = 3

_BY_ERROR_CODE: tuple[tuple[str, RetryClass], ...] = (
    ("IC0207", "long"),  # out of cycles
    ("IC0301", "none"),  # no such canister
    ("IC0406", "none"),  # the receiver rejected
    ("IC0503", "long"),  # the receiver trapped: its next version may not
    ("IC0506", "long"),  # the receiver did not answer
    ("IC0508", "short"),  # stopped
    ("IC0509", "short"),  # stopping
    ("IC0515", "short"),  # a queue is full
    ("IC0536", "none"),  # no such method
    ("IC0537", "none"),  # no module
    ("CNRY0301", "at_once"),  # it was moving: the next call goes on to where it is now
)
_BY_REJECT_CODE: tuple[tuple[RejectCode, RetryClass], ...] = (
    (RejectCode.SYS_FATAL, "none"),
    (RejectCode.SYS_TRANSIENT, "at_once"),
    (RejectCode.DESTINATION_INVALID, "none"),
    (RejectCode.CANISTER_REJECT, "none"),
    (RejectCode.CANISTER_ERROR, "short"),
    (RejectCode.SYS_UNKNOWN, "at_once"),
)


def retry_class(reject_code: int, error_code: str | None) -> RetryClass:
    """Return how a failed delivery is tried again."""
    for code, known in _BY_ERROR_CODE:
        if code == error_code:
            return known
    for number, known in _BY_REJECT_CODE:
        if number == reject_code:
            return known
    return "none"


def retry_delay_ns(how: RetryClass, tries: int) -> int:
    """Return how long to wait before the next try, after so many failed ones in a row: it doubles up to an
    hour."""
    if how == "at_once" and tries < AT_ONCE_TRIES_MAX:
        return 0
    first = DELAY_LONG_NS if how == "long" else DELAY_SHORT_NS
    return min(first << min(max(tries - 1, 0), 20), DELAY_MAX_NS)
