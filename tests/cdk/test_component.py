"""Components: pieces of a canister with their own collections, methods, continuations and timers."""

from __future__ import annotations

import gc

import pytest

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Service,
    StableCell,
    StableMap,
    continuation,
    init,
    method,
    nat64,
    query,
    timer,
    update,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.delivery import Attempt, Delivery
from cannery.cdk.describe import describe
from cannery.cdk.hints import DeclarationError
from cannery.cdk.waiter import Continued, Waiter
from cannery.client.errors import Rejected
from cannery.testing import Node


class Tally(Component, prefix="count.tally"):
    counts = StableMap(str, nat64)

    def add(self, name: str, amount: int) -> int:
        total = self.counts.get(name, 0) + amount
        self.counts.put(name, total)
        return total

    @query
    def tally(self, ctx: Context, name: str) -> nat64:
        return self.counts.get(name, 0)


class Echo(Service):
    @method
    def tally(self, name: str) -> nat64: ...


class Clerk(Component, prefix="count.clerk"):
    tally = Uses(Tally)
    asked = StableCell(nat64, 0)

    @update
    def ask_later(self, ctx: Context, name: str) -> Pending[nat64]:
        return ctx.call(Echo(ctx.id).tally(name), then=self.told, saved=name)

    @continuation
    def told(self, ctx: Context, outcome: Outcome[nat64], saved: str) -> nat64:
        self.asked.set(self.asked.get() + 1)
        return self.tally.add(saved, outcome.value)

    @update
    def wait(self, ctx: Context, name: str) -> None:
        ctx.timer_set(self.tick, after_s=5, saved=name)

    @timer
    def tick(self, ctx: Context, saved: str) -> None:
        self.tally.add(saved, 100)


class Counting(Component, prefix="count"):
    tallies = Tally()
    clerk = Clerk()


class Shop(Canister):
    counting = Counting()
    opened = StableCell(nat64, 0)

    @init
    def begin(self, ctx: Context) -> None:
        self.counting.tallies.add("visits", 7)

    @update
    def visit(self, ctx: Context) -> nat64:
        self.counting.tallies.add("visits", 1)
        return self.counting.tallies.counts["visits"]

    @query
    def asked(self, ctx: Context) -> nat64:
        return self.counting.clerk.asked.get()


def test_methods_continuations_and_timers_of_a_component_run() -> None:
    with Node() as node:
        shop = node.install(Shop)
        assert shop.visit() == 8
        assert shop.tally("visits") == 8
        assert shop.ask_later("visits") == 16
        assert shop.asked() == 1
        shop.wait("visits")
        node.advance(seconds=6)
        assert shop.tally("visits") == 116
        node.restart()
        assert shop.tally("visits") == 116


def test_what_an_activation_made_goes_with_it_without_the_garbage_collector() -> None:
    def alive() -> int:
        return sum(
            type(thing).__name__ in {"Shop", "Counting", "Tally", "Clerk"} for thing in gc.get_objects()
        )

    with Node() as node:
        shop = node.install(Shop)
        shop.asked()
        gc.collect()
        gc.disable()
        try:
            before = alive()
            assert shop.visit() == 8
            assert shop.asked() == 0
            with pytest.raises(Rejected):
                shop.tally("x" * 2_000_000)
            assert alive() == before
        finally:
            gc.enable()


def test_names_have_the_prefix_of_their_component() -> None:
    described = describe(Shop)
    assert [spec.name for spec in described.collections] == [
        "count.clerk.asked",
        "count.tally.counts",
        "opened",
    ]
    assert set(described.continuations) == {"count.clerk.told"}
    assert set(described.timers) == {"count.clerk.tick"}
    assert set(described.methods) == {"ask_later", "asked", "tally", "visit", "wait"}


class Sender(Component, prefix="sender"):
    outbox = Delivery(str, bool, method="take")
    told = StableMap(nat64, str)

    @outbox.on_attempt
    def attempted(self, ctx: Context, attempt: Attempt[str, bool]) -> None:
        self.told.put(attempt.id, attempt.state)


