"""A time limit for waits of one length: one timer for all of them.

`asyncio.timeout` sets a timer for each wait and takes it away again; a gateway waits thousands of times a
second, and nearly never in vain. Here one timer looks at all waits that go on, ten times in their length: a
limit may strike so much late.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

_LOOKS_PER_WAIT: Final = 10


class Deadlines:
    """Makes limits of `wait_s` seconds, on one loop."""

    __slots__ = ("_is_armed", "_wait_s", "waits")

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._is_armed = False
        # What goes on, in the order in which it began.
        self.waits: dict[Limit, None] = {}

    def limit(self) -> Limit:
        """Give a limit for what the current task does inside a `with`: `TimeoutError` is raised there."""
        return Limit(self)

    def begin(self, limit: Limit, loop: asyncio.AbstractEventLoop) -> float:
        """Note a wait that begins now; give the loop's time at which it is to end."""
        self.waits[limit] = None
        if not self._is_armed:
            self._arm(loop)
        return loop.time() + self._wait_s

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_armed = True
        loop.call_later(self._wait_s / _LOOKS_PER_WAIT, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Strike where it is time; look again while anything goes on."""
        self._is_armed = False
        now_s = loop.time()
        for limit in list(self.waits):
            if limit.end_s > now_s:
                break
            limit.strike()
        if self.waits:
            self._arm(loop)


class Limit:
    """One wait's limit."""

    __slots__ = ("_deadlines", "_has_struck", "_task", "end_s")

    _task: asyncio.Task[object]

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._has_struck = False
        self.end_s = 0.0

    def strike(self) -> None:
        """End the wait."""
        del self._deadlines.waits[self]
        self._has_struck = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a limit is for what a task does"
        self._task = task
        self.end_s = self._deadlines.begin(self, task.get_loop())

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if not self._has_struck:
            del self._deadlines.waits[self]
        elif not self._task.uncancel() and kind is asyncio.CancelledError:
            raise TimeoutError
