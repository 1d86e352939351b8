"""What every process of a node does about its own life: end with its supervisor, stop on signals, keep within
memory.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
import traceback
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
READY_LINE: Final = "ready"
BUG_EXIT_CODE: Final = 70
# Short pauses: collecting 50,000 young objects, if programs make garbage in cycles, takes over 100 ms.
_GC_THRESHOLDS: Final = (2_000, 50, 100)


def end_with_parent() -> None:
    """Let the kernel kill this process when its supervisor is gone, however that came."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The supervisor went away before the kernel knew.
        os._exit(1)


def limit_memory(size_bytes: int) -> None:
    """Let allocations beyond a bound fail with MemoryError instead of taking the machine's memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = size_bytes if hard == resource.RLIM_INFINITY else min(size_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def allow_open_files(count: int) -> int:
    """Let this process open so many files, as far as the system lets it; give how many it may open.

    Log-ins and services often begin with 1,024, of which a process may make more by itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return count
    allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


def calm_collector() -> None:
    """Once all is set up: what was made so far stays, the collector need not walk over it; and what is made
    from now on mostly goes by itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def say_ready() -> None:
    """Tell the supervisor that this process serves."""
    sys.stdout.write(READY_LINE + "\n")
    sys.stdout.flush()


def end_on_bugs(loop: asyncio.AbstractEventLoop, name: str) -> None:
    """End the process at once where a callback of the loop raises: a bug stops, it does not go on half
    way.
    """

    def end(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        sys.stderr.write(f"{name}: bug: {context.get('message')}\n")
        if isinstance(error, BaseException):
            sys.stderr.write("".join(traceback.format_exception(error)))
        sys.stderr.flush()
        os._exit(BUG_EXIT_CODE)

    loop.set_exception_handler(end)


def stop_event(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Give an event that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, event.set)
    return event


def process_memory_bytes(pid: int) -> int:
    """Give what a process holds of the machine's memory; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0
