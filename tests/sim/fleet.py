"""The cast that runs a fleet: the operator of the users app's index, its helpers, and those who pretend.

Releases are added, rolled out, paused, sped up, cancelled and taken back, while mailboxes are recycled,
deleted, replaced and handed to their owners, and while the index itself is stopped and upgraded. What must
hold is in `fleet_laws`.
"""

from __future__ import annotations

from typing import NamedTuple

from cannery import encode_args
from cannery.apps.users.types import Body, UserInit, Who
from cannery.apps.users.user_index import UserIndex
from cannery.cdk.management import FleetConfigureArgs, FleetRole
from cannery.fleet.directory_types import LeaveResult, PoolRule
from cannery.fleet.replacements import ReplaceResult
from cannery.fleet.rollout import ACTIVE
from cannery.fleet.rollout_filter import RolloutFilter
from cannery.fleet.rollout_types import KindVersion, RolloutArgs, RolloutInfo, RuleChange, StartResult
from cannery.protocol.principal import Principal
from cannery.replica.management import types as t
from tests.sim.builds import HELPERS, SimUser
from tests.sim.failure import Broken
from tests.sim.fleet_laws import LAST_VERSION, canisters_of, check_fleet, check_rollouts
from tests.sim.methods import shape
from tests.sim.people import People, Person
from tests.sim.programs import module_hash, modules
from tests.sim.requests import Request, person
from tests.sim.world import SECOND_NS, World

KIND = "user"
SETTLE_S = 3 * 3_600
CONCURRENCIES = (0, 1, 1, 2, 3, 5)
STRANGE_CALLS: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("fleet_census_take", ()),
    ("fleet_rollout_cancel", (1,)),
    ("fleet_rollout_set_concurrency", (1, 0)),
    ("fleet_pool_set", (PoolRule(3, 0),)),
    ("fleet_orphans_find", ()),
)


class Act(NamedTuple):
    """What may happen, and how often among the others."""

    weight: int
    name: str


ACTS = (
    Act(6, "add_release"),
    Act(12, "start_rollout"),
    Act(14, "order"),
    Act(10, "leave"),
    Act(7, "replace"),
    Act(3, "take_custody"),
    Act(5, "set_pool"),
    Act(6, "sweep"),
    Act(8, "set_role"),
    Act(10, "help"),
    Act(10, "greet"),
    Act(5, "pretend"),
    Act(5, "strange"),
    Act(4, "operate_index"),
)


class Helper:
    """Somebody with a role in the fleet, or without: None where an order's end is not known."""

    def __init__(self, name: str) -> None:
        self.principal = person(name)
        self.is_in: bool | None = False
        self.order: Request | None = None
        self.order_count = 0


