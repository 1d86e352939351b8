"""Kill a whole node at random moments under load, start it again, and look at everything through its public
interface.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from cannery.candid.codec import decoder, encoder
from cannery.candid.types import Nat64
from cannery.client import Agent, AsyncAgent
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.management import types as t
from cannery.replica.management.dispatch import METHODS
from cannery.replica.places import SubnetChoice
from tests.crash.checks import check_all, is_delivered, read_mailbox
from tests.crash.writer import Writer
from tests.crash.zone import KilledZone
from tests.node_under_test import NodeUnderTest
from tests.sim.failure import Broken
from tests.sim.peers import TOKENS
from tests.sim.programs import modules

WRITER_COUNT = 6
PEER_COUNT = 3
EPOCH_CYCLE_COUNT = 20
UNDER_LOAD_S_MAX = 1.0
DELIVERED_S_MAX = 90.0
# A start takes seconds; a busy machine may hold everything up for minutes.
READY_S_MAX = 300.0
START_COUNT_MAX = 3
# A machine that is stopped, or starved, for minutes must not pass for a program that runs away.
SETTINGS = """[node]
no_progress_ms_max = 600000
{gateways}[gateway]
requests_per_address_per_s = 100000.0
requests_per_address_burst = 100000
"""


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of the kills."""

    cycle_count: int
    call_count: int
    unsure_count: int
    letter_count: int
    message_count: int


class CrashTest:
    """One node and its clients."""

    def __init__(
        self, folder: Path, seed: int, say: Callable[[str], None], subnets: int = 1, gateways: int = 0
    ) -> None:
        """`gateways`: how many the node has; 0: as many as it has by itself."""
        settings = SETTINGS.format(gateways=f"gateway_count = {gateways}\n" if gateways else "")
        options = ("--subnets", str(subnets)) if subnets > 1 else ()
        self.node = NodeUnderTest(
            folder / "data", folder / "home", settings=settings, options=options, ready_s_max=READY_S_MAX
        )
        self.zone: KilledZone | None = None
        self.message_count = 0
        self.chance = random.Random(seed)
        self.say = say
        self.peers: list[Principal] = []
        self.writers: list[Writer] = []
        self.call_count = self.unsure_count = 0

    async def run(self, cycle_count: int) -> Summary:
        """Start, load, kill and start so many times; check everything now and then, and at the end."""
        self.node.start()
        try:
            await self._register()
            self.zone = await asyncio.to_thread(KilledZone, self.node)
            await self.zone.open([writer.identity for writer in self.writers])
            for first in range(0, cycle_count, EPOCH_CYCLE_COUNT):
                await self._run_epoch(range(first, min(first + EPOCH_CYCLE_COUNT, cycle_count)))
            for writer in self.writers:
                await writer.agent.close()
            await self.zone.close()
        finally:
            self.node.close()
        letter_count = sum(len(writer.letters) for writer in self.writers)
        return Summary(cycle_count, self.call_count, self.unsure_count, letter_count, self.message_count)

    async def _run_epoch(self, cycles: range) -> None:
        """Kill the node some times while its clients call new peers, then check what is left, twice."""
        assert self.zone is not None
        await asyncio.to_thread(self._deploy)
        for writer in self.writers:
            writer.begin(self.peers, self.zone)
        tasks = [asyncio.create_task(writer.run()) for writer in self.writers]
        for cycle in cycles:
            await self._cycle(cycle, tasks)
        for writer in self.writers:
            writer.is_over = True
        await asyncio.gather(*tasks)
        await self._wait_for_delivery()
        async with AsyncAgent(self.node.url, self.node.operator, root_key=self.node.root_key) as operator:
            await check_all(operator, self.writers, self.peers)
            await self.zone.check()
            # What clients saw must be what the disk has.
            self.kill()
            await asyncio.to_thread(self._start)
            await check_all(operator, self.writers, self.peers)
            self.message_count = await self.zone.check()
        calls = [call for writer in self.writers for call in writer.calls]
        self.call_count += len(calls)
        self.unsure_count += sum(1 for call in calls if call.state == "unsure")
        self.say(
            f"{len(calls)} calls and {self.message_count} messages checked, before and after one more kill"
        )

    async def _register(self) -> None:
        node = self.node
        assert node.canisters is not None
        names = [f"writer_{number}" for number in range(WRITER_COUNT)]
        for number in range(WRITER_COUNT):
            chance = random.Random(self.chance.getrandbits(64))
            self.writers.append(
                Writer(number, node.url, node.root_key, node.canisters["user_index"], chance, names)
            )
        await asyncio.gather(*(writer.register() for writer in self.writers))

    def _deploy(self) -> None:
        with self.node.agent(self.node.operator) as agent:
            self.peers = [_make_peer(agent) for _ in range(PEER_COUNT)]

    async def _cycle(self, cycle: int, tasks: list[asyncio.Task[None]]) -> None:
        before = sum(writer.acknowledged for writer in self.writers)
        await asyncio.sleep(self.chance.uniform(0.02, UNDER_LOAD_S_MAX))
        self.kill()
        started_s = time.monotonic()
        await asyncio.to_thread(self._start)
        for task in tasks:
            if task.done():
                task.result()
        done = sum(writer.acknowledged for writer in self.writers) - before
        self.say(
            f"kill {cycle + 1}: {done} calls since the last, back in {time.monotonic() - started_s:.1f} s"
        )

    def _start(self) -> None:
        """Start the node. Where a machine that is stopped for minutes makes it give up, it is tried again."""
        for left in reversed(range(START_COUNT_MAX)):
            try:
                self.node.start()
                return
            except AssertionError as error:
                if not left:
                    raise
                self.say(f"a start is tried again: {str(error).strip().splitlines()[-1]}")

    def kill(self) -> None:
        """Send SIGKILL to every process of the node, at once, and wait for the last to go."""
        assert self.node.process is not None
        parent = psutil.Process(self.node.process.pid)
        processes = [*parent.children(recursive=True), parent]
        self.chance.shuffle(processes)
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.node.process.wait()
        _, alive = psutil.wait_procs(processes, timeout=20)
        assert not alive, f"left behind: {alive}"

    async def _wait_for_delivery(self) -> None:
        end_s = time.monotonic() + DELIVERED_S_MAX
        while True:
            mailboxes = {writer.name: await read_mailbox(writer) for writer in self.writers}
            if is_delivered(self.writers, mailboxes):
                return
            if time.monotonic() > end_s:
                raise Broken("acknowledged implies readable", "not all letters arrive")
            await asyncio.sleep(0.5)


def _make_peer(agent: Agent) -> Principal:
    """Make a peer on whatever subnet."""
    wanted = t.ProvisionalCreateArgs(subnet=SubnetChoice.any())
    created = _manage(agent, "provisional_create_canister_with_cycles", wanted)
    assert isinstance(created, t.CanisterIdRecord)
    peer, arg = created.canister_id, encoder((Nat64(),))((TOKENS,))
    install = t.InstallCodeArgs(t.InstallMode.install(), peer, modules().peer, arg)
    _manage(agent, "install_code", install, effective=peer)
    return peer


def _manage(agent: Agent, name: str, arg: object, effective: Principal | None = None) -> object:
    method = METHODS[name]
    reply = agent.call(MANAGEMENT, name, encoder(method.args)((arg,)), effective=effective)
    values = decoder(method.results)(reply)
    return values[0] if values else None