class Post(Canister):
    sender = Sender()

    @update
    def send(self, ctx: Context, to: Principal, text: str) -> None:
        self.sender.outbox.post(ctx.now_ns and to, text)

    @update
    def take(self, ctx: Context, batch: list[tuple[nat64, nat64, str]]) -> list[bool]:
        return [True] * len(batch)

    @query
    def state_of(self, ctx: Context, id: nat64) -> str:
        return self.sender.told.get(id, "none")


def test_a_delivery_inside_a_component_delivers() -> None:
    with Node() as node:
        one, two = node.install(Post), node.install(Post)
        one.send(two.id, "hello")
        node.run()
        assert [one.state_of(number) for number in (0, 1, 2)].count("delivered") == 1


def test_what_is_declared_wrongly_is_named() -> None:
    class Lonely(Canister):
        clerk = Clerk()

    with pytest.raises(DeclarationError, match="Clerk uses Tally, which Lonely lacks"):
        describe(Lonely)

    class Twice(Canister):
        one = Tally()
        two = Tally()

    with pytest.raises(DeclarationError, match=r"two components have the prefix 'count\.tally'"):
        describe(Twice)

    class Hooked(Component, prefix="hooked"):
        @init
        def begin(self, ctx: Context) -> None:
            pass

    class WithHook(Canister):
        hooked = Hooked()

    with pytest.raises(DeclarationError, match="a component has no @init"):
        describe(WithHook)

    class Doubled(Canister):
        tallies = Tally()

        @query
        def tally(self, ctx: Context) -> nat64:
            return 0

    with pytest.raises(DeclarationError, match="two methods with the Candid name 'tally'"):
        describe(Doubled)


def test_a_component_keeps_no_attributes() -> None:
    class Keeper(Component, prefix="keeper"):
        @update
        def keep(self, ctx: Context) -> None:
            self.value = 1

    class Holder(Canister):
        keeper = Keeper()

    with Node() as node, pytest.raises(Exception, match="would be lost after this message"):
        node.install(Holder).keep()


class Broker(Component, prefix="broker"):
    booked = StableCell(nat64, 0)

    def ask(self, ctx: Context, name: str, then: object, saved: object) -> Pending[nat64]:
        waiter = ctx.waiter(then, saved)  # type: ignore[arg-type]
        call = Echo(ctx.id).tally(name)
        return ctx.call_for(call, then, then=self.brought, saved=waiter)  # type: ignore[arg-type]

    @continuation
    def brought(self, ctx: Context, outcome: Outcome[nat64], saved: Waiter) -> Continued:
        self.booked.set(self.booked.get() + 1)
        return ctx.resume(saved, Outcome(f"{outcome.value} visits"))


class Customer(Canister):
    broker = Broker()
    tallies = Tally()

    @update
    def ask(self, ctx: Context, name: str) -> Pending[str]:
        return self.broker.ask(ctx, name, self.answered, "dear ")

    @continuation
    def answered(self, ctx: Context, outcome: Outcome[str], saved: str) -> str:
        if not outcome.value.startswith("0"):
            ctx.trap("only nothing is expected")
        return f"{saved}{ctx.caller == ctx.id}: {outcome.value}"

    @update
    def add(self, ctx: Context) -> None:
        self.tallies.add("visits", 1)

    @query
    def booked(self, ctx: Context) -> nat64:
        return self.broker.booked.get()


def test_a_component_answers_through_the_continuation_of_its_canister() -> None:
    with Node() as node:
        customer = node.install(Customer)
        assert customer.ask("visits") == "dear False: 0 visits"
        assert customer.booked() == 1
        customer.add()
        with pytest.raises(Rejected, match="only nothing is expected"):
            customer.ask("visits")
        assert customer.booked() == 1, "a trap of the waiter drops what its component booked, like any trap"
