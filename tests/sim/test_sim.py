"""A few hundred seeds of the simulator, and those that ever failed. `make sim` runs as many as wanted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sim.chunk import kept_seeds
from tests.sim.run import how_to_replay, run_seed

SEED_COUNT = 240
CHUNK_COUNT = 20


def hold(seed: int) -> None:
    try:
        run_seed(seed)
    except BaseException as error:
        raise AssertionError(f"{error}\n{how_to_replay(seed)}") from error


@pytest.mark.parametrize("seed", kept_seeds())
def test_a_seed_that_failed_once_holds(seed: int) -> None:
    hold(seed)


@pytest.mark.parametrize("first", range(1_000, 1_000 + SEED_COUNT, CHUNK_COUNT))
def test_seeds_hold(first: int) -> None:
    for seed in range(first, first + CHUNK_COUNT):
        hold(seed)


def test_one_seed_is_one_run() -> None:
    script = (
        "from tests.sim.run import run_seed\n"
        "ran = run_seed(int(__import__('sys').argv[1]))\n"
        "print(ran.root.hex(), sorted(ran.counts.items()))"
    )
    seed = 3
    ran = run_seed(seed)
    expected = f"{ran.root.hex()} {sorted(ran.counts.items())}"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", script, str(seed)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected
