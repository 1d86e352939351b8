"""Who is a member of a fleet, what calls are stamped with, and what ends it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cannery import Principal
from cannery.replica import keys, records
from cannery.replica.block import Ingress
from cannery.replica.management import fleet_types as ft
from cannery.replica.management import snapshot_types as st
from cannery.replica.management import types as t
from tests.replica.fleet_world import Fleet, Member, decode_seen, upgrade
from tests.replica.management_world import (
    EMPTY_ARG,
    MANAGEMENT,
    OPERATOR,
    OWNER,
    STRANGER,
    Rejected,
    encode_argument,
    make_puppet,
    order_argument,
    order_result,
    puppet_call,
)


def _fleet_of(fleet: Fleet, canister: Principal) -> bytes:
    data = fleet.world.store.get(keys.owned(keys.CANISTERS, canister.raw))
    assert data is not None
    return records.CANISTER.decode(data).fleet


def _members(fleet: Fleet) -> int:
    info = fleet.world.ask(OPERATOR, "cannery_fleet_info", fleet.index)
    assert isinstance(info, ft.FleetInfo)
    return info.members


def test_a_member_and_the_index_are_stamped_and_know_their_fleet() -> None:
    fleet = Fleet()
    one, other = (fleet.create(fleet.module()) for _ in range(2))
    assert fleet.stamp(one) == fleet.stamp(fleet.index) == fleet.index
    assert _members(fleet) == 2
    seen = fleet.seen(one, other)
    assert (seen.caller_fleet, seen.fleet) == (fleet.index, fleet.index)
    assert fleet.seen(one).fleet is None, "the witness is in none"
    assert fleet.seen(fleet.index, one).caller_fleet == fleet.index


def test_users_strangers_and_other_fleets_are_not_stamped_with_it() -> None:
    fleet = Fleet()
    member = fleet.create(fleet.module())
    assert decode_seen(fleet.world.call(OWNER, member, "see")).caller_fleet is None
    assert decode_seen(fleet.world.query(fleet.index, member, "look")).caller_fleet is None
    assert fleet.stamp(fleet.witness) is None
    other = Fleet(fleet.world)
    assert other.stamp(other.create(other.module())) == other.index != fleet.index
    not_founded = make_puppet(fleet.world, Member)
    args = t.CreateInstalledArgs(fleet.module(), b"", [not_founded])
    child = fleet.manage("cannery_create_installed", args, by=not_founded)
    assert fleet.stamp(child.canister_id) is None


def test_founding_takes_in_what_the_index_made_before_and_nobody_else_controls() -> None:
    fleet = Fleet()
    early = make_puppet(fleet.world, Member, owner=OPERATOR)
    module_hash = fleet.module()

    def make(*controllers: Principal, by: Principal = early) -> Principal:
        args = t.CreateInstalledArgs(module_hash, b"", list(controllers))
        made = fleet.manage("cannery_create_installed", args, by=by)
        assert isinstance(made, t.CanisterIdRecord)
        return made.canister_id

    child, owned, foreign = make(early), make(early, OWNER), make(early, by=fleet.index)
    fleet.manage("cannery_fleet_found", by=early)
    assert fleet.stamp(early) == early
    assert fleet.stamp(child) is None, "its module is not in this fleet's registry"
    put = ft.FleetModuleArgs(module_hash, "user", 1)
    fleet.manage("cannery_fleet_module_put", put, by=early)
    assert fleet.stamp(child) == early
    assert fleet.stamp(owned) is None
    assert fleet.stamp(foreign) is None
    fleet.manage("cannery_fleet_found", by=early)
    late = make(early)
    fleet.set_controllers(late, OWNER, by=early)
    fleet.world.manage(
        OWNER, "update_settings", t.UpdateSettingsArgs(late, t.CanisterSettings(controllers=[early]))
    )
    fleet.manage("cannery_fleet_found", by=early)
    assert fleet.stamp(late) is None, "founding again takes nothing in"


Ending = Callable[[Fleet, Principal], object]
ENDINGS: dict[str, Ending] = {
    "custody": lambda fleet, one: fleet.set_controllers(one, OWNER),
    "custody beside the index": lambda fleet, one: fleet.set_controllers(one, OWNER, fleet.index),
    "a canister of nobody's": lambda fleet, one: fleet.set_controllers(one, fleet.index, fleet.witness),
    "a foreign module": lambda fleet, one: fleet.install(one, fleet.module("x", register=False), upgrade()),
    "a foreign module installed anew": lambda fleet, one: fleet.install(
        one, fleet.module("x", register=False), t.InstallMode.reinstall()
    ),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_membership_ends_at_once_and_for_good(how: str) -> None:
    fleet = Fleet()
    one, other = (fleet.create(fleet.module()) for _ in range(2))
    fleet.set_controllers(one, fleet.index, OPERATOR, other)
    assert fleet.stamp(one) == fleet.index, "operators and members may control a member"
    ENDINGS[how](fleet, one)
    assert _fleet_of(fleet, one) == b""
    assert _members(fleet) == 1
    assert fleet.stamp(one) is None
    assert fleet.seen(other, one).fleet is None, "it has no fleet of its own any more"
    settings = t.CanisterSettings(controllers=[fleet.index])
    back = t.UpdateSettingsArgs(one, settings)
    holder = OWNER if how.startswith("custody") else OPERATOR
    if holder is OWNER or how.startswith("a foreign"):
        fleet.world.manage(holder, "update_settings", back)
    else:
        fleet.manage("update_settings", back)
    fleet.install(one, fleet.module(), upgrade())
    assert fleet.stamp(one) is None, "what has ended does not come back"
    assert fleet.stamp(other) == fleet.index


def test_a_refused_change_of_controllers_ends_nothing() -> None:
    fleet = Fleet()
    one = fleet.create(fleet.module())
    with pytest.raises(Rejected, match="Only controllers"):
        fleet.set_controllers(one, fleet.witness, by=fleet.witness)
    with pytest.raises(Rejected, match="more than 10"):
        fleet.set_controllers(one, *(Principal(bytes([n])) for n in range(11)))
    assert fleet.stamp(one) == fleet.index


def test_an_upgrade_that_fails_ends_nothing() -> None:
    fleet = Fleet()
    one = fleet.create(fleet.module())
    with pytest.raises(Rejected, match="not on this node"):
        fleet.install(one, bytes(32), upgrade())
    with pytest.raises(Rejected, match="is not empty"):
        fleet.install(one, fleet.module("x", register=False), t.InstallMode.install())
    assert fleet.stamp(one) == fleet.index


def test_a_snapshot_with_a_foreign_module_ends_membership() -> None:
    fleet = Fleet()
    module = fleet.module()
    one = fleet.create(module)
    fleet.module("next")
    args = st.TakeSnapshotArgs(one)
    taken = fleet.manage("take_canister_snapshot", args)
    fleet.install(one, fleet.module("next"), upgrade())
    fleet.manage("load_canister_snapshot", st.LoadSnapshotArgs(one, taken.id))
    assert fleet.stamp(one) == fleet.index
    fleet.install(one, fleet.module("next"), upgrade())
    fleet.manage("cannery_fleet_module_remove", module)
    fleet.manage("load_canister_snapshot", st.LoadSnapshotArgs(one, taken.id))
    fleet.module()
    assert fleet.stamp(one) is None


def test_a_canister_made_for_others_or_of_a_foreign_module_is_no_member() -> None:
    fleet = Fleet()
    assert fleet.stamp(fleet.create(fleet.module(), [OWNER])) is None
    assert fleet.stamp(fleet.create(fleet.module("x", register=False))) is None
    assert _members(fleet) == 0


def test_an_empty_canister_of_the_pool_is_a_member_that_its_first_module_decides_about() -> None:
    fleet = Fleet()
    module = fleet.module()
    one, other = (fleet.manage("create_canister", t.CreateCanisterArgs()).canister_id for _ in range(2))
    assert _members(fleet) == 2
    fleet.install(one, module, t.InstallMode.install())
    fleet.install(other, fleet.module("x", register=False), t.InstallMode.install())
    assert (fleet.stamp(one), fleet.stamp(other)) == (fleet.index, None)
    fleet.manage("uninstall_code", t.VersionedCanisterId(one))
    fleet.install(one, module, t.InstallMode.install())
    assert fleet.stamp(one) == fleet.index, "an emptied canister goes back to the pool"


def test_without_its_module_in_the_registry_a_member_is_not_stamped() -> None:
    fleet = Fleet()
    module = fleet.module()
    one = fleet.create(module)
    fleet.manage("cannery_fleet_module_remove", module)
    assert fleet.stamp(one) is None
    assert fleet.seen(fleet.index, one).fleet == fleet.index
    fleet.module()
    assert fleet.stamp(one) == fleet.index


def test_a_member_whose_controller_stops_being_one_of_them_is_not_stamped() -> None:
    fleet = Fleet()
    module = fleet.module()
    parent, child, held = (fleet.create(module) for _ in range(3))
    fleet.set_controllers(child, parent, fleet.index)
    fleet.world.manage(OPERATOR, "cannery_operator_add", OWNER)
    fleet.set_controllers(held, OWNER)
    assert fleet.stamp(child) == fleet.stamp(held) == fleet.index
    fleet.set_controllers(parent, STRANGER)
    fleet.world.manage(OPERATOR, "cannery_operator_remove", OWNER)
    assert (fleet.stamp(child), fleet.stamp(held)) == (None, None)
    fleet.world.manage(OPERATOR, "cannery_operator_add", OWNER)
    assert (fleet.stamp(child), fleet.stamp(held)) == (None, fleet.index)


def test_an_index_that_others_control_is_not_stamped_until_it_is_its_own_again() -> None:
    fleet = Fleet()
    one = fleet.create(fleet.module())
    settings = t.CanisterSettings(controllers=[OPERATOR, STRANGER])
    fleet.world.manage(OPERATOR, "update_settings", t.UpdateSettingsArgs(fleet.index, settings))
    assert (fleet.stamp(fleet.index), fleet.stamp(one)) == (None, fleet.index)
    settings = t.CanisterSettings(controllers=[OPERATOR])
    fleet.world.manage(OPERATOR, "update_settings", t.UpdateSettingsArgs(fleet.index, settings))
    assert fleet.stamp(fleet.index) == fleet.index


def test_a_call_keeps_the_stamp_that_it_was_sent_with() -> None:
    """While its call is under way, a member goes into a stranger's custody; later calls have no stamp."""
    fleet = Fleet()
    one, other = (fleet.create(fleet.module()) for _ in range(2))
    settings = t.CanisterSettings(controllers=[OWNER])
    end = encode_argument("update_settings", t.UpdateSettingsArgs(one, settings))
    by_index = order_argument(fleet.index, "order", order_argument(MANAGEMENT, "update_settings", end))
    result = puppet_call(fleet.world, one, other, "see_after", by_index)
    assert decode_seen(result.reply).caller_fleet == fleet.index
    assert _fleet_of(fleet, one) == b""
    assert fleet.seen(one, other).caller_fleet is None


