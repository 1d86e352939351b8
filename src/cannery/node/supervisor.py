"""Starts a node's processes and keeps them going: the subnet, and the gateways in front of it.

It binds the port, locks the data directory, starts the subnets and the gateways, and watches. A subnet
whose program makes no progress, or takes too much memory, is killed and started again; what ran is condemned
first, so that it is rejected and not run again. Whatever ends unexpectedly is started again, with growing
pauses, and a number of times. The supervisor serves nothing itself: it sleeps between two looks.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from cannery.errors import CanneryError
from cannery.limits import (
    CHILD_READY_MS_MAX,
    GATEWAY_SILENT_KILL_MS_MIN,
    RESTART_COUNT_MAX,
    RESTART_PAUSE_MS_MAX,
    RESTART_PAUSE_MS_MIN,
    STEADY_MS_MIN,
    WATCH_PAUSE_MS,
)
from cannery.node.backup.source import clear_checkpoint
from cannery.node.child_process import ChildError, ChildProcess, start_child
from cannery.node.config import NodeConfig, load_config
from cannery.node.data_dir import DataDir, DataLock, NodeKeys, load_keys, open_data_dir, set_subnets
from cannery.node.gateway.siblings import clear_shared, tally_path
from cannery.node.gateway.spool import clear_spool
from cannery.node.gateway.tally_page import TallyPage
from cannery.node.listening import close_listeners, open_listeners
from cannery.node.machine import plan_gateway_count, usable_core_count
from cannery.node.process_life import process_memory_bytes, stop_event
from cannery.node.watch import Running, RunningFile

SUBNET_MODULE: Final = "cannery.node.subnet_process"
GATEWAY_MODULE: Final = "cannery.node.gateway"
LISTEN_VARIABLE: Final = "CANNERY_LISTEN_FDS"
_HASH_SEED_DOMAIN: Final = b"\x11cannery-hash-seed"
_NS_PER_MS: Final = 1_000_000
# A gateway is killed when it is silent for so many times what a message may run without progress.
_SILENT_FACTOR: Final = 3
_SILENT_LOOK_COUNT: Final = 6
# How a gateway ends that somebody stopped or killed (or the system did, which lacked memory).
_FROM_OUTSIDE: Final = (0, -signal.SIGTERM, -signal.SIGKILL)
_CRASH_SIGNALS: Final = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)

Report = Callable[[str], None]


class SupervisorError(CanneryError):
    """The node cannot go on; the text says why."""


@dataclass(frozen=True, slots=True)
class NodeReady:
    """A node that serves: where, and with which keys."""

    config: NodeConfig
    port: int
    keys: NodeKeys
    started_ms: int
    gateway_count: int
    core_count: int

    @property
    def url(self) -> str:
        host = self.config.hosts[0]
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class Restarts:
    """How often something was started again lately: gives the pause before the next time."""

    def __init__(self) -> None:
        self._count = 0
        self._started_ns = time.monotonic_ns()

    def note_start(self) -> None:
        self._started_ns = time.monotonic_ns()

    def pause_ms(self) -> int:
        """Give the pause before the next start. Raises `SupervisorError` where there were too many."""
        if time.monotonic_ns() - self._started_ns > STEADY_MS_MIN * _NS_PER_MS:
            self._count = 0
        self._count += 1
        if self._count > RESTART_COUNT_MAX:
            raise SupervisorError(f"gave up after {RESTART_COUNT_MAX} restarts in a row")
        return min(RESTART_PAUSE_MS_MIN << (self._count - 1), RESTART_PAUSE_MS_MAX)


class SubnetKeeper:
    """Keeps the subnet's process going."""

    def __init__(self, config: NodeConfig, folder: DataDir, keys: NodeKeys, report: Report) -> None:
        self._name = "subnet" if len(keys.subnets) == 1 else f"subnet {folder.subnet}"
        self._config = config
        self._report = report
        self._variables = {"PYTHONHASHSEED": str(hash_seed_of(keys))}
        self._arguments = ["--data", str(config.data), "--subnet", str(folder.subnet)]
        self._running = RunningFile(str(folder.running))
        self._restarts = Restarts()
        self._child: ChildProcess | None = None
        self._last_victim = b""

    async def start(self) -> None:
        """Start the process and wait until it serves. Raises `ChildError`."""
        child = await start_child(self._name, SUBNET_MODULE, self._arguments, variables=self._variables)
        self._child = child
        await child.wait_ready(CHILD_READY_MS_MAX / 1000)
        self._restarts.note_start()

    async def keep(self) -> None:
        """Watch the process and start it again, for ever. Raises `SupervisorError`."""
        while True:
            assert self._child is not None, "the process was started"
            # A process killed for what a message did is no failure of its own: it does not count as one.
            is_failing = not await self._watch(self._child)
            while True:
                if is_failing:
                    await asyncio.sleep(self._restarts.pause_ms() / 1000)
                try:
                    await self.start()
                    break
                except ChildError as error:
                    self._report(f"the {self._name} did not start: {error}")
                    is_failing = True
            self._report(f"the {self._name} serves again")

    async def stop(self, timeout_s: float) -> None:
        """Stop the process."""
        if self._child is not None and not await self._child.stop(timeout_s):
            self._report(f"the {self._name} did not stop in time and was killed")

    async def _watch(self, child: ChildProcess) -> bool:
        """Wait until the process is gone and condemn what ran; True where it was killed for what ran."""
        ended = asyncio.ensure_future(child.wait())
        mark, seen_ns = self._running.read(), time.monotonic_ns()
        while not ended.done():
            await asyncio.wait({ended}, timeout=WATCH_PAUSE_MS / 1000)
            if ended.done():
                break
            now, now_ns = self._running.read(), time.monotonic_ns()
            if now.count != mark.count or now.state is not Running.ACTIVATION:
                mark, seen_ns = now, now_ns
            elif now_ns - seen_ns >= self._config.no_progress_ms_max * _NS_PER_MS:
                await self._kill(child, Running.KILLED_NO_PROGRESS, "made no progress")
                return True
            if process_memory_bytes(child.pid) > self._config.memory_bytes_max:
                await self._kill(child, Running.KILLED_MEMORY, "took too much memory")
                return True
        self._note_end(ended.result())
        return False

    async def _kill(self, child: ChildProcess, state: Running, why: str) -> None:
        await child.kill()
        if self._running.read().state is Running.ACTIVATION:
            self._running.condemn(state)
            why += ": the message that ran is rejected"
        self._report(f"the {self._name} {why}; starting it again")

    def _note_end(self, code: int) -> None:
        """Condemn what ran if the process crashed by it, or ended twice with the same message running.

        A process that somebody killed from outside says nothing about the message that ran.
        """
        mark = self._running.read()
        if mark.state is Running.ACTIVATION:
            crashed = code < 0 and -code in _CRASH_SIGNALS
            if crashed or mark.identity == self._last_victim:
                self._running.condemn(Running.KILLED_CRASH)
            self._last_victim = mark.identity
        self._report(f"the {self._name} ended unexpectedly ({_ending(code)}); starting it again")


