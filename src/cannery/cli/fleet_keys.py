"""Single keys from a terminal: read without the return key, with a time limit."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WaitKey = Callable[[float], str]


@contextmanager
def single_keys() -> Iterator[WaitKey]:
    """Let single keys through; give what waits for one: a key, or nothing once the time is over."""
    place = sys.stdin.fileno()
    before = termios.tcgetattr(place)
    tty.setcbreak(place)
    try:
        yield lambda seconds: _read_key(place, seconds)
    finally:
        termios.tcsetattr(place, termios.TCSADRAIN, before)


def _read_key(place: int, seconds: float) -> str:
    readable, _, _ = select.select([place], [], [], seconds)
    # The end of the terminal reads as nothing: it ends what is shown there.
    return (os.read(place, 1).decode("ascii", "replace") or "q") if readable else ""
