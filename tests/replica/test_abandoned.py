"""Reinstall, uninstall and forced stop end what is open: rejects at once, refunds later, nothing else."""

from __future__ import annotations

import pytest

from cannery.errors import Reject, Trap
from cannery.ports import EntryKind
from cannery.replica import keys
from cannery.replica.block import Block, ReplicaConfig
from cannery.replica.calls import abandon_calls, in_flight, list_callbacks, list_contexts
from cannery.replica.hooks import run_hook
from cannery.replica.run import Runner
from cannery.replica.scheduler import Scheduler
from cannery.replica.state import MessageOverlay, RoundState
from tests.replica.puppet import Act, pack, puppet
from tests.replica.world import Script, World


def _open_call() -> tuple[World, bytes, bytes, bytes]:
    """Let a call b, which waits for c; stop before c answers."""
    world = World(ReplicaConfig(activation_count_max=1))
    a, b, c = (world.add(puppet(), cycles=1000) for _ in range(3))
    inner: Act = ["call", c, "run", [["accept", 7], ["reply", b""]], 40, [["pass"]]]
    outer: Act = ["call", b, "run", [inner, ["later", 0]], 100, [["note", b"n"], ["reply", b"end"]]]
    world.round(world.ingress(a, "run", pack([outer, ["later", 0]])))
    world.round()
    return world, a, b, c


def test_open_calls_are_rejected_with_their_cycles_and_a_late_response_brings_its_refund_alone() -> None:
    world, a, b, c = _open_call()
    seen = []

    def abandon(message: MessageOverlay) -> None:
        assert [context.method for _, context in list_contexts(message, b)] == ["run"]
        assert [call.continuation for _, call in list_callbacks(message, b)] == ["then"]
        seen.append(in_flight(message, b))
        abandon_calls(message, b, "uninstalled")
        seen.append(in_flight(message, b))

    world.edit(abandon)
    assert seen == [2, 0]
    world.settle()
    assert world.value(a, b"n") == b"4:uninstalled"
    assert world.account(a).cycles == 1000
    assert world.account(b).cycles == 1000 - 7
    assert world.account(c).cycles == 1000 + 7
    assert next(iter(world.answers.values())).reply == b"end"
    assert list(world.store.scan(*keys.space_range(keys.CONTEXTS))) == []


def test_a_refund_for_a_canister_that_is_gone_is_burned() -> None:
    world, a, b, _ = _open_call()

    def remove(message: MessageOverlay) -> None:
        abandon_calls(message, b, "gone")
        account = message.account(b)
        assert account is not None
        message.subnet().burned += account.cycles
        message.put_canister(b, None)
        message.put_account(b, None)

    world.edit(remove)
    world.settle()
    assert world.value(a, b"n") == b"4:gone"


def _state(world: World) -> RoundState:
    state = RoundState(world.store, Block(0, b"", world.time_ns, b"seed"), world.shelf)
    state.scheduler = Scheduler(state)
    state.runner = Runner(state.block, None)
    return state


def test_hooks_write_into_the_message_and_call_nobody() -> None:
    from cannery.ports import CallRequest

    def init(system) -> None:
        assert (system.kind, system.name, system.arg, system.caller) == (EntryKind.INIT, "", b"arg", b"me")
        system.put(system.slot("data") + b"k", b"v")
        system.timer_set("tick", 5, 0, b"")
        system.log("hello")

    def post(system) -> None:
        system.call(CallRequest(b"", "m", b""))

    def health(system) -> None:
        if system.get(b"\x01k") == b"v":
            system.put(b"\x01k", b"w")
        raise Trap("sick")

    world = World()
    script = Script(others={"init": init, "post_upgrade": post, "health": health})
    canister = world.add(script)
    schema, module_hash = world.canister(canister).schema_id, world.canister(canister).module_hash
    assert module_hash is not None
    message = MessageOverlay(_state(world))
    run_hook(message, canister, EntryKind.INIT, module_hash, schema, b"arg", b"me")
    assert message.get(keys.owned(keys.STABLE, canister, b"\x01k")) == b"v"
    account = message.account(canister)
    assert account is not None
    assert (account.memory_bytes, account.timers_open, account.log_next) == (3, 1, 1)
    with pytest.raises(Reject, match="cannot call another canister"):
        run_hook(message, canister, EntryKind.POST_UPGRADE, module_hash, schema, b"", b"me")
    with pytest.raises(Reject, match="cannot write"):
        run_hook(message, canister, EntryKind.HEALTH, module_hash, schema, b"", b"me")
    assert message.state.runner.ordinal == 3


def test_a_program_that_cannot_be_loaded_rejects_and_stops_nothing() -> None:
    world = World()
    good, bad = world.add(puppet()), world.add(puppet())
    module_hash = world.canister(bad).module_hash
    assert module_hash is not None
    del world.shelf.programs[module_hash]
    calls = [world.ingress(canister, "run", pack([["reply", b"x"]])) for canister in (bad, good)]
    world.round(*calls)
    assert "is not on this node" in world.answers[calls[0].request_id].reject_message
    assert world.answers[calls[1].request_id].reply == b"x"
