"""`make crash`: kill a real node under load, CYCLES times, and check all that its clients were told."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from tests.crash.run import CrashTest


def main() -> int:
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    parser.add_argument("--cycles", type=int, default=200, help="how often the node is killed")
    parser.add_argument("--seed", type=int, default=1, help="decides the moments and what clients do")
    parser.add_argument("--subnets", type=int, default=1, help="how many subnets the node has")
    parser.add_argument(
        "--gateways", type=int, default=0, help="how many gateways; 0: as the node has itself"
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cannery-crash-"))
    test = CrashTest(
        folder, options.seed, lambda text: print(text, flush=True), options.subnets, options.gateways
    )
    try:
        done = asyncio.run(test.run(options.cycles))
    except BaseException:
        print(f"the data is kept in {folder}")
        raise
    shutil.rmtree(folder)
    print(
        f"{done.cycle_count} kills, {done.call_count} calls ({done.unsure_count} without an answer), "
        f"{done.letter_count} letters, {done.message_count} messages of a zone: "
        "nothing is lost, doubled or out of order"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
