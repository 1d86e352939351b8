"""The cast of a treasury: an index whose children give their cycles away, are topped up, ask for more, and
are held back by quotas.
"""

from __future__ import annotations

from cannery.fleet.directory_types import Child, Release
from cannery.fleet.funding_types import (
    ChildFunding,
    FundingPolicy,
    FundingReport,
    FundingResult,
    QuotaScope,
)
from cannery.fleet.top_up import Refill, Threshold, TopUpRule
from cannery.fleet.top_up_quota import Quota, Rate
from cannery.protocol.principal import Principal
from cannery.replica import keys, records
from cannery.replica.management import types as t
from tests.fleet.well_village import Springs
from tests.sim.failure import Broken
from tests.sim.methods import shape
from tests.sim.programs import module_hash, modules
from tests.sim.requests import Request, person
from tests.sim.stage import create, install
from tests.sim.well import Well
from tests.sim.world import SECOND_NS, World

CYCLES = 10**12
LINE, FULL, OPENING = 100_000, 500_000, 300_000
KIND = "well"
RULES = (
    TopUpRule(Threshold.cycles(LINE), Refill.to_balance(FULL)),
    TopUpRule(Threshold.cycles(LINE), Refill.by_amount(70_000)),
    TopUpRule(Threshold.cycles(10), Refill.by_amount(20)),
    None,
)
QUOTAS = (
    Quota.unlimited(),
    Quota.unlimited(),
    Quota.max(900_000),
    Quota.fixed(150_000),
    Quota.rate(Rate(600_000, 600)),
)


