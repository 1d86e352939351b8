"""Who may call what: every method, tried by everybody, at admission and in a block."""

from __future__ import annotations

from typing import Any

import pytest

from cannery import Principal
from cannery.replica.management import snapshot_types as st
from cannery.replica.management import types as t
from cannery.replica.management.dispatch import METHODS
from tests.replica.management_arguments import example_argument
from tests.replica.management_world import (
    ANONYMOUS,
    OPERATOR,
    OWNER,
    STRANGER,
    Rejected,
    World,
    make_puppet,
    puppet_manage,
)

OPEN = {"cannery_module_list", "cannery_name_list", "cannery_cycles", "cannery_subnets"}
OPERATORS = {
    "create_canister",
    "provisional_create_canister_with_cycles",
    "provisional_top_up_canister",
    "cannery_top_up",
    "cannery_create_installed",
    "cannery_module_add",
    "cannery_module_add_chunked",
    "cannery_name_set",
    "cannery_operator_add",
    "cannery_operator_remove",
    "cannery_operator_list",
    "cannery_canister_list",
    "cannery_canary",
    "cannery_fleet_list",
    "list_canisters",
}
CONTROLLERS = {
    "update_settings",
    "install_code",
    "install_chunked_code",
    "upload_chunk",
    "clear_chunk_store",
    "stored_chunks",
    "take_canister_snapshot",
    "list_canister_snapshots",
    "read_canister_snapshot_metadata",
    "read_canister_snapshot_data",
}
RESTORING = {
    "load_canister_snapshot",
    "delete_canister_snapshot",
    "upload_canister_snapshot_metadata",
    "upload_canister_snapshot_data",
}
"""Controllers, and operators: they put back what they have saved."""
CONTROLLERS_OR_OPERATORS = {
    "uninstall_code",
    "start_canister",
    "stop_canister",
    "cannery_stop_canister",
    "cannery_delete_canister",
    "delete_canister",
    "canister_status",
    "canister_metrics",
    "cannery_canister_metrics",
    "fetch_canister_logs",
}
CANISTERS = {
    "canister_info",
    "canister_metadata",
    "deposit_cycles",
    "raw_rand",
    "cannery_fleet_found",
    "http_request",
}
CONTROLLING_CANISTERS = {"cannery_cycles_take"}
INDEXES = {
    "cannery_fleet_module_put",
    "cannery_fleet_module_remove",
    "cannery_fleet_configure",
    "cannery_fleet_appoint",
    "cannery_fleet_dismiss",
}
FLEET_READERS = {"cannery_fleet_info", "cannery_fleet_members"}
OPERATING_CONTROLLERS = {"cannery_replace"}
"""Controllers; over HTTP those who are operators."""
BY_TARGET = {"cannery_alarm_set", "cannery_module_compare", "cannery_status_many", "cannery_upgrade_many"}
"""Operators over HTTP and canisters: over whom they may decide is asked for each target, if any."""


def test_each_method_has_its_rule_here() -> None:
    assert set(METHODS) == (
        OPEN
        | OPERATORS
        | CONTROLLERS
        | RESTORING
        | CONTROLLERS_OR_OPERATORS
        | CANISTERS
        | CONTROLLING_CANISTERS
        | INDEXES
        | FLEET_READERS
        | OPERATING_CONTROLLERS
        | BY_TARGET
    )


@pytest.mark.parametrize("sender", [STRANGER, ANONYMOUS])
@pytest.mark.parametrize("method", sorted(set(METHODS) - OPEN))
def test_a_stranger_is_refused_and_nothing_changes(method: str, sender: Principal) -> None:
    world = World()
    canister = make_puppet(world)
    before = world.traces()
    for refusal in _refusals(world, sender, method, canister):
        assert refusal.code in (4, 5)
        assert len(refusal.text) > 30
    assert world.traces() == before
    blocks = world.number
    if METHODS[method].update is not None:
        with pytest.raises(Rejected):
            world.manage(sender, method, example_argument(method, canister))
    assert world.number == blocks, "what admission refuses is in no block"


@pytest.mark.parametrize("method", sorted(OPEN))
def test_some_lists_are_open_to_everybody(method: str) -> None:
    World().ask(ANONYMOUS, method)


