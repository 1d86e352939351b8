"""One simulated machine with its clients: the real subnet service under a seed.

Each step sends some requests, delivers some copies of what is on the way, runs a round or not, moves a sync
on or not, lets time pass, and perhaps breaks something. After `calm` nothing is broken any more and
everything comes to its end; then the casts and `checks` look at what is left. Every random choice comes from
one generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from types import ModuleType

from cannery.candid.codec import decoder, encoder
from cannery.cdk.declare import Canister
from cannery.client.actor import MethodShape, shape_of
from cannery.errors import StoreError
from cannery.limits import CONDEMNED_NS_MAX
from cannery.node.service import Known, Refusing, Subnet
from cannery.node.subnet_doors import Doors, SubnetLimits
from cannery.node.written import Sync
from cannery.ports import Stopped, WriteBatch
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica import activation, keys, records, scheduler
from cannery.replica.block import Block, Ingress, ReplicaConfig, decode_block
from cannery.replica.management.dispatch import METHODS
from cannery.replica.queries import Query, QueryResult
from cannery.replica.state import Answer
from cannery.testing import Crashed, ManualClock
from cannery.testing.actor import interface_of_class
from tests.sim.accounts import Accounts
from tests.sim.failure import Broken
from tests.sim.plan import Plan
from tests.sim.programs import SimPrograms, SimWatch
from tests.sim.requests import Request
from tests.sim.secrets import Secrets
from tests.sim.store import SimStore

START_NS = 1_767_225_600_000_000_000
EXPIRY_NS = 240_000_000_000
SECOND_NS = 1_000_000_000
DRAIN_STEPS_MAX = 4_000

_SHAPES: dict[tuple[type[Canister], str], MethodShape] = {}


def shape(cls: type[Canister], name: str) -> MethodShape:
    """Give a method of a canister class with its codecs."""
    found = _SHAPES.get((cls, name))
    if found is None:
        for each, func in interface_of_class(cls).methods.items():
            _SHAPES[cls, each] = shape_of(each, func)
        found = _SHAPES[cls, name]
    return found


def person(name: str) -> Principal:
    """Give the principal that has this name."""
    return Principal(sha256(b"sim " + name.encode()).digest()[:28] + b"\x02")


class World:
    """A machine, its node and its clients."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed)
        # Faults that were added later draw from their own, so that older seeds stay the runs that they were.
        self._log_chance = random.Random(f"log {plan.seed}")
        self.operator = person("operator")
        self.clock = ManualClock(START_NS)
        self.store = SimStore(self.chance)
        self.store.on_write = self._written
        self.secrets = Secrets()
        self.accounts = Accounts(plan.ingress_queue_count_max, plan.call_queue_count_max)
        self.requests: list[Request] = []
        self.network: list[Request] = []
        self.heads: dict[int, records.HeadRecord] = {}
        self.certain = 0
        self.checkpoint: tuple[int, dict[bytes, bytes]] | None = None
        self.checkpoint_at = self.chance.randint(1, 1 + plan.step_count // 2)
        self.step_number = 0
        self.counts: dict[str, int] = {}
        self.is_calm = True
        self.trace: Callable[[str], None] | None = None
        self._condemned: dict[bytes, int] = {}
        self._watch = SimWatch()
        self._programs = SimPrograms(self._stop_runaway, self.chance)
        self._sync: Sync | None = None
        self._free_bytes = 1 << 40
        self._full_until = self._heal_at = self._marked = 0
        self._config = ReplicaConfig(
            operators=(self.operator.raw,),
            prices=plan.prices,
            activation_count_max=plan.activation_count_max,
            block_window_count=1_000_000,
        )
        self.subnet: Subnet | None = None
        self._start()

    def say(self, text: str) -> None:
        """Tell what happens, where somebody listens."""
        if self.trace is not None:
            self.trace(f"{self.step_number:5} {text}")

    def count(self, what: str, number: int = 1) -> None:
        """Count an event for the summary."""
        self.counts[what] = self.counts.get(what, 0) + number

    # --- requests

    def send(
        self,
        sender: Principal,
        canister: Principal,
        method: MethodShape,
        *args: object,
        on_end: Callable[[Request], None] | None = None,
        **notes: object,
    ) -> Request:
        """Put a new request on its way."""
        return self.send_raw(sender, canister, method.name, method.encode_args(args), method, on_end, notes)

    def manage(
        self,
        method: str,
        *args: object,
        sender: Principal | None = None,
        on_end: Callable[[Request], None] | None = None,
    ) -> Request:
        """Put a call of the management canister on its way."""
        arg = encoder(METHODS[method].args)(args)
        return self.send_raw(sender or self.operator, MANAGEMENT, method, arg, None, on_end, {})

    def send_raw(
        self,
        sender: Principal,
        canister: Principal,
        method: str,
        arg: bytes,
        method_shape: MethodShape | None = None,
        on_end: Callable[[Request], None] | None = None,
        notes: dict[str, object] | None = None,
    ) -> Request:
        """Put a request with an encoded argument on its way."""
        expiry_ns = self.clock.now_ns() + EXPIRY_NS
        ingress = Ingress(self.chance.randbytes(32), sender.raw, canister.raw, method, arg, expiry_ns)
        request = Request(ingress, sender, method_shape, notes=notes or {}, on_end=on_end)
        self.requests.append(request)
        self._transmit(request)
        if not self.is_calm and self.chance.random() < 0.03:
            request.is_forgotten = True
        return request

    def call(self, sender: Principal, canister: Principal, method: MethodShape, *args: object) -> object:
        """Call while nothing is broken, and give the result."""
        return self._finished(self.send(sender, canister, method, *args)).value

    def manage_now(self, method: str, *args: object, sender: Principal | None = None) -> object:
        """Call the management canister while nothing is broken, and give the result."""
        request = self._finished(self.manage(method, *args, sender=sender))
        assert request.answer is not None
        assert request.answer.reply is not None, request.answer
        values = decoder(METHODS[method].results)(request.answer.reply)
        return values[0] if values else None

    def _finished(self, request: Request) -> Request:
        assert self.is_calm, "only while nothing is broken"
        self.run_out(lambda: request.state == "open")
        assert request.state == "replied", (request.ingress.method, request.state, request.answer)
        return request

    def query(
        self, sender: Principal, canister: Principal, method: MethodShape, *args: object
    ) -> QueryResult | None:
        """Ask the last durable round; None where the node cannot answer now."""
        return self.query_raw(sender, canister, method.name, method.encode_args(args))

    def query_raw(
        self, sender: Principal, canister: Principal, method: str, arg: bytes
    ) -> QueryResult | None:
        """Ask with an encoded argument."""
        if self.subnet is None:
            return None
        query = Query(self.chance.randbytes(32), sender.raw, canister.raw, method, arg)
        try:
            result = self.subnet.query(query)
        except StoreError:
            if not self.store.damaged:
                raise
            return None
        except Crashed:
            self._crashed()
            return None
        if self.store.is_down:
            self._crashed()
            return None
        self.count("queries")
        shown = result.reply if result.reject is None else result.reject.message.encode()
        self.secrets.shown(sender, shown)
        return result

    def _transmit(self, request: Request) -> None:
        plan, chance = self.plan, self.chance
        request.retry_step = self.step_number + plan.patience_steps
        if self.is_calm or chance.random() >= plan.loss_rate:
            self.network.append(request)
        if not self.is_calm and chance.random() < plan.repeat_rate:
            self.network.append(request)

    def _deliver(self, request: Request) -> None:
        subnet = self.subnet
        # The gateway refuses what has expired.
        if subnet is None or request.state == "refused" or request.ingress.expiry_ns <= self.clock.now_ns():
            return
        if request.sent_after < 0:
            request.sent_after = subnet.head.number
        try:
            found = subnet.submit(request.ingress, request)
        except StoreError:
            if not self.store.damaged:
                raise
            return
        except Crashed:
            self._crashed()
            return
        if self.store.is_down:
            self._crashed()
        elif isinstance(found, Known):
            self._end(request, found.answer)
        elif isinstance(found, Refusing):
            self.secrets.shown(request.sender, found.reject.message.encode())
            is_passing = int(found.reject.code) == 2 or subnet.failure is not None
            if not is_passing and request.state == "open":
                request.state = "refused"
                request.notes["refusal"] = found.reject
                self.say(f"refused {request.ingress.method}: {found.reject.message}")
                if request.on_end is not None:
                    request.on_end(request)

    def _end(self, request: Request, answer: Answer) -> None:
        assert self.subnet is not None
        self.secrets.shown(request.sender, answer.reply or answer.reject_message.encode())
        if request.end(answer, self.subnet.head.number):
            self.count("answers")
            self.say(f"{request.state} {request.ingress.method} {answer.reject_message}")

    def _retry(self) -> None:
        for request in self.requests:
            if request.state != "open" or request.retry_step > self.step_number:
                continue
            if request.is_forgotten and not self.is_calm:
                continue
            if request.ingress.expiry_ns > self.clock.now_ns():
                self._transmit(request)
            else:
                self._ask_status(request)

    def _ask_status(self, request: Request) -> None:
        """Ask for the end of an expired request, as a client does that polls."""
        request.retry_step = self.step_number + self.plan.patience_steps
        if self.subnet is None or self.subnet.failure is not None:
            return
        path = (b"request_status", request.id)
        try:
            values = self.subnet.read(request.sender.raw, tuple((*path, leaf) for leaf in _LEAVES))
        except StoreError:
            if not self.store.damaged:
                raise
            return
        except Crashed:
            self._crashed()
            return
        assert isinstance(values, tuple), values
        status, reply, code, text, error_code = values
        if status == b"replied":
            self._end(request, Answer(request.id, request.sender.raw, reply))
        elif status == b"rejected":
            assert code is not None
            assert text is not None
            shown = error_code.decode() if error_code is not None else None
            # It may be a refusal: the node remembers those for a while, they are in no block.
            request.was_read = True
            self._end(request, Answer(request.id, request.sender.raw, None, code[0], text.decode(), shown))
        elif status is None and not self._is_syncing:
            request.state = "unknown"
            self.say(f"unknown {request.ingress.method}")

    # --- steps

    def step(self, act: Callable[[], None]) -> None:
        """Let a little happen."""
        self.step_number += 1
        chance, plan = self.chance, self.plan
        if not self.is_calm:
            self._break_something()
        for _ in range(plan.acts_per_step):
            act()
        self._retry()
        self._deliver_some()
        self._turn()
        if not self.is_calm and self._has_failed() and self._log_chance.random() < 0.08:
            # A failure that outlasts the expiry of what waits, and the statuses of what has run.
            self.pass_time(700 * SECOND_NS)
        elif not self.is_calm and chance.random() < plan.long_wait_rate:
            self.pass_time(chance.choice((20, 300, 700)) * SECOND_NS)
        elif chance.random() < 0.3:
            self.pass_time(chance.randint(0, SECOND_NS))
        if not self.is_calm and chance.random() < 0.02:
            self.clock.set_ns(self.clock.now_ns() - chance.randint(0, 30 * SECOND_NS))

    def _has_failed(self) -> bool:
        return self.subnet is not None and self.subnet.failure is not None

    def _deliver_some(self) -> None:
        chance, network = self.chance, self.network
        count = len(network) if self.is_calm else chance.randint(0, len(network))
        for _ in range(count):
            if not network:
                return
            # Mostly in order, sometimes not.
            place = chance.randrange(len(network)) if chance.random() < 0.2 else 0
            self._deliver(network.pop(place))

    def _turn(self) -> None:
        subnet = self.subnet
        if subnet is None:
            self._start()
            return
        try:
            if subnet.failure is not None:
                if self._sync is None and (self.is_calm or self.chance.random() < 0.4):
                    self._recover(subnet)
            elif subnet.is_ready() and (self.is_calm or self.chance.random() < 0.9):
                subnet.run_round()
            if self.store.is_down:
                raise Crashed("while a program ran")
            self._move_sync(subnet)
        except Crashed:
            self._crashed()

    def _move_sync(self, subnet: Subnet) -> None:
        if self._sync is None:
            self._sync = subnet.begin_sync()
            if self._sync is None:
                return
            self.store.begin_sync()
        if self.is_calm or self.chance.random() < self.plan.sync_rate:
            sync, self._sync = self._sync, None
            sync.run()
            durable = subnet.finish_sync(sync)
            self._became_durable(subnet)
            for ticket, answer in durable.settled:
                assert isinstance(ticket, Request)
                self._end(ticket, answer)

    def _recover(self, subnet: Subnet) -> None:
        if subnet.recover():
            self.count("recoveries")
            self.accounts.load(self.store.values)
            self._became_durable(subnet)
            self.say(f"recovered at block {subnet.head.number}")

    def pass_time(self, elapsed_ns: int) -> None:
        """Let time pass."""
        self.clock.set_ns(self.clock.now_ns() + elapsed_ns)

    # --- faults

    def _break_something(self) -> None:
        chance, plan, store = self.chance, self.plan, self.store
        if chance.random() < plan.crash_rate:
            store.crash_at = store.operation_count + chance.randint(1, 4)
        if chance.random() < plan.read_crash_rate:
            self.say("crash between operations")
            store.go_down()
            self._crashed()
        if self._log_chance.random() < plan.log_damage_rate:
            store.go_down()
            self._crashed()
            if store.damage_log(self._log_chance):
                self._heal_at = self.step_number + chance.randint(2, 10)
                self.say("damaged the log")
                self.count("damaged logs")
        if chance.random() < plan.error_rate:
            store.fail_at = store.operation_count + chance.randint(1, 4)
        if chance.random() < plan.full_rate and not self._full_until:
            self._full_until = self.step_number + chance.randint(2, 15)
            if chance.random() < 0.5:
                self._free_bytes = 1
            else:
                store.is_full = True
            self.say("the disk is full")
            self.count("full disks")
        elif self._full_until and self.step_number >= self._full_until:
            self._make_room()
        if chance.random() < plan.damage_rate and not store.damaged and store.values:
            store.damaged.add(chance.choice(list(store.values)))
            self._heal_at = self.step_number + chance.randint(2, 10)
            self.say(f"damaged {sorted(store.damaged)[0].hex()}")
            self.count("damaged keys")
        elif self.step_number >= self._heal_at:
            self._heal()

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

    def _stop_runaway(self) -> None:
        draw = self.chance.random()
        if draw < 0.15 and not self.is_calm:
            identity = self._watch.identity
            self._condemned[identity] = self.clock.now_ns() + CONDEMNED_NS_MAX
            self.store.go_down()
            self.count("killed runaways")
            raise Crashed("the supervisor killed the process")
        if draw < 0.4:
            raise MemoryError
        raise Stopped

    def _crashed(self) -> None:
        if self.subnet is None:
            return
        self.count("crashes")
        self.subnet = None
        self._sync = None

    def _start(self) -> None:
        if self.store.is_down:
            lost = self.store.power_up()
            self.say(f"started again, {lost} rounds lost")
            self.accounts.load(self.store.values)
        doors = Doors(
            open_store=self.store.reopened,
            programs=self._programs,
            clock=self.clock,
            entropy=self,
            watch=self._watch,
            certify=lambda canister_id, data: sha256(canister_id + data).digest(),
            free_bytes=lambda: self._free_bytes,
            durable_mark=self,
        )
        plan = self.plan
        limits = SubnetLimits(
            block_input_count_max=plan.block_input_count_max,
            unsynced_round_count_max=plan.unsynced_round_count_max,
        )
        try:
            self.subnet = Subnet(doors, self._config, limits, self._condemned)
        except Crashed:
            return
        except StoreError as error:
            self.say(f"does not start: {error}")
            if self.is_calm:
                raise
            return
        if self.store.is_cut:
            if self.subnet.head.number < self.certain:
                raise Broken("a damaged store stops the node", "it goes on without rounds that were durable")
            # The sync of what was dropped had not come to its end: nobody was told of it.
            self.store.forget_cut()
        self._became_durable(self.subnet)

    def note_durable(self, number: int) -> None:
        """Remember a durable block: behind `service.DurableMark`."""
        self._marked = number

    def durable_number(self) -> int:
        """Give the block that was noted last."""
        return self._marked

    def random_bytes(self, count: int) -> bytes:
        """Give bytes of the seed: behind `ports.Entropy`."""
        return self.chance.randbytes(count)

    # --- what is known of blocks

    def _written(self, batch: WriteBatch) -> None:
        head = records.HEAD.decode(batch.puts[keys.HEAD_KEY] or b"")
        if head.number <= self.certain:
            raise Broken("one total order", f"block {head.number} is written again, it was durable")
        self.heads[head.number] = head
        self.count("rounds")
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
            and self.step_number >= self.checkpoint_at
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

    # --- coming to rest

    def calm(self) -> None:
        """Mend all that is broken and lose nothing from now on."""
        self.is_calm = True
        self._make_room()
        self._heal()
        self.store.crash_at = self.store.fail_at = 0
        self.say("calm")

    def run_out(self, goes_on: Callable[[], bool]) -> None:
        """Run until there is nothing to do, or the condition ends."""
        for _ in range(DRAIN_STEPS_MAX):
            if not goes_on():
                return
            self.step_number += 1
            self._retry()
            self._deliver_some()
            self._turn()
            subnet = self.subnet
            if subnet is not None and not self.network and not subnet.is_ready() and not self._is_syncing:
                wait_ns = subnet.wait_ns()
                self.pass_time(min(wait_ns, SECOND_NS) if wait_ns else SECOND_NS)
        raise Broken("everything comes to its end", "the world is still busy")

    @property
    def is_busy(self) -> bool:
        """Say whether anybody still waits for the end of a request, or a node is down."""
        if self.subnet is None or self.subnet.failure is not None or self.network:
            return True
        return any(request.state == "open" for request in self.requests)

    @property
    def _is_syncing(self) -> bool:
        return self._sync is not None or (self.subnet is not None and bool(self.subnet._unsynced))

    def rest(self, seconds: int) -> None:
        """Let so much time pass, each timer at its own time."""
        until_ns = self.clock.now_ns() + seconds * SECOND_NS
        for _ in range(DRAIN_STEPS_MAX):
            subnet = self.subnet
            assert subnet is not None
            if subnet.is_ready() or self._is_syncing:
                self._turn()
                continue
            due_ns = subnet.next_wake_ns()
            if due_ns is None or due_ns > until_ns:
                self.clock.set_ns(until_ns)
                return
            self.clock.set_ns(max(due_ns, self.clock.now_ns()))
        raise Broken("everything comes to its end", "timers never come to rest")


@contextmanager
def bounds_of(plan: Plan) -> Iterator[None]:
    """Give the state machine the plan's bounds while a run lasts."""
    wanted: tuple[tuple[ModuleType, str, int], ...] = (
        (scheduler, "INGRESS_QUEUE_COUNT_MAX", plan.ingress_queue_count_max),
        (scheduler, "CALL_QUEUE_COUNT_MAX", plan.call_queue_count_max),
        (activation, "CALLS_PER_PAIR_COUNT_MAX", plan.calls_per_pair_count_max),
    )
    before = [getattr(module, name) for module, name, _ in wanted]
    for module, name, value in wanted:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(wanted, before, strict=True):
            setattr(module, name, value)


_LEAVES = (b"status", b"reply", b"reject_code", b"reject_message", b"error_code")
