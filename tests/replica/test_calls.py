"""Calls in flight: each incoming call is answered exactly once, whatever its methods and continuations do."""

from __future__ import annotations

import pytest

from cannery.errors import RejectCode
from cannery.replica import keys
from cannery.replica.block import Configure, ReplicaConfig
from cannery.replica.records import CanisterStatus
from tests.replica.puppet import Act, pack, puppet
from tests.replica.world import World


class Pair:
    """Two puppets, one with cycles, in one world."""

    def __init__(self) -> None:
        self.world = World()
        self.a = self.world.add(puppet(), cycles=1000)
        self.b = self.world.add(puppet())

    def run(self, *acts: Act) -> tuple[bytes | None, int, str]:
        answer = self.world.call(self.a, "run", pack(list(acts)))
        assert answer is not None
        return answer.reply, answer.reject_code, answer.reject_message

    def open_count(self) -> int:
        found = 0
        for space in (keys.CONTEXTS, keys.CALLBACKS, keys.PAIRS, keys.QUEUES, keys.READY):
            found += len(list(self.world.store.scan(*keys.space_range(space))))
        return found


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_a_continuation_gives_the_answer(pair: Pair) -> None:
    acts: list[Act] = [["call", pair.b, "run", [["reply", b"from b"]], 0, [["pass"]]], ["later", 0]]
    assert pair.run(*acts) == (b"from b", 0, "")
    assert pair.open_count() == 0


def test_a_reject_reaches_the_continuation_with_code_and_text(pair: Pair) -> None:
    call: Act = ["call", pair.b, "run", [["reject", "not today"]], 0, [["note", b"n"], ["reply", b""]]]
    pair.run(call, ["later", 0])
    assert pair.world.value(pair.a, b"n") == b"4:not today"


def test_a_trap_of_the_callee_is_a_reject_for_the_caller_and_leaves_no_trace(pair: Pair) -> None:
    acts: list[Act] = [["put", b"k", b"v"], ["trap", "boom"]]
    pair.run(["call", pair.b, "run", acts, 0, [["note", b"n"], ["reply", b""]]], ["later", 0])
    note = pair.world.value(pair.a, b"n")
    assert note is not None
    assert note.startswith(b"5:")
    assert b"trapped: boom" in note
    assert pair.world.value(pair.b, b"k") is None


def test_a_method_that_does_not_answer_is_rejected(pair: Pair) -> None:
    reply, code, text = pair.run(["put", b"k", b"v"])
    assert reply is None
    assert code == RejectCode.CANISTER_ERROR
    assert "did not reply" in text
    assert pair.world.value(pair.a, b"k") == b"v"


def test_a_method_whose_only_call_has_no_continuation_and_that_does_not_answer_is_rejected(
    pair: Pair,
) -> None:
    _, code, text = pair.run(["call", pair.b, "run", [["reply", b""]], 0, None])
    assert code == RejectCode.CANISTER_ERROR
    assert "did not reply" in text
    assert pair.open_count() == 0


def test_a_continuation_that_does_not_answer_is_rejected(pair: Pair) -> None:
    _, code, text = pair.run(["call", pair.b, "run", [["reply", b""]], 0, []], ["later", 0])
    assert code == RejectCode.CANISTER_ERROR
    assert "did not reply" in text


def test_two_answers_are_a_trap(pair: Pair) -> None:
    _, code, text = pair.run(["put", b"k", b"v"], ["reply", b"1"], ["reply", b"2"])
    assert code == RejectCode.CANISTER_ERROR
    assert "answered already" in text
    assert pair.world.value(pair.a, b"k") is None


def test_an_answer_after_it_was_left_to_a_call_is_a_trap(pair: Pair) -> None:
    call: Act = ["call", pair.b, "run", [["reply", b""]], 0, [["pass"]]]
    _, _, text = pair.run(call, ["later", 0], ["reply", b"2"])
    assert "left its answer" in text
    assert pair.open_count() == 0


def test_the_answer_cannot_be_left_to_a_call_without_a_continuation(pair: Pair) -> None:
    _, _, text = pair.run(["call", pair.b, "run", [], 0, None], ["later", 0])
    assert "has no continuation" in text


def test_what_a_continuation_answers_after_the_method_did_is_dropped(pair: Pair) -> None:
    acts: list[Act] = [["reply", b"late"], ["put", b"seen", b"1"]]
    reply, _, _ = pair.run(["call", pair.b, "run", [["reply", b""]], 0, acts], ["reply", b"first"])
    assert reply == b"first"
    assert pair.world.value(pair.a, b"seen") == b"1"
    assert pair.open_count() == 0


def test_only_the_continuation_of_the_call_that_was_named_answers(pair: Pair) -> None:
    first: Act = ["call", pair.b, "run", [["reply", b"1"]], 0, [["reply", b"wrong"]]]
    second: Act = ["call", pair.b, "run", [["reply", b"2"]], 0, [["pass"]]]
    assert pair.run(first, second, ["later", 1])[0] == b"2"


def test_any_continuation_answers_where_none_was_named(pair: Pair) -> None:
    first: Act = ["call", pair.b, "run", [["reply", b"1"]], 0, []]
    second: Act = ["call", pair.b, "run", [["reply", b"2"]], 0, [["pass"]]]
    assert pair.run(first, second)[0] == b"2"


def test_a_trap_in_the_answering_continuation_drops_its_writes_and_rejects(pair: Pair) -> None:
    acts: list[Act] = [["put", b"k", b"v"], ["trap", "late boom"]]
    call: Act = ["call", pair.b, "run", [["accept", 3], ["reply", b""]], 10, acts]
    _, code, text = pair.run(["put", b"before", b"1"], call, ["later", 0])
    assert code == RejectCode.CANISTER_ERROR
    assert "late boom" in text
    assert pair.world.value(pair.a, b"k") is None
    assert pair.world.value(pair.a, b"before") == b"1"
    assert pair.world.account(pair.a).cycles == 997, "the refund is kept"
    assert pair.world.account(pair.b).cycles == 3
    assert pair.open_count() == 0


