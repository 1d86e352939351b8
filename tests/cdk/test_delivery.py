"""Delivery between canisters: exactly once and in order under random failures, dead letters with reasons."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import (
    Attempt,
    Batch,
    Canister,
    Context,
    Delivery,
    Inbox,
    Pending,
    Principal,
    StableLog,
    Trap,
    nat32,
    nat64,
    query,
    update,
)
from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.cdk.delivery import STUCK_NS
from cannery.cdk.describe import describe
from cannery.cdk.hints import DeclarationError
from cannery.cdk.interface import manifest_of
from cannery.cdk.retry import DELAY_MAX_NS, retry_class, retry_delay_ns
from cannery.ports import CallOutcome, EntryKind
from tests.cdk.driver import Driver, Rejected
from tests.cdk.memory_system import MemoryCanister

SENDER = bytes.fromhex("00000000001000010101")
RECEIVERS = [bytes.fromhex("00000000001000020101"), bytes.fromhex("00000000001000030101")]


class Sender(Canister):
    """Posts numbers and keeps what became of them."""

    outbox = Delivery(nat64, str, method="receive", queue_count_max=50, dead_count_max=3)
    reports = StableLog(tuple[nat64, str, str])

    @update
    def post(self, ctx: Context, to: Principal, value: nat64) -> str | Pending[str]:
        posted = self.outbox.post(to, value)
        return posted.pending or "stored"

    @outbox.on_attempt
    def attempted(self, ctx: Context, attempt: Attempt[nat64, str]) -> str:
        self.reports.append((attempt.value, attempt.state, attempt.receipt or attempt.reason))
        if attempt.value == 666:
            raise ValueError("the report fails")
        if attempt.value == 667:
            ctx.reject("the report rejects")
        if attempt.value == 668 and attempt.state == "delivered":
            self.outbox.post(attempt.to, 1)
        return f"{attempt.state} {attempt.value} {attempt.receipt}"

    @query
    def reported(self, ctx: Context) -> list[tuple[nat64, str, str]]:
        return list(self.reports)

    @query
    def queued(self, ctx: Context, to: Principal) -> tuple[nat64, nat64]:
        return self.outbox.queued, self.outbox.queued_for(to)

    @query
    def dead(self, ctx: Context) -> list[tuple[nat64, nat64, str]]:
        return [(letter.index, letter.value, letter.reason) for letter in self.outbox.dead_letters(limit=10)]

    @update
    def clear(self, ctx: Context, before: nat64) -> nat64:
        return self.outbox.clear_dead_letters(before=before)

    @update
    def recover(self, ctx: Context) -> nat32:
        return self.outbox.recover()


class Receiver(Canister):
    """Takes numbers once."""

    inbox = Inbox(str)
    taken = StableLog(nat64)

    @update
    def receive(self, ctx: Context, batch: Batch[nat64]) -> list[str]:
        return self.inbox.take(ctx.caller, batch, self._take)

    def _take(self, value: nat64) -> str:
        if value == 999:
            raise ValueError("it cannot be taken")
        return f"r{self.taken.append(value)}"

    @query
    def all(self, ctx: Context) -> list[nat64]:
        return list(self.taken)


class World:
    """A sender, two receivers, and the calls between them, moved by hand."""

    def __init__(self) -> None:
        self.sender = Driver(Sender, MemoryCanister(SENDER))
        self.receivers = {id: Driver(Receiver, MemoryCanister(id)) for id in RECEIVERS}

    def post(self, to: bytes, value: int) -> object:
        return self.sender.update("post", Principal(to), value)

    @property
    def calls(self) -> list[int]:
        return sorted(self.sender.canister.calls)

    def serve(self, call: int) -> CallOutcome:
        """Let the receiver run a call; return its answer without handing it over."""
        request = self.sender.canister.calls[call]
        try:
            system = self.receivers[request.callee].activation(
                EntryKind.UPDATE, request.method, arg=request.arg, caller=SENDER
            )
        except Trap as trap:
            return CallOutcome(b"", 5, str(trap), 0, "IC0503")
        assert system.replied is not None
        return CallOutcome(system.replied)

    def settle(self, call: int, outcome: CallOutcome) -> str | None:
        system = self.sender.respond_raw(call, outcome)
        if system.replied is None:
            return None
        return str(decoder((type_of(str),))(system.replied)[0])

    def run_until_idle(self) -> None:
        for _ in range(2_000):
            if self.calls:
                self.settle(self.calls[0], self.serve(self.calls[0]))
            elif not self.sender.fire():
                return
        raise AssertionError("the delivery never comes to rest")

    def fresh_callees(self, seen: dict[int, int]) -> list[bytes]:
        """Give who is being called; a batch that is in flight for long is taken for lost and sent again."""
        now_ns = self.sender.canister.now_ns
        calls = self.sender.canister.calls
        return [
            request.callee
            for call, request in calls.items()
            if now_ns - seen.setdefault(call, now_ns) <= STUCK_NS
        ]

    def taken(self, to: bytes) -> object:
        return self.receivers[to].query("all")

    def reports(self, state: str) -> list[int]:
        found = self.sender.query("reported")
        assert isinstance(found, list)
        return [value for value, kind, _ in found if kind == state]


RETRYABLE = [
    CallOutcome(b"", 5, "stopped", 0, "IC0508"),
    CallOutcome(b"", 5, "stopping", 0, "IC0509"),
    CallOutcome(b"", 2, "out of cycles", 0, "IC0207"),
    CallOutcome(b"", 2, "queue full", 0, "IC0515"),
    CallOutcome(b"", 2, "busy"),
    CallOutcome(b"", 6, "unknown"),
    CallOutcome(b"", 5, "it trapped", 0, "IC0503"),
]
events = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.sampled_from(RECEIVERS), st.none()),
        st.tuples(st.just("deliver"), st.integers(0, 3), st.none()),
        st.tuples(st.just("refuse"), st.integers(0, 3), st.sampled_from(RETRYABLE)),
        st.tuples(st.just("lose the answer"), st.integers(0, 3), st.sampled_from(RETRYABLE)),
        st.tuples(st.just("timer"), st.none(), st.none()),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(events)
def test_everything_posted_arrives_once_and_in_order(
    script: list[tuple[str, object, CallOutcome | None]],
) -> None:
    world = World()
    posted: dict[bytes, list[int]] = {id: [] for id in RECEIVERS}
    seen: dict[int, int] = {}
    count = 0
    for what, which, failure in script:
        if what == "post":
            assert isinstance(which, bytes)
            if count < 50:
                world.post(which, count)
                posted[which].append(count)
                count += 1
        elif what == "timer":
            world.sender.fire()
        elif world.calls:
            assert isinstance(which, int)
            call = world.calls[which % len(world.calls)]
            if what == "deliver":
                world.settle(call, world.serve(call))
            else:
                assert failure is not None
                if what == "lose the answer":
                    world.serve(call)
                world.settle(call, failure)
        callees = world.fresh_callees(seen)
        assert len(callees) == len(set(callees)), "one batch at the most is in flight for a destination"
    world.run_until_idle()
    for id in RECEIVERS:
        assert world.taken(id) == posted[id]
        assert world.sender.query("queued", Principal(id)) == (0, 0)
    assert sorted(world.reports("delivered")) == list(range(count))
    assert world.reports("dead") == []
    assert not world.sender.canister.timers


def test_the_late_answer_of_a_batch_that_was_sent_again_settles_nothing() -> None:
    world = World()
    to = RECEIVERS[0]
    world.post(to, 1)
    (first,) = world.calls
    world.sender.canister.now_ns += STUCK_NS + 1
    world.post(to, 2)
    again = world.calls[1]
    world.post(to, 3)
    late = world.serve(first)
    both = world.serve(again)
    world.settle(first, late)
    assert world.reports("delivered") == []
    world.settle(again, both)
    assert world.reports("delivered") == [1, 2]
    world.run_until_idle()
    assert world.reports("delivered") == [1, 2, 3]
    assert world.taken(to) == [1, 2, 3]


def test_batches_that_overlap_are_taken_in_any_order() -> None:
    """Whoever receives may look something up first, and so take a batch after one that was sent later."""
    world = World()
    to = RECEIVERS[0]
    world.post(to, 1)
    (first,) = world.calls
    world.sender.canister.now_ns += STUCK_NS + 1
    world.post(to, 2)
    second = world.calls[-1]
    world.serve(second)
    world.serve(first)
    world.sender.canister.now_ns += STUCK_NS + 1
    world.post(to, 3)
    third = world.calls[-1]
    assert len({first, second, third}) == 3
    world.settle(third, world.serve(third))
    assert world.taken(to) == [1, 2, 3]
    assert world.reports("delivered") == [1, 2, 3]


def test_the_method_that_posts_is_answered_by_the_first_attempt() -> None:
    world = World()
    call = world.post(RECEIVERS[0], 7)
    assert world.post(RECEIVERS[0], 8) == "stored"
    assert isinstance(call, int)
    assert world.settle(call, world.serve(call)) == "delivered 7 r0"
    (following,) = world.calls
    assert world.settle(following, world.serve(following)) is None
    assert world.taken(RECEIVERS[0]) == [7, 8]


def test_a_receiver_that_is_stopped_leaves_the_parcel_waiting_and_no_call_open() -> None:
    world = World()
    call = world.post(RECEIVERS[0], 7)
    assert isinstance(call, int)
    assert world.settle(call, RETRYABLE[0]) == "waiting 7 None"
    assert world.calls == []
    (timer,) = world.sender.canister.timers.values()
    assert timer.due_ns == world.sender.canister.now_ns + 10_000_000_000
    assert world.post(RECEIVERS[0], 8) == "stored"
    assert world.sender.fire()
    world.run_until_idle()
    assert world.taken(RECEIVERS[0]) == [7, 8]


@pytest.mark.parametrize(
    "outcome",
    [
        CallOutcome(b"", 3, "no such canister", 0, "IC0301"),
        CallOutcome(b"", 4, "go away", 0, "IC0406"),
        CallOutcome(b"DIDL\x00\x00"),
        CallOutcome(b"DIDL\x01\x6d\x71\x01\x00\x00"),
    ],
)
def test_what_cannot_be_delivered_is_a_dead_letter_with_its_reason(outcome: CallOutcome) -> None:
    world = World()
    call = world.post(RECEIVERS[0], 7)
    world.post(RECEIVERS[0], 8)
    assert isinstance(call, int)
    answer = world.settle(call, outcome)
    assert answer == "dead 7 None"
    ((index, value, reason),) = world.sender.query("dead")  # type: ignore[misc]
    assert (index, value) == (0, 7)
    assert outcome.reject_message in reason
    world.run_until_idle()
    assert world.taken(RECEIVERS[0]) == [8]


def test_dead_letters_are_bounded_and_can_be_cleared() -> None:
    world = World()
    for value in range(5):
        call = world.post(RECEIVERS[0], value)
        assert isinstance(call, int)
        world.settle(call, CallOutcome(b"", 4, "go away"))
    assert [value for _, value, _ in world.sender.query("dead")] == [4, 3, 2]  # type: ignore[misc, union-attr]
    assert world.sender.update("clear", 4) == 2
    assert [value for _, value, _ in world.sender.query("dead")] == [4]  # type: ignore[misc, union-attr]


def test_a_parcel_that_never_gets_through_is_given_up() -> None:
    world = World()
    world.post(RECEIVERS[0], 999)
    world.run_until_idle()
    ((_, value, reason),) = world.sender.query("dead")  # type: ignore[misc]
    assert value == 999
    assert "it cannot be taken" in reason


def test_a_report_that_fails_undoes_nothing() -> None:
    world = World()
    for value, rejected in ((666, (4, "ValueError: the report fails")), (667, (4, "the report rejects"))):
        call = world.post(RECEIVERS[0], value)
        assert isinstance(call, int)
        assert world.settle(call, world.serve(call)) is None
        assert world.sender.last is not None
        assert world.sender.last.rejected is not None
        assert world.sender.last.rejected[1].startswith(rejected[1])
    assert world.taken(RECEIVERS[0]) == [666, 667]
    world.post(RECEIVERS[0], 1)
    world.post(RECEIVERS[0], 666)
    world.run_until_idle()
    assert world.taken(RECEIVERS[0]) == [666, 667, 1, 666]
    assert any("reporting an attempt failed: ValueError" in line for line in world.sender.canister.log_lines)


def test_a_report_may_post_again() -> None:
    world = World()
    world.post(RECEIVERS[0], 668)
    world.run_until_idle()
    assert world.taken(RECEIVERS[0]) == [668, 1]


def test_a_full_queue_accepts_nothing() -> None:
    world = World()
    for value in range(50):
        world.post(RECEIVERS[value % 2], value)
    before = dict(world.sender.canister.state)
    with pytest.raises(Trap, match="DeliveryFull: 50 parcels are queued already"):
        world.post(RECEIVERS[0], 50)
    assert world.sender.canister.state == before
    world.run_until_idle()
    assert world.taken(RECEIVERS[0]) == list(range(0, 50, 2))


def test_a_full_output_queue_only_delays() -> None:
    world = World()
    world.sender.canister.queue_size_max = 0
    assert world.post(RECEIVERS[0], 1) == "stored"
    assert world.calls == []
    world.sender.canister.queue_size_max = 5
    world.run_until_idle()
    assert world.taken(RECEIVERS[0]) == [1]


def test_batches_grow_while_one_is_in_flight_and_stay_bounded() -> None:
    world = World()
    first = world.post(RECEIVERS[0], 0)
    for value in range(1, 50):
        world.post(RECEIVERS[0], value)
    assert isinstance(first, int)
    world.settle(first, world.serve(first))
    (call,) = world.calls
    hint = list[tuple[nat64, nat64, nat64]]
    (batch,) = decoder((type_of(hint),))(world.sender.canister.calls[call].arg)
    assert [value for _, _, value in batch] == list(range(1, 50))  # type: ignore[union-attr]


def test_answers_that_a_forced_stop_dropped_are_made_good() -> None:
    world = World()
    world.post(RECEIVERS[0], 1)
    world.serve(world.calls[0])
    world.sender.canister.calls.clear()
    assert world.sender.update("recover") == 0
    world.sender.canister.now_ns += 601_000_000_000
    assert world.sender.update("recover") == 1
    world.run_until_idle()
    world.post(RECEIVERS[0], 2)
    world.sender.canister.calls.clear()
    world.sender.canister.now_ns += 601_000_000_000
    world.post(RECEIVERS[0], 3)
    world.run_until_idle()
    assert world.taken(RECEIVERS[0]) == [1, 2, 3]


def test_a_reinstalled_sender_is_not_taken_for_an_old_one() -> None:
    world = World()
    for value in range(3):
        world.post(RECEIVERS[0], value)
    world.run_until_idle()
    world.sender.canister.state.clear()
    world.sender.canister.now_ns += 1
    world.post(RECEIVERS[0], 3)
    world.run_until_idle()
    assert world.taken(RECEIVERS[0]) == [0, 1, 2, 3]


def test_the_parts_of_a_delivery_stand_in_the_manifest() -> None:
    manifest = manifest_of(describe(Sender), "m:Sender")
    assert [c.name for c in manifest.continuations] == ["cannery.forward", "outbox.settled"]
    assert [t.name for t in manifest.timers] == ["outbox.retry"]
    assert [c.name for c in manifest.collections] == [
        "outbox.dead",
        "outbox.lanes",
        "outbox.queue",
        "outbox.state",
        "reports",
    ]


def test_a_report_is_declared_with_its_parameters() -> None:
    class Wrong(Canister):
        outbox = Delivery(nat64, str, method="receive")

        @outbox.on_attempt
        def attempted(self, ctx: Context) -> str:
            return ""

    with pytest.raises(DeclarationError, match=r"Wrong.attempted: it takes"):
        describe(Wrong)


def test_an_inbox_refuses_batches_over_the_bound() -> None:
    receiver = Driver(Receiver)
    with pytest.raises(Trap, match="at most 100 parcels"):
        receiver.update("receive", [(1, i, i) for i in range(101)])
    assert receiver.update("receive", []) == []
    assert receiver.update("receive", [(5, 1, 1)]) == ["r0"]
    assert receiver.update("receive", [(5, 1, 1), (5, 2, 2)]) == ["r0", "r1"]
    with pytest.raises(Trap, match="was taken long ago"):
        receiver.update("receive", [(5, 0, 1)])
    assert receiver.update("receive", [(5, 0, 1)], caller=b"\x01\x02") == ["r2"]


@given(st.integers(0, 7), st.sampled_from([None, "IC0207", "IC0508", "IC0999"]), st.integers(0, 100))
def test_delays_rise_and_are_bounded(code: int, error_code: str | None, tries: int) -> None:
    how = retry_class(code, error_code)
    assert 0 <= retry_delay_ns(how, tries) <= retry_delay_ns(how, tries + 1) <= DELAY_MAX_NS
    assert retry_delay_ns("at_once", 100) > 0


def test_a_reject_of_the_method_is_answered() -> None:
    class Strict(Canister):
        @update
        def receive(self, ctx: Context, batch: Batch[nat64]) -> list[str]:
            ctx.reject("closed")

    with pytest.raises(Rejected, match="closed"):
        Driver(Strict).update("receive", [])
