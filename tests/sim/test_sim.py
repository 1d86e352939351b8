"""A few hundred seeds of the simulator, and those that ever failed. `make sim` runs as many as wanted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sim.chunk import kept_seeds
from tests.sim.mutants import MUTANTS, ROOT
from tests.sim.plan import LATER_FROM, Company, company_of
from tests.sim.run import how_to_replay, run_seed

# Each company has its own, without and with the faults that came later: see `plan`.
SEEDS = {
    Company.TOWN: (range(1_000, 1_120), range(6_000, 6_020)),
    Company.TWINS: (range(2_000, 2_060), range(8_000, 8_020)),
    Company.COMMONS: (range(4_000, 4_100), range(10_000, 10_020)),
}
CHUNK_COUNT = 20


def hold(seed: int) -> None:
    try:
        run_seed(seed)
    except BaseException as error:
        raise AssertionError(f"{error}\n{how_to_replay(seed)}") from error


@pytest.mark.parametrize("seed", kept_seeds())
def test_a_seed_that_failed_once_holds(seed: int) -> None:
    hold(seed)


@pytest.mark.parametrize(
    "first", [each for ranges in SEEDS.values() for seeds in ranges for each in seeds[::CHUNK_COUNT]]
)
def test_seeds_hold(first: int) -> None:
    for seed in range(first, first + CHUNK_COUNT):
        hold(seed)


def test_every_company_has_its_seeds() -> None:
    assert set(SEEDS) == set(Company)
    for company, ranges in SEEDS.items():
        assert all(company_of(seed) is company for seeds in ranges for seed in seeds)
        assert {seed >= LATER_FROM for seeds in ranges for seed in seeds} == {False, True}


def test_every_mutant_has_its_place_in_the_product() -> None:
    for mutant in MUTANTS:
        assert mutant.old in (ROOT / "src" / "cannery" / mutant.path).read_text(), mutant.name


@pytest.mark.parametrize("seed", [3, 2_003])
def test_one_seed_is_one_run(seed: int) -> None:
    script = (
        "from tests.sim.run import run_seed\n"
        "ran = run_seed(int(__import__('sys').argv[1]))\n"
        "print(ran.root.hex(), sorted(ran.counts.items()))"
    )
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
