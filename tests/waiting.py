"""Waiting for other processes and threads, which no clock of a test drives."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
TURN_S = 0.005
# Nothing is judged by it: a machine may be slow, and only what never comes fails.
NEVER_S = 120.0


def wait_until(find: Callable[[], Found], what: str = "it never came") -> Found:
    """Look until there is something; give it.

    Raises:
        AssertionError: There is nothing after two minutes.
    """
    end = time.monotonic() + NEVER_S
    while not (found := find()):
        assert time.monotonic() < end, what
        time.sleep(TURN_S)
    return found
