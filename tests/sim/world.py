"""One simulated node with its clients: one machine, or one for each of its subnets, under a seed.

Each step sends some requests, delivers some copies of what is on the way, lets every machine run a round or
not and move a sync on or not, lets time pass, and perhaps breaks something. After `calm` nothing is broken
any more and everything comes to its end; then the casts and `checks` look at what is left. Every random
choice comes from one generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256

from cannery.candid.codec import decoder, encoder
from cannery.client.actor import MethodShape
from cannery.errors import StoreError
from cannery.node.submitted import Durable, Known, Refusing
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.block import Ingress, ReplicaConfig
from cannery.replica.management import types as t
from cannery.replica.management.dispatch import METHODS
from cannery.replica.places import Anywhere, SubnetChoice, place_of_management, route_of_canister
from cannery.replica.queries import Query, QueryResult
from cannery.replica.state import Answer
from cannery.testing import Crashed, ManualClock
from cannery.testing.streams import make_routes
from tests.sim.failure import Broken
from tests.sim.machine import Machine
from tests.sim.plan import Company, Plan
from tests.sim.requests import Request, person
from tests.sim.secrets import Secrets
from tests.sim.streams import Streams

START_NS = 1_767_225_600_000_000_000
EXPIRY_NS = 240_000_000_000
SECOND_NS = 1_000_000_000
DRAIN_STEPS_MAX = 4_000
_LEAVES = (b"status", b"reply", b"reject_code", b"reject_message", b"error_code")


class World:
    """A node and its clients."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed)
        # Faults that were added later draw from their own, so that older seeds stay the runs that they were.
        self._log_chance = random.Random(f"log {plan.seed}")
        self.operator = person("operator")
        self.clock = ManualClock(START_NS)
        self.secrets = Secrets()
        self.requests: list[Request] = []
        self.network: list[Request] = []
        self.step_number = 0
        self.counts: dict[str, int] = {}
        self.is_calm = True
        self.trace: Callable[[str], None] | None = None
        self.on_durable: list[Callable[[Machine, Durable], None]] = []
        self.on_turn: list[Callable[[], None]] = []
        self.routes = make_routes(plan.subnet_count) if plan.subnet_count > 1 else ()
        self.machines = [
            Machine(self, self._config(number), self._log_chance) for number in range(plan.subnet_count)
        ]
        self.streams = Streams(self)

    def _config(self, number: int) -> ReplicaConfig:
        return ReplicaConfig(
            operators=(self.operator.raw,),
            prices=self.plan.prices,
            activation_count_max=self.plan.activation_count_max,
            block_window_count=1_000_000,
            subnet=number,
            routes=self.routes,
            spreads=len(self.routes) > 1,
            outcall_hosts=() if self.plan.company is Company.TOWN else ("*",),
        )

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
        elif self.plan.gone_rate and not self.is_calm and self.chance.random() < self.plan.gone_rate:
            request.is_gone = True
            self.count("clients that disappeared")
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
        machine = self.machine_of(canister)
        subnet = machine.subnet
        if subnet is None or subnet.is_rejoining:
            return None
        query = Query(self.chance.randbytes(32), sender.raw, canister.raw, method, arg)
        try:
            result = subnet.query(query)
        except StoreError:
            if not machine.store.damaged:
                raise
            return None
        except Crashed:
            machine.crashed()
            return None
        if machine.store.is_down:
            machine.crashed()
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
        machine = self._machine_for(request.ingress)
        subnet = machine.subnet
        # The gateway refuses what has expired.
        if subnet is None or request.state == "refused" or request.ingress.expiry_ns <= self.clock.now_ns():
            return
        if request.sent_after < 0:
            request.sent_after = subnet.head.number
        try:
            found = subnet.submit(request.ingress, request)
        except StoreError:
            if not machine.store.damaged:
                raise
            return
        except Crashed:
            machine.crashed()
            return
        if machine.store.is_down:
            machine.crashed()
        elif isinstance(found, Known):
            self._end(request, found.answer)
        elif isinstance(found, Refusing):
            self.secrets.shown(request.sender, found.reject.message.encode())
            is_passing = int(found.reject.code) == 2 or subnet.failure is not None or request.is_gone
            if not is_passing and request.state == "open":
                request.state = "refused"
                request.notes["refusal"] = found.reject
                self.say(f"refused {request.ingress.method}: {found.reject.message}")
                if request.on_end is not None:
                    request.on_end(request)

    def _end(self, request: Request, answer: Answer) -> None:
        if request.is_gone:
            # Nobody is there to hear it.
            return
        subnet = self._machine_for(request.ingress).subnet
        assert subnet is not None
        self.secrets.shown(request.sender, answer.reply or answer.reject_message.encode())
        if request.end(answer, subnet.head.number):
            self.count("answers")
            self.say(f"{request.state} {request.ingress.method} {answer.reject_message}")

    def _retry(self) -> None:
        for request in self.requests:
            if request.state != "open" or request.retry_step > self.step_number:
                continue
            if request.is_gone or (request.is_forgotten and not self.is_calm):
                continue
            if request.ingress.expiry_ns > self.clock.now_ns():
                self._transmit(request)
            else:
                self._ask_status(request)

    def _ask_status(self, request: Request) -> None:
        """Ask for the end of an expired request, as a client does that polls."""
        request.retry_step = self.step_number + self.plan.patience_steps
        machine = self._machine_for(request.ingress)
        if machine.subnet is None or machine.subnet.failure is not None or machine.subnet.is_rejoining:
            return
        path = (b"request_status", request.id)
        try:
            values = machine.subnet.read(request.sender.raw, tuple((*path, leaf) for leaf in _LEAVES))
        except StoreError:
            if not machine.store.damaged:
                raise
            return
        except Crashed:
            machine.crashed()
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
        elif status is None and not machine.is_syncing:
            request.state = "unknown"
            self.say(f"unknown {request.ingress.method}")

    # --- steps

    def step(self, act: Callable[[], None]) -> None:
        """Let a little happen."""
        self.step_number += 1
        chance, plan = self.chance, self.plan
        if not self.is_calm:
            for machine in self.machines:
                machine.break_something()
        for _ in range(plan.acts_per_step):
            act()
        self._retry()
        self._deliver_some()
        self._turn()
        if not self.is_calm and any(m.has_failed for m in self.machines) and self._log_chance.random() < 0.08:
            # A failure that outlasts the expiry of what waits, and the statuses of what has run.
            self.pass_time(700 * SECOND_NS)
        elif not self.is_calm and chance.random() < plan.long_wait_rate:
            self.pass_time(chance.choice((20, 300, 700)) * SECOND_NS)
        elif chance.random() < 0.3:
            self.pass_time(chance.randint(0, SECOND_NS))
        if not self.is_calm and chance.random() < 0.02:
            self.clock.set_ns(self.clock.now_ns() - chance.randint(0, 30 * SECOND_NS))

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
        for machine in self.machines:
            machine.turn()
        self.streams.turn()
        for turn in self.on_turn:
            turn()

    def became_durable(self, machine: Machine, durable: Durable) -> None:
        """Let out what a sync has made durable."""
        for ticket, answer in durable.settled:
            assert isinstance(ticket, Request)
            self._end(ticket, answer)
        for hear in self.on_durable:
            hear(machine, durable)

    def pass_time(self, elapsed_ns: int) -> None:
        """Let time pass."""
        self.clock.set_ns(self.clock.now_ns() + elapsed_ns)

    # --- where things are

    def subnet_choice(self, place: int) -> SubnetChoice | None:
        """Name a subnet by any number, where there are several."""
        if not self.routes:
            return None
        return SubnetChoice.id(Principal(self.routes[place % len(self.routes)].subnet_id))

    def installing(
        self, mode: t.InstallMode, canister: Principal, module: bytes, arg: bytes
    ) -> tuple[str, object]:
        """Give the management call that installs a module: by its hash where its subnet has it."""
        if self.machine_of(canister).number:
            return "install_code", t.InstallCodeArgs(mode, canister, module, arg)
        code = t.InstallChunkedCodeArgs(mode, canister, None, [], sha256(module).digest(), arg)
        return "install_chunked_code", code

    def machine_of(self, canister: Principal) -> Machine:
        """Give the machine whose subnet has a canister."""
        if len(self.machines) == 1:
            return self.machines[0]
        route = route_of_canister(self.routes, canister.raw)
        return self.machines[0 if route is None else route.subnet]

    def _machine_for(self, ingress: Ingress) -> Machine:
        """Give the machine to whose subnet a gateway brings a message, each time the same."""
        if len(self.machines) == 1 or ingress.canister_id:
            return self.machine_of(Principal(ingress.canister_id))
        place = place_of_management(self.routes, ingress.method, ingress.arg)
        if isinstance(place, Anywhere):
            place = int.from_bytes(ingress.request_id[:4], "big") % len(self.machines)
        return self.machines[place or 0]

    def order_of_requests(self) -> dict[bytes, tuple[int, int]]:
        """Give the block of its subnet and the place in it where each request came first."""
        order: dict[bytes, tuple[int, int]] = {}
        for machine in self.machines:
            order |= machine.order_of_requests()
        return order

    def pairs(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        """Give the pairs of a range in the stores of all machines."""
        return [pair for machine in self.machines for pair in machine.store.pairs(start, end)]

    # --- coming to rest

    def calm(self) -> None:
        """Mend all that is broken and lose nothing from now on."""
        self.is_calm = True
        for machine in self.machines:
            machine.mend()
        for request in self.requests:
            if request.is_gone:
                request.state = "unknown"
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
            if not self.network and not self._is_working:
                waits = [m.subnet.wait_ns() for m in self.machines if m.subnet is not None]
                wait_ns = min((wait for wait in waits if wait is not None), default=0)
                self.pass_time(min(wait_ns, SECOND_NS) if wait_ns else SECOND_NS)
        raise Broken("everything comes to its end", "the world is still busy")

    @property
    def is_busy(self) -> bool:
        """Say whether anybody still waits for the end of a request, or a machine is down."""
        if self.network or not all(machine.is_up for machine in self.machines):
            return True
        return any(request.state == "open" for request in self.requests)

    @property
    def _is_working(self) -> bool:
        """Say whether there is anything to do before time passes."""
        ready = any(
            machine.subnet is None or machine.subnet.is_ready() or machine.subnet.outcalls.waiting
            for machine in self.machines
        )
        return ready or self.streams.is_busy or any(machine.is_syncing for machine in self.machines)

    def rest(self, seconds: int) -> None:
        """Let so much time pass, each timer at its own time."""
        until_ns = self.clock.now_ns() + seconds * SECOND_NS
        for _ in range(DRAIN_STEPS_MAX):
            if self._is_working:
                self._turn()
                continue
            wakes = [machine.subnet.next_wake_ns() for machine in self.machines if machine.subnet is not None]
            due_ns = min((wake for wake in wakes if wake is not None), default=None)
            if due_ns is None or due_ns > until_ns:
                self.clock.set_ns(until_ns)
                return
            self.clock.set_ns(max(due_ns, self.clock.now_ns()))
        raise Broken("everything comes to its end", "timers never come to rest")
