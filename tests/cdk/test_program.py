"""A canister class as a program: answers, traps, rejects, calls in flight, timers, hooks."""

from __future__ import annotations

import re

import pytest

from cannery import (
    Call,
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    RawOutcome,
    Reject,
    Results,
    Service,
    StableCell,
    StableMap,
    Trap,
    composite_query,
    continuation,
    encode_args,
    health,
    init,
    inspect_message,
    method,
    nat,
    nat32,
    nat64,
    post_upgrade,
    pre_upgrade,
    query,
    record,
    timer,
    update,
)
from cannery.candid.codec import decoder, encoder
from cannery.candid.python import type_of
from cannery.cdk.interface import did_of
from cannery.ports import CallOutcome, EntryKind, Stopped
from tests.cdk.driver import Driver, Rejected
from tests.cdk.memory_system import CALLER, CANISTER, MemorySystem

OTHER = Principal(bytes.fromhex("00000000001000020101"))


@record
class Ticket:
    """A value that a continuation gets back."""

    owner: Principal
    amount: nat64


class Ledger(Service):
    """Another canister."""

    @method
    def deposit(self, amount: nat) -> nat: ...

    @method(name="name of it")
    def named(self) -> str: ...

    @method
    def both(self) -> Results[tuple[nat64, str]]: ...


