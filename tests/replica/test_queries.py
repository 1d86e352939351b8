"""Queries read one committed state, nest within bounds, and change nothing."""

from __future__ import annotations

import pytest

from cannery.errors import Reject, RejectCode, Trap
from cannery.ports import CallRequest, EntryKind, Stopped
from cannery.replica import keys
from cannery.replica.block import ReplicaConfig
from cannery.replica.queries import QueryResult
from cannery.replica.records import CanisterRecord, CanisterStatus
from tests.replica.world import CONTROLLER, Script, World


def _reject(result: QueryResult) -> Reject:
    assert result.reject is not None
    return result.reject


def _chain(system) -> None:
    """Query the next canister named in the argument, and so on."""
    if system.arg:
        system.reply(b"." + system.query(system.arg[:10], "chain", system.arg[10:]))
    else:
        system.reply(b"end")


def test_composite_queries_nest_to_their_depth_and_no_deeper() -> None:
    world = World(ReplicaConfig(composite_depth_max=3))
    canister = world.add(Script(composites={"chain": _chain}))
    assert world.query(canister, "chain", canister * 3).reply == b"...end"
    reject = _reject(world.query(canister, "chain", canister * 4))
    assert "at most 3 deep" in reject.message


def test_composite_queries_are_bounded_in_number() -> None:
    def many(system) -> None:
        for _ in range(5):
            system.query(system.canister_id, "one", b"")
        system.reply(b"")

    world = World(ReplicaConfig(composite_call_count_max=4))
    script = Script(queries={"one": lambda system: system.reply(b"1")}, composites={"many": many})
    reject = _reject(world.query(world.add(script), "many"))
    assert "at most 4 queries" in reject.message


def test_a_reject_of_an_inner_query_can_be_handled() -> None:
    def careful(system) -> None:
        try:
            system.query(system.arg, "inner", b"")
        except Reject as reject:
            system.reply(b"%d " % reject.code + reject.message.encode())

    def boom(system) -> None:
        raise Trap("boom")

    world = World()
    careful_one = world.add(Script(composites={"outer": careful}))
    broken = world.add(Script(queries={"inner": boom}))
    assert b"5 Canister" in world.query(careful_one, "outer", broken).reply
    assert b"boom" in world.query(careful_one, "outer", broken).reply
    assert world.query(careful_one, "outer", keys.canister_id(1)).reply.startswith(b"3 ")


def test_the_time_limit_of_the_outermost_query_cannot_be_caught_within() -> None:
    def inner(system) -> None:
        raise Stopped

    def outer(system) -> None:
        try:
            system.query(system.canister_id, "inner", b"")
        except Exception:
            system.reply(b"went on")

    world = World()
    canister = world.add(Script(queries={"inner": inner}, composites={"outer": outer}))
    assert "CPU time" in _reject(world.query(canister, "outer")).message


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda system: system.put(b"k", b"v"), "cannot write"),
        (lambda system: system.delete(b"k"), "cannot delete"),
        (lambda system: system.delete_range(b"a", b"b"), "cannot delete"),
        (lambda system: system.call(CallRequest(b"", "m", b"")), "cannot call"),
        (lambda system: system.timer_set("t", 0, 0, b""), "cannot set a timer"),
        (lambda system: system.timer_cancel(1), "cannot cancel"),
        (lambda system: system.certified_data_set(b""), "cannot set certified data"),
        (lambda system: system.random_bytes(1), "cannot draw"),
        (lambda system: system.cycles_accept(1), "cannot accept cycles"),
        (lambda system: system.query(b"", "m", b""), "cannot query"),
        (lambda system: system.accept(), "cannot accept a message"),
        (lambda system: system.answer_later(1), "cannot answer later"),
        (lambda system: system.outcome, "only a continuation"),
        (lambda system: system.saved, "only continuations"),
        (lambda system: (system.reply(b""), system.reply(b"")), "answered already"),
        (lambda system: system.reject("x", 9), "no reject code"),
        (lambda system: None, "did not reply"),
    ],
)
def test_a_query_that_does_more_than_read_is_told_so(act, words: str) -> None:
    world = World()
    canister = world.add(Script(queries={"q": act}))
    before = list(world.store.scan(b"", b"\xff"))
    assert words in _reject(world.query(canister, "q")).message
    assert list(world.store.scan(b"", b"\xff")) == before


def test_a_query_sees_what_the_system_tells() -> None:
    seen = []

    def look(system) -> None:
        seen.append(
            (
                system.kind,
                system.name,
                system.caller,
                system.canister_id,
                system.now_ns,
                system.cycles_balance(),
                system.cycles_available(),
                system.canister_version,
                system.data_certificate(),
                system.is_controller(CONTROLLER),
                system.is_controller(system.caller),
                system.is_operator(system.caller),
                system.slot("data"),
                list(system.scan(b"", b"\xff", reverse=True)),
            )
        )
        system.log("dropped")
        system.reply(b"")

    def fill(system) -> None:
        system.certified_data_set(b"root")
        system.put(b"\x01a", b"1")
        system.put(b"\x01b", b"2")
        system.reply(b"")

    world = World()
    canister = world.add(Script({"fill": fill}, {"look": look}), cycles=5)
    world.call(canister, "fill")
    world.query(canister, "look", sender=b"me")
    assert seen == [
        (
            EntryKind.QUERY,
            "look",
            b"me",
            canister,
            world.time_ns,
            5,
            0,
            1,
            b"certified root",
            True,
            False,
            False,
            b"\x01",
            [(b"\x01b", b"2"), (b"\x01a", b"1")],
        )
    ]


def test_queries_to_what_is_not_there_are_told_so() -> None:
    world = World()
    canister = world.add(Script({"u": lambda system: None}))
    assert _reject(world.query(keys.canister_id(1), "q")).error_code == "IC0301"
    assert _reject(world.query(canister, "u")).error_code == "IC0536"
    world.put_canister(canister, CanisterRecord((CONTROLLER,), CONTROLLER, 0))
    assert _reject(world.query(canister, "q")).error_code == "IC0537"
    world.put_canister(canister, CanisterRecord((CONTROLLER,), CONTROLLER, 0, CanisterStatus.STOPPED))
    assert _reject(world.query(canister, "q")).error_code == "IC0508"


def test_a_composite_query_called_as_an_update_is_refused() -> None:
    world = World()
    canister = world.add(Script(composites={"c": lambda system: system.reply(b"")}))
    answer = world.call(canister, "c")
    assert answer is not None
    assert answer.reject_code == RejectCode.CANISTER_ERROR
    assert "call it as a query" in answer.reject_message
