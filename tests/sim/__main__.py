"""`make sim`: many seeds over all cores with progress and a summary, or one seed told step by step."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tests.sim.chunk import Chunk, kept_seeds, run_chunk
from tests.sim.plan import plan_of
from tests.sim.run import how_to_replay, run_seed

CHUNK_COUNT = 10
PROGRESS_S = 2.0


def run_many(first: int, count: int, kept: bool, until_failure: bool) -> int:
    """Run seeds over all cores; print progress, failures as they come, and a summary."""
    total = Chunk()
    started_s = shown_s = time.monotonic()
    seeds = [*(kept_seeds() if kept else []), *range(first, first + count)]
    chunks = [seeds[at : at + CHUNK_COUNT] for at in range(0, len(seeds), CHUNK_COUNT)]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run_chunk, chunk) for chunk in chunks]):
            chunk = done.result()
            total.add(chunk)
            for seed, text in chunk.failures:
                print(f"FAILED seed {seed}: {text}\n  {how_to_replay(seed)}", flush=True)
            if until_failure and total.failures:
                pool.shutdown(cancel_futures=True)
                return 1
            if time.monotonic() - shown_s > PROGRESS_S:
                shown_s = time.monotonic()
                print(
                    f"  {total.seed_count} of {len(seeds)} seeds, {total.message_count} messages", flush=True
                )
    rate = total.message_count / max(total.cpu_s, 1e-9)
    elapsed_s = time.monotonic() - started_s
    print(
        f"{total.seed_count} seeds in {elapsed_s:.1f} s, {len(total.failures)} failed; "
        f"{total.message_count} messages, {rate:.0f} per second and core"
    )
    print(", ".join(f"{number} {what}" for what, number in sorted(total.counts.items())))
    if total.failures:
        print("keep these seeds in tests/sim/seeds.txt:", *sorted(seed for seed, _ in total.failures))
    return 1 if total.failures else 0


def run_one(seed: int) -> int:
    """Run one seed and tell each step."""
    print(plan_of(seed).describe())
    try:
        ran = run_seed(seed, print)
    except KeyboardInterrupt:
        raise
    except BaseException:
        traceback.print_exc()
        print(how_to_replay(seed))
        return 1
    print(f"seed {seed} holds: {ran.message_count} messages, root {ran.root.hex()}, {ran.counts}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one and tell every step")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many to run")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one")
    parser.add_argument("--kept", action="store_true", help="begin with the seeds that failed once")
    parser.add_argument("--until-failure", action="store_true", help="end at the first failure")
    options = parser.parse_args()
    if options.seed is not None:
        return run_one(options.seed)
    return run_many(options.first, options.seeds, options.kept, options.until_failure)


if __name__ == "__main__":
    sys.exit(main())
