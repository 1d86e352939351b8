"""What a program shows on a terminal of a test's own."""

from __future__ import annotations

import os
import select
import time

from tests.waiting import NEVER_S


def read_until(screen: int, *wanted: bytes) -> None:
    """Read what is shown until all of these texts have come.

    Raises:
        AssertionError: One does not come.
    """
    shown, last_s = b"", time.monotonic() + NEVER_S
    while not all(text in shown for text in wanted):
        readable, _, _ = select.select([screen], [], [], max(0.0, last_s - time.monotonic()))
        assert readable, shown
        shown += os.read(screen, 65_536)