def _operator_goes(fleet: Fleet, _one: Principal) -> Ingress:
    arg = encode_argument("cannery_operator_remove", OWNER)
    return fleet.world.ingress(OPERATOR, MANAGEMENT, "cannery_operator_remove", arg)


def _module_goes(fleet: Fleet, _one: Principal) -> Ingress:
    arg = encode_argument("cannery_fleet_module_remove", fleet.module())
    order = order_argument(MANAGEMENT, "cannery_fleet_module_remove", arg)
    return fleet.world.ingress(OPERATOR, fleet.index, "order", order)


def _custody(fleet: Fleet, one: Principal) -> Ingress:
    args = t.UpdateSettingsArgs(one, t.CanisterSettings(controllers=[STRANGER]))
    arg = encode_argument("update_settings", args)
    return fleet.world.ingress(OWNER, MANAGEMENT, "update_settings", arg)


def _its_holder_goes(fleet: Fleet, one: Principal) -> Ingress:
    parent = fleet.create(fleet.module(), [OWNER])
    settings = t.CanisterSettings(controllers=[OWNER, parent])
    fleet.world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(one, settings))
    return _custody(fleet, parent)


@pytest.mark.parametrize("change", [_operator_goes, _module_goes, _custody, _its_holder_goes])
def test_within_a_round_no_stamp_outlasts_its_reason(change: Callable[[Fleet, Principal], Ingress]) -> None:
    fleet = Fleet()
    world = fleet.world
    world.manage(OPERATOR, "cannery_operator_add", OWNER)
    one = fleet.create(fleet.module(), [OWNER])
    see = order_argument(fleet.witness, "see", EMPTY_ARG)
    calls = [world.ingress(STRANGER, one, "order", see) for _ in range(40)]
    changing = change(fleet, one)
    number = world.number
    world.block(*calls[:1], changing, *calls[1:])
    assert world.number == number + 1, "all of it was one round"
    stamps = [decode_seen(order_result(world.answer(c.request_id)).reply).caller_fleet for c in calls]
    kept = stamps.count(fleet.index)
    assert 0 < kept < len(calls)
    assert stamps == [fleet.index] * kept + [None] * (len(calls) - kept)


