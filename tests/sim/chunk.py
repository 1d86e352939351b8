"""Several seeds in one process, and what came of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.sim.run import run_seed


@dataclass
class Chunk:
    """What came of some seeds."""

    seed_count: int = 0
    message_count: int = 0
    cpu_s: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Chunk) -> None:
        """Add another chunk to this one."""
        self.seed_count += other.seed_count
        self.message_count += other.message_count
        self.cpu_s += other.cpu_s
        self.failures += other.failures
        for what, number in other.counts.items():
            self.counts[what] = self.counts.get(what, 0) + number


def run_chunk(seeds: Sequence[int]) -> Chunk:
    """Run seeds one after the other in this process."""
    chunk = Chunk()
    started_s = time.process_time()
    for seed in seeds:
        try:
            ran = run_seed(seed)
            chunk.message_count += ran.message_count
            for what, number in ran.counts.items():
                chunk.counts[what] = chunk.counts.get(what, 0) + number
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            chunk.failures.append((seed, f"{type(error).__name__}: {error}"[:600]))
        chunk.seed_count += 1
    chunk.cpu_s = time.process_time() - started_s
    return chunk


def kept_seeds() -> list[int]:
    """Give the seeds that failed once."""
    lines = (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]
