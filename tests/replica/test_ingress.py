"""Calls from outside: admitted, refused, run once, kept and pruned; what `read_state` tells of them."""

from __future__ import annotations

import pytest

from cannery.errors import Reject, RejectCode
from cannery.limits import INGRESS_QUEUE_COUNT_MAX
from cannery.protocol import cbor
from cannery.replica import keys
from cannery.replica.block import Block, Configure, Ingress, ReplicaConfig
from cannery.replica.ingress import Admitted, Duplicate, Refused, admit
from cannery.replica.reading import read_path
from cannery.replica.records import CanisterRecord, CanisterStatus, RequestState
from cannery.replica.rounds import run_round
from tests.replica.puppet import pack, puppet
from tests.replica.world import ALICE, BOB, CONTROLLER, OPERATOR, Script, World

REPLY = pack([["reply", b"yes"]])


def _admit(world: World, ingress: Ingress) -> Admitted | Duplicate | Refused:
    return admit(world.store, ingress, world.shelf, None, world.time_ns)


def _refusal(world: World, ingress: Ingress) -> Reject:
    verdict = _admit(world, ingress)
    assert isinstance(verdict, Refused)
    return verdict.reject


def test_a_repeated_call_is_a_duplicate_and_never_runs_again() -> None:
    world = World()
    canister = world.add(puppet())
    ingress = world.ingress(canister, "run", pack([["count", b"n"], ["reply", b"yes"]]))
    world.round(ingress, ingress)
    world.round(ingress)
    world.round(ingress, seconds=60)
    assert world.account(canister).version == 1
    verdict = _admit(world, ingress)
    assert isinstance(verdict, Duplicate)
    assert verdict.status.state is RequestState.REPLIED
    assert verdict.status.reply == b"yes"
    assert world.last.events.duplicates == 1


def test_statuses_go_when_no_repetition_can_come_any_more() -> None:
    world = World()
    canister = world.add(puppet())
    ingress = world.ingress(canister, "run", REPLY, expires_in_s=240)
    world.round(ingress)
    key = keys.request_key(ingress.expiry_ns, ingress.request_id)
    world.round(seconds=240 + 299)
    assert world.store.get(key) is not None
    world.round(seconds=61)
    assert world.store.get(key) is None


def test_a_call_that_waits_past_its_expiry_is_rejected() -> None:
    world = World(ReplicaConfig(activation_count_max=1))
    canister = world.add(puppet())
    first = world.ingress(canister, "run", REPLY)
    second = world.ingress(canister, "run", REPLY, expires_in_s=1)
    world.round(first, second)
    assert second.request_id not in world.answers
    world.round(seconds=2)
    assert "timed out waiting" in world.answers[second.request_id].reject_message
    assert world.answers[second.request_id].reject_code == RejectCode.SYS_TRANSIENT


def test_an_unfinished_call_is_processing_for_its_sender_alone() -> None:
    world = World(ReplicaConfig(activation_count_max=1))
    canister = world.add(puppet())
    calls = [world.ingress(canister, "run", REPLY) for _ in range(2)]
    outcome = world.round(*calls)
    assert outcome.accepted == (calls[1].request_id,)
    assert outcome.backlog
    path = (b"request_status", calls[1].request_id, b"status")
    assert read_path(world.store, path, ALICE) == b"processing"
    with pytest.raises(Reject, match="by its sender alone"):
        read_path(world.store, path, BOB)
    world.round()
    assert read_path(world.store, path, ALICE) == b"replied"
    assert read_path(world.store, (b"request_status", calls[1].request_id, b"reply"), ALICE) == b"yes"
    assert read_path(world.store, (b"request_status", b"x" * 32, b"status"), ALICE) is None
    assert read_path(world.store, (b"request_status", b"short", b"status"), ALICE) is None


def test_a_rejected_call_is_read_leaf_by_leaf() -> None:
    world = World()
    canister = world.add(puppet())
    ingress = world.ingress(canister, "run", pack([["reject", "not you"]]))
    world.round(ingress)

    def read(leaf: bytes) -> bytes | None:
        return read_path(world.store, (b"request_status", ingress.request_id, leaf), ALICE)

    assert read(b"status") == b"rejected"
    assert read(b"reject_code") == b"\x04"
    assert read(b"reject_message") == b"not you"
    assert read(b"error_code") == b"IC0406"
    assert read(b"reply") is None


def test_canister_facts_are_read_by_everybody() -> None:
    world = World()
    canister = world.add(puppet())
    record = world.canister(canister)

    def read(*path: bytes) -> bytes | None:
        return read_path(world.store, (b"canister", *path), BOB)

    assert read(canister, b"module_hash") == record.module_hash
    controllers = read(canister, b"controllers")
    assert controllers is not None
    assert cbor.decode(controllers) == ([CONTROLLER], True)
    assert read(keys.canister_id(5), b"module_hash") is None
    assert read(b"\x00" * 30, b"module_hash") is None
    assert read(canister, b"nonsense") is None
    for path in ((), (b"time",), (b"nonsense", b"x", b"y")):
        with pytest.raises(Reject, match="cannot be read"):
            read_path(world.store, path, ALICE)