class Bank(Canister):
    """Everything that a program can do."""

    total = StableCell(nat64, 0)
    notes = StableMap(str, str)
    started = StableCell(str, "")

    @init
    def start(self, ctx: Context, name: str | None) -> None:
        self.started.set(f"init {name}")

    @pre_upgrade
    def before(self, ctx: Context) -> None:
        self.notes.put("pre", "done")

    @post_upgrade
    def after(self, ctx: Context, number: nat64) -> None:
        if number == 13:
            ctx.reject("not 13")
        self.started.set(f"post {number}")

    @health
    def well(self, ctx: Context) -> bool:
        return self.total.get() < 100

    @inspect_message
    def inspect(self, ctx: Context) -> bool:
        if ctx.method_name == "closed":
            ctx.reject("closed until noon")
        return ctx.method_name != "secret" and ctx.arg != b""

    @update
    def add(self, ctx: Context, amount: nat64) -> nat64:
        """Add to the total."""
        self.total.value += amount
        return self.total.get()

    @update
    def fail(self, ctx: Context, how: str) -> nat64:
        self.total.set(99)
        if how == "reject":
            ctx.reject("no thanks")
        if how == "trap":
            ctx.trap("stop here")
        if how == "key":
            return self.notes[how]  # type: ignore[return-value]
        if how == "exit":
            raise SystemExit(3)
        if how == "stopped":
            raise Stopped
        if how == "memory":
            raise MemoryError
        if how == "recursion":
            return self.fail(ctx, how)
        if how == "lost recursion":
            raise SystemError("error return without exception set")
        if how == "system error":
            raise SystemError("of an extension")
        if how == "address":
            raise ValueError(f"at {object()!r}")
        if how == "long":
            raise ValueError("x" * 5000)
        if how == "wrong":
            return "text"  # type: ignore[return-value]
        if how == "negative":
            return -1
        return 0

    @update(oneway=True)
    def note(self, ctx: Context, text: str) -> None:
        self.notes.put("note", text)

    @update(name="many results")
    def many(self, ctx: Context) -> Results[tuple[nat64, str]]:
        return 1, "one"

    @query
    def read(self, ctx: Context) -> nat64:
        return self.total.get()

    @query(name="who-am-i")
    def who(self, ctx: Context) -> tuple[Principal, Principal]:
        return ctx.caller, ctx.id

    @composite_query
    def asked(self, ctx: Context, fails: bool) -> str:
        outcome = ctx.query(Ledger(Principal(b"\x07") if fails else OTHER).named())
        return outcome.value if outcome.ok else f"{outcome.reject_code} {outcome.reject_message}"

    @update
    def pay(self, ctx: Context, amount: nat64, now: bool) -> nat | Pending[nat]:
        if now:
            return 0
        ticket = Ticket(ctx.caller, amount)
        return ctx.call(Ledger(OTHER).deposit(amount), then=self.paid, saved=ticket, cycles=5)

    @continuation
    def paid(self, ctx: Context, outcome: Outcome[nat], saved: Ticket) -> nat:
        self.notes.put("paid", f"{saved.owner} {saved.amount} {outcome.refunded}")
        if not outcome.ok and "reject" in outcome.reject_message:
            ctx.reject("the ledger rejected")
        return outcome.unwrap() + 1

    @update
    def again(self, ctx: Context) -> Pending[nat]:
        return ctx.call(Ledger(OTHER).deposit(1), then=self.once_more)

    @continuation
    def once_more(self, ctx: Context, outcome: Outcome[nat]) -> Pending[nat]:
        return ctx.call(Ledger(OTHER).deposit(outcome.value), then=self.paid, saved=Ticket(ctx.caller, 0))

    @update
    def raw(self, ctx: Context) -> Pending[bytes]:
        return ctx.call(Call.raw(OTHER, "raw", b"DIDL\0\0"), then=self.got_raw)

    @continuation
    def got_raw(self, ctx: Context, outcome: RawOutcome) -> bytes:
        return outcome.unwrap()

    @update
    def passed_on(self, ctx: Context) -> Pending[nat]:
        return ctx.call(Ledger(OTHER).deposit(4))

    @update
    def mismatch(self, ctx: Context) -> Pending[str]:
        return ctx.call(Ledger(OTHER).deposit(4), then=self.paid, saved=Ticket(OTHER, 1))

    @update
    def undeclared(self, ctx: Context) -> nat:
        return ctx.call(Ledger(OTHER).deposit(4), then=self.paid, saved=Ticket(OTHER, 1))  # type: ignore[return-value]

    @update
    def bad_calls(self, ctx: Context, how: str) -> None:
        if how == "then":
            ctx.call(Ledger(OTHER).deposit(4), then=self.read)
        if how == "saved":
            ctx.call(Ledger(OTHER).deposit(4), then=self.paid)
        if how == "saved type":
            ctx.call(Ledger(OTHER).deposit(4), then=self.paid, saved=3)
        if how == "unsaved":
            ctx.call(Ledger(OTHER).deposit(4), then=self.got_raw, saved=3)
        if how == "nobody":
            ctx.call(Ledger(OTHER).deposit(4))
        if how == "arg":
            Ledger(OTHER).deposit(-4)
        if how == "args":
            Ledger(OTHER).deposit()  # type: ignore[call-arg]
        if how == "int":
            Call.of(OTHER, "m", (3,))
        if how == "full":
            for _ in range(501):
                ctx.notify(Ledger(OTHER).deposit(4))

    @update
    def told(self, ctx: Context) -> None:
        ctx.notify(Call.of(OTHER, "tell", ("a", True, b"b", OTHER, None)), cycles=3)
        ctx.notify(Call.of(OTHER, "count", (3,), types=(nat32,)))

    @timer
    def tick(self, ctx: Context) -> None:
        self.total.value += 1

    @timer
    def tock(self, ctx: Context, saved: str) -> None:
        if saved == "reject":
            ctx.reject("nobody hears")
        self.notes.put("tock", saved)

    @update
    def arm(self, ctx: Context) -> tuple[nat64, nat64, nat64]:
        return (
            ctx.timer_set(self.tick, after_s=1.5),
            ctx.timer_set(self.tick, every_s=60),
            ctx.timer_set(self.tock, at_ns=ctx.now_ns + 7, saved="tock"),
        )

    @update
    def disarm(self, ctx: Context, number: nat64) -> bool:
        return ctx.timer_cancel(number)

    @update
    def cycles(self, ctx: Context) -> tuple[nat64, nat64, nat64]:
        return ctx.available, ctx.accept(30), ctx.balance

    @update
    def chance(self, ctx: Context) -> tuple[bytes, nat64]:
        ctx.log("x" * 20_000)
        ctx.certified_data_set(b"proof")
        return ctx.random_bytes(4), ctx.random_below(6)

    @query
    def rights(self, ctx: Context) -> tuple[bool, bool]:
        return ctx.is_controller(ctx.caller), ctx.is_operator(ctx.caller)


@pytest.fixture
def bank() -> Driver:
    return Driver(Bank)


def test_an_update_is_answered_and_kept(bank: Driver) -> None:
    assert bank.update("add", 3) == 3
    assert bank.update("add", 4) == 7
    assert bank.query("read") == 7
    assert bank.query("who-am-i", caller=b"\x09\x01") == (Principal(b"\x09\x01"), Principal(CANISTER))
    assert bank.update("many results") == (1, "one")


