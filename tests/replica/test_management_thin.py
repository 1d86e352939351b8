"""A canister comes to be, gets code, answers, tells its status."""

from __future__ import annotations

from hashlib import sha256

from cannery import Principal
from cannery.replica.management import types as t
from tests.replica.management_world import OPERATOR, Puppet, World, int_argument, int_result


def test_a_canister_is_created_installed_and_asked() -> None:
    world = World()
    made = world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs())
    module = world.programs.module_of(Puppet)
    args = t.InstallCodeArgs(t.InstallMode.install(), made.canister_id, module, b"")
    world.manage(OPERATOR, "install_code", args)
    world.call(OPERATOR, made.canister_id, "set", int_argument(5))
    assert int_result(world.query(OPERATOR, made.canister_id, "get")) == 5
    status = world.ask(OPERATOR, "canister_status", t.CanisterIdRecord(made.canister_id))
    assert status.module_hash == sha256(module).digest()
    assert status.status.tag == "running"
    assert made.canister_id == Principal(bytes.fromhex("00000000001000000101"))
