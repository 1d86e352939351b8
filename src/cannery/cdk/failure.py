"""What a trap says: the exception, its message, and the line of the author's code where it happened.

The text becomes part of answers and hence of replicated state, so nothing in it may differ between two runs:
memory addresses are taken out, and it is bounded.
"""

from __future__ import annotations

import re
from types import CodeType

from cannery import limits
from cannery.errors import Trap

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{5,}\b")
_LOST = ("without exception set", "without setting an exception")
NESTED = "calls are nested too deeply"
_OWN_ROOMS = ("cannery.cdk.", "cannery.candid.", "cannery.protocol.", "cannery.replica.", "cannery.node.")


def trap_of(error: Exception) -> Exception:
    """Give what an exception that the author's code did not catch is to the runtime: a trap, as a rule.

    CPython loses a `RecursionError` where a signal's handler runs at the very end of the stack, and raises a
    `SystemError` that says so. That hangs on the clock, as a `RecursionError` on the stack, and is no trap.
    """
    if isinstance(error, SystemError) and str(error).endswith(_LOST):
        return RecursionError(NESTED)
    return Trap(failure_text(error))


def failure_text(error: BaseException) -> str:
    """Describe an exception as `ValueError: message (file.py:12 in method)`."""
    if isinstance(error, RecursionError):
        # Where the stack ends depends on what runs below the program.
        return f"RecursionError: {NESTED}"
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 (around a canister: the exception's own __str__ is the author's code)
        message = "its message cannot be shown"
    text = type(error).__name__ + (f": {message}" if message else "")
    text = _ADDRESS.sub("0x…", text)
    if len(text) > limits.TRAP_TEXT_SIZE_CHARS_MAX:
        text = text[: limits.TRAP_TEXT_SIZE_CHARS_MAX - 1] + "…"
    return text + _place(error)


def _place(error: BaseException) -> str:
    found: tuple[CodeType, int] | None = None
    fallback: tuple[CodeType, int] | None = None
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith(_OWN_ROOMS) and not frame.f_code.co_filename.startswith("<"):
            if not _is_installed(frame.f_code.co_filename):
                found = (frame.f_code, trace.tb_lineno)
            fallback = (frame.f_code, trace.tb_lineno)
        trace = trace.tb_next
    place = found or fallback
    if place is None:
        return ""
    code, line = place
    return f" ({code.co_filename.replace(chr(92), '/').rsplit('/', 1)[-1]}:{line} in {code.co_name})"


def _is_installed(path: str) -> bool:
    """Tell whether a file belongs to Python's library or an installed package."""
    return "/lib/python" in path
