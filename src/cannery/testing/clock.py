"""Time and chance for tests: a clock that moves when told, and chance that follows from a seed."""

from __future__ import annotations

import random


class ManualClock:
    """Behind `ports.Clock`: stands still until it is set."""

    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def set_ns(self, now_ns: int) -> None:
        """Set the time; it may go back, as a stepped clock does."""
        self._now_ns = now_ns


class SeededEntropy:
    """Behind `ports.Entropy`: the same bytes for the same seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = random.Random(seed)

    def random_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def skip(self, number: int) -> None:
        """Go on with other bytes, which follow from the seed and this number; 0 changes nothing."""
        if number:
            self._random = random.Random(f"{self._seed}:{number}")