class Fleet:
    """The operator of the users app's index, and who has to do with its fleet."""

    def __init__(self, world: World, people: People) -> None:
        self.world = world
        self.people = people
        self.guests = [
            Person(f"guest_{number}", is_guest=True) for number in range(world.chance.randint(1, 3))
        ]
        people.people += self.guests
        self.helpers = [Helper("helper_0"), Helper("helper_1")]
        self.pretender = person("pretender")
        self.builds = [*modules().bad_users]
        world.chance.shuffle(self.builds)
        self.versions = [1, 2]
        self.next_version = 3
        self.rollouts: list[int] = []
        self.bounds: dict[int, int] = {}
        self.orders: list[tuple[int, int, Request]] = []

    @property
    def index(self) -> Principal:
        return self.people.index

    def setup(self) -> None:
        """Bring the builds, and a canister that pretends to be a mailbox of the fleet."""
        world = self.world
        for module in (*modules().bad_users, modules().user_last, modules().index_next):
            world.manage_now("cannery_module_add", module)
        made = world.manage_now(
            "provisional_create_canister_with_cycles", t.ProvisionalCreateArgs(amount=10**13)
        )
        assert isinstance(made, t.CanisterIdRecord)
        self.impostor = made.canister_id
        me = UserInit(self.pretender, self.index, "pretender")
        install = t.InstallChunkedCodeArgs(
            t.InstallMode.install(), self.impostor, None, [], module_hash(modules().user), encode_args(me)
        )
        world.manage_now("install_chunked_code", install)

    # --- what happens

    def act(self) -> None:
        """Do one thing, by chance."""
        chance = self.world.chance
        if chance.random() < 0.2:
            self._watch_rollouts()
        name = chance.choices(ACTS, [act.weight for act in ACTS])[0].name
        getattr(self, f"_{name}")()

    def _operator(self, name: str, *args: object) -> Request:
        request = self.world.send(self.world.operator, self.index, shape(UserIndex, name), *args)
        self.world.count("orders to the index")
        return request

    def _add_release(self) -> None:
        chance = self.world.chance
        if not self.builds or chance.random() < 0.5:
            return
        build = self.builds[-1]
        version = self.next_version
        request = self._operator("fleet_release_add", KIND, version, module_hash(build), "of the plan")

        def added(request: Request) -> None:
            if request.state == "replied" and request.value.tag == "ok" and version not in self.versions:  # type: ignore[attr-defined]
                self.versions.append(version)
                self.builds = [each for each in self.builds if each != build]
                self.next_version = max(self.next_version, version + 1)

        request.on_end = added

    def _start_rollout(self) -> None:
        request = self._operator("fleet_rollout_start", self._rollout())
        request.on_end = self._started

    def _rollout(self) -> RolloutArgs:
        chance = self.world.chance
        chosen = RolloutFilter([], [], [], None)
        if chance.random() < 0.3:
            homes = [who.canister for who in self.people.people if who.canister is not None]
            some = chance.sample(homes, chance.randint(0, len(homes)))
            chosen = chance.choice(
                (
                    RolloutFilter([], some, [], None),
                    RolloutFilter([], [], some, None),
                    RolloutFilter([chance.choice(self.versions)], [], [], None),
                    RolloutFilter([], [], [], self.world.clock.now_ns() - 60 * SECOND_NS),
                )
            )
        rule = RuleChange(
            canary_permille=chance.choice((None, 0, 300)),
            canary_fault_permille=chance.choice((None, 0, 1_000)),
            canary_hold_ns=chance.choice((None, 2 * SECOND_NS)),
            fault_permille=chance.choice((None, 0, 400, 1_000)),
            tries_max=chance.choice((None, 1, 2)),
            retry_ns=chance.choice((None, SECOND_NS)),
            deadline_ns=chance.choice((None, SECOND_NS, 20 * SECOND_NS)),
            stall_ns=chance.choice((None, SECOND_NS)),
            goes_back=chance.choice((None, None, False)),
        )
        version = chance.choice(self.versions)
        force = chance.choice((None, True, False))
        return RolloutArgs(
            [KindVersion(KIND, version)], chance.choice(CONCURRENCIES), chosen, rule, None, force
        )

    def _started(self, request: Request) -> None:
        if request.state == "replied":
            result = request.value
            assert isinstance(result, StartResult)
            if result.tag == "ok":
                self.rollouts.append(result.ok)
                self.world.count("rollouts")

    def _order(self) -> None:
        chance = self.world.chance
        if not self.rollouts:
            return
        id = chance.choice((self.rollouts[-1], chance.choice(self.rollouts)))
        draw = chance.random()
        if draw < 0.5:
            concurrency = chance.choice(CONCURRENCIES)
            request = self._operator("fleet_rollout_set_concurrency", id, concurrency)
            self.orders.append((id, concurrency, request))
        elif draw < 0.6:
            self._operator("fleet_rollout_cancel", id)
        elif draw < 0.8:
            self._operator("fleet_rollout_go_back", id, chance.random() < 0.5)
        else:
            who = chance.choice(self.people.people)
            if who.canister is not None:
                self._operator("fleet_retry", who.canister)

    def _watch_rollouts(self) -> None:
        """Look that never more children are in flight than were ordered."""
        result = self.world.query(self.world.operator, self.index, shape(UserIndex, "fleet_rollouts"))
        if result is None or result.reject is not None:
            return
        infos = shape(UserIndex, "fleet_rollouts").decode_results(result.reply)
        assert isinstance(infos, list)
        for info in infos:
            assert isinstance(info, RolloutInfo)
            ordered = [number for id, number, _ in self.orders if id == info.id]
            # What it was started with may be gone when it is looked at for the first time.
            before = self.bounds.get(info.id, max(CONCURRENCIES))
            bound = max(info.concurrency, before, *ordered, 0)
            if info.in_flight > bound:
                raise Broken(
                    "never more in flight than ordered", f"rollout {info.id}: {info.in_flight} of {bound}"
                )
            self.bounds[info.id] = info.concurrency if not info.in_flight else max(bound, info.concurrency)
        self.orders = [order for order in self.orders if order[2].state == "open"]

    # children that leave, move, or become their owners'

    def _leave(self) -> None:
        chance = self.world.chance
        who = chance.choice(self.guests)
        if who.canister is None or who.is_leaving:
            return
        who.is_leaving = True
        for letter in who.letters:
            letter.is_void = True
        for other in self.people.people:
            for letter in other.letters:
                letter.is_void |= letter.to is who
        name = chance.choice(("fleet_recycle", "fleet_delete"))
        self._operator(name, who.canister).on_end = lambda request: self._left(who, request)

    def _left(self, who: Person, request: Request) -> None:
        who.is_leaving = False
        if (
            request.state == "replied"
            and isinstance(request.value, LeaveResult)
            and request.value.tag == "ok"
        ):
            who.leave()
            self.world.count("mailboxes gone")

    def _replace(self) -> None:
        chance = self.world.chance
        who = chance.choice(self.people.people)
        if who.canister is None or who.is_leaving:
            return
        who.may_move = True
        version = chance.choice((None, chance.choice(self.versions)))
        request = self._operator("fleet_replace", who.canister, version, None)
        request.on_end = lambda request: self._replaced(who, request)

    def _replaced(self, who: Person, request: Request) -> None:
        if (
            request.state == "replied"
            and isinstance(request.value, ReplaceResult)
            and request.value.tag == "ok"
        ):
            self.world.count("mailboxes replaced")
            if who.canister is not None and request.value.ok.canister not in who.homes:
                who.move(request.value.ok.canister)
        self.people.find(who)

    def _take_custody(self) -> None:
        who = self.world.chance.choice(self.people.people)
        if who.canister is None or who.is_leaving or who.has_custody or who.is_guest:
            return
        method = shape(UserIndex, "take_custody")
        request = self.world.send(who.principal, self.index, method, [who.principal])

        def taken(request: Request) -> None:
            if request.state == "replied":
                who.has_custody = True
                self.world.count("custodies")

        request.on_end = taken

    def _set_pool(self) -> None:
        rule = PoolRule(self.world.chance.randint(0, 3), 10**11 if self.world.plan.has_prices else 0)
        self._operator("fleet_pool_set", rule)

    def _sweep(self) -> None:
        name = self.world.chance.choice(("fleet_census_take", "fleet_orphans_find", "fleet_census_set"))
        args = (self.world.chance.choice((60, 600, 3_600)),) if name == "fleet_census_set" else ()
        self._operator(name, *args)

    # who is trusted

    def _set_role(self) -> None:
        helper = self.world.chance.choice(self.helpers)
        if helper.order is not None:
            return
        gives = self.world.chance.random() < 0.5
        role = [FleetRole(HELPERS, [helper.principal])]
        change = FleetConfigureArgs(role, [], []) if gives else FleetConfigureArgs([], role, [])
        before = helper.is_in
        helper.is_in = None
        helper.order_count += 1
        helper.order = self._operator("fleet_config_set", change)

        def done(request: Request) -> None:
            helper.order = None
            if request.state == "replied":
                helper.is_in = gives
            elif request.state == "refused":
                helper.is_in = before

        helper.order.on_end = done

    def _help(self) -> None:
        """Call as a helper: who is none any more is let in nowhere."""
        world, helper = self.world, self.world.chance.choice(self.helpers)
        who = world.chance.choice(self.people.people)
        if who.canister is None or helper.is_in is None:
            return
        is_in, orders = helper.is_in, helper.order_count
        if world.chance.random() < 0.5:
            result = world.query(helper.principal, who.canister, shape(SimUser, "look_in"))
            if result is not None and not is_in and result.reject is None:
                raise Broken("a role that was taken away lets nobody in", f"{who.name} answered a query")
            return
        request = world.send(helper.principal, who.canister, shape(SimUser, "tend"))

        def tended(request: Request) -> None:
            if request.state == "replied" and not is_in and helper.order_count == orders:
                raise Broken("a role that was taken away lets nobody in", f"{who.name} answered a call")

        request.on_end = tended

    def _greet(self) -> None:
        """Let a member say hello to another one; who has taken custody is no member any more."""
        chance = self.world.chance
        who, to = chance.choice(self.people.people), chance.choice(self.people.people)
        if who.canister is None or to.canister is None:
            return
        had_custody = who.has_custody
        request = self.world.send(who.principal, who.canister, shape(SimUser, "greet"), to.canister)

        def greeted(request: Request) -> None:
            if request.state == "replied":
                self.world.count("greetings")
                if had_custody:
                    raise Broken("no stranger passes for a member", f"{who.name} has custody, and was heard")

        request.on_end = greeted

    def _pretend(self) -> None:
        """Let a canister with a mailbox's code that no index made greet, and write."""
        world, to = self.world, self.world.chance.choice(self.people.people)
        if to.canister is None:
            return
        if world.chance.random() < 0.5:
            text = world.secrets.text_for(self.pretender, to.principal)
            letter = (Who.canister(to.canister), text.encode(), Body.text(text))
            world.send(self.pretender, self.impostor, shape(SimUser, "send"), *letter)
            return
        request = world.send(self.pretender, self.impostor, shape(SimUser, "greet"), to.canister)

        def greeted(request: Request) -> None:
            if request.state == "replied":
                raise Broken("no stranger passes for a member", f"{to.name} heard the impostor")

        request.on_end = greeted

    def _strange(self) -> None:
        """Try, as somebody else, what only operators may."""
        chance = self.world.chance
        who = chance.choice(
            (self.pretender, self.people.stranger, chance.choice(self.people.people).principal)
        )
        name, args = chance.choice(STRANGE_CALLS)
        request = self.world.send(who, self.index, shape(UserIndex, name), *args)

        def answered(request: Request) -> None:
            if request.state == "replied":
                raise Broken("strangers have no say in a fleet", f"{name} answered {who}")

        request.on_end = answered

    def _operate_index(self) -> None:
        world, chance = self.world, self.world.chance
        named = t.CanisterIdRecord(self.index)
        draw = chance.random()
        if draw < 0.2:
            world.manage("cannery_stop_canister", t.StopArgs(self.index, True))
            world.manage("start_canister", named)
        elif draw < 0.35:
            world.manage("stop_canister", named)
        elif draw < 0.7:
            world.manage("start_canister", named)
        else:
            code = module_hash(chance.choice((modules().index, modules().index_next)))
            args = t.InstallChunkedCodeArgs(
                t.InstallMode.upgrade(None), self.index, None, [], code, encode_args()
            )
            world.manage("install_chunked_code", args)

    # --- what is left

    def settle(self) -> None:
        """Bring what was begun to its end, then the whole fleet to a good release."""
        world = self.world
        self._fund()
        for info in self.infos():
            if info.state.tag in (*ACTIVE, "paused", "stalled"):
                name, args = "fleet_rollout_cancel", (info.id,)
                if world.chance.random() < 0.6:
                    name, args = "fleet_rollout_set_concurrency", (info.id, 3)  # type: ignore[assignment]
                world.call(world.operator, self.index, shape(UserIndex, name), *args)
        world.rest(SETTLE_S)
        # What a lost answer had hidden is known by now: mailboxes that moved while they were stopped.
        self.people.settle()
        self._watch_rollouts()
        self._end_rollouts()
        last = module_hash(modules().user_last)
        self.ask("fleet_release_add", KIND, LAST_VERSION, last, "the last one")
        rule = RuleChange(canary_permille=0, fault_permille=1_000, tries_max=10)
        args = RolloutArgs([KindVersion(KIND, LAST_VERSION)], 3, None, rule, None, True)
        started = self.ask("fleet_rollout_start", args)
        assert isinstance(started, StartResult)
        if started.tag != "ok":
            raise Broken("everything comes to its end", f"the last rollout: {started}")

        for who in self.people.people:
            if who.has_custody and who.canister is not None:
                self._upgrade_own(who, who.canister, last)

    def _upgrade_own(self, who: Person, canister: Principal, code: bytes) -> None:
        """Let somebody who has custody follow the fleet: no rollout reaches them."""
        args = t.InstallChunkedCodeArgs(t.InstallMode.upgrade(None), canister, None, [], code, encode_args())
        self.world.manage_now("install_chunked_code", args, sender=who.principal)

    def _end_rollouts(self) -> None:
        """See that no rollout is under way, and cancel what halts again."""
        for info in self.infos():
            if info.state.tag == "stalled" and info.problem:
                self.ask("fleet_rollout_cancel", info.id)
            elif info.state.tag in (*ACTIVE, "paused", "stalled"):
                raise Broken("everything comes to its end", f"rollout {info.id} goes on: {info}")
        self.world.rest(60)
        check_rollouts(self.infos())

    def _fund(self) -> None:
        if self.world.plan.has_prices:
            for canister in canisters_of(self):
                # One whose deletion its client never heard of is gone.
                request = self.world.manage(
                    "provisional_top_up_canister", t.ProvisionalTopUpArgs(canister, 10**13)
                )
                self.world.run_out(lambda request=request: request.state == "open")

    def infos(self) -> list[RolloutInfo]:
        """Ask for all rollouts."""
        found = self.ask("fleet_rollouts")
        assert isinstance(found, list)
        return found

    def ask(self, name: str, *args: object) -> object:
        """Call the index as its operator while nothing is broken; queries are asked."""
        return self.world.call(self.world.operator, self.index, shape(UserIndex, name), *args)

    def check(self) -> None:
        """Hold the laws of fleets. Raises `Broken`."""
        check_fleet(self)
