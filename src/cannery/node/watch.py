"""The watch over running programs: a soft limit on CPU time, and the mark that a killed process leaves
behind.

Soft limit: a repeating timer on CPU time (it never fires while the process is idle) whose handler raises
`ports.Stopped` into the activation that has used up its time. It is raised in canister code and the libraries
that it calls, never inside the state machine, whose structures must not be left half changed; there the next
tick decides. A virtual machine that stood still counts as CPU time of what ran, and the collector walks over
what all programs have made: so of a long time without a tick only a part counts, as far as that is bounded.

Mark: a mapped file says which message or query runs now, and counts activations. The supervisor reads it to
see progress, and condemns what ran in a process that it had to kill; the next process rejects the condemned
message instead of running it (`Block.poisoned`).
"""

from __future__ import annotations

import atexit
import mmap
import os
import signal
import time
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from types import FrameType
from typing import Final

from cannery.errors import StoreError
from cannery.ports import Stopped

_TICK_S: Final = 0.01
# So much counts of the time between two ticks; what is not counted of one activation is bounded too.
_GAP_NS_MAX: Final = 100_000_000
_UNCOUNTED_NS_MAX: Final = 1_000_000_000
_SIZE_BYTES: Final = 4096
_MARK: Final = Struct("=QB32s")
_STATE_OFFSET: Final = 8
_NUMBER: Final = Struct("=Q")
_DURABLE_OFFSET: Final = 64
_SHELTERED: Final = ("cannery.replica", "cannery.node", "cannery.testing")


class Running(IntEnum):
    """What a mark says."""

    NOTHING = 0
    ACTIVATION = 1
    KILLED_NO_PROGRESS = 2
    KILLED_MEMORY = 3
    KILLED_CRASH = 4


@dataclass(frozen=True, slots=True)
class Mark:
    """One reading of a running file: a count that rises with every activation, and the identity of what
    runs.
    """

    count: int
    state: Running
    identity: bytes

    @property
    def is_condemned(self) -> bool:
        return self.state >= Running.KILLED_NO_PROGRESS


class RunningFile:
    """The mapped file `running` of a subnet: 8 bytes count, 1 byte state, 32 bytes identity; from byte 64 on
    8 bytes, the number of a block that is durable.
    """

    def __init__(self, path: str) -> None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.ftruncate(descriptor, _SIZE_BYTES)
                self._map = mmap.mmap(descriptor, _SIZE_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(f"cannot open {path}: {error}") from error
        self._count = self.read().count

    def begin(self, identity: bytes) -> None:
        self._count += 1
        _MARK.pack_into(self._map, 0, self._count, Running.ACTIVATION, identity)

    def end(self) -> None:
        self._map[_STATE_OFFSET] = Running.NOTHING

    def condemn(self, state: Running) -> None:
        """Say that what runs now brought the process down (for the supervisor, once that process is dead)."""
        self._map[_STATE_OFFSET] = state

    def read(self) -> Mark:
        count, state, identity = _MARK.unpack_from(self._map, 0)
        return Mark(count, Running(state) if state in set(Running) else Running.NOTHING, identity)

    def note_durable(self, number: int) -> None:
        """Note that a block is durable; behind `service.DurableMark`."""
        _NUMBER.pack_into(self._map, _DURABLE_OFFSET, number)

    def durable_number(self) -> int:
        """Give the last number that was noted, here or by an earlier process."""
        found: int = _NUMBER.unpack_from(self._map, _DURABLE_OFFSET)[0]
        return found

    def close(self) -> None:
        self._map.close()


class CpuWatch:
    """Behind `ports.Watch`. One per process, made and used by the main thread; activations may nest."""

    def __init__(self, running: RunningFile | None = None) -> None:
        self._running = running
        self._limit_ns = 0
        self._started: tuple[int, int] | None = None
        """At the first tick of what runs: the thread's time, and what had not been counted until then."""
        self._has_stopped = False
        self._outer: list[tuple[int, tuple[int, int] | None, bool]] = []
        self._seen_ns = time.thread_time_ns()
        self._uncounted_ns = 0
        self._old_handler = signal.signal(signal.SIGPROF, self._on_tick)
        signal.setitimer(signal.ITIMER_PROF, _TICK_S, _TICK_S)
        # The interpreter's end puts the default action back, which a late tick would make fatal.
        atexit.register(self.close)

    def begin(self, identity: bytes, cpu_ns_max: int) -> None:
        if self._limit_ns:
            # What runs inside another activation counts for that one too: the outer mark stays.
            self._outer.append((self._limit_ns, self._started, self._has_stopped))
        elif self._running is not None:
            self._running.begin(identity)
        self._started = None
        self._has_stopped = False
        self._limit_ns = cpu_ns_max

    def end(self) -> bool:
        self._limit_ns = 0
        has_stopped, self._has_stopped = self._has_stopped, False
        if self._outer:
            self._limit_ns, self._started, self._has_stopped = self._outer.pop()
        elif self._running is not None:
            self._running.end()
        return has_stopped

    def close(self) -> None:
        """Stop the timer and put back the signal handler that was there."""
        atexit.unregister(self.close)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._old_handler)

    def _on_tick(self, _signal: int, frame: FrameType | None) -> None:
        now_ns = time.thread_time_ns()
        self._uncounted_ns += max(0, now_ns - self._seen_ns - _GAP_NS_MAX)
        self._seen_ns = now_ns
        limit_ns = self._limit_ns
        if not limit_ns:
            return
        if self._started is None:
            # The first tick of an activation: reading the clock here and not in `begin` keeps `begin` cheap.
            self._started = now_ns, self._uncounted_ns
            return
        started_ns, uncounted_ns = self._started
        used_ns = now_ns - started_ns - min(self._uncounted_ns - uncounted_ns, _UNCOUNTED_NS_MAX)
        if used_ns >= limit_ns and _is_canister_code(frame):
            self._has_stopped = True
            raise Stopped(f"stopped after {limit_ns / 1e9:g} s of CPU time, the limit for one message")


class MarkWatch:
    """Behind `ports.Watch` where no timer can run (not the main thread): it marks, and stops nothing."""

    def __init__(self, running: RunningFile | None = None) -> None:
        self._running = running
        self._depth = 0

    def begin(self, identity: bytes, cpu_ns_max: int) -> None:  # noqa: ARG002  (the port's name)
        self._depth += 1
        if self._running is not None and self._depth == 1:
            self._running.begin(identity)

    def end(self) -> bool:
        self._depth -= 1
        if self._running is not None and self._depth == 0:
            self._running.end()
        return False

    def close(self) -> None:
        """Do nothing: there is no timer."""


def _is_canister_code(frame: FrameType | None) -> bool:
    """Say whether the innermost frame that is Cannery's or a canister's belongs to the canister's side."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(("_cannery_", "cannery.")):
            return not name.startswith(_SHELTERED)
        frame = frame.f_back
    return True
