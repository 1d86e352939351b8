"""Code: install, reinstall, upgrade. An upgrade commits whole or leaves no trace."""

from __future__ import annotations

from hashlib import sha256

import pytest

from cannery import (
    Canister,
)
from cannery.limits import HOOK_CPU_NS_MAX
from cannery.ports import Stopped
from cannery.replica.block import PriceSchedule
from cannery.replica.management import types as t
from cannery.replica.rounds import run_round
from cannery.testing.store import MemoryStore
from tests.replica.management_world import (
    MANAGEMENT,
    OPERATOR,
    OWNER,
    Rejected,
    World,
    encode_argument,
    int_result,
    make_puppet,
    order_argument,
    order_result,
    puppet_manage,
)
from tests.replica.tally import (
    MODES,
    Plain,
    Tally,
    TallyNext,
    TallyWithOtherSaved,
    TallyWithOtherTypes,
    TallyWithoutContinuation,
    TallyWithoutTimer,
    deploy,
    encode_argument_principal,
    get,
    hold_a_call,
    logs_of,
    number,
    status_of,
    stopping,
    tally,
)

# --- install ------------------------------------------------------------------------------------------------


def test_install_runs_init_with_its_argument() -> None:
    world = World()
    canister = tally(world, 8)
    assert get(world, canister) == 8
    assert logs_of(world, canister) == ["begun at 8"]
    assert status_of(world, canister).version == 1


@pytest.mark.parametrize("arg", [number(13), b"DIDL\x00\x00", b"garbage"])
def test_a_failed_init_leaves_an_empty_canister(arg: bytes) -> None:
    world = World()
    made = world.manage(
        OPERATOR, "create_canister", t.CreateCanisterArgs(t.CanisterSettings([OWNER]))
    ).canister_id
    world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Tally))
    before = world.traces()
    with pytest.raises(Rejected, match=r"trapped.*in init"):
        deploy(world, made, Tally, "install", arg)
    assert world.traces() == before
    module_hash = sha256(world.programs.module_of(Tally)).digest()
    with pytest.raises(Rejected, match="in init"):
        world.manage(OPERATOR, "cannery_create_installed", t.CreateInstalledArgs(module_hash, arg, [OWNER]))
    assert world.traces() == before


def test_installing_on_a_canister_that_is_not_empty_is_refused() -> None:
    world = World()
    canister = tally(world)
    before = world.traces()
    with pytest.raises(Rejected, match="is not empty"):
        deploy(world, canister, Tally, "install", number(1))
    assert world.traces() == before


def test_upgrading_an_empty_canister_is_refused() -> None:
    world = World()
    made = world.manage(
        OPERATOR, "create_canister", t.CreateCanisterArgs(t.CanisterSettings([OWNER]))
    ).canister_id
    with pytest.raises(Rejected, match="is empty: use mode install"):
        deploy(world, made, TallyNext, "upgrade")


def test_a_hash_that_nobody_brought_is_refused() -> None:
    world = World()
    canister = tally(world)
    args = t.InstallChunkedCodeArgs(MODES["upgrade"], canister, None, [], bytes(32), b"")
    with pytest.raises(Rejected, match="no chunks are named"):
        world.manage(OWNER, "install_chunked_code", args)
    with pytest.raises(Rejected, match="not on this node"):
        world.manage(OPERATOR, "cannery_create_installed", t.CreateInstalledArgs(bytes(32), b"", []))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (b"", "not a Wasm file"),
        (b"\x00asm\x01\x00\x00\x00", "Wasm programs are not supported yet"),
        (b"\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00", "Wasm programs are not supported yet"),
        (b"\x1f\x8b\x08 not gzip", "gzip"),
    ],
)
def test_what_is_no_module_is_refused_with_the_reason(module: bytes, text: str) -> None:
    world = World()
    made = world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs()).canister_id
    with pytest.raises(Rejected, match=text):
        world.manage(OPERATOR, "install_code", t.InstallCodeArgs(MODES["install"], made, module, b""))
    with pytest.raises(Rejected, match=text):
        world.manage(OPERATOR, "cannery_module_add", module)


def test_a_module_that_does_not_load_is_refused_and_not_kept() -> None:
    world = World()
    module = World().programs.module_of(Tally)
    before = world.traces()
    with pytest.raises(Rejected, match="cannot be imported"):
        world.manage(OPERATOR, "cannery_module_add", module)
    assert world.traces() == before