class GatewayKeeper:
    """Keeps one gateway process going."""

    def __init__(
        self, config: NodeConfig, index: int, count: int, listeners: list[socket.socket], report: Report
    ) -> None:
        self._report = report
        self._descriptors = [listener.fileno() for listener in listeners]
        self._arguments = ["--data", str(config.data), "--index", str(index), "--count", str(count)]
        self._page = TallyPage(tally_path(DataDir(config.data).shared, index))
        silent_ms = max(_SILENT_FACTOR * config.no_progress_ms_max, GATEWAY_SILENT_KILL_MS_MIN)
        self._look_s = silent_ms / _SILENT_LOOK_COUNT / 1000
        self._restarts = Restarts()
        self._child: ChildProcess | None = None
        self._name = f"gateway {index}"

    async def start(self) -> None:
        """Start the process and wait until it serves. Raises `ChildError`."""
        variables = {LISTEN_VARIABLE: ",".join(map(str, self._descriptors))}
        child = await start_child(
            self._name,
            GATEWAY_MODULE,
            self._arguments,
            descriptors=self._descriptors,
            variables=variables,
        )
        self._child = child
        await child.wait_ready(CHILD_READY_MS_MAX / 1000)
        self._restarts.note_start()

    async def keep(self) -> None:
        """Start the process again whenever it ends, for ever. Raises `SupervisorError`."""
        while True:
            assert self._child is not None, "the process was started"
            is_failing = not await self._watch(self._child)
            while True:
                if is_failing:
                    await asyncio.sleep(self._restarts.pause_ms() / 1000)
                try:
                    await self.start()
                    break
                except ChildError as error:
                    self._report(f"{self._name} did not start: {error}")
                    is_failing = True
            self._report(f"{self._name} serves again")

    async def _watch(self, child: ChildProcess) -> bool:
        """Wait until the process is gone; True where that was none of its own doing, or it hung and was
        killed: such an end is no reason to give up, however often it comes.

        Looks are counted and not time: a supervisor, or a machine, that stood still has not looked.
        """
        ended = asyncio.ensure_future(child.wait())
        beat_ns, silent_count = self._page.beat_ns, 0
        while silent_count < _SILENT_LOOK_COUNT:
            await asyncio.wait({ended}, timeout=self._look_s)
            if ended.done():
                code = ended.result()
                self._report(f"{self._name} ended unexpectedly ({_ending(code)}); starting it again")
                return code in _FROM_OUTSIDE
            before_ns, beat_ns = beat_ns, self._page.beat_ns
            silent_count = silent_count + 1 if beat_ns == before_ns else 0
        await child.kill()
        self._report(
            f"{self._name} showed no sign of life for {_SILENT_LOOK_COUNT * self._look_s:g} s "
            "and was killed; starting it again"
        )
        return True

    async def stop(self, timeout_s: float) -> None:
        """Stop the process."""
        if self._child is not None and not await self._child.stop(timeout_s):
            self._report(f"{self._name} did not stop in time and was killed")


