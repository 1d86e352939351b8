"""Whatever an owner sends to whatever method of a zone is answered or refused in words, and never a trap:
sizes, ids, hashes and numbers at their edges and beyond.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cannery import Principal
from cannery.candid import types as ct
from cannery.candid.codec import encoder
from cannery.candid.did import parse_did
from cannery.candid.values import Variant
from cannery.testing import Node, Rejected
from tests.apps.zones.test_interface import METHODS, ROOT
from tests.apps.zones.world import ZoneWorld, digest

TYPES = parse_did((ROOT / "docs" / "zone.did").read_text()).methods
# What takes the zone from its owner, after which there is nothing to see.
LAST_WORDS = {"member_remove", "member_set", "ownership_found", "ownership_propose"}
NAMES = sorted(set(METHODS) - LAST_WORDS)
SIZES = (0, 1, 7, 8, 15, 16, 20, 32, 33, 40, 41, 64, 65, 1_025, 3_000, 65_537)
BLOBS = [bytes(size) for size in SIZES] + [digest(b"x"), digest(b"x")[:16], b"x", b"docs-dir", b"\xff" * 32]
TEXTS = ("", "a", "x" * 3_000, "\x00", "https://example.org")
NUMBERS = (0, 1, 2, 41, 300, 500, 10**6, 2**31, 2**63 - 1, 2**64 - 1, 2**70)
WIDTHS = {ct.Nat8: 8, ct.Nat16: 16, ct.Nat32: 32, ct.Nat64: 64}


def any_value(random: Random, type_: ct.Type, env: ct.Env | None = None) -> object:
    """Draw a value of a type, at an edge of it."""
    match type_:
        case ct.Rec():
            return any_value(random, type_.env[type_.name], type_.env)
        case ct.Ref():
            assert env is not None
            return any_value(random, env[type_.name], env)
        case ct.Text():
            return random.choice(TEXTS)
        case ct.Bool():
            return random.random() < 0.5
        case ct.Vec(inner=ct.Nat8()):
            return random.choice(BLOBS)
        case ct.Vec():
            return [any_value(random, type_.inner, env) for _ in range(random.choice((0, 1, 2, 5)))]
        case ct.Opt():
            return None if random.random() < 0.4 else any_value(random, type_.inner, env)
        case ct.PrincipalType():
            return random.choice((Principal.anonymous(), Principal.management(), Principal(b"\x07\x01")))
        case ct.Record() if type_.is_tuple:
            return tuple(any_value(random, field.type, env) for field in type_.fields)
        case ct.Record():
            return {field.label: any_value(random, field.type, env) for field in type_.fields}
        case ct.Variant():
            case = random.choice(type_.fields)
            return Variant(case.label, any_value(random, case.type, env))
        case ct.Null():
            return None
        case _:
            number = random.choice(NUMBERS)
            return number % 2 ** WIDTHS[type(type_)] if type(type_) in WIDTHS else number


@pytest.fixture(scope="module")
def owned(loaded_node: Node) -> ZoneWorld:
    return ZoneWorld(node=loaded_node)


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(name=st.sampled_from(NAMES), random=st.randoms(use_true_random=False))
def test_fuzz_whatever_is_sent_is_answered_or_refused_in_words(
    owned: ZoneWorld, name: str, random: Random
) -> None:
    node, types = owned.node, TYPES[name].args
    values = [any_value(random, type_) for type_ in types]
    ann = node.principal("ann")
    try:
        if METHODS[name].role == "query":
            node.query_raw(owned.zone.id, name, encoder(types)(values), ann)
        elif METHODS[name].role == "oneway":
            owned.as_(ann)[name].submit(*values)
            node.run()
        else:
            node.call_raw(owned.zone.id, name, encoder(types)(values), ann)
    except Rejected as rejected:
        if "trapped" in str(rejected):
            raise
