"""Drives a `Subnet` on an asyncio loop: rounds when there is work, syncs on a thread, queries in between.

Each turn of the loop answers a bounded number of queries and reads, then runs at most one round, so that
neither starves the other. With nothing to do there is no turn: a submission, a query, a finished sync or the
next timer makes one.

It knows nothing of sockets and messages: whoever uses it turns the results into its own.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from cannery.errors import RejectCode
from cannery.limits import (
    ASK_QUEUE_COUNT_MAX,
    ASKS_PER_TURN_COUNT_MAX,
    ASKS_PER_TURN_NS_MAX,
    RECOVERY_PAUSE_MS,
    TIMER_WAIT_MS_MAX,
)
from cannery.node.outcalls import Outcall
from cannery.node.service import Subnet
from cannery.node.submitted import Durable
from cannery.node.written import Sync

_NS_PER_S: Final = 1_000_000_000


class SyncThread:
    """One thread that runs syncs in order and tells the loop when each is done."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_done: Callable[[Sync, int], None]) -> None:
        self._loop = loop
        self._on_done = on_done
        self._syncs: queue.SimpleQueue[Sync | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
        self._thread.start()

    def run(self, sync: Sync) -> None:
        self._syncs.put(sync)

    def close(self) -> None:
        """Let the last sync finish and end the thread."""
        self._syncs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (sync := self._syncs.get()) is not None:
            started_ns = time.monotonic_ns()
            sync.run()
            self._loop.call_soon_threadsafe(self._on_done, sync, time.monotonic_ns() - started_ns)


class SubnetDriver:
    """Turns the loop's events into rounds. `on_durable` gets what each sync lets out, in order."""

    def __init__(
        self,
        subnet: Subnet,
        loop: asyncio.AbstractEventLoop,
        on_durable: Callable[[Durable], None],
        on_turn_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.subnet = subnet
        self._loop = loop
        self._on_durable = on_durable
        self._on_turn_end = on_turn_end
        self._asks: deque[Callable[[], None]] = deque()
        self._turn_handle: asyncio.Handle | None = None
        self._timer_handle: asyncio.TimerHandle | None = None
        self._syncs = SyncThread(loop, self._sync_done)
        self._sync_is_running = False
        self._idle: asyncio.Future[None] | None = None
        self._is_stopping = False
        self._fetches: set[asyncio.Task[None]] = set()
        self.wake()

    def wake(self) -> None:
        """Make a turn soon: something was submitted."""
        if self._turn_handle is None:
            self._turn_handle = self._loop.call_soon(self._turn)

    def ask(self, job: Callable[[], None]) -> bool:
        """Run a query or a read between rounds; False where too many wait already."""
        if len(self._asks) >= ASK_QUEUE_COUNT_MAX:
            return False
        self._asks.append(job)
        self.wake()
        return True

    async def stop(self) -> None:
        """Take no more rounds, wait for the sync under way, and close the subnet."""
        self._is_stopping = True
        if self._timer_handle is not None:
            self._timer_handle.cancel()
        for fetching in self._fetches:
            fetching.cancel()
        self._start_sync()
        if self._sync_is_running:
            self._idle = self._loop.create_future()
            await self._idle
        self._syncs.close()
        self.subnet.close()

    def _turn(self) -> None:
        self._turn_handle = None
        if self._is_stopping:
            return
        self._run_asks()
        subnet = self.subnet
        if subnet.is_ready():
            subnet.run_round()
            self._start_sync()
        self._start_outcalls()
        self._on_turn_end()
        if subnet.is_ready() or (self._asks and not subnet.is_rejoining):
            self.wake()
        else:
            self._set_timer()

    def _start_outcalls(self) -> None:
        for outcall in self.subnet.take_outcalls():
            task = self._loop.create_task(self._perform(outcall))
            self._fetches.add(task)
            task.add_done_callback(self._fetches.discard)

    async def _perform(self, outcall: Outcall) -> None:
        fetch = self.subnet.fetch
        if fetch is None:
            answer = outcall.refused(RejectCode.SYS_FATAL, "this node performs no HTTP requests")
        else:
            begun_ns = time.monotonic_ns()
            answer = await fetch(outcall)
            took_ns = time.monotonic_ns() - begun_ns
            self.subnet.metrics.note_outcall(took_ns, has_response=not answer.reject_code)
        self.subnet.outcalls.answer(answer)
        self.wake()

    def _run_asks(self) -> None:
        asks = self._asks
        if self.subnet.is_rejoining and self.subnet.failure is None:
            return
        end_ns = time.monotonic_ns() + ASKS_PER_TURN_NS_MAX
        for _ in range(min(len(asks), ASKS_PER_TURN_COUNT_MAX)):
            asks.popleft()()
            if time.monotonic_ns() > end_ns:
                return

    def _start_sync(self) -> None:
        sync = None if self._sync_is_running else self.subnet.begin_sync()
        if sync is not None:
            self._sync_is_running = True
            self._syncs.run(sync)

    def _sync_done(self, sync: Sync, duration_ns: int) -> None:
        self._sync_is_running = False
        self.subnet.metrics.sync_seconds.observe(duration_ns / _NS_PER_S)
        self._on_durable(self.subnet.finish_sync(sync))
        self._start_sync()
        if not self._sync_is_running and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        self.wake()

    def _set_timer(self) -> None:
        if self._timer_handle is not None:
            self._timer_handle.cancel()
            self._timer_handle = None
        if self.subnet.failure is not None:
            self._timer_handle = self._loop.call_later(RECOVERY_PAUSE_MS / 1000, self._recover)
            return
        wait_ns = self.subnet.wait_ns()
        if wait_ns is not None:
            seconds = min(wait_ns / _NS_PER_S, TIMER_WAIT_MS_MAX / 1000)
            self._timer_handle = self._loop.call_later(max(seconds, 0.0005), self.wake)

    def _recover(self) -> None:
        durable = self.subnet.recover()
        if durable is not None:
            self._on_durable(durable)
        self.wake()