class Supervisor:
    """A node's processes, from `start` to `stop`."""

    def __init__(self, config: NodeConfig, lock: DataLock, report: Report) -> None:
        self._config = config
        self._lock = lock
        self._folder = DataDir(config.data)
        self._report = report
        self._subnets: list[SubnetKeeper] = []
        self._gateways: list[GatewayKeeper] = []
        self._listeners: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> NodeReady:
        """Bind, start and wait until the node serves. Raises a `CanneryError` that says what to do."""
        started_ns = time.monotonic_ns()
        config = self._config
        set_subnets(self._folder, config.subnet_count)
        keys = load_keys(config.data)
        folders = [self._folder.of(number) for number in range(len(keys.subnets))]
        core_count = usable_core_count()
        gateway_count = config.gateway_count or plan_gateway_count(core_count, len(folders))
        self._listeners = open_listeners(config.hosts, config.port)
        clear_spool(self._folder.spool)
        clear_shared(self._folder.shared)
        for folder in folders:
            clear_checkpoint(folder)
        self._subnets = [SubnetKeeper(config, folder, keys, self._report) for folder in folders]
        self._gateways = [
            GatewayKeeper(config, index, gateway_count, self._listeners, self._report)
            for index in range(gateway_count)
        ]
        # Side by side: a gateway loads its code meanwhile, and serves once the subnets answer it.
        await asyncio.gather(
            *(subnet.start() for subnet in self._subnets), *(gateway.start() for gateway in self._gateways)
        )
        keepers = [
            *(subnet.keep() for subnet in self._subnets),
            *(gateway.keep() for gateway in self._gateways),
        ]
        self._tasks = [asyncio.ensure_future(keeper) for keeper in keepers]
        port: int = self._listeners[0].getsockname()[1]
        started_ms = (time.monotonic_ns() - started_ns) // _NS_PER_MS
        return NodeReady(config, port, keys, started_ms, gateway_count, core_count)

    async def wait(self) -> None:
        """Wait for ever. Raises `SupervisorError` where a process cannot be kept going."""
        await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        """Stop the gateways, then the subnet, each in bounded time; let the data directory go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        timeout_s = self._config.stop_ms_max / 1000
        await asyncio.gather(*(gateway.stop(timeout_s) for gateway in self._gateways))
        await asyncio.gather(*(subnet.stop(timeout_s) for subnet in self._subnets))
        close_listeners(self._listeners)
        self._lock.release()


async def run_node(
    data: Path | str,
    host: str | None,
    port: int | None,
    on_ready: Callable[[NodeReady], Awaitable[None]],
    report: Report,
    subnets: int | None = None,
) -> None:
    """Run a node until SIGINT or SIGTERM. `report` gets a line for whatever an operator should know.

    `on_ready` is awaited once the node serves; the node goes on serving meanwhile and afterwards. Raises a
    `CanneryError` with one clear line where the node cannot start or go on.
    """
    folder, lock = open_data_dir(data)
    try:
        config = load_config(folder.path, host, port, subnets)
    except CanneryError:
        lock.release()
        raise
    stopped = stop_event(asyncio.get_running_loop())
    supervisor = Supervisor(config, lock, report)
    serving = asyncio.ensure_future(_serve(supervisor, on_ready))
    waiting = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        for task in (serving, waiting):
            task.cancel()
        await asyncio.gather(serving, waiting, return_exceptions=True)
        await supervisor.stop()


async def _serve(supervisor: Supervisor, on_ready: Callable[[NodeReady], Awaitable[None]]) -> None:
    """Start the node, greet, and keep it going until one of its processes cannot be kept going."""
    await on_ready(await supervisor.start())
    await supervisor.wait()


def hash_seed_of(keys: NodeKeys) -> int:
    """Give the seed of hashes in the subnet's processes: the same in each, and known to nobody outside.

    The order of a set shows in what canister code makes of it, a trap's text for one, and so in the state.
    """
    return int.from_bytes(sha256(keys.root.sign(_HASH_SEED_DOMAIN)).digest()[:4], "big")


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
