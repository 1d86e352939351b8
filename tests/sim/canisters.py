"""Canisters of the simulated world: peers that pay each other, and a nursery that makes peers.

A peer's ledger is such that whatever is lost, doubled or left half done shows: each payment has a tag, the
sender notes how it ended, the receiver how often it came.
"""

from __future__ import annotations

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Service,
    StableCell,
    StableLog,
    StableMap,
    continuation,
    encode_args,
    init,
    method,
    nat32,
    nat64,
    query,
    record,
    timer,
    update,
)
from cannery.cdk.management import CanisterIdArg, CreateInstalledArgs, CreateInstalledResult, Management


@record
class Payment:
    """A payment to make. `mode` says how the receiver or the sender fails."""

    tag: nat64
    to: Principal
    via: Principal
    amount: nat64
    cycles: nat64
    mode: str


@record
class Books:
    """All that a peer knows, for the checkers."""

    tokens: nat64
    journal: list[nat64]
    outgoing: list[tuple[nat64, str]]
    received: list[tuple[nat64, nat64]]
    rang: list[tuple[nat64, nat64]]
    sent: list[nat64]
    came: list[nat64]


class PeerInterface(Service):
    """What peers ask of each other."""

    @method
    def receive(self, payment: Payment) -> nat64: ...


class Peer(Canister):
    """Hold tokens, pay them to others, keep a journal, wake up by timers, misbehave when told."""

    tokens = StableCell(nat64, 0)
    journal = StableLog(nat64)
    outgoing = StableMap(nat64, str)
    received = StableMap(nat64, nat64)
    rang = StableMap(nat64, nat64)
    ballast = StableMap(nat64, bytes)
    # Payments in the order in which they were sent, and in which they came.
    sent = StableLog(nat64)
    came = StableLog(nat64)

    @init
    def start(self, ctx: Context, tokens: nat64) -> None:
        """Begin with some tokens."""
        self.tokens.set(tokens)

    @update
    def bump(self, ctx: Context, tag: nat64, size: nat32) -> nat64:
        """Note a tag in the journal and return its place; carry `size` bytes of ballast from then on."""
        if size:
            self.ballast.put(tag % 7, bytes(size))
        return self.journal.append(tag)

    @update
    def shed(self, ctx: Context, tag: nat64) -> nat64:
        """Drop the ballast."""
        self.ballast.clear()
        return self.journal.append(tag)

    @update
    def fall(self, ctx: Context, tag: nat64) -> nat64:
        """Write, send, then trap: nothing of it may be seen."""
        self.journal.append(tag)
        self.tokens.set(0)
        ctx.notify(PeerInterface(ctx.id).receive(Payment(tag, ctx.id, ctx.id, 1, 0, "plain")))
        ctx.timer_set(self.ring, after_s=1, saved=tag)
        ctx.trap("fallen")

    @update
    def spin(self, ctx: Context, tag: nat64) -> nat64:
        """Write, then never end."""
        self.journal.append(tag)
        while True:
            self.tokens.get()

    @update
    def recurse(self, ctx: Context, tag: nat64) -> nat64:
        """Write, then recurse without end."""
        self.journal.append(tag)
        return self._deeper(tag)

    def _deeper(self, tag: int) -> int:
        return self._deeper(tag) + 1

    # payments

    @update
    def pay(self, ctx: Context, payment: Payment) -> str | Pending[str]:
        """Send tokens to another peer; they come back where it does not take them."""
        tokens = self.tokens.get()
        if tokens < payment.amount:
            return "poor"
        self.tokens.set(tokens - payment.amount)
        self.outgoing.put(payment.tag, "open")
        self.sent.append(payment.tag)
        call = PeerInterface(payment.to).receive(payment)
        return ctx.call(call, then=self.paid, saved=payment, cycles=min(payment.cycles, ctx.balance // 4))

    @continuation
    def paid(self, ctx: Context, outcome: Outcome[nat64], saved: Payment) -> str:
        """Note how a payment ended."""
        if outcome.ok:
            self.outgoing.put(saved.tag, "paid")
        else:
            self.outgoing.put(saved.tag, "refunded")
            self.tokens.set(self.tokens.get() + saved.amount)
        if saved.mode == "payer_traps":
            ctx.trap("the payer cannot note it")
        return self.outgoing[saved.tag]

    @update
    def receive(self, ctx: Context, payment: Payment) -> nat64 | Pending[nat64]:
        """Take a payment, or do what its mode says."""
        if payment.mode == "rejects":
            ctx.reject("not wanted")
        if payment.mode == "relays":
            onward = Payment(payment.tag, payment.via, payment.via, payment.amount, 0, "plain")
            return ctx.call(
                PeerInterface(payment.via).receive(onward),
                then=self.relayed,
                saved=payment,
                cycles=min(ctx.available // 2, ctx.balance // 4),
            )
        self._take(payment)
        self.came.append(payment.tag)
        ctx.accept(payment.cycles // 2)
        if payment.mode == "traps":
            ctx.trap("cannot take it")
        return self.tokens.get()

    @continuation
    def relayed(self, ctx: Context, outcome: Outcome[nat64], saved: Payment) -> nat64:
        """Pass the answer of the next peer on."""
        if not outcome.ok:
            ctx.reject(outcome.reject_message)
        ctx.accept(saved.cycles // 3)
        return outcome.value

    def _take(self, payment: Payment) -> None:
        self.tokens.set(self.tokens.get() + payment.amount)
        self.received.put(payment.tag, self.received.get(payment.tag, 0) + 1)

    @update
    def donate(self, ctx: Context, to: Principal, amount: nat64) -> Pending[None]:
        """Give cycles to another canister."""
        return ctx.call(Management().deposit_cycles(CanisterIdArg(to)), cycles=min(amount, ctx.balance // 4))

    # timers

    @update
    def alarm(self, ctx: Context, tag: nat64, after_ms: nat64) -> nat64:
        """Ring once, later."""
        return ctx.timer_set(self.ring, after_s=after_ms / 1000, saved=tag)

    @timer
    def ring(self, ctx: Context, saved: nat64) -> None:
        """Note that an alarm rang."""
        self.rang.put(saved, self.rang.get(saved, 0) + 1)

    # reading

    @query
    def entry(self, ctx: Context, index: nat64) -> nat64 | None:
        """Return one journal entry."""
        return self.journal.get(index)

    @query
    def books(self, ctx: Context) -> Books:
        """Return everything; for the canister's controllers."""
        if not ctx.is_controller(ctx.caller):
            ctx.reject("the books are private")
        return Books(
            self.tokens.get(),
            [tag for _, tag in self.journal.page(limit=10_000).items],
            list(self.outgoing.items()),
            list(self.received.items()),
            list(self.rang.items()),
            [tag for _, tag in self.sent.page(limit=10_000).items],
            [tag for _, tag in self.came.page(limit=10_000).items],
        )


class PeerNext(Peer):
    """The next version of a peer."""

    @query
    def generation(self, ctx: Context) -> nat64:
        """Tell it from the first."""
        return 2


@record
class Order:
    """What is left of an order of children."""

    tag: nat64
    left: nat32


class Nursery(Canister):
    """An index in small: make peers, one after the other, and know them all."""

    module_hash = StableCell(bytes, b"")
    children = StableMap(Principal, nat64, counted=True)
    failed = StableMap(nat64, str)

    @init
    def start(self, ctx: Context, module_hash: bytes) -> None:
        """Remember the module of the children."""
        self.module_hash.set(module_hash)

    @update
    def create(self, ctx: Context, tag: nat64, count: nat32) -> list[Principal] | Pending[list[Principal]]:
        """Make `count` peers and return the children of this order."""
        return self._next(ctx, Order(tag, count))

    def _next(self, ctx: Context, order: Order) -> list[Principal] | Pending[list[Principal]]:
        if order.left == 0:
            return [child for child, tag in self.children.items() if tag == order.tag]
        args = CreateInstalledArgs(
            module_hash=self.module_hash.get(), arg=encode_args(1_000, types=(nat64,)), controllers=[ctx.id]
        )
        call = Management().cannery_create_installed(args)
        return ctx.call(call, then=self.created, saved=order, cycles=min(10_000_000, ctx.balance // 8))

    @continuation
    def created(
        self, ctx: Context, outcome: Outcome[CreateInstalledResult], saved: Order
    ) -> list[Principal] | Pending[list[Principal]]:
        """Keep a child and ask for the next."""
        if outcome.ok:
            self.children.put(outcome.value.canister_id, saved.tag)
        else:
            self.failed.put(saved.tag, outcome.reject_message)
        return self._next(ctx, Order(saved.tag, saved.left - 1))

    @query
    def known(self, ctx: Context) -> list[tuple[Principal, nat64]]:
        """List the children."""
        return list(self.children.items())