class Funding:
    """An index with a treasury, owners of wells, and whoever would like some cycles."""

    def __init__(self, world: World) -> None:
        self.world = world
        chance = world.chance
        self.owners = [person(f"owner_{number} of a well") for number in range(chance.randint(1, 3))]
        self.stranger = person("stranger at the springs")
        self.wells: dict[Principal, Principal] = {}
        # What quotas are is settled once: then what they hold back can be added up.
        self.fleet_quota = chance.choice(QUOTAS)
        self.kind_quota = chance.choice(QUOTAS)
        self.is_forced = False

    def setup(self) -> None:
        """Make the index, and somebody outside the fleet to give cycles to."""
        world = self.world
        for module in (modules().springs, modules().well):
            world.manage_now("cannery_module_add", module)
        self.springs = self._create(modules().springs)
        self.sink = self._create(modules().well)
        release = Release(KIND, 1, module_hash(modules().well))
        world.call(world.operator, self.springs, shape(Springs, "plan"), release)
        for scope, quota in (
            (QuotaScope.fleet(), self.fleet_quota),
            (QuotaScope.kind(KIND), self.kind_quota),
        ):
            self._told(self.ask("fleet_quota_set", scope, quota))
        policy = FundingPolicy(world.chance.choice((0, 1_000)), world.chance.choice((0, CYCLES // 2)), 0)
        self._told(self.ask("fleet_funding_set", policy))

    def _create(self, module: bytes) -> Principal:
        world = self.world
        canister = create(world, CYCLES, 0)
        install(world, canister, module)
        return canister

    def _told(self, result: object) -> None:
        assert isinstance(result, FundingResult)
        assert result.tag == "ok", result

    def ask(self, name: str, *args: object) -> object:
        """Call the index as its operator while nothing is broken."""
        # What it asks of another subnet may still be under way.
        self.world.rest(0)
        return self.world.call(self.world.operator, self.springs, shape(Springs, name), *args)

    # --- what happens

    def act(self) -> None:
        """Do one thing, by chance."""
        world, chance = self.world, self.world.chance
        owner = chance.choice(self.owners)
        well = self.wells.get(owner)
        draw = chance.random()
        if well is None:
            request = world.send(owner, self.springs, shape(Springs, "dig"), OPENING)
            request.on_end = lambda request: self._dug(owner, request)
        elif draw < 0.5:
            world.send(owner, well, shape(Well, "draw"), chance.randint(0, 250_000), self.sink)
        elif draw < 0.65:
            world.send(owner, well, shape(Well, "ask"), chance.randint(1, 300_000))
        elif draw < 0.72:
            self._order("fleet_rule_set", KIND, chance.choice(RULES))
        elif draw < 0.8:
            self._order("fleet_top_up", well, chance.randint(1, 200_000))
        elif draw < 0.86:
            self._order("fleet_census_take")
        elif draw < 0.92:
            self._try_as_a_stranger(well)
        elif chance.random() < 4 * world.plan.operate_rate:
            self._operate(well)

    def _dug(self, owner: Principal, request: Request) -> None:
        if request.state == "replied":
            assert isinstance(request.value, Child)
            found = self.wells.setdefault(owner, request.value.canister)
            if found != request.value.canister:
                raise Broken("each call runs once", f"{owner} has two wells")

    def _order(self, name: str, *args: object) -> Request:
        return self.world.send(self.world.operator, self.springs, shape(Springs, name), *args)

    def _try_as_a_stranger(self, well: Principal) -> None:
        world = self.world
        name, args = world.chance.choice(
            (
                ("fleet_top_up", (well, 100)),
                ("fleet_request_cycles", (100,)),
                ("fleet_rule_set", (KIND, None)),
                ("fleet_quota_set", (QuotaScope.fleet(), None)),
                ("fleet_funding_set", (FundingPolicy(0, 0, 0),)),
                ("fleet_notice", ([well],)),
            )
        )

        def answered(request: Request) -> None:
            if request.state == "replied":
                raise Broken("strangers have no say in a fleet", f"{name} answered one: {request.value}")

        world.send(self.stranger, self.springs, shape(Springs, name), *args, on_end=answered)

    def _operate(self, well: Principal) -> None:
        world, chance = self.world, self.world.chance
        target = chance.choice((self.springs, well))
        sender = world.operator if target == self.springs else self.springs
        draw = chance.random()
        if draw < 0.1 and target == self.springs:
            self.is_forced = True
            world.manage("cannery_stop_canister", t.StopArgs(target, True), sender=sender)
        elif draw < 0.3:
            world.manage("stop_canister", t.CanisterIdRecord(target), sender=sender)
        else:
            world.manage("start_canister", t.CanisterIdRecord(target), sender=sender)

    # --- what is left

    def settle(self) -> None:
        """Start everything, and let the treasury see to everybody."""
        world = self.world
        world.manage_now("start_canister", t.CanisterIdRecord(self.springs))
        for well in self.wells.values():
            world.manage_now("start_canister", t.CanisterIdRecord(well), sender=self.springs)
        self._told(self.ask("fleet_rule_set", KIND, RULES[0]))

    def check(self) -> None:
        """Hold the laws of a treasury. Raises `Broken`."""
        report = self._query("fleet_funding")
        assert isinstance(report, FundingReport)
        if report.on_the_way or report.waiting:
            raise Broken("everything comes to its end", f"top-ups are under way: {report}")
        granted = 0
        for well in self.wells.values():
            funds = self._query("fleet_child_funds", well)
            assert isinstance(funds, ChildFunding)
            granted += funds.granted
            self._check_balance(well, funds)
            self._check_quota(self.kind_quota, funds)
        if self.fleet_quota.tag == "max" and report.granted > self.fleet_quota.max:
            raise Broken("quotas hold back", f"{report.granted} were granted of {self.fleet_quota}")
        if granted > report.granted:
            raise Broken("books agree with balances", f"children were granted {granted}: {report}")

    def _query(self, name: str, *args: object) -> object:
        result = self.world.query(self.world.operator, self.springs, shape(Springs, name), *args)
        assert result is not None
        if result.reject is not None:
            raise Broken("everything can be read", f"{name}: {result.reject.message}")
        return shape(Springs, name).decode_results(result.reply)

    def _check_balance(self, well: Principal, funds: ChildFunding) -> None:
        """A well has what it began with and was granted, less what it gave; and it is not left dry."""
        if self.world.plan.has_prices:
            return
        world = self.world
        data = world.machine_of(well).store.get(keys.owned(keys.ACCOUNTS, well.raw))
        assert data is not None
        balance = records.ACCOUNT.decode(data).cycles
        result = world.query(self.stranger, well, shape(Well, "gave"))
        assert result is not None
        gave = shape(Well, "gave").decode_results(result.reply)
        assert isinstance(gave, int)
        expected = OPENING + funds.granted - gave
        # An answer that a forced stop has dropped counts as given, though the cycles may have come back.
        # So may a gift, where the queue of its receiver has few places.
        is_bounced = world.plan.call_queue_count_max < 100 and balance > expected
        if (balance > expected and not is_bounced) or (balance < expected and not self.is_forced):
            raise Broken("books agree with balances", f"{well} has {balance}, not {expected}: {funds}")
        is_free = self.kind_quota.tag == self.fleet_quota.tag == "unlimited"
        if is_free and balance < LINE:
            raise Broken("who is due is topped up", f"{well} has {balance}, its line is {LINE}: {funds}")

    def _check_quota(self, quota: Quota, funds: ChildFunding) -> None:
        given = [each for each in funds.history if each.end.tag != "came_back"]
        is_broken = quota.tag == "max" and funds.granted > quota.max
        is_broken |= quota.tag == "fixed" and any(each.cycles > quota.fixed for each in given)
        if quota.tag == "rate":
            window_ns = quota.rate.seconds * SECOND_NS
            for first in given:
                within = [each for each in given if 0 <= each.at_ns - first.at_ns < window_ns]
                is_broken |= sum(each.cycles for each in within) > quota.rate.cycles
        if is_broken:
            raise Broken("quotas hold back", f"{quota}: {funds}")