def test_admission_says_why_a_call_is_not_let_in() -> None:
    world = World()
    canister = world.add(puppet())
    assert isinstance(_admit(world, world.ingress(canister, "run")), Admitted)
    unknown = _refusal(world, world.ingress(keys.canister_id(3), "run"))
    assert (unknown.code, unknown.error_code) == (RejectCode.DESTINATION_INVALID, "IC0301")
    assert "not found" in unknown.message
    method = _refusal(world, world.ingress(canister, "nothing"))
    assert method.error_code == "IC0536"
    assert "has no update method 'nothing'" in method.message
    large = _refusal(world, world.ingress(canister, "run", b"x" * (100 * 2**20 + 1)))
    assert "at most" in large.message
    record = world.canister(canister)
    empty = CanisterRecord(record.controllers, record.creator, 0)
    world.put_canister(canister, empty)
    bare = _refusal(world, world.ingress(canister, "run"))
    assert bare.error_code == "IC0537"
    assert "has no wasm module" in bare.message
    for status, code in ((CanisterStatus.STOPPED, "IC0508"), (CanisterStatus.STOPPING, "IC0509")):
        world.put_canister(canister, CanisterRecord(record.controllers, record.creator, 0, status))
        assert _refusal(world, world.ingress(canister, "run")).error_code == code


def test_what_changed_after_admission_is_rejected_in_the_round() -> None:
    world = World()
    canister = world.add(puppet())
    record = world.canister(canister)
    calls = [world.ingress(keys.canister_id(3), "run"), world.ingress(canister, "nothing")]
    world.round(*calls)
    assert [world.answers[call.request_id].reject_code for call in calls] == [3, 5]
    world.put_canister(
        canister, CanisterRecord(record.controllers, record.creator, 0, CanisterStatus.STOPPED)
    )
    late = world.ingress(canister, "run")
    world.round(late)
    assert world.answers[late.request_id].error_code == "IC0508"


def test_inspect_message_lets_in_or_refuses() -> None:
    def inspect(system) -> None:
        if system.caller == ALICE and system.name == "run" and system.arg == b"please":
            system.accept()
        if system.arg == b"write":
            system.put(b"k", b"v")

    script = Script({"run": lambda system: system.reply(b"")}, others={"inspect_message": inspect})
    world = World()
    canister = world.add(script)
    assert isinstance(_admit(world, world.ingress(canister, "run", b"please")), Admitted)
    assert "did not accept" in _refusal(world, world.ingress(canister, "run", b"please", sender=BOB)).message
    assert "inspect cannot write" in _refusal(world, world.ingress(canister, "run", b"write")).message


def test_a_full_queue_rejects_at_once_and_says_so() -> None:
    world = World(ReplicaConfig(activation_count_max=1))
    canister = world.add(puppet())
    calls = [world.ingress(canister, "run", REPLY) for _ in range(INGRESS_QUEUE_COUNT_MAX + 1)]
    outcome = world.round(*calls)
    refused = [answer for answer in outcome.answers if answer.reject_code]
    assert [answer.request_id for answer in refused] == [calls[-1].request_id]
    assert refused[0].reject_code == RejectCode.SYS_TRANSIENT
    assert "full queue" in refused[0].reject_message


def test_a_query_method_called_as_an_update_keeps_nothing() -> None:
    world = World()
    canister = world.add(puppet())
    answer = world.call(canister, "read", pack([["reply", b"fine"]]))
    assert answer is not None
    assert answer.reply == b"fine"
    answer = world.call(canister, "read", pack([["put", b"k", b"v"], ["reply", b""]]))
    assert answer is not None
    assert "a query method, also when it is called as an update, cannot write" in answer.reject_message


def test_a_block_of_another_history_is_refused() -> None:
    from cannery.errors import StoreError

    world = World()
    for block in (
        Block(world.number + 2, world.previous_hash, world.time_ns + 1, bytes(32)),
        Block(world.number + 1, bytes(32), world.time_ns + 1, bytes(32)),
        Block(world.number + 1, world.previous_hash, world.time_ns, bytes(32)),
    ):
        with pytest.raises(StoreError):
            run_round(world.store, block, world.shelf, None)


def test_blocks_are_kept_for_their_window() -> None:
    world = World(ReplicaConfig(block_window_count=3))
    for _ in range(10):
        world.round()
    kept = [keys.number_of(key) for key, _ in world.store.scan(*keys.space_range(keys.BLOCKS))]
    assert kept == [9, 10, 11]
    assert world.last.head.oldest_block == 9
    world.round(Configure(ReplicaConfig(block_window_count=5)))
    world.round()
    assert world.last.head.oldest_block == 9


def test_operators_come_with_the_first_configuration_alone() -> None:
    world = World()
    world.round(Configure(ReplicaConfig(operators=(BOB,), block_window_count=7)))
    found = [key[1:] for key, _ in world.store.scan(*keys.space_range(keys.OPERATORS))]
    assert found == [OPERATOR]


def test_an_answer_that_comes_after_its_status_was_pruned_leaves_none_behind() -> None:
    world = World(ReplicaConfig(activation_count_max=1))
    canister, other = world.add(puppet()), world.add(puppet())
    waiting = pack([["call", other, "run", [["reply", b""]], 0, [["pass"]]], ["later", 0]])
    ingress = world.ingress(canister, "run", waiting)
    world.round(ingress)
    world.round(seconds=3600)
    world.round()
    assert world.answers[ingress.request_id].reply == b""
    assert list(world.store.scan(*keys.space_range(keys.REQUESTS))) == []
