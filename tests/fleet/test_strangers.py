"""Each method of an index, tried by whom it is not for: by message and by query, signed and by a canister."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cannery.candid import types as ct
from cannery.candid.codec import encoder
from cannery.candid.values import Variant
from cannery.client.errors import Rejected
from cannery.protocol.principal import Principal
from cannery.testing import Node
from cannery.testing.actor import Actor, interface_of_class
from tests.fleet.test_index import build_village
from tests.fleet.village import Village

METHODS = {
    name: func for name, func in interface_of_class(Village).methods.items() if name.startswith("fleet_")
}
FOR_WHOM = "is for (operators of the node|the children of this index|the node)"


def simplest(wanted: ct.Type, env: ct.Env | None = None) -> object:
    """Return a value of a type; of several cases the first."""
    match wanted:
        case ct.Rec(name, env):
            return simplest(env[name], env)
        case ct.Ref(name):
            assert env is not None, "a name is one of its environment"
            return simplest(env[name], env)
        case ct.Record(fields) if wanted.is_tuple:
            return tuple(simplest(each.type, env) for each in fields)
        case ct.Record(fields, bound):
            values = {str(each.name): simplest(each.type, env) for each in fields}
            return values if bound is None else bound(**values)
        case ct.Variant(fields, bound):
            case, value = str(fields[0].name), simplest(fields[0].type, env)
            if bound is None:
                return Variant(case, value)
            return getattr(bound, case)(*(() if value is None else (value,)))
        case ct.Vec(item):
            return b"" if isinstance(item, ct.Nat8) else []
        case ct.Opt() | ct.Null():
            return None
        case ct.Bool():
            return False
        case ct.Text():
            return ""
        case ct.PrincipalType():
            return Principal.management()
        case _:
            return 0


def test_an_index_has_methods() -> None:
    assert len(METHODS) > 30


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as made:
        yield made


@pytest.fixture(scope="module")
def village(node: Node) -> Actor:
    return build_village(node)


@pytest.mark.parametrize("method", METHODS)
def test_a_stranger_is_refused(node: Node, village: Actor, method: str) -> None:
    func = METHODS[method]
    arg = encoder(func.args)(tuple(simplest(each) for each in func.args))
    child = village.as_("ann").settle(False)
    doors = (node.call_raw, node.query_raw) if func.is_query else (node.call_raw,)
    for who in ("mallory", Principal.anonymous(), child.canister, child.owner):
        if who == child.canister and method == "fleet_request_cycles":
            continue
        for door in doors:
            with pytest.raises(Rejected, match=FOR_WHOM):
                door(village.id, method, arg, node.principal(who))