@pytest.mark.parametrize("method", sorted(CONTROLLERS))
def test_an_operator_who_is_no_controller_does_not_manage(method: str) -> None:
    world = World()
    canister = make_puppet(world)
    for refusal in _refusals(world, OPERATOR, method, canister):
        assert str(canister) in refusal.text


@pytest.mark.parametrize("method", sorted(CONTROLLERS_OR_OPERATORS - {"delete_canister"}))
@pytest.mark.parametrize("sender", [OPERATOR, OWNER])
def test_controllers_and_operators_may(method: str, sender: Principal) -> None:
    world = World()
    canister = make_puppet(world)
    do = world.manage if METHODS[method].update is not None else world.ask
    do(sender, method, example_argument(method, canister))


@pytest.mark.parametrize("sender", [OPERATOR, OWNER])
def test_controllers_and_operators_put_saved_state_back(sender: Principal) -> None:
    world = World()
    canister, other = make_puppet(world), make_puppet(world)
    taken = world.manage(OWNER, "take_canister_snapshot", st.TakeSnapshotArgs(canister))
    world.manage(sender, "load_canister_snapshot", st.LoadSnapshotArgs(canister, taken.id))
    world.manage(sender, "load_canister_snapshot", st.LoadSnapshotArgs(other, taken.id))
    sizes = st.UploadSnapshotMetadataArgs(canister, 0, [], 0, 1, b"")
    snapshot = world.manage(sender, "upload_canister_snapshot_metadata", sizes).snapshot_id
    place = st.SnapshotDataOffset.stable_memory(st.SnapshotOffset(0))
    chunk = st.UploadSnapshotDataArgs(canister, snapshot, place, b"x")
    world.manage(sender, "upload_canister_snapshot_data", chunk)
    for found in (taken.id, snapshot):
        world.manage(sender, "delete_canister_snapshot", st.SnapshotArgs(canister, found))


@pytest.mark.parametrize("method", sorted(OPERATORS))
def test_a_controller_is_no_operator(method: str) -> None:
    world = World()
    canister = make_puppet(world)
    for refusal in _refusals(world, OWNER, method, canister):
        assert "operator" in refusal.text
        assert str(OWNER) in refusal.text


@pytest.mark.parametrize("method", sorted(set(METHODS) - OPEN - CANISTERS - BY_TARGET))
def test_another_canister_is_a_stranger_too(method: str) -> None:
    world = World()
    canister, other = make_puppet(world), make_puppet(world)
    if METHODS[method].update is None or method in ("create_canister", "cannery_create_installed"):
        return
    before = world.account(canister).memory_bytes
    with pytest.raises(Rejected) as caught:
        puppet_manage(world, other, method, example_argument(method, canister))
    assert caught.value.code in (4, 5)
    assert world.account(canister).memory_bytes == before


@pytest.mark.parametrize("method", sorted(CANISTERS))
def test_some_methods_are_for_canisters_alone(method: str) -> None:
    world = World()
    canister = make_puppet(world)
    for refusal in _refusals(world, OPERATOR, method, canister):
        assert "is for canisters" in refusal.text
    if method == "http_request":
        with pytest.raises(Rejected, match="this node calls nobody outside"):
            puppet_manage(world, canister, method, example_argument(method, canister))
        return
    puppet_manage(world, canister, method, example_argument(method, canister))


def test_a_canister_reads_its_own_status_and_no_other() -> None:
    world = World()
    canister, other = make_puppet(world), make_puppet(world)
    status = puppet_manage(world, canister, "canister_status", t.CanisterIdRecord(canister))
    assert status.settings.controllers == [OWNER]
    with pytest.raises(Rejected, match="status_visibility"):
        puppet_manage(world, other, "canister_status", t.CanisterIdRecord(canister))


def test_a_canister_may_be_its_own_controller() -> None:
    world = World()
    canister = make_puppet(world)
    settings = t.CanisterSettings(controllers=[canister])
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, settings))
    with pytest.raises(Rejected, match="Only controllers"):
        world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, settings))
    back = t.UpdateSettingsArgs(canister, t.CanisterSettings(controllers=[canister, OWNER]))
    puppet_manage(world, canister, "update_settings", back)
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, settings))