def test_a_oneway_method_is_answered_with_nothing(bank: Driver) -> None:
    assert bank.update("note", "hi") is None
    assert bank.last is not None
    assert bank.last.replied == encoder(())(())


def test_a_reject_answers_and_keeps_what_was_written(bank: Driver) -> None:
    with pytest.raises(Rejected, match="no thanks"):
        bank.update("fail", "reject")
    assert bank.query("read") == 99
    assert bank.last is not None


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("trap", "^stop here$"),
        ("key", r"^KeyError: 'key' \(test_program.py:\d+ in fail\)$"),
        ("address", r"^ValueError: at <object object at 0x…> \(test_program.py:\d+ in fail\)$"),
        ("long", r"^ValueError: x{900,1000}… \(test_program.py:\d+ in fail\)$"),
        ("wrong", r"^fail returned 'text'; its interface promises \(nat64\)"),
        ("system error", r"^SystemError: of an extension \(test_program.py:\d+ in fail\)"),
        ("negative", r"^fail returned -1; its interface promises \(nat64\)"),
    ],
)
def test_what_goes_wrong_is_a_trap_that_drops_the_writes(bank: Driver, how: str, text: str) -> None:
    with pytest.raises(Trap, match=text):
        bank.update("fail", how)
    assert bank.query("read") == 0


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("exit", SystemExit),
        ("stopped", Stopped),
        ("memory", MemoryError),
        ("recursion", RecursionError),
        ("lost recursion", RecursionError),
    ],
)
def test_what_is_no_exception_and_what_the_machine_decided_pass_through(
    bank: Driver, how: str, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        bank.update("fail", how)
    assert bank.query("read") == 0


@pytest.mark.parametrize("arg", [b"", b"DIDL", b"junk", encoder((type_of(str),))(("x",)), encoder(())(())])
def test_a_wrong_argument_says_what_was_expected(bank: Driver, arg: bytes) -> None:
    with pytest.raises(Trap, match=r"^add expects \(nat64\): "):
        bank.activation(EntryKind.UPDATE, "add", arg=arg)


@pytest.mark.parametrize("kind", [EntryKind.UPDATE, EntryKind.QUERY, EntryKind.COMPOSITE_QUERY])
@pytest.mark.parametrize(
    "name", ["paid", "tick", "start", "well", "inspect", "cannery.forward", "__init__", "nothing", ""]
)
def test_only_the_interface_is_called_from_outside(bank: Driver, kind: EntryKind, name: str) -> None:
    with pytest.raises(
        Trap, match=rf"^the canister has no {kind.name.lower().replace('_', ' ')} method '{name}'$"
    ):
        bank.activation(kind, name)


def test_a_method_answers_now_or_later(bank: Driver) -> None:
    assert bank.update("pay", 9, True) == 0
    number = bank.update("pay", 9, False, caller=b"\x0a\x01")
    request = bank.canister.calls[number]  # type: ignore[index]
    assert (request.callee, request.method, request.cycles, request.continuation) == (
        OTHER.raw,
        "deposit",
        5,
        "paid",
    )
    assert decoder((type_of(nat),))(request.arg) == (9,)
    assert bank.last is not None
    assert bank.last.replied is None
    bank.respond(number, 41, types=(nat,))  # type: ignore[arg-type]
    assert decoder((type_of(nat),))(bank.last.replied or b"") == (42,)
    assert bank.canister.state
    assert Driver(Bank, bank.canister).query("read") == 0


def test_a_continuation_that_unwraps_a_reject_traps_with_the_callee_s_text(bank: Driver) -> None:
    number = bank.update("pay", 9, False)
    with pytest.raises(Trap, match=r"^a call was rejected with code 5: it trapped$"):
        bank.respond_raw(number, CallOutcome(b"", 5, "it trapped"))  # type: ignore[arg-type]


def test_a_continuation_may_reject_and_keep_its_writes(bank: Driver) -> None:
    number = bank.update("pay", 9, False)
    system = bank.respond_raw(number, CallOutcome(b"", 4, "reject", 5))  # type: ignore[arg-type]
    assert system.rejected == (4, "the ledger rejected")
    assert any(b"9 5" in value for value in bank.canister.state.values())


def test_a_reply_of_another_type_is_a_reject_to_the_continuation(bank: Driver) -> None:
    number = bank.update("pay", 9, False)
    with pytest.raises(Trap, match="code 5: the reply is not of the expected type"):
        bank.respond(number, "text", types=(str,))  # type: ignore[arg-type]


def test_a_continuation_may_answer_later_again(bank: Driver) -> None:
    first = bank.update("again")
    bank.respond(first, 2, types=(nat,))  # type: ignore[arg-type]
    assert bank.last is not None
    second = bank.last.answered_by
    assert second is not None
    bank.respond(second, 5, types=(nat,))
    assert decoder((type_of(nat),))(bank.last.replied or b"") == (6,)


def test_raw_calls_keep_their_bytes(bank: Driver) -> None:
    number = bank.update("raw")
    bank.respond_raw(number, CallOutcome(b"anything"))  # type: ignore[arg-type]
    assert bank.last is not None
    assert decoder((type_of(bytes),))(bank.last.replied or b"") == (b"anything",)


def test_a_call_without_continuation_passes_the_answer_on(bank: Driver) -> None:
    number = bank.update("passed_on")
    bank.respond(number, 8, types=(nat,))  # type: ignore[arg-type]
    assert bank.last is not None
    assert decoder((type_of(nat),))(bank.last.replied or b"") == (8,)
    number = bank.update("passed_on")
    bank.respond_raw(number, CallOutcome(b"", 5, "it trapped"))  # type: ignore[arg-type]
    assert bank.last.rejected == (5, "it trapped")
    number = bank.update("passed_on")
    with pytest.raises(Trap, match=r"the callee's reply is not \(nat\)"):
        bank.respond(number, "x", types=(str,))  # type: ignore[arg-type]


def test_a_continuation_that_answers_another_type_is_refused_at_once(bank: Driver) -> None:
    with pytest.raises(Trap, match=r"^mismatch promises \(text\); the continuation .* answers \(nat\)$"):
        bank.update("mismatch")
    with pytest.raises(Trap, match=r"undeclared returned a pending call: add Pending"):
        bank.update("undeclared")
    assert not bank.canister.calls


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("then", "decorated with @continuation"),
        ("saved", "paid needs saved="),
        ("saved type", "Bank.paid, saved value"),
        ("unsaved", "no parameter for a saved value"),
        ("nobody", "nobody waits for an answer here"),
        ("arg", "arguments of Ledger.deposit"),
        ("args", "'amount' is missing"),
        ("int", "give types= for an argument of type int"),
        ("full", "Reject: the output queue is full"),
    ],
)
def test_calls_that_are_not_right_trap_with_a_reason(bank: Driver, how: str, text: str) -> None:
    with pytest.raises(Trap, match=re.escape(text)):
        bank.update("bad_calls", how)
    assert not bank.canister.calls


