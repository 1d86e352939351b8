"""An in-process node for tests of canisters: the real round loop, a manual clock, no sockets, no sleeps.

    with Node() as node:
        book = node.install(Guestbook)
        book.as_("ann").sign("hi")
        node.advance(seconds=60)
        assert book.latest(10)[0].text == "hi"

Blocks, rounds, syncs, timers and admission are those of a real node; what is missing is HTTP and signatures:
`as_` says who calls. With a `FaultyStore` the machine can crash at any write: `restart` goes on with what
survived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from msgspec.structs import replace

from cannery.candid.codec import decoder, encoder
from cannery.cdk.build import build_module
from cannery.cdk.declare import Canister
from cannery.cdk.module_file import parse_module
from cannery.client.errors import Rejected
from cannery.errors import CanneryError
from cannery.limits import (
    COMPOSITE_CPU_NS_MAX,
    EVENT_LOG_COUNT_MAX,
    EVENT_LOG_SIZE_BYTES_MAX,
    HOOK_CPU_NS_MAX,
    MESSAGE_CPU_NS_MAX,
    QUERY_CPU_NS_MAX,
    TEST_CPU_FACTOR,
    TEST_ROUND_COUNT_MAX,
)
from cannery.node.python_runtime import PythonPrograms, SourceLoader
from cannery.node.service import Subnet
from cannery.node.source_files import read_source
from cannery.node.store_rocksdb import RocksStore
from cannery.node.submitted import Durable, Known, Refusing
from cannery.node.subnet_doors import Doors, SubnetLimits
from cannery.node.watch import CpuWatch
from cannery.ports import Store
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.block import Ingress, ReplicaConfig, Route
from cannery.replica.management.dispatch import METHODS
from cannery.replica.management.types import (
    CanisterIdRecord,
    CanisterSettings,
    FetchLogsArgs,
    InstallCodeArgs,
    InstallMode,
    ProvisionalCreateArgs,
    ProvisionalTopUpArgs,
    UpdateSettingsArgs,
    UpgradeFlags,
)
from cannery.replica.places import SubnetChoice
from cannery.replica.queries import Query
from cannery.replica.state import Answer
from cannery.testing.actor import Actor, Interface, interface_of_class, interface_of_did, rejected, reply_of
from cannery.testing.class_source import source_of
from cannery.testing.clock import ManualClock, SeededEntropy
from cannery.testing.http_script import HttpRequest, HttpRule, HttpScript
from cannery.testing.store import FaultyStore, MemoryStore
from cannery.testing.streams import Carrier, make_routes, place_of, run_composite, subnet_down

START_NS: Final = 1_767_225_600_000_000_000
_EXPIRY_NS: Final = 240_000_000_000
_NS_PER_S: Final = 1_000_000_000
_ANY_HOST: Final = ("*", "http://*")
_CPU_LIMITS: Final = {
    "message_cpu_ns_max": MESSAGE_CPU_NS_MAX,
    "hook_cpu_ns_max": HOOK_CPU_NS_MAX,
    "query_cpu_ns_max": QUERY_CPU_NS_MAX,
    "composite_cpu_ns_max": COMPOSITE_CPU_NS_MAX,
}

Installable = type[Canister] | str | Path | bytes


@dataclass(frozen=True, slots=True)
class Event:
    """An event that a canister emitted."""

    number: int
    time_ns: int
    topic: str
    payload: bytes


class Unanswered(CanneryError):
    """A call has no answer although nothing is left to run: it waits for time to pass."""


class Node:
    """A node for tests. Close it, or use it with `with`."""

    def __init__(
        self,
        store: Store | Sequence[Store] | None = None,
        *,
        data: Path | str | None = None,
        config: ReplicaConfig | None = None,
        third_party: frozenset[str] = frozenset(),
        seed: int = 0,
        limits: SubnetLimits | None = None,
        subnets: int = 1,
    ) -> None:
        """Make a node on a store in memory, on the `store` given, or on RocksDB in the directory `data`.

        With several `subnets`, `store` may be one for each.

        `config` sets prices and limits, and whom canisters may call over HTTP (without it: everybody); `seed`
        decides all chance. A slow machine fails no test of honest programs: limits on CPU time that are those
        of any node are ten times as long here; others are taken as they are.
        """
        self.operator = self.principal("operator")
        self.clock = ManualClock(START_NS)
        stores = list(store) if isinstance(store, Sequence) else [store]
        self._open_stores = [
            _store_opener(stores[number] if number < len(stores) else None, data, number)
            for number in range(subnets)
        ]
        self._stores: list[Store | None] = [None] * subnets
        self.routes = make_routes(subnets)
        self._carrier = Carrier()
        chosen = config or ReplicaConfig(outcall_hosts=_ANY_HOST)
        self._config = _with_operator(chosen, self.operator, third_party, self.routes)
        self._third_party = third_party
        self._limits = limits
        self._entropy = SeededEntropy(seed)
        self._watch = CpuWatch()
        self._programs = PythonPrograms(third_party, watch=self._watch)
        self._answers: dict[int, Answer | Rejected] = {}
        self._ticket = 0
        self._http = HttpScript()
        self._down: set[int] = set()
        self.subnets = [self._open(number) for number in range(subnets)]
        # On data of an earlier node: go on after its last block, with other chance than it had.
        heads = [subnet.head for subnet in self.subnets]
        self.clock.set_ns(max(START_NS, *(head.time_ns for head in heads)))
        self._entropy.skip(sum(head.number for head in heads))
        self.run()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the node; a node on RocksDB leaves its data."""
        for subnet in self.subnets:
            subnet.close()
        self._programs.close()
        self._watch.close()

    @property
    def subnet(self) -> Subnet:
        """The first subnet."""
        return self.subnets[0]

    @subnet.setter
    def subnet(self, subnet: Subnet) -> None:
        self.subnets[0] = subnet

    def subnet_id(self, number: int) -> Principal:
        """Give the principal of a subnet."""
        return Principal(self.routes[number].subnet_id)

    # --- canisters

    def install(
        self,
        what: Installable,
        *args: object,
        cycles: int | None = None,
        controllers: tuple[object, ...] = (),
        subnet: int = 0,
    ) -> Actor:
        """Create a canister of a class, a file (`guestbook.py`, `guestbook.py:Guestbook`) or a module's
        bytes.

        `args` are those of its init hook. It belongs to `node.operator`, and to `controllers` if there are
        any.
        """
        module, interface = self._built(what)
        place = SubnetChoice.id(self.subnet_id(subnet))
        wanted = ProvisionalCreateArgs(amount=cycles, subnet=place)
        created = self.manage("provisional_create_canister_with_cycles", wanted)
        assert isinstance(created, CanisterIdRecord), "that is the method's result"
        mode = InstallMode.install()
        self._install_code(created.canister_id, mode, module, interface.encode_init(args))
        if controllers:
            self.set_controllers(created.canister_id, self.operator, *controllers)
        return Actor(self, created.canister_id, interface)

    def upgrade(self, canister: Actor, what: Installable, arg: bytes = b"DIDL\x00\x00") -> Actor:
        """Upgrade a canister to another version; gives its actor with the new types."""
        module, interface = self._built(what)
        self._install_code(canister.id, InstallMode.upgrade(UpgradeFlags()), module, arg)
        return Actor(self, canister.id, interface, canister.sender)

    def reinstall(self, canister: Actor, what: Installable, *args: object) -> Actor:
        """Install anew, without the state that was there."""
        module, interface = self._built(what)
        self._install_code(canister.id, InstallMode.reinstall(), module, interface.encode_init(args))
        return Actor(self, canister.id, interface, canister.sender)

    def actor(self, canister_id: Principal, what: Installable) -> Actor:
        """Give an actor for a canister that is there (made by another canister, say), typed as `what`."""
        if isinstance(what, type):
            return Actor(self, canister_id, interface_of_class(what))
        return Actor(self, canister_id, self._built(what)[1])

    def build(self, what: Installable) -> bytes:
        """Give the module of a class or file."""
        return self._built(what)[0]

    def manage(self, method: str, *args: object, sender: object = None) -> object:
        """Call the management canister as the operator (or `sender`), with values of
        `replica.management.types`.
        """
        found = METHODS[method]
        who = self.operator if sender is None else self.principal(sender)
        arg = encoder(found.args)(args)
        is_query = found.update is None
        ask = self.query_raw if is_query else self.call_raw
        values = decoder(found.results)(ask(MANAGEMENT, method, arg, who))
        return values[0] if values else None

    def set_controllers(self, canister_id: Principal, *who: object) -> None:
        """Set a canister's controllers."""
        settings = CanisterSettings(controllers=[self.principal(each) for each in who])
        self.manage("update_settings", UpdateSettingsArgs(canister_id, settings))

    def top_up(self, canister: Actor, cycles: int) -> None:
        """Give a canister new cycles."""
        self.manage("provisional_top_up_canister", ProvisionalTopUpArgs(canister.id, cycles))

    def logs(self, canister: Actor) -> list[str]:
        """Give what a canister has logged, oldest first."""
        found = self.manage("fetch_canister_logs", FetchLogsArgs(canister.id))
        records = getattr(found, "canister_log_records", [])
        return [bytes(record.content).decode(errors="replace") for record in records]

    def events(self, canister: Actor, since: int = 0) -> list[Event]:
        """Give the events that a canister has emitted and still keeps, from a number on, oldest first."""
        subnet = self._subnet_of(canister.id)
        page = subnet.events(canister.id.raw, since, EVENT_LOG_COUNT_MAX, EVENT_LOG_SIZE_BYTES_MAX * 2)
        found = () if page is None else page.events
        return [Event(number, each.time_ns, each.topic, each.payload) for number, each in found]

    def stop(self, canister: Actor) -> None:
        """Stop a canister."""
        self.manage("stop_canister", CanisterIdRecord(canister.id))

    def start(self, canister: Actor) -> None:
        """Start a stopped canister."""
        self.manage("start_canister", CanisterIdRecord(canister.id))

    # --- the world outside

    def answer_http(self, url_pattern: str, answer: HttpRule) -> None:
        """Answer HTTP requests of canisters whose URL matches (`*` stands for anything); the last rule that
        matches counts. `answer`: bytes, an `HttpResponse`, an `HttpFailure`, an `HttpSilence`, or a function
        of the `HttpRequest` that gives one of them.
        """
        self._http.add(url_pattern, answer)

    @property
    def http_requests(self) -> list[HttpRequest]:
        """What canisters have asked for over HTTP, oldest first; a request repeated after a crash stands
        here again.
        """
        return self._http.requests

    # --- time, rounds, faults

    @property
    def now_ns(self) -> int:
        return self.clock.now_ns()

    def advance(self, *, seconds: float = 0, ns: int = 0) -> None:
        """Let time pass: each timer fires at its own time, and what it sets off runs to its end."""
        target_ns = self.now_ns + round(seconds * _NS_PER_S) + ns
        self.run()
        for _ in range(TEST_ROUND_COUNT_MAX):
            due_ns = min(
                (due for due in (subnet.next_wake_ns() for subnet in self._running()) if due is not None),
                default=None,
            )
            if due_ns is None or due_ns > target_ns:
                break
            self.clock.set_ns(max(self.now_ns, due_ns))
            self.run()
        self.clock.set_ns(max(target_ns, self.now_ns))
        self.run()

    def run(self) -> None:
        """Run rounds until nothing is left to do now."""
        for _ in range(TEST_ROUND_COUNT_MAX):
            if not self.step():
                return
        raise Unanswered(f"the canisters are still busy after {TEST_ROUND_COUNT_MAX} rounds")

    def step(self) -> bool:
        """Run one round and its sync; False where there was nothing to do."""
        self._serve_http()
        if len(self.subnets) > 1:
            self._carrier.carry(self._running())
        ready = [subnet for subnet in self._running() if subnet.is_ready()]
        for subnet in ready:
            self.step_subnet(subnet)
        return bool(ready) and all(subnet.failure is None for subnet in self.subnets)

    def step_subnet(self, subnet: Subnet) -> None:
        """Run one round of one subnet and its sync."""
        subnet.run_round()
        sync = subnet.begin_sync()
        if sync is not None:
            sync.run()
            self._keep(subnet.finish_sync(sync))
            # Block times rise by themselves where the clock stands still; the clock keeps up with them, so
            # that "in 60 seconds" means after the last thing that happened.
            self.clock.set_ns(max(self.now_ns, subnet.head.time_ns))

    def recover(self) -> bool:
        """Let subnets whose store has failed go on, as the node tries by itself; say whether all could."""
        for subnet in self.subnets:
            durable = subnet.recover()
            if durable is not None:
                self._keep(durable)
        return all(subnet.failure is None for subnet in self.subnets)

    def restart(self) -> None:
        """Bring the node down without warning and start it on what its store kept.

        Calls under way have no answer afterwards; whoever wants it submits the same call again.
        """
        for number in range(len(self.subnets)):
            self.restart_subnet(number)
        self.run()

    def stop_subnet(self, number: int) -> None:
        """Let one subnet be down until `restart_subnet`; the others go on, and what is for it waits or is
        refused.
        """
        self._down.add(number)

    def restart_subnet(self, number: int) -> None:
        """Bring one subnet down without warning and open it again; the others go on. Runs no round."""
        self._down.discard(number)
        crash = getattr(self._stores[number], "crash", None)
        if crash is not None:
            crash()
        else:
            self.subnets[number].close()
        # Loaded programs stay: they keep nothing between runs, and loading is most of a start.
        self._answers.clear()
        self._carrier.forget(number)
        self.subnets[number] = self._open(number)

    def principal(self, who: object) -> Principal:
        """Give the principal of a principal, an identity, an actor, or a name of the test's own ("ann")."""
        if isinstance(who, str):
            return Principal(sha256(b"cannery.testing " + who.encode()).digest()[:28] + b"\x02")
        for candidate in (who, getattr(who, "principal", None), getattr(who, "id", None)):
            if isinstance(candidate, Principal):
                return candidate
        raise TypeError(f"{who!r} is no principal, no identity and no name")

    # --- calls

    def call_raw(self, canister_id: Principal, method: str, arg: bytes, sender: Principal) -> bytes:
        """Call an update with Candid bytes, run rounds until it is answered. Raises `Rejected`."""
        ticket = self.submit_raw(canister_id, method, arg, sender)
        for _ in range(TEST_ROUND_COUNT_MAX):
            answer = self.take_answer(ticket)
            if answer is not None:
                return reply_of(answer)
            if not self.step():
                break
        answer = self.take_answer(ticket)
        if answer is not None:
            return reply_of(answer)
        for subnet in self.subnets:
            if subnet.failure is not None:
                raise subnet.failure
        raise Unanswered(f"{method} has no answer, and nothing is left to run: use submit() and advance()")

    def query_raw(self, canister_id: Principal, method: str, arg: bytes, sender: Principal) -> bytes:
        """Run a query with Candid bytes on the last durable round. Raises `Rejected`."""
        query = Query(self._next_request_id(), sender.raw, canister_id.raw, method, arg)
        subnet = self._subnet_of(canister_id, method, arg)
        result = run_composite(self.subnets, subnet, query, frozenset(self._down))
        if result.reject is not None:
            raise rejected(result.reject)
        return result.reply

    def submit_raw(
        self,
        canister_id: Principal,
        method: str,
        arg: bytes,
        sender: Principal,
        request_id: bytes | None = None,
    ) -> object:
        """Hand in an update; its answer comes with later rounds (`take_answer`). Raises `Rejected`."""
        self._ticket += 1
        ingress = Ingress(
            request_id or self._next_request_id(),
            sender.raw,
            canister_id.raw,
            method,
            arg,
            self.now_ns + _EXPIRY_NS,
        )
        subnet = self._subnet_of(canister_id, method, arg)
        if subnet.number in self._down:
            raise rejected(subnet_down(subnet.number))
        found = subnet.submit(ingress, self._ticket)
        if isinstance(found, Refusing):
            raise rejected(found.reject)
        if isinstance(found, Known):
            self._answers[self._ticket] = found.answer
        return self._ticket

    def take_answer(self, ticket: object) -> Answer | None:
        """Give the answer of a submitted call if it is there."""
        assert isinstance(ticket, int), "tickets are made in this class"
        found = self._answers.get(ticket)
        return found if isinstance(found, Answer) else None

    # --- inside

    def _running(self) -> list[Subnet]:
        return [subnet for subnet in self.subnets if subnet.number not in self._down]

    @property
    def store(self) -> Store:
        """The store that the node stands on; with several subnets, that of the first."""
        found = self._stores[0]
        assert found is not None, "a subnet opens its store"
        return found

    def _subnet_of(self, canister_id: Principal, method: str = "", arg: bytes = b"") -> Subnet:
        if len(self.subnets) == 1:
            return self.subnets[0]
        return self.subnets[place_of(self.routes, self.subnets, canister_id, method, arg)]

    def _open(self, number: int = 0) -> Subnet:
        def open_store() -> Store:
            found = self._stores[number] = self._open_stores[number]()
            return found

        doors = Doors(
            open_store=open_store,
            programs=self._programs,
            clock=self.clock,
            entropy=self._entropy,
            watch=self._watch,
            certify=lambda canister_id, data: sha256(canister_id + data).digest(),
        )
        return Subnet(doors, replace(self._config, subnet=number), self._limits)

    def _keep(self, durable: Durable) -> None:
        for ticket, answer in durable.settled:
            assert isinstance(ticket, int), "tickets are made in this class"
            self._answers[ticket] = answer

    def _serve_http(self) -> None:
        for subnet in self.subnets:
            while outcalls := subnet.take_outcalls():
                for outcall in outcalls:
                    answer = self._http.perform(outcall)
                    if answer is None:
                        subnet.outcalls.give_up(outcall)
                    else:
                        subnet.outcalls.answer(answer)

    def _next_request_id(self) -> bytes:
        return self._entropy.random_bytes(32)

    def _install_code(self, canister_id: Principal, mode: InstallMode, module: bytes, arg: bytes) -> None:
        self.manage("install_code", InstallCodeArgs(mode, canister_id, module, arg))

    def _built(self, what: Installable) -> tuple[bytes, Interface]:
        if isinstance(what, bytes):
            return what, interface_of_did(parse_module(what).did)
        source = source_of(what) if isinstance(what, type) else read_source(str(what))
        loader = SourceLoader(self._third_party)
        try:
            built = build_module(source.files, source.entry, loader.load, self._third_party)
        finally:
            loader.discard()
        interface = interface_of_class(what) if isinstance(what, type) else interface_of_did(built.did)
        return built.module, interface


def _with_operator(
    config: ReplicaConfig, operator: Principal, third_party: frozenset[str], routes: tuple[Route, ...]
) -> ReplicaConfig:
    imports = tuple(sorted(third_party))
    longer = {
        name: usual_ns * TEST_CPU_FACTOR
        for name, usual_ns in _CPU_LIMITS.items()
        if getattr(config, name) == usual_ns
    }
    mine = replace(config, operators=(operator.raw,), third_party_imports=imports, routes=routes)
    return replace(mine, **longer)


def _store_opener(store: Store | None, data: Path | str | None, number: int = 0) -> Callable[[], Store]:
    if data is not None:
        path = str(data) if number == 0 else f"{data}-{number}"
        return lambda: RocksStore(path)
    if isinstance(store, FaultyStore):
        return store.reopen
    kept = store if store is not None else MemoryStore()
    return lambda: kept