def test_a_fleet_goes_with_its_index() -> None:
    fleet = Fleet()
    one, other = (fleet.create(fleet.module(), [fleet.index, OPERATOR]) for _ in range(2))
    fleet.manage("cannery_fleet_configure", ft.FleetConfigureArgs([], [], [ft.FleetValue("signups", "on")]))
    fleet.world.manage(OPERATOR, "stop_canister", t.CanisterIdRecord(fleet.index))
    fleet.world.manage(OPERATOR, "delete_canister", t.CanisterIdRecord(fleet.index))
    seen = fleet.seen(one, other)
    assert (seen.caller_fleet, seen.fleet, seen.value, seen.config_version) == (None, None, None, 0)
    assert fleet.stamp(one) is None
    for space in (keys.FLEETS, keys.FLEET_MODULES, keys.FLEET_MEMBERS, keys.FLEET_VALUES):
        assert list(fleet.world.store.scan(*keys.space_range(space))) == []
    fleet.world.manage(OPERATOR, "stop_canister", t.CanisterIdRecord(one))
    fleet.world.manage(OPERATOR, "delete_canister", t.CanisterIdRecord(one))


def test_who_may_found_a_fleet_and_change_it() -> None:
    fleet = Fleet()
    one = fleet.create(fleet.module())
    with pytest.raises(Rejected, match="a member founds no fleet of its own"):
        fleet.manage("cannery_fleet_found", by=one)
    fleet.manage("cannery_fleet_found")
    for method, value in (
        ("cannery_fleet_module_put", ft.FleetModuleArgs(fleet.module(), "user", 1)),
        ("cannery_fleet_module_remove", fleet.module()),
        ("cannery_fleet_configure", ft.FleetConfigureArgs([], [], [])),
    ):
        for by in (one, fleet.witness):
            with pytest.raises(Rejected, match="is the index of no fleet"):
                fleet.manage(method, value, by=by)
        with pytest.raises(Rejected, match="is for canisters"):
            fleet.world.manage(OPERATOR, method, value)
    with pytest.raises(Rejected, match="is not on this node"):
        fleet.manage("cannery_fleet_module_put", ft.FleetModuleArgs(bytes(32), "user", 1))
    with pytest.raises(Rejected, match="is not in the registry"):
        fleet.manage("cannery_fleet_module_remove", bytes(32))
    for kind in ("", "k" * 65):
        with pytest.raises(Rejected, match="A kind has 1 to 64 bytes"):
            fleet.manage("cannery_fleet_module_put", ft.FleetModuleArgs(fleet.module(), kind, 1))


def test_a_user_who_sends_what_a_canister_would_founds_nothing() -> None:
    fleet = Fleet()
    with pytest.raises(Rejected, match="is for canisters"):
        fleet.world.manage_unadmitted(OPERATOR, "cannery_fleet_found")
    assert decode_seen(fleet.world.call(OWNER, fleet.index, "see", EMPTY_ARG)).caller_fleet is None