def test_a_trap_in_another_continuation_leaves_the_answer_to_the_named_one(pair: Pair) -> None:
    first: Act = ["call", pair.b, "run", [["reply", b"1"]], 0, [["trap", "aside"]]]
    second: Act = ["call", pair.b, "run", [["reply", b"2"]], 0, [["pass"]]]
    assert pair.run(first, second, ["later", 1])[0] == b"2"


def test_cycles_that_are_not_accepted_come_back(pair: Pair) -> None:
    pair.run(["call", pair.b, "run", [["accept", 30], ["reply", b""]], 100, [["reply", b""]]], ["later", 0])
    assert pair.world.account(pair.a).cycles == 970
    assert pair.world.account(pair.b).cycles == 30


def test_cycles_come_back_from_a_canister_that_does_not_exist(pair: Pair) -> None:
    nobody = keys.canister_id(7)
    pair.run(["call", nobody, "run", [], 100, [["note", b"n"], ["reply", b""]]], ["later", 0])
    note = pair.world.value(pair.a, b"n")
    assert note is not None
    assert note.startswith(b"3:Canister ")
    assert pair.world.account(pair.a).cycles == 1000


def test_more_cycles_than_there_are_cannot_be_sent(pair: Pair) -> None:
    pair.run(["call", pair.b, "run", [], 1001, None], ["reply", b""])
    assert b"cannot be sent" in (pair.world.value(pair.a, b"refused") or b"")


def test_a_trap_takes_back_its_calls_and_their_cycles(pair: Pair) -> None:
    pair.run(["call", pair.b, "run", [["put", b"k", b"v"]], 500, None], ["trap", "no"])
    assert pair.world.account(pair.a).cycles == 1000
    assert pair.world.value(pair.b, b"k") is None
    assert pair.open_count() == 0


def test_a_canister_calls_itself(pair: Pair) -> None:
    call: Act = ["call", pair.a, "run", [["put", b"k", b"v"], ["reply", b"me"]], 0, [["pass"]]]
    assert pair.run(call, ["later", 0])[0] == b"me"
    assert pair.world.value(pair.a, b"k") == b"v"


def test_continuations_and_timers_refuse_every_call_by_name(pair: Pair) -> None:
    world = pair.world
    for name in ("then", "tick"):
        answer = world.call(pair.a, name)
        assert answer is not None
        assert answer.reject_code == RejectCode.CANISTER_ERROR
        assert f"has no update method '{name}'" in answer.reject_message
        result = world.query(pair.a, name)
        assert result.reject is not None
        assert f"has no query method '{name}'" in result.reject.message
        pair.run(["call", pair.b, name, [], 0, [["note", b"n"], ["reply", b""]]], ["later", 0])
        assert f"has no update method '{name}'".encode() in (world.value(pair.a, b"n") or b"")


def test_a_stopped_canister_rejects_calls_and_gets_its_responses(pair: Pair) -> None:
    world = pair.world
    record = world.canister(pair.b)
    world.put_canister(pair.b, type(record)(record.controllers, record.creator, 0, CanisterStatus.STOPPED))
    pair.run(["call", pair.b, "run", [], 100, [["note", b"n"], ["reply", b""]]], ["later", 0])
    assert b"is stopped" in (world.value(pair.a, b"n") or b"")
    assert world.account(pair.a).cycles == 1000


def test_more_calls_than_fit_are_refused_at_once_and_the_rest_are_answered(pair: Pair) -> None:
    many: list[Act] = [["call", pair.b, "run", [["reply", b""]], 0, None] for _ in range(501)]
    assert pair.run(*many, ["reply", b"sent"])[0] == b"sent"
    assert b"500 calls to this canister are in flight" in (pair.world.value(pair.a, b"refused") or b"")
    assert pair.open_count() == 0


def test_a_call_in_flight_survives_in_the_store_between_bounded_rounds() -> None:
    pair = Pair()
    pair.world.round(Configure(ReplicaConfig(activation_count_max=1)))
    acts: list[Act] = [["call", pair.b, "run", [["reply", b"b"]], 0, [["pass"]]], ["later", 0]]
    ingress = pair.world.ingress(pair.a, "run", pack(acts))
    first = pair.world.round(ingress)
    assert first.backlog
    assert first.accepted == (ingress.request_id,)
    pair.world.round()
    assert pair.world.last.backlog
    pair.world.round()
    assert pair.world.answers[ingress.request_id].reply == b"b"
    assert not pair.world.last.backlog


def test_a_trap_of_the_named_continuation_is_the_answer_though_other_calls_are_open() -> None:
    pair = Pair()
    pair.world.round(Configure(ReplicaConfig(activation_count_max=4)))
    slow: Act = [
        "call",
        pair.b,
        "run",
        [["call", pair.b, "run", [["reply", b""]], 0, [["pass"]]], ["later", 0]],
    ]
    named: Act = ["call", pair.b, "run", [["reply", b""]], 0, [["trap", "named"]]]
    ingress = pair.world.ingress(
        pair.a, "run", pack([named, [*slow, 0, [["put", b"late", b"1"]]], ["later", 0]])
    )
    pair.world.round(ingress)
    pair.world.settle()
    answers = [answer.reject_message for answer in pair.world.answers.values()]
    assert len(answers) == 1
    assert "trapped: named" in answers[0]
    assert pair.world.value(pair.a, b"late") == b"1", "the other continuation still runs"
    assert pair.open_count() == 0
