"""Two subnets with stores of their own: exactly once and in order, whichever of them crashes and where."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Service,
    StableLog,
    composite_query,
    continuation,
    method,
    nat64,
    query,
    update,
)
from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.management import (
    CreateInstalledArgs,
    CreateInstalledResult,
    Management,
    SubnetChoice,
    SubnetInfo,
)
from cannery.replica import keys
from cannery.replica.records import SUBNET
from cannery.testing import Actor, Crashed, FaultyStore, Node

ROUNDS_MAX = 5_000


class Far(Canister):
    got = StableLog(nat64)

    @update
    def take(self, ctx: Context, number: nat64) -> nat64:
        ctx.accept(3)
        self.got.append(number)
        return number

    @query
    def all(self, ctx: Context) -> list[nat64]:
        return [number for _, number in self.got.page(limit=1000).items]


class FarService(Service):
    @method
    def take(self, number: nat64) -> nat64: ...
    @method
    def all(self) -> list[nat64]: ...


class Summer(Canister):
    @composite_query
    def sum_up(self, ctx: Context, others: list[Principal]) -> list[str]:
        return [_show(ctx.query(FarService(other).all())) for other in others]

    @composite_query
    def relay(self, ctx: Context, way: list[Principal], to: Principal) -> str:
        if not way:
            return _show(ctx.query(FarService(to).all()))
        found = ctx.query(SummerService(way[0]).relay(way[1:], to))
        return found.value if found.ok else found.reject_message

    @composite_query
    def who(self, ctx: Context, other: Principal) -> Principal:
        return ctx.query(SummerService(other).whoami()).unwrap()

    @query
    def whoami(self, ctx: Context) -> Principal:
        return ctx.caller


def _show(found: Outcome[list[nat64]]) -> str:
    return str(sum(found.value)) if found.ok else f"{found.reject_code}: {found.reject_message}"


class SummerService(Service):
    @method
    def relay(self, way: list[Principal], to: Principal) -> str: ...
    @method
    def whoami(self) -> Principal: ...


class Near(Canister):
    heard = StableLog(nat64)

    @update
    def send(self, ctx: Context, far: Principal, number: nat64) -> None:
        ctx.call(FarService(far).take(number), then=self.answered, cycles=5)

    @continuation
    def answered(self, ctx: Context, outcome: Outcome[nat64]) -> None:
        self.heard.append(outcome.unwrap())

    @query
    def all(self, ctx: Context) -> list[nat64]:
        return [number for _, number in self.heard.page(limit=1000).items]

    @update
    def make(self, ctx: Context, module_hash: bytes, place: SubnetChoice | None) -> Pending[Principal]:
        args = CreateInstalledArgs(module_hash, b"DIDL\x00\x00", [ctx.id], place)
        return ctx.call(Management().cannery_create_installed(args), then=self.made)

    @continuation
    def made(self, ctx: Context, outcome: Outcome[CreateInstalledResult]) -> Principal:
        return outcome.unwrap().canister_id

    @update
    def subnets(self, ctx: Context) -> Pending[list[SubnetInfo]]:
        return ctx.call(Management().cannery_subnets())


def send(node: Node, near: Actor, far: Actor, number: int) -> None:
    arg = encoder((type_of(Principal), type_of(nat64)))((far.id, number))
    node.submit_raw(near.id, "send", arg, node.operator, number.to_bytes(32, "big"))


def run_out(node: Node) -> int:
    """Run to the end, over crashes of either subnet; give how many there were."""
    crashes = 0
    for _ in range(ROUNDS_MAX):
        try:
            if not node.step():
                return crashes
        except Crashed:
            crashes += 1
            for number, store in enumerate(node._stores):
                assert isinstance(store, FaultyStore)
                if store.is_crashed:
                    node.restart_subnet(number)
    raise AssertionError("the subnets never come to rest")


@given(
    seed=st.integers(0, 1000),
    crashes=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9)), max_size=6),
    count=st.integers(1, 8),
)
@settings(max_examples=60, deadline=None)
def test_each_call_runs_once_and_in_order_over_crashes_of_either_side(
    seed: int, crashes: list[tuple[int, int]], count: int
) -> None:
    stores = [FaultyStore(seed), FaultyStore(seed + 1)]
    with Node(stores, subnets=2) as node:
        near, far = node.install(Near, cycles=1000), node.install(Far, cycles=1000, subnet=1)
        node.run()
        for number in range(count):
            send(node, near, far, number)
            if number % 3 == 0:
                node.step_subnet(node.subnets[0])
        for which, operation in crashes:
            stores[which].crash_at(stores[which].operation_count + operation)
            run_out(node)
            # Whoever has no answer asks again; a call that is known does not run twice.
            for number in range(count):
                send(node, near, far, number)
        run_out(node)
        assert far.all() == near.all() == list(range(count))
        records = [SUBNET.decode(store.get(keys.SUBNET_KEY) or b"") for store in stores]
        assert [record.held for record in records] == [1000 - 3 * count, 1000 + 3 * count]
        assert records[0].cycles_out == 5 * count
        for store in stores:
            assert list(store.scan(*keys.space_range(keys.STREAMS))) == []


def test_nothing_leaves_a_subnet_before_its_round_is_durable() -> None:
    with Node([FaultyStore(1), FaultyStore(2)], subnets=2) as node:
        near, far = node.install(Near, cycles=1000), node.install(Far, subnet=1)
        node.run()
        first, second = node.subnets
        expected = second.received_from(0)
        send(node, near, far, 7)
        first.run_round()
        assert first.slice_for(1, expected).entries == ()
        sync = first.begin_sync()
        assert sync is not None
        sync.run()
        first.finish_sync(sync)
        found = first.slice_for(1, expected)
        assert len(found.entries) == 1
        second.links.put(found)
        second.run_round()
        assert second.received_from(0) == expected, "it is not said to have arrived before it is durable"
        node.run()
        assert far.all() == near.all() == [7]


def test_a_module_goes_ahead_of_the_creation_that_needs_it() -> None:
    with Node(subnets=2) as node:
        near = node.install(Near, cycles=1000)
        module = node.build(Far)
        module_hash = node.manage("cannery_module_add", module)
        named = SubnetChoice.id(node.subnet_id(1))
        made = node.actor(near.make(module_hash, named), Far)
        assert node._subnet_of(made.id) is node.subnets[1]
        assert made.take(4) == 4
        near.send(made.id, 9)
        node.run()
        assert made.all() == [4, 9]
        counts = [info.canister_count for info in near.subnets()]
        assert counts == [1, 1]
        anywhere = [near.make(module_hash, SubnetChoice.any()) for _ in range(4)]
        assert len({node._subnet_of(canister).number for canister in anywhere}) == 2


def test_a_composite_query_goes_over_both_subnets_and_back() -> None:
    with Node(subnets=2) as node:
        near, far = [node.install(Far, subnet=number) for number in range(2)]
        summers = [node.install(Summer, subnet=number) for number in range(2)]
        near.take(3)
        far.take(4)
        far.take(5)
        gone = Principal(keys.canister_id((1 << 40) + 0x900000))
        assert summers[0].sum_up([near.id, far.id, near.id, far.id]) == ["3", "9", "3", "9"]
        assert summers[1].sum_up([near.id, far.id]) == ["3", "9"]
        (refused,) = summers[0].sum_up([gone])
        assert refused.startswith("3: Canister")
        ids = [summer.id for summer in summers]
        assert summers[0].relay([ids[1], ids[0], ids[1]], near.id) == "3"
        assert "nest at most" in summers[0].relay([ids[1], ids[0]] * 6, near.id)
        assert [summers[0].who(ids[1]), summers[0].who(ids[0])] == [ids[0], ids[0]]