# --- upgrade ------------------------------------------------------------------------------------------------


def test_an_upgrade_keeps_the_state_and_runs_both_hooks() -> None:
    world = World()
    canister = tally(world, 5)
    deploy(world, canister, TallyNext, arg=number(2))
    assert get(world, canister) == 7
    assert get(world, canister, "ended_at") == 1
    assert status_of(world, canister).version == 2
    assert logs_of(world, canister) == ["begun at 5", "resumed"]
    info = puppet_manage(world, make_puppet(world), "canister_info", t.CanisterInfoArgs(canister, 1))
    assert info.recent_changes[0].details.code_deployment.mode == t.DeploymentMode.upgrade()


def test_the_old_hook_may_be_skipped() -> None:
    world = World()
    canister = tally(world, 99)
    with pytest.raises(Rejected, match=r"cannot end.*in pre_upgrade"):
        deploy(world, canister, TallyNext, arg=number(0))
    module_hash = sha256(world.programs.module_of(TallyNext)).digest()
    flags = t.UpgradeFlags(True, t.WasmMemoryPersistence.keep())
    args = t.InstallChunkedCodeArgs(t.InstallMode.upgrade(flags), canister, None, [], module_hash, number(0))
    world.manage(OWNER, "install_chunked_code", args)
    assert (get(world, canister), get(world, canister, "ended_at")) == (99, 0)


@pytest.mark.parametrize(
    ("start", "arg", "text"),
    [(99, 0, "in pre_upgrade"), (5, 13, "in post_upgrade"), (5, 5_000, "in health")],
)
def test_a_failed_upgrade_leaves_no_trace(start: int, arg: int, text: str) -> None:
    world = World()
    canister = tally(world, start)
    world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(TallyNext))
    before = world.traces()
    with pytest.raises(Rejected, match=text):
        deploy(world, canister, TallyNext, arg=number(arg))
    assert world.traces() == before
    world.call(OWNER, canister, "set", number(1))
    deploy(world, canister, TallyNext, arg=number(1))
    assert get(world, canister) == 2


def test_an_upgrade_that_cannot_read_the_state_is_refused_with_the_paths() -> None:
    world = World()
    canister = tally(world)
    world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(TallyWithOtherTypes))
    before = world.traces()
    with pytest.raises(Rejected, match=r"count.*names|names.*count"):
        deploy(world, canister, TallyWithOtherTypes)
    assert world.traces() == before
    deploy(world, canister, TallyWithOtherTypes, "reinstall")


def test_calls_in_flight_go_on_in_the_new_version() -> None:
    world = World()
    canister = tally(world)
    request_id, other = hold_a_call(world, canister)
    deploy(world, canister, TallyNext, arg=number(0))
    assert request_id not in world.answers
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(other))
    assert int_result(world.answer(request_id)) == 1_007


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (TallyWithoutContinuation, "'held'.*lacks it"),
        (TallyWithOtherSaved, "'held'.*cannot be read"),
        (Plain, "'held'.*lacks it"),
    ],
)
def test_an_upgrade_without_a_continuation_in_flight_is_refused_with_its_name(
    cls: type[Canister], text: str
) -> None:
    world = World()
    canister = tally(world)
    request_id, other = hold_a_call(world, canister)
    world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(cls))
    before = world.traces()
    with pytest.raises(Rejected, match=text):
        deploy(world, canister, cls)
    assert world.traces() == before
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(other))
    assert int_result(world.answer(request_id)) == 7
    deploy(world, canister, cls)


def test_an_upgrade_without_a_timer_s_method_is_refused_with_its_name() -> None:
    world = World()
    canister = tally(world)
    world.call(OWNER, canister, "tick_after", number(60))
    with pytest.raises(Rejected, match="timer 'tick' is in flight"):
        deploy(world, canister, TallyWithoutTimer)
    deploy(world, canister, TallyNext, arg=number(0))
    world.wait(61)
    assert get(world, canister) == 15
    deploy(world, canister, TallyWithoutTimer)


