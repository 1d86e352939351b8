"""How a subnet is, as one value: what `/health?verbose`, `/metrics` and the alarms of the node look at."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from cannery.limits import MACHINE_FACTS_AGE_NS_MAX
from cannery.node.process_life import process_memory_bytes

_STAT_BLOCK_BYTES: Final = 512


class Machine(msgspec.Struct, frozen=True, array_like=True):
    """What a subnet's process uses of its machine."""

    store_bytes: int
    free_bytes: int
    memory_bytes: int


class Vitals(msgspec.Struct, frozen=True, array_like=True):
    """How a subnet is. `refusing` says why no updates are taken, None where they are; `waiting` updates are
    not in a block yet, `under_way` have no durable answer yet; `busy_count` canisters have messages waiting.
    """

    block_number: int
    block_time_ns: int
    time_ns: int
    uptime_ns: int
    waiting: int
    under_way: int
    unsynced_rounds: int
    busy_count: int
    canister_count: int
    minted: int
    burned: int
    held: int
    refusing: str | None = None
    machine: Machine | None = None


def machine_meter(store: Path) -> Callable[[], Machine]:
    """Give a function that measures this process and its store, at most once in a while."""
    measured: list[tuple[int, Machine]] = []

    def measure() -> Machine:
        now_ns = time.monotonic_ns()
        if not measured or now_ns - measured[0][0] > MACHINE_FACTS_AGE_NS_MAX:
            measured[:] = [(now_ns, _measure(store))]
        return measured[0][1]

    return measure


def _measure(store: Path) -> Machine:
    try:
        found = os.statvfs(store)
        free_bytes = found.f_bavail * found.f_frsize
    except OSError:
        free_bytes = 0
    return Machine(folder_bytes(store), free_bytes, process_memory_bytes(os.getpid()))


def folder_bytes(folder: Path) -> int:
    """Give what the files of a folder take on the disk; a file that goes meanwhile counts for nothing."""
    size = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    size += entry.stat(follow_symlinks=False).st_blocks * _STAT_BLOCK_BYTES
                except OSError:
                    continue
    except OSError:
        return size
    return size