def test_notifications_wait_for_nothing(bank: Driver) -> None:
    bank.update("told")
    first, second = bank.canister.calls.values()
    assert (first.continuation, first.cycles, first.saved) == (None, 3, b"")
    types = tuple(type_of(t) for t in (str, bool, bytes, Principal, None))
    assert decoder(types)(first.arg) == ("a", True, b"b", OTHER, None)
    assert decoder((type_of(nat32),))(second.arg) == (3,)


def test_composite_queries_ask_others(bank: Driver) -> None:
    answers = {(OTHER.raw, "name of it"): encode_args("ledger")}
    assert bank.query("asked", False, query_answers=answers) == "ledger"
    assert bank.query("asked", True, query_answers=answers) == "3 no such canister"


def test_timers_run_their_methods(bank: Driver) -> None:
    now_ns = bank.canister.now_ns
    one, two, three = bank.update("arm")  # type: ignore[misc]
    timers = bank.canister.timers
    assert (timers[one].due_ns, timers[one].every_ns) == (now_ns + 1_500_000_000, 0)
    assert (timers[two].due_ns, timers[two].every_ns) == (now_ns + 60_000_000_000, 60_000_000_000)
    assert timers[three].due_ns == now_ns + 7
    assert bank.fire()
    assert bank.fire()
    assert bank.query("read") == 1
    assert bank.update("disarm", two)
    assert not bank.update("disarm", two)
    assert not bank.fire()