def test_a_canister_may_be_an_operator() -> None:
    world = World()
    canister = make_puppet(world)
    args = t.ProvisionalCreateArgs(amount=7)
    with pytest.raises(Rejected, match="is no operator"):
        puppet_manage(world, canister, "provisional_create_canister_with_cycles", args)
    world.manage(OPERATOR, "cannery_operator_add", canister)
    made = puppet_manage(world, canister, "provisional_create_canister_with_cycles", args)
    assert world.account(made.canister_id).cycles == 7


@pytest.mark.parametrize(
    ("method", "setting"),
    [("canister_status", "status_visibility"), ("fetch_canister_logs", "log_visibility")],
)
def test_visibility_lets_viewers_in(method: str, setting: str) -> None:
    world = World()
    canister = make_puppet(world)
    arg = example_argument(method, canister)

    def see(visibility: t.Visibility) -> None:
        settings = t.CanisterSettings(**{setting: visibility})
        world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, settings))

    with pytest.raises(Rejected, match=setting):
        world.ask(STRANGER, method, arg)
    see(t.Visibility.allowed_viewers([STRANGER]))
    world.ask(STRANGER, method, arg)
    world.ask(OWNER, method, arg)
    with pytest.raises(Rejected, match=setting):
        world.ask(ANONYMOUS, method, arg)
    see(t.Visibility.public())
    world.ask(ANONYMOUS, method, arg)
    see(t.Visibility.controllers())
    with pytest.raises(Rejected, match=setting):
        world.ask(STRANGER, method, arg)


def test_snapshot_visibility_lets_viewers_in() -> None:
    world = World()
    canister = make_puppet(world)
    taken = world.manage(OWNER, "take_canister_snapshot", st.TakeSnapshotArgs(canister))
    arguments = {
        "list_canister_snapshots": t.CanisterIdRecord(canister),
        "read_canister_snapshot_metadata": st.SnapshotArgs(canister, taken.id),
        "read_canister_snapshot_data": st.ReadSnapshotDataArgs(
            canister, taken.id, st.SnapshotDataKind.stable_memory(st.SnapshotRange(0, 1))
        ),
    }
    for visibility, seeing, blind in (
        (t.Visibility.controllers(), (OWNER,), (STRANGER, OPERATOR, ANONYMOUS)),
        (t.Visibility.allowed_viewers([STRANGER]), (OWNER, STRANGER), (OPERATOR, ANONYMOUS)),
        (t.Visibility.public(), (OWNER, STRANGER, OPERATOR, ANONYMOUS), ()),
    ):
        settings = t.CanisterSettings(snapshot_visibility=visibility)
        world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, settings))
        for method, arg in arguments.items():
            for sender in seeing:
                world.manage(sender, method, arg)
            for sender in blind:
                with pytest.raises(Rejected, match="snapshot_visibility"):
                    world.manage_unadmitted(sender, method, arg)
    with pytest.raises(Rejected, match="Only controllers"):
        world.manage(STRANGER, "delete_canister_snapshot", st.SnapshotArgs(canister, taken.id))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_canister_that_is_not_there(method: str) -> None:
    world = World()
    absent = Principal(bytes.fromhex("00000000001fffff0101"))
    arg = example_argument(method, absent)
    if not (hasattr(arg, "canister_id") or method == "install_chunked_code"):
        return
    if method in CANISTERS | CONTROLLING_CANISTERS:
        with pytest.raises(Rejected, match="not found"):
            puppet_manage(world, make_puppet(world), method, arg)
        return
    for refusal in _refusals(world, OPERATOR, method, absent):
        assert "not found" in refusal.text
        assert refusal.code == 3


def _refusals(world: World, sender: Principal, method: str, canister: Principal) -> list[Rejected]:
    """Try a method in each way in which users can call it, and give what each was told."""
    found = METHODS[method]
    arg: Any = example_argument(method, canister)
    ways = []
    if found.update is not None:
        ways += [world.manage, world.manage_unadmitted]
    if found.query is not None:
        ways.append(world.ask)
    told = []
    for way in ways:
        with pytest.raises(Rejected) as caught:
            way(sender, method, arg)
        told.append(caught.value)
    return told
