"""Local indexes: members that an index appoints, and whose creations belong to its fleet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cannery import Principal
from cannery.replica.management import fleet_types as ft
from cannery.replica.management import types as t
from tests.replica.fleet_world import Fleet, upgrade
from tests.replica.management_world import OPERATOR, OWNER, STRANGER, Rejected


class Realm(Fleet):
    """A fleet with a local index."""

    def __init__(self) -> None:
        super().__init__()
        self.code = self.module()
        self.local = self.create(self.code)
        self.manage("cannery_fleet_appoint", self.local)

    def make(self, *controllers: Principal, by: Principal | None = None) -> Principal:
        """Let a local index make a canister."""
        maker = by or self.local
        holders = list(controllers) or [maker, self.index]
        made = self.manage(
            "cannery_create_installed", t.CreateInstalledArgs(self.code, b"", holders), by=maker
        )
        assert isinstance(made, t.CanisterIdRecord)
        return made.canister_id

    def listed(self, lister: Principal, by: Principal | None = None) -> object:
        return self.manage("cannery_fleet_members", ft.FleetMembersArgs(lister, None, 10), by)

    def members(self) -> int:
        info = self.world.ask(OPERATOR, "cannery_fleet_info", self.index)
        assert isinstance(info, ft.FleetInfo)
        return info.members


def test_what_a_local_index_makes_belongs_to_the_indexs_fleet_and_stands_in_its_own_list() -> None:
    realm = Realm()
    child = realm.make()
    assert realm.stamp(child) == realm.index
    seen = realm.seen(child, realm.local)
    assert (seen.caller_fleet, seen.fleet) == (realm.index, realm.index)
    assert realm.members() == 2
    assert realm.listed(realm.index) == [realm.local]
    assert realm.listed(realm.local) == realm.listed(realm.local, realm.local) == [child]
    own = realm.make(realm.local)
    assert realm.stamp(own) == realm.index, "the local index alone may control it"


def test_only_the_index_appoints_and_only_members_that_it_made() -> None:
    realm = Realm()
    child, other = realm.make(), Fleet(realm.world)
    stranger = other.create(other.module())
    for canister in (realm.witness, stranger, child, realm.index, Principal(b"nobody")):
        with pytest.raises(Rejected, match="is no member of this fleet that"):
            realm.manage("cannery_fleet_appoint", canister)
    for caller in (realm.local, child, realm.witness):
        for method in ("cannery_fleet_appoint", "cannery_fleet_dismiss"):
            with pytest.raises(Rejected, match="is the index of no fleet"):
                realm.manage(method, caller, by=caller)
    with pytest.raises(Rejected, match="is no local index of this fleet"):
        realm.manage("cannery_fleet_dismiss", child)
    with pytest.raises(Rejected, match="is no local index of this fleet"):
        other.manage("cannery_fleet_dismiss", realm.local)
    assert realm.stamp(realm.make(realm.witness, realm.local)) is None, "a stranger controls it"
    plain = realm.create(realm.code)
    assert realm.stamp(realm.make(by=plain)) is None, "a member that was not appointed"


def test_a_local_index_founds_registers_and_configures_nothing() -> None:
    realm = Realm()
    foreign = realm.module("x", register=False)
    with pytest.raises(Rejected, match="a member founds no fleet of its own"):
        realm.manage("cannery_fleet_found", by=realm.local)
    for method, args in (
        ("cannery_fleet_module_put", ft.FleetModuleArgs(foreign, "user", 9)),
        ("cannery_fleet_module_remove", realm.code),
        ("cannery_fleet_configure", ft.FleetConfigureArgs([ft.FleetRole("r", [OWNER])], [], [])),
    ):
        with pytest.raises(Rejected, match="is the index of no fleet"):
            realm.manage(method, args, by=realm.local)
    args = t.CreateInstalledArgs(foreign, b"", [realm.local])
    made = realm.manage("cannery_create_installed", args, by=realm.local)
    assert realm.stamp(made.canister_id) is None, "its module is not in the registry"


Ending = Callable[[Realm], object]
ENDINGS: dict[str, Ending] = {
    "dismissal": lambda realm: realm.manage("cannery_fleet_dismiss", realm.local),
    "custody": lambda realm: realm.set_controllers(realm.local, OWNER, realm.index),
    "a foreign module": lambda realm: realm.install(
        realm.local, realm.module("x", register=False), upgrade()
    ),
    "recycling": lambda realm: (
        realm.manage("uninstall_code", t.VersionedCanisterId(realm.local)),
        realm.install(realm.local, realm.code, t.InstallMode.install()),
    ),
    "reinstallation": lambda realm: realm.install(realm.local, realm.code, t.InstallMode.reinstall()),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_an_appointment_ends_and_what_was_made_under_it_stays(how: str) -> None:
    realm = Realm()
    child = realm.make()
    ENDINGS[how](realm)
    assert realm.stamp(realm.make()) is None, "what it makes from now on is nobody's"
    if how != "custody":
        assert realm.stamp(child) == realm.index or how == "a foreign module"
    with pytest.raises(Rejected, match="is no local index of this fleet"):
        realm.manage("cannery_fleet_dismiss", realm.local)
    realm.set_controllers(child, realm.index)
    assert realm.stamp(child) == realm.index, "the index controls it, and it is a member as before"


def test_an_appointment_outlives_upgrades_and_can_be_given_again() -> None:
    realm = Realm()
    realm.install(realm.local, realm.module("2", version=2), upgrade())
    assert realm.stamp(realm.make()) == realm.index
    with pytest.raises(Rejected, match="is a local index, which its children know by its id"):
        realm.manage("cannery_replace", t.ReplaceArgs(realm.local, realm.code, b""))
    realm.manage("cannery_fleet_dismiss", realm.local)
    assert realm.stamp(realm.make()) is None
    realm.manage("cannery_fleet_appoint", realm.local)
    realm.manage("cannery_fleet_appoint", realm.local)
    assert realm.stamp(realm.make()) == realm.index


def test_a_local_index_that_is_not_trusted_for_a_while_makes_no_members_meanwhile() -> None:
    realm = Realm()
    realm.world.manage(OPERATOR, "cannery_operator_add", OWNER)
    realm.set_controllers(realm.local, realm.index, OWNER)
    assert realm.stamp(realm.make()) == realm.index
    realm.world.manage(OPERATOR, "cannery_operator_remove", OWNER)
    assert realm.stamp(realm.local) is None
    assert realm.stamp(realm.make()) is None


def test_a_local_index_is_told_who_leaves_and_strangers_read_no_list() -> None:
    realm = Realm()
    child = realm.make()
    for who in (STRANGER, OWNER):
        with pytest.raises(Rejected, match="Only operators, controllers of the local index"):
            realm.world.ask(who, "cannery_fleet_members", ft.FleetMembersArgs(realm.local, None, 10))
    with pytest.raises(Rejected, match="and no local index of one"):
        realm.world.ask(OPERATOR, "cannery_fleet_members", ft.FleetMembersArgs(child, None, 10))
    realm.set_controllers(child, OWNER, by=realm.local)
    assert realm.listed(realm.local) == []
    assert realm.members() == 1


def test_the_fleet_goes_with_its_index_and_leaves_no_keys() -> None:
    realm = Realm()
    child = realm.make()
    realm.manage("cannery_fleet_dismiss", realm.local)
    world = realm.world
    world.manage(OPERATOR, "stop_canister", t.CanisterIdRecord(realm.index))
    world.manage(OPERATOR, "delete_canister", t.CanisterIdRecord(realm.index))
    assert realm.stamp(child) is None
    left = [key for key, _ in world.store.scan(b"\x1d", b"\x22")] + list(world.store.scan(b"\x2e", b"\x2f"))
    assert left == []