def test_a_timer_has_nobody_to_reject_to(bank: Driver) -> None:
    codec = bank.program.description.timers["tock"].saved
    assert codec is not None
    with pytest.raises(Trap, match=r"^nobody hears$"):
        bank.activation(EntryKind.TIMER, "tock", saved=codec.write("reject"))


def test_hooks_run_with_their_arguments(bank: Driver) -> None:
    bank.activation(EntryKind.INIT, arg=encode_args("me"))
    bank.activation(EntryKind.INIT, arg=b"")
    assert any(b"init None" in value for value in bank.canister.state.values())
    bank.activation(EntryKind.PRE_UPGRADE, arg=b"whatever")
    bank.activation(EntryKind.POST_UPGRADE, arg=encode_args(3, types=(nat64,)))
    assert any(b"post 3" in value for value in bank.canister.state.values())
    with pytest.raises(Trap, match=r"^post_upgrade expects \(nat64\)"):
        bank.activation(EntryKind.POST_UPGRADE, arg=b"")
    with pytest.raises(Trap, match=r"^not 13$"):
        bank.activation(EntryKind.POST_UPGRADE, arg=encode_args(13, types=(nat64,)))
    bank.activation(EntryKind.HEALTH)
    bank.update("add", 100)
    with pytest.raises(Trap, match=r"^the health check well answered false$"):
        bank.activation(EntryKind.HEALTH)


def test_inspection_lets_in_what_it_says(bank: Driver) -> None:
    assert bank.activation(EntryKind.INSPECT, "add", arg=b"x").accepted
    assert not bank.activation(EntryKind.INSPECT, "secret", arg=b"x").accepted


def test_inspection_says_why_it_lets_something_not_in(bank: Driver) -> None:
    refused = bank.activation(EntryKind.INSPECT, "closed", arg=b"x")
    assert not refused.accepted
    assert refused.rejected == (4, "closed until noon")


def test_a_canister_without_hooks_needs_none() -> None:
    class Plain(Canister):
        @query
        def read(self, ctx: Context) -> None:
            return None

    plain = Driver(Plain)
    for kind in (EntryKind.INIT, EntryKind.PRE_UPGRADE, EntryKind.POST_UPGRADE, EntryKind.HEALTH):
        plain.activation(kind, arg=b"")
    assert plain.activation(EntryKind.INSPECT, "read").accepted
    assert plain.query("read") is None


def test_cycles_chance_and_the_log(bank: Driver) -> None:
    assert bank.update("cycles", available=100) == (100, 30, bank.canister.cycles - 30)
    data, number = bank.update("chance")  # type: ignore[misc]
    assert len(data) == 4
    assert 0 <= number < 6
    assert bank.update("chance") == (data, number)
    assert [len(line) for line in bank.canister.log_lines] == [10_000, 10_000]
    assert bank.canister.certified_data == b"proof"
    bank.canister.controllers = frozenset({CALLER})
    assert bank.query("rights") == (True, False)


def test_random_numbers_stay_below_their_bound_and_reach_all_of_it() -> None:
    system = MemorySystem(Driver(Bank).canister, EntryKind.UPDATE)
    ctx = Context(system, {}, {}, None)
    assert {ctx.random_below(5) for _ in range(200)} == set(range(5))
    assert ctx.random_below(1) == 0
    with pytest.raises(ValueError, match="above 0"):
        ctx.random_below(0)
    with pytest.raises(ValueError, match="random_bytes gives"):
        ctx.random_bytes(100_000)


def test_a_refused_call_can_be_caught() -> None:
    class Careful(Canister):
        @update
        def send(self, ctx: Context) -> str:
            try:
                for _ in range(501):
                    ctx.notify(Ledger(OTHER).deposit(4))
            except Reject as reject:
                return reject.message
            return ""

    assert Driver(Careful).update("send") == "the output queue is full"


def test_the_interface_text_has_methods_types_and_docstrings(bank: Driver) -> None:
    did = did_of(bank.program.description)
    assert "service : (name : opt text) -> {" in did
    assert "  // Add to the total.\n  add : (amount : nat64) -> (nat64);" in did
    assert '"who-am-i" : () -> (record { principal; principal }) query;' in did
    assert "asked : (fails : bool) -> (text) composite_query;" in did
    assert 'note : ("text" : text) -> () oneway;' in did
    assert '"many results" : () -> (nat64, text);' in did
    for hidden in ("paid", "tick", "forward", "start"):
        assert not re.search(rf"\b{hidden} :", did)
