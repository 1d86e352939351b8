"""What a subnet is made with: its doors to the world, and the bounds that its shell may choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cannery.limits import (
    BLOCK_INPUT_COUNT_MAX,
    BLOCK_INPUT_SIZE_BYTES_MAX,
    DISK_RESERVE_BYTES,
    UNSYNCED_ROUND_COUNT_MAX,
)
from cannery.node.outcalls import Fetch
from cannery.node.vitals import Machine
from cannery.ports import Clock, Entropy, Programs, Store, Watch


class DurableMark(Protocol):
    """Remembers, outside of the store, the last block that was durable; it may lag, and never runs ahead."""

    def note_durable(self, number: int) -> None: ...

    def durable_number(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Doors:
    """A subnet's doors to the world. `open_store` is called again after a failure of the store; `fetch`
    performs HTTP outcalls, and never raises.
    """

    open_store: Callable[[], Store]
    programs: Programs
    clock: Clock
    entropy: Entropy
    watch: Watch | None = None
    certify: Callable[[bytes, bytes], bytes] | None = None
    free_bytes: Callable[[], int] | None = None
    durable_mark: DurableMark | None = None
    machine: Callable[[], Machine] | None = None
    fetch: Fetch | None = None


@dataclass(frozen=True, slots=True)
class SubnetLimits:
    """Bounds of a subnet that its shell may choose."""

    block_input_count_max: int = BLOCK_INPUT_COUNT_MAX
    block_input_size_bytes_max: int = BLOCK_INPUT_SIZE_BYTES_MAX
    unsynced_round_count_max: int = UNSYNCED_ROUND_COUNT_MAX
    disk_reserve_bytes: int = DISK_RESERVE_BYTES
