"""Creation, settings, cycles, deletion."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import Principal
from cannery.limits import CYCLES_MINTED_MAX, HISTORY_CHANGE_COUNT_MAX, PROVISIONAL_CYCLES_DEFAULT
from cannery.protocol.representation import hash_map
from cannery.replica import keys
from cannery.replica.block import PriceSchedule
from cannery.replica.management import types as t
from tests.replica.management_world import (
    MANAGEMENT,
    OPERATOR,
    OWNER,
    STRANGER,
    Puppet,
    Rejected,
    World,
    encode_argument,
    int_argument,
    make_puppet,
    order_argument,
    order_result,
    puppet_call,
    puppet_manage,
)

FIRST = 0x100000


def id_of(counter: int) -> Principal:
    return Principal(keys.canister_id(counter))


def status_of(world: World, canister: Principal) -> t.CanisterStatusResult:
    status: t.CanisterStatusResult = world.ask(OPERATOR, "canister_status", t.CanisterIdRecord(canister))
    return status


def create(world: World, **settings: Any) -> Principal:
    args = t.CreateCanisterArgs(settings=t.CanisterSettings(**settings))
    made = world.manage(OPERATOR, "create_canister", args)
    assert isinstance(made, t.CanisterIdRecord)
    return made.canister_id


# --- creation -----------------------------------------------------------------------------------------------


def test_ids_go_up_and_are_never_given_again() -> None:
    world = World()
    first, second = create(world), create(world)
    assert (first, second) == (id_of(FIRST), id_of(FIRST + 1))
    world.manage(OPERATOR, "stop_canister", t.CanisterIdRecord(second))
    world.manage(OPERATOR, "delete_canister", t.CanisterIdRecord(second))
    assert create(world) == id_of(FIRST + 2)


def test_defaults_are_those_of_the_specification() -> None:
    world = World()
    made = world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs()).canister_id
    status = status_of(world, made)
    assert status.settings == t.DefiniteCanisterSettings(
        controllers=[OPERATOR],
        compute_allocation=0,
        memory_allocation=0,
        freezing_threshold=2_592_000,
        reserved_cycles_limit=5_000_000_000_000,
        minimum_incoming_canister_call_cycles=0,
        log_visibility=t.Visibility.controllers(),
        log_memory_limit=4096,
        snapshot_visibility=t.Visibility.controllers(),
        status_visibility=t.Visibility.controllers(),
        wasm_memory_limit=0,
        wasm_memory_threshold=0,
        environment_variables=[],
    )
    assert (status.version, status.cycles, status.module_hash, status.memory_size) == (0, 0, None, 0)
    assert status.status == t.StatusKind.running()


def test_an_operator_mints_at_creation() -> None:
    world = World()
    create_args = t.ProvisionalCreateArgs(amount=123)
    made = world.manage(OPERATOR, "provisional_create_canister_with_cycles", create_args)
    assert status_of(world, made.canister_id).cycles == 123
    made = world.manage(OPERATOR, "provisional_create_canister_with_cycles", t.ProvisionalCreateArgs())
    assert status_of(world, made.canister_id).cycles == PROVISIONAL_CYCLES_DEFAULT
    assert world.ask(OWNER, "cannery_cycles") == t.CyclesReport(
        PROVISIONAL_CYCLES_DEFAULT + 123, 0, PROVISIONAL_CYCLES_DEFAULT + 123
    )


def test_minting_ends_at_its_bound() -> None:
    world = World()
    canister = create(world)
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(canister, CYCLES_MINTED_MAX))
    for method in ("cannery_top_up", "provisional_top_up_canister"):
        record = t.TopUpArgs if method == "cannery_top_up" else t.ProvisionalTopUpArgs
        with pytest.raises(Rejected, match="cannot be minted"):
            world.manage(OPERATOR, method, record(canister, 1))


def test_an_operator_may_choose_an_id_once() -> None:
    world = World()

    def choose(counter: int) -> Principal:
        args = t.ProvisionalCreateArgs(amount=0, specified_id=id_of(counter))
        made = world.manage(OPERATOR, "provisional_create_canister_with_cycles", args)
        assert isinstance(made, t.CanisterIdRecord)
        return made.canister_id

    assert choose(4) == id_of(4)
    assert choose(FIRST + 1) == id_of(FIRST + 1)
    assert [create(world), create(world)] == [id_of(FIRST), id_of(FIRST + 2)]
    world.manage(OPERATOR, "stop_canister", t.CanisterIdRecord(id_of(4)))
    world.manage(OPERATOR, "delete_canister", t.CanisterIdRecord(id_of(4)))
    for used in (4, FIRST, FIRST + 1, FIRST + 2):
        with pytest.raises(Rejected, match="in use, or was"):
            choose(used)


@pytest.mark.parametrize("wanted", [Principal(b""), OWNER, id_of(1 << 40), Principal(b"\x00" * 10)])
def test_an_id_outside_the_subnet_is_refused(wanted: Principal) -> None:
    args = t.ProvisionalCreateArgs(amount=0, specified_id=wanted)
    with pytest.raises(Rejected, match="not among this subnet's canister ids"):
        World().manage(OPERATOR, "provisional_create_canister_with_cycles", args)


def test_a_canister_creates_within_its_quota() -> None:
    world = World(quota=2)
    index = make_puppet(world)
    made = puppet_manage(world, index, "create_canister", t.CreateCanisterArgs(), cycles=500)
    status = puppet_manage(world, index, "canister_status", made)
    assert status.cycles == 500
    assert status.settings.controllers == [index]
    puppet_manage(world, index, "create_canister", t.CreateCanisterArgs())
    with pytest.raises(Rejected, match="quota is 2"):
        puppet_manage(world, index, "create_canister", t.CreateCanisterArgs(), cycles=500)
    puppet_manage(world, index, "stop_canister", made)
    puppet_manage(world, index, "delete_canister", made)
    puppet_manage(world, index, "create_canister", t.CreateCanisterArgs())


def test_creation_costs_canisters_a_fee_where_one_is_set() -> None:
    world = World(prices=PriceSchedule(creation=100))
    assert create(world)
    index = make_puppet(world)
    before = world.account(index).cycles
    for attached in (0, 99):
        with pytest.raises(Rejected, match="costs 100 cycles"):
            puppet_manage(world, index, "create_canister", t.CreateCanisterArgs(), cycles=attached)
    assert world.account(index).cycles == before
    made = puppet_manage(world, index, "create_canister", t.CreateCanisterArgs(), cycles=150)
    assert world.account(made.canister_id).cycles == 50
    assert world.account(index).cycles == before - 150
    assert world.ask(OWNER, "cannery_cycles").burned == 100


def test_a_canister_is_created_with_its_code_or_not_at_all() -> None:
    world = World()
    index = make_puppet(world)
    module_hash = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Puppet, "b"))
    args = t.CreateInstalledArgs(module_hash, b"", [index, OWNER])
    made = puppet_manage(world, index, "cannery_create_installed", args, cycles=77).canister_id
    status = status_of(world, made)
    assert (status.module_hash, status.cycles) == (module_hash, 77)
    assert status.settings.controllers == [index, OWNER]
    world.call(OWNER, made, "set", int_argument(4))
    before = world.account(index)
    with pytest.raises(Rejected, match="not on this node"):
        puppet_manage(
            world, index, "cannery_create_installed", t.CreateInstalledArgs(bytes(32), b"", []), cycles=77
        )
    after = world.account(index)
    assert (after.cycles, after.canisters_created) == (before.cycles, before.canisters_created)


# --- settings -----------------------------------------------------------------------------------------------


def test_settings_change_one_by_one() -> None:
    world = World()
    canister = create(world, controllers=[OWNER], freezing_threshold=5)

    def change(**wanted: Any) -> t.CanisterStatusResult:
        args = t.UpdateSettingsArgs(canister, t.CanisterSettings(**wanted))
        world.manage(OWNER, "update_settings", args)
        return status_of(world, canister)

    status = change(environment_variables=[t.EnvironmentVariable("PUBLIC_CANISTER_ID:x", "aaaaa-aa")])
    assert status.settings.environment_variables == [
        t.EnvironmentVariable("PUBLIC_CANISTER_ID:x", "aaaaa-aa")
    ]
    assert (status.settings.freezing_threshold, status.version) == (5, 1)
    status = change(compute_allocation=100, memory_allocation=2**64 - 1, wasm_memory_limit=2**48)
    assert status.settings.memory_allocation == 2**64 - 1
    status = change(controllers=[OWNER, STRANGER, OWNER])
    assert status.settings.controllers == [OWNER, STRANGER]
    assert status.settings.environment_variables
    assert status.version == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("controllers", [Principal(bytes([n])) for n in range(11)]),
        ("compute_allocation", 101),
        ("memory_allocation", 2**64),
        ("freezing_threshold", 2**64),
        ("reserved_cycles_limit", 2**64),
        ("minimum_incoming_canister_call_cycles", 2**64),
        ("wasm_memory_limit", 2**48 + 1),
        ("wasm_memory_threshold", 2**48 + 1),
        ("log_memory_limit", 2 * 1024 * 1024 + 1),
        ("log_visibility", t.Visibility.allowed_viewers([Principal(bytes([n])) for n in range(11)])),
        ("environment_variables", [t.EnvironmentVariable("a", "1"), t.EnvironmentVariable("a", "2")]),
        ("environment_variables", [t.EnvironmentVariable(str(n), "") for n in range(21)]),
        ("environment_variables", [t.EnvironmentVariable("n" * 129, "")]),
        ("environment_variables", [t.EnvironmentVariable("n", "v" * 129)]),
    ],
)
def test_settings_out_of_bounds_are_refused(name: str, value: object) -> None:
    world = World()
    canister = create(world, controllers=[OWNER])
    before = world.traces()
    wanted = t.CanisterSettings(**{name: value})  # type: ignore[arg-type]  # each value is of its field's type
    with pytest.raises(Rejected, match="not valid"):
        world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, wanted))
    with pytest.raises(Rejected, match="not valid"):
        world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs(settings=wanted))
    assert world.traces() == before


def test_the_history_tells_who_did_what() -> None:
    world = World()
    index = make_puppet(world)
    variables = [t.EnvironmentVariable("a", "b")]
    args = t.CreateCanisterArgs(t.CanisterSettings(environment_variables=variables), 9)
    made = puppet_manage(world, index, "create_canister", args).canister_id
    module = world.programs.module_of(Puppet)
    puppet_manage(world, index, "install_code", t.InstallCodeArgs(t.InstallMode.install(), made, module, b""))
    settings = t.CanisterSettings(controllers=[index, OWNER])
    puppet_manage(world, index, "update_settings", t.UpdateSettingsArgs(made, settings))
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(made))
    info = puppet_manage(world, index, "canister_info", t.CanisterInfoArgs(made, 10))
    assert info.total_num_changes == 4
    assert (info.module_hash, info.controllers) == (None, [index, OWNER])
    created, installed, controlled, uninstalled = info.recent_changes
    by_index = t.ChangeOrigin.from_canister(t.FromCanister(index, 9))
    assert created.origin == by_index
    assert created.details == t.ChangeDetails.creation(t.Creation([index], hash_map({"a": "b"})))
    assert installed.details.tag == "code_deployment"
    assert installed.details.code_deployment.mode == t.DeploymentMode.install()
    assert controlled.details == t.ChangeDetails.controllers_change(t.ControllersChange([index, OWNER]))
    assert uninstalled.origin == t.ChangeOrigin.from_user(t.FromUser(OWNER))
    assert uninstalled.details == t.ChangeDetails.code_uninstall()
    assert [c.canister_version for c in info.recent_changes] == [0, 1, 2, 3]
    newest = puppet_manage(world, index, "canister_info", t.CanisterInfoArgs(made, 1))
    assert newest.recent_changes == [uninstalled]
    assert puppet_manage(world, index, "canister_info", t.CanisterInfoArgs(made)).recent_changes == []


def test_the_history_is_bounded() -> None:
    world = World()
    index = make_puppet(world)
    canister = create(world, controllers=[OWNER])
    for _ in range(HISTORY_CHANGE_COUNT_MAX + 5):
        settings = t.CanisterSettings(controllers=[OWNER])
        world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, settings))
    info = puppet_manage(world, index, "canister_info", t.CanisterInfoArgs(canister, 1_000))
    assert info.total_num_changes == HISTORY_CHANGE_COUNT_MAX + 6
    assert len(info.recent_changes) == HISTORY_CHANGE_COUNT_MAX
    assert info.recent_changes[-1].canister_version == HISTORY_CHANGE_COUNT_MAX + 5


# --- cycles -------------------------------------------------------------------------------------------------


def test_a_canister_deposits_cycles_in_another() -> None:
    world = World()
    giver, taker = make_puppet(world), create(world)
    puppet_manage(world, giver, "deposit_cycles", t.CanisterIdRecord(taker), cycles=300)
    assert world.account(taker).cycles == 300
    assert world.account(giver).cycles == 10**12 - 300


def test_a_canister_takes_the_cycles_of_an_empty_one_that_it_controls() -> None:
    world = World()
    owner, stranger = make_puppet(world), make_puppet(world)
    empty = create(world, controllers=[owner])
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(empty, 700))
    with pytest.raises(Rejected, match="Only controllers"):
        puppet_manage(world, stranger, "cannery_cycles_take", t.TakeCyclesArgs(empty))
    with pytest.raises(Rejected, match="has fewer than 701"):
        puppet_manage(world, owner, "cannery_cycles_take", t.TakeCyclesArgs(empty, 701))
    puppet_manage(world, owner, "cannery_cycles_take", t.TakeCyclesArgs(empty, 300))
    puppet_manage(world, owner, "cannery_cycles_take", t.TakeCyclesArgs(empty))
    assert world.account(empty).cycles == 0
    assert world.account(owner).cycles == 10**12 + 700
    world.manage(
        OWNER, "update_settings", t.UpdateSettingsArgs(stranger, t.CanisterSettings(controllers=[owner]))
    )
    with pytest.raises(Rejected, match="has a module, and its cycles are its own"):
        puppet_manage(world, owner, "cannery_cycles_take", t.TakeCyclesArgs(stranger))


def test_cycles_of_a_refused_call_come_back() -> None:
    world = World()
    giver = make_puppet(world)
    for method, value in (
        ("deposit_cycles", t.CanisterIdRecord(id_of(99))),
        ("update_settings", t.UpdateSettingsArgs(giver, t.CanisterSettings())),
        ("raw_rand", None),
    ):
        order = order_argument(MANAGEMENT, method, encode_argument(method, value), 1_000)
        world.call(OWNER, giver, "order", order)
        assert world.account(giver).cycles == 10**12


# --- deletion -----------------------------------------------------------------------------------------------


def test_deletion_needs_a_stopped_canister_and_leaves_nothing() -> None:
    world = World()
    empty = world.traces()
    canister = make_puppet(world)
    world.call(OWNER, canister, "set", int_argument(5))
    world.call(OWNER, canister, "tick_after", int_argument(60))
    world.manage(OWNER, "upload_chunk", t.UploadChunkArgs(canister, b"chunk"))
    world.manage(OPERATOR, "cannery_name_set", t.NameSetArgs("puppet", canister))
    with pytest.raises(Rejected, match="stop it before"):
        world.manage(OWNER, "delete_canister", t.CanisterIdRecord(canister))
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    world.manage(OWNER, "delete_canister", t.CanisterIdRecord(canister))
    assert world.ask(OWNER, "cannery_cycles").burned == 10**12
    left = {k: v for k, v in world.traces().items() if empty.get(k) != v}
    modules = {keys.MODULES, keys.MODULE_FILES, keys.MODULE_USES, keys.TYPES, keys.SCHEMAS}
    assert {k[0] for k in left} <= modules
    (module,) = world.ask(OWNER, "cannery_module_list")
    assert module.canisters == 0
    with pytest.raises(Rejected, match="not found"):
        world.call(OWNER, canister, "set", int_argument(5))


def test_whoever_calls_a_canister_that_goes_is_answered_and_gets_its_cycles_back() -> None:
    world = World()
    canister, caller = make_puppet(world), make_puppet(world)
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    gone = world.ingress(
        OWNER, MANAGEMENT, "delete_canister", encode_argument("delete_canister", t.CanisterIdRecord(canister))
    )
    order = order_argument(canister, "accept_and_set", int_argument(3), 400)
    calling = world.ingress(OWNER, caller, "order", order)
    world.block(calling, gone)
    world.answer(gone.request_id)
    result = order_result(world.answer(calling.request_id))
    assert "was deleted before it took this call" in result.reject_message
    assert result.refunded == 400
    assert world.account(caller).cycles == 10**12


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["create", "top_up", "deposit", "call", "trap", "stop", "start", "delete", "uninstall"]
            ),
            st.integers(0, 3),
            st.integers(0, 3),
            st.integers(0, 10**6),
        ),
        max_size=25,
    )
)
def test_cycles_are_neither_made_nor_lost(acts: list[tuple[str, int, int, int]]) -> None:
    world = World(prices=PriceSchedule(per_message=3, per_byte=1, per_key=2, per_call=5, creation=50))
    canisters = [make_puppet(world, cycles=10**7) for _ in range(2)]
    for act, which, other, amount in acts:
        canister = canisters[which % len(canisters)]
        target = t.CanisterIdRecord(canisters[other % len(canisters)])
        try:
            if act == "create":
                settings_ = t.CanisterSettings(controllers=[OWNER])
                args = t.CreateCanisterArgs(settings=settings_)
                canisters.append(puppet_manage(world, canister, "create_canister", args, amount).canister_id)
            elif act == "top_up":
                world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(canister, amount))
            elif act == "deposit":
                puppet_manage(world, canister, "deposit_cycles", target, amount)
            elif act == "call":
                puppet_call(
                    world, canister, target.canister_id, "accept_and_set", int_argument(amount), amount
                )
            elif act == "trap":
                puppet_call(world, canister, target.canister_id, "fail", cycles=amount)
            elif act == "uninstall":
                world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(canister))
            else:
                world.manage(OWNER, f"{act}_canister", t.CanisterIdRecord(canister))
        except Rejected:
            continue  # The law, checked after each block, holds whether or not an act is allowed.
