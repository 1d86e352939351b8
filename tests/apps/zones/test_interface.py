"""The zone's interface holds Diode's, and no method of it serves a stranger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cannery import Call, Canister, Context, Pending, Principal, update
from cannery.apps.zones.zone import OPEN_METHODS, Zone
from cannery.candid import types as ct
from cannery.candid.codec import encoder
from cannery.candid.did import interface_subtype, parse_did
from cannery.candid.values import Variant
from cannery.cdk.describe import describe
from cannery.cdk.module_file import parse_module
from cannery.testing import Node, Rejected
from tests.apps.zones.world import ZoneWorld, module_of, taking_away

HERE = Path(__file__).parent
DIODE = parse_did((HERE / "diode.did").read_text())
ROOT = HERE.parents[2]
METHODS = describe(Zone).methods
# What everybody may know, and what makes strangers members.
PUBLIC = {"get_zone_id", "get_version", "my_role", "get_aggregate_status_v1", "oracle_transform_function"}

OF_MEMBERS = r"Not a member of the zone: .*; retrying does not help"
OF_OWNERS = r"is for owners|is for the controllers|nobody joins the owners|has nothing to pay"


def test_the_zone_speaks_diodes_interface(zone_node: Node) -> None:
    zone = parse_did(parse_module(module_of(zone_node)).did)
    assert len(DIODE.methods) == 63
    assert interface_subtype(zone, DIODE) == []


@pytest.mark.parametrize("name", sorted(DIODE.methods))
def test_a_method_that_is_not_diodes_would_be_noticed(name: str) -> None:
    """The check is one that can fail: another result, or none, is found for each method."""
    func = DIODE.methods[name]
    changed = ct.Func((*func.args, ct.Text()), func.results, func.modes)
    other = type(DIODE).of({**DIODE.methods, name: changed})
    assert interface_subtype(other, type(DIODE).of(DIODE.methods)) != []


def test_the_interface_in_the_docs_is_the_modules(zone_node: Node) -> None:
    did = parse_module(module_of(zone_node)).did
    assert (ROOT / "docs" / "zone.did").read_text() == did, "write docs/zone.did anew from the module"


def some_value(type_: ct.Type, env: ct.Env | None = None) -> object:
    """Give a value of a type: a decodable one, so that whoever is refused is refused for who they are."""
    match type_:
        case ct.Rec():
            return some_value(type_.env[type_.name], type_.env)
        case ct.Ref():
            assert env is not None
            return some_value(env[type_.name], env)
        case ct.Text():
            return ""
        case ct.Bool():
            return False
        case ct.Vec(inner=ct.Nat8()):
            return bytes(32)
        case ct.Vec():
            return []
        case ct.Opt():
            return None
        case ct.PrincipalType():
            return Principal.management()
        case ct.Record() if type_.is_tuple:
            return tuple(some_value(field.type, env) for field in type_.fields)
        case ct.Record():
            return {field.label: some_value(field.type, env) for field in type_.fields}
        case ct.Variant():
            first = type_.fields[0]
            return Variant(first.label, some_value(first.type, env))
        case ct.Null():
            return None
        case _:
            return 1


def some_args(name: str) -> bytes:
    plain = parse_did((ROOT / "docs" / "zone.did").read_text()).methods[name].args
    return encoder(plain)([some_value(arg) for arg in plain])


class Stranger(Canister):
    """A canister that calls what it is told to: calls of canisters do not pass inspect_message."""

    @update
    def relay(self, ctx: Context, to: Principal, method: str, arg: bytes) -> Pending[bytes]:
        return ctx.call(Call.raw(to, method, arg))


@pytest.fixture(scope="module")
def guarded(loaded_node: Node) -> Iterator[ZoneWorld]:
    with taking_away(loaded_node):
        world = ZoneWorld(node=loaded_node)
        world.post("a", "for members")
        world.stranger = world.node.install(Stranger)  # type: ignore[attr-defined]
        yield world


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_stranger_gets_nothing(guarded: ZoneWorld, name: str) -> None:
    node, entry, arg = guarded.node, METHODS[name], some_args(name)
    stranger = node.principal("stranger")
    if entry.role == "query":
        if name in PUBLIC:
            node.query_raw(guarded.zone.id, name, arg, stranger)
            return
        with pytest.raises(Rejected, match=OF_OWNERS if name.startswith("ownership") else OF_MEMBERS):
            node.query_raw(guarded.zone.id, name, arg, stranger)
        return
    before = guarded.as_("ann").usage(), guarded.as_("ann").members_page(None, 10)
    if name in OPEN_METHODS:
        return
    with pytest.raises(Rejected, match=OF_MEMBERS):
        node.call_raw(guarded.zone.id, name, arg, stranger)
    relay = guarded.stranger.as_("stranger").relay  # type: ignore[attr-defined]
    if entry.role == "oneway":
        relay.submit(guarded.zone.id, name, arg)
        node.run()
    else:
        with pytest.raises(Rejected, match=OF_OWNERS if name.startswith("ownership") else OF_MEMBERS):
            relay(guarded.zone.id, name, arg)
    assert (guarded.as_("ann").usage(), guarded.as_("ann").members_page(None, 10)) == before


def test_what_is_open_to_strangers_gives_them_nothing(world: ZoneWorld) -> None:
    bob = world.as_("bob")
    assert bob.my_role() == 0
    assert bob.get_role(world.node.principal("bob")) == 0
    assert bob.refresh_role() == 0
    assert bob.update_role(bytes([4]) + bytes(64)) == 0
    status = bob.get_aggregate_status_v1()
    assert (status.zone_id, status.role, status.message_count) == ("0xcd0afb71", 0, 0)
    assert (status.cycles_balance, status.installation_id) == (0, 0)
    for act in (
        lambda: bob.join(b"guess"),
        lambda: bob.update_role(b"short"),
        lambda: bob.update_identity_role(bytes(65), bytes(20)),
    ):
        with pytest.raises(Rejected, match="; retrying does not help"):
            act()


def test_methods_of_diode_that_are_absent_say_so(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    with pytest.raises(Rejected, match="vetKeys are absent on this node"):
        ann.derive_vet_protector_key(b"t", b"p")
    with pytest.raises(Rejected, match="asks no chain for roles"):
        ann.update_identity_role(bytes(65), bytes(20))
