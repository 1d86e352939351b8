"""A node that is killed under load a few times; `make crash` does it hundreds of times."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.crash.run import CrashTest

CYCLES = 8


def test_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    done = asyncio.run(CrashTest(tmp_path, 1, print).run(CYCLES))
    assert done.cycle_count == CYCLES
    assert done.call_count > CYCLES
