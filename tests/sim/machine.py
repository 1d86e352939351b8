"""One simulated machine: the real subnet service on a store that fails, under a seed.

The machine crashes, loses what was not synced, fills up, and is repaired; a sync takes as long as the seed
wants. It knows which blocks were durable, and holds every law that a single round can break. Clients and
their network are the world's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Protocol

from cannery.errors import StoreError
from cannery.limits import CONDEMNED_NS_MAX
from cannery.node.service import Subnet
from cannery.node.submitted import Durable
from cannery.node.subnet_doors import Doors, SubnetLimits
from cannery.node.written import Sync
from cannery.ports import Stopped, WriteBatch
from cannery.replica import keys, records
from cannery.replica.block import Block, Ingress, ReplicaConfig, decode_block
from cannery.testing import Crashed, ManualClock
from tests.sim.accounts import Accounts
from tests.sim.failure import Broken
from tests.sim.plan import Plan
from tests.sim.programs import SimPrograms, SimWatch
from tests.sim.store import SimStore

MS_NS = 1_000_000


class Surroundings(Protocol):
    """What a machine knows of the world around it."""

    plan: Plan
    chance: random.Random
    clock: ManualClock
    is_calm: bool
    step_number: int

    def say(self, text: str) -> None: ...
    def count(self, what: str, number: int = 1) -> None: ...
    def pass_time(self, elapsed_ns: int) -> None: ...
    def became_durable(self, machine: Machine, durable: Durable) -> None: ...


class Machine:
    """A machine and its subnet, over all its crashes. `subnet` is None while it is down."""

    def __init__(self, world: Surroundings, config: ReplicaConfig, log_chance: random.Random) -> None:
        """`log_chance` decides faults that older seeds do not know, so that those stay the runs they were."""
        self.world = world
        plan, chance = world.plan, world.chance
        self.store = SimStore(chance)
        self.store.on_write = self._written
        self.store.on_operation = self._take_time
        self.accounts = Accounts(plan.ingress_queue_count_max, plan.call_queue_count_max)
        self.heads: dict[int, records.HeadRecord] = {}
        self.certain = 0
        self.checkpoint: tuple[int, dict[bytes, bytes]] | None = None
        self.checkpoint_at = chance.randint(1, 1 + plan.step_count // 2)
        self._log_chance = log_chance
        self._condemned: dict[bytes, int] = {}
        self._watch = SimWatch()
        self._programs = SimPrograms(self._stop_runaway, chance)
        self._sync: Sync | None = None
        self._free_bytes = 1 << 40
        self._full_until = self._heal_at = self._marked = 0
        self._config = config
        self.subnet: Subnet | None = None
        self.start()

    @property
    def number(self) -> int:
        """Which of the node's subnets it has."""
        return self._config.subnet

    @property
    def has_failed(self) -> bool:
        """Say whether its store fails."""
        return self.subnet is not None and self.subnet.failure is not None

    @property
    def is_up(self) -> bool:
        """Say whether it runs and its store does not fail."""
        return self.subnet is not None and self.subnet.failure is None

    @property
    def is_syncing(self) -> bool:
        """Say whether rounds wait for their sync."""
        return self._sync is not None or (self.subnet is not None and bool(self.subnet._unsynced))

    # --- what happens by itself

    def turn(self) -> None:
        """Run a round or not, move a sync on or not; start again what is down."""
        subnet, world = self.subnet, self.world
        if subnet is None:
            self.start()
            return
        with self.crashing():
            if subnet.failure is not None:
                if self._sync is None and (world.is_calm or world.chance.random() < 0.4):
                    self._recover(subnet)
            elif subnet.is_ready() and (world.is_calm or world.chance.random() < 0.9):
                subnet.run_round()
            if self.store.is_down:
                raise Crashed("while a program ran")
            self._move_sync(subnet)

    def _move_sync(self, subnet: Subnet) -> None:
        if self._sync is None:
            self._sync = subnet.begin_sync()
            if self._sync is None:
                return
            self.store.begin_sync()
        if self.world.is_calm or self.world.chance.random() < self.world.plan.sync_rate:
            sync, self._sync = self._sync, None
            sync.run()
            durable = subnet.finish_sync(sync)
            self._became_durable(subnet)
            self.world.became_durable(self, durable)

    def _recover(self, subnet: Subnet) -> None:
        durable = subnet.recover()
        if durable is not None:
            self.world.count("recoveries")
            self.accounts.load(self.store.values)
            self._became_durable(subnet)
            self.world.say(f"recovered at block {subnet.head.number}")
            self.world.became_durable(self, durable)

    @contextmanager
    def crashing(self) -> Iterator[None]:
        """Be down after whatever crashes within."""
        try:
            yield
        except Crashed:
            self.crashed()

    def crashed(self) -> None:
        """Note that everything in memory is gone."""
        if self.subnet is None:
            return
        self.world.count("crashes")
        self.subnet = None
        self._sync = None

    def start(self) -> None:
        """Start on what the store kept, if it starts."""
        world, plan = self.world, self.world.plan
        if self.store.is_down:
            lost = self.store.power_up()
            world.say(f"started again, {lost} rounds lost")
            self.accounts.load(self.store.values)
        doors = Doors(
            open_store=self.store.reopened,
            programs=self._programs,
            clock=world.clock,
            entropy=self,
            watch=self._watch,
            certify=lambda canister_id, data: sha256(canister_id + data).digest(),
            free_bytes=lambda: self._free_bytes,
            durable_mark=self,
        )
        limits = SubnetLimits(
            block_input_count_max=plan.block_input_count_max,
            unsynced_round_count_max=plan.unsynced_round_count_max,
        )
        try:
            self.subnet = Subnet(doors, self._config, limits, self._condemned)
        except Crashed:
            return
        except StoreError as error:
            world.say(f"does not start: {error}")
            if world.is_calm:
                raise
            return
        if self.store.is_cut:
            if self.subnet.head.number < self.certain:
                raise Broken("a damaged store stops the node", "it goes on without rounds that were durable")
            # The sync of what was dropped had not come to its end: nobody was told of it.
            self.store.forget_cut()
        self._became_durable(self.subnet)

    # --- behind the subnet's doors

    def note_durable(self, number: int) -> None:
        """Remember a durable block: behind `service.DurableMark`."""
        self._marked = number

    def durable_number(self) -> int:
        """Give the block that was noted last."""
        return self._marked

    def random_bytes(self, count: int) -> bytes:
        """Give bytes of the seed: behind `ports.Entropy`."""
        return self.world.chance.randbytes(count)

    def _stop_runaway(self) -> None:
        draw = self.world.chance.random()
        if draw < 0.15 and not self.world.is_calm:
            identity = self._watch.identity
            self._condemned[identity] = self.world.clock.now_ns() + CONDEMNED_NS_MAX
            self.store.go_down()
            self.world.count("killed runaways")
            raise Crashed("the supervisor killed the process")
        if draw < 0.4:
            raise MemoryError
        raise Stopped

    # --- faults

    def break_something(self) -> None:
        """Let this step go wrong in whatever ways the plan has."""
        world, store = self.world, self.store
        chance, plan = world.chance, world.plan
        if chance.random() < plan.crash_rate:
            store.crash_at = store.operation_count + chance.randint(1, 4)
        if chance.random() < plan.read_crash_rate:
            world.say("crash between operations")
            store.go_down()
            self.crashed()
        self._damage_log()
        if chance.random() < plan.error_rate:
            store.fail_at = store.operation_count + chance.randint(1, 4)
        self._fill_disk()
        if chance.random() < plan.damage_rate and not store.damaged and store.values:
            store.damaged.add(chance.choice(list(store.values)))
            self._heal_at = world.step_number + chance.randint(2, 10)
            world.say(f"damaged {sorted(store.damaged)[0].hex()}")
            world.count("damaged keys")
        elif world.step_number >= self._heal_at:
            self._heal()

    def _take_time(self) -> None:
        """Let an operation of the store take long, in some runs."""
        world = self.world
        if world.plan.slow_rate and not world.is_calm and world.chance.random() < world.plan.slow_rate:
            world.count("slow operations")
            world.pass_time(world.chance.choice((10, 1_000, 20_000, 400_000)) * MS_NS)

    def _damage_log(self) -> None:
        if self._log_chance.random() >= self.world.plan.log_damage_rate:
            return
        self.store.go_down()
        self.crashed()
        if self.store.damage_log(self._log_chance):
            self._heal_at = self.world.step_number + self.world.chance.randint(2, 10)
            self.world.say("damaged the log")
            self.world.count("damaged logs")

    def _fill_disk(self) -> None:
        world, chance = self.world, self.world.chance
        if chance.random() < world.plan.full_rate and not self._full_until:
            self._full_until = world.step_number + chance.randint(2, 15)
            if chance.random() < 0.5:
                self._free_bytes = 1
            else:
                self.store.is_full = True
            world.say("the disk is full")
            world.count("full disks")
        elif self._full_until and world.step_number >= self._full_until:
            self._make_room()

    def _heal(self) -> None:
        """Repair what was damaged, as a restored copy does."""
        self.store.damaged.clear()
        if self.store.is_cut:
            self.store.mend_log()
            self.accounts.load(self.store.values)

    def _make_room(self) -> None:
        self._full_until = 0
        self._free_bytes = 1 << 40
        self.store.is_full = False

    def mend(self) -> None:
        """Repair all that is broken."""
        self._make_room()
        self._heal()
        self.store.crash_at = self.store.fail_at = 0

    # --- what is known of blocks

    def _written(self, batch: WriteBatch) -> None:
        head = records.HEAD.decode(batch.puts[keys.HEAD_KEY] or b"")
        if head.number <= self.certain:
            raise Broken("one total order", f"block {head.number} is written again, it was durable")
        self.heads[head.number] = head
        self.world.count("rounds")
        self.accounts.take(batch)

    def _became_durable(self, subnet: Subnet) -> None:
        head = subnet.head
        if head.number < self.certain:
            raise Broken(
                "one total order", f"block {self.certain} was durable, now {head.number} is the last"
            )
        if head.number and self.heads[head.number] != head:
            raise Broken("one total order", f"block {head.number} is another than the one executed")
        self.certain = head.number
        if (
            self.checkpoint is None
            and self.world.step_number >= self.checkpoint_at
            and not self.store.unsynced_count
        ):
            values = self.store.checkpointed()
            if values.get(keys.HEAD_KEY) == records.encode_record(head):
                self.checkpoint = head.number, values

    def blocks(self) -> list[Block]:
        """Give all blocks of the store, in order."""
        pairs = self.store.pairs(*keys.space_range(keys.BLOCKS))
        return [decode_block(data) for _, data in pairs]

    def order_of_requests(self) -> dict[bytes, tuple[int, int]]:
        """Give the block and the place in it where each request came first."""
        order: dict[bytes, tuple[int, int]] = {}
        for block in self.blocks():
            for place, item in enumerate(block.inputs):
                if isinstance(item, Ingress):
                    order.setdefault(item.request_id, (block.number, place))
        return order