def test_two_versions_run_side_by_side() -> None:
    world = World()
    old, new = tally(world), tally(world)
    deploy(world, new, TallyNext, arg=number(1))
    world.call(OWNER, old, "set", number(3))
    assert (get(world, old), get(world, new)) == (3, 6)


# --- reinstall, uninstall -----------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["reinstall", "uninstall"])
def test_code_that_goes_answers_its_callers_and_drops_late_responses(act: str) -> None:
    world = World()
    canister, caller = tally(world), make_puppet(world)
    request_id, other = hold_a_call(world, canister)
    calling = world.submit(
        OWNER, caller, "order", order_argument(canister, "hold", encode_argument_principal(other), 500)
    )
    world.call(OWNER, canister, "tick_after", number(60))
    if act == "reinstall":
        deploy(world, canister, Tally, "reinstall", number(40))
    else:
        world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(canister))
    with pytest.raises(Rejected, match=f"was {act}ed before it answered") as caught:
        world.answer(request_id)
    assert caught.value.code == 4
    result = order_result(world.answer(calling))
    assert (result.reject_code, result.refunded) == (4, 500)
    account = world.account(canister)
    assert (account.contexts_open, account.calls_open, account.timers_open, account.queued_bytes) == (
        0,
        0,
        0,
        0,
    )
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(other))
    world.wait(61)
    if act == "reinstall":
        assert get(world, canister) == 40
        assert logs_of(world, canister) == ["begun at 40"]
    else:
        assert logs_of(world, canister) == []
        status = status_of(world, canister)
        assert (status.module_hash, status.memory_size) == (None, 0)
        with pytest.raises(Rejected, match="no wasm module"):
            world.call(OWNER, canister, "set", number(1))


def test_refunds_of_late_responses_are_credited() -> None:
    world = World()
    puppet = make_puppet(world)
    other = stopping(world, [puppet])
    arg = encode_argument("stop_canister", t.CanisterIdRecord(other))
    request_id = world.submit(OWNER, puppet, "order", order_argument(MANAGEMENT, "stop_canister", arg, 600))
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(puppet))
    assert world.account(puppet).cycles == 10**12 - 600
    with pytest.raises(Rejected, match="was uninstalled"):
        world.answer(request_id)
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(other))
    assert world.account(puppet).cycles == 10**12


def test_hooks_are_charged_and_cannot_be_run_on_credit() -> None:
    world = World(prices=PriceSchedule(per_message=100))
    module_hash = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Tally))
    made = world.manage(
        OPERATOR, "create_canister", t.CreateCanisterArgs(t.CanisterSettings([OWNER]))
    ).canister_id
    args = t.InstallChunkedCodeArgs(MODES["install"], made, None, [], module_hash, number(1))
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(made, 99))
    with pytest.raises(Rejected, match="its init costs 100"):
        world.manage(OWNER, "install_chunked_code", args)
    assert world.account(made).cycles == 99
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(made, 901))
    world.manage(OWNER, "install_chunked_code", args)
    assert world.account(made).cycles == 900
    deploy(world, made, TallyNext, arg=number(1))
    assert world.account(made).cycles == 600


# --- limits -------------------------------------------------------------------------------------------------


class StoppingWatch:
    """A watch that stops what it is told to stop."""

    def __init__(self) -> None:
        self.limits_ns: list[int] = []
        self.stops = False

    def begin(self, identity: bytes, cpu_ns_max: int) -> None:
        self.limits_ns.append(cpu_ns_max)
        if self.stops and cpu_ns_max == HOOK_CPU_NS_MAX:
            raise Stopped

    def end(self) -> bool:
        return False


def test_a_hook_that_runs_too_long_is_stopped_and_a_replay_obeys() -> None:
    watch = StoppingWatch()
    world = World(watch=watch)
    canister = tally(world)
    assert watch.limits_ns == [HOOK_CPU_NS_MAX]
    watch.stops = True
    with pytest.raises(Rejected, match=r"was stopped.*0\.2 s.*in pre_upgrade"):
        deploy(world, canister, TallyNext, arg=number(0))
    assert get(world, canister) == 5
    assert world.blocks[-1].verdicts
    replayed = MemoryStore()
    for block in world.blocks:
        replayed.write(run_round(replayed.snapshot(), block, world.programs, None).batch)
    assert dict(replayed.scan(b"", b"\xff")) == dict(world.store.scan(b"", b"\xff"))
