"""Roles from a contract on a real EVM: asked over JSON-RPC, cached, and held through outages and lies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from eth_hash.auto import keccak
from eth_keys.datatypes import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cannery.apps.zones.contract import (
    EvmContract,
    address_of,
    contract_fault,
    role_answer,
    role_question,
)
from cannery.apps.zones.keccak import keccak256
from cannery.apps.zones.providers import Provider, ProviderKind
from cannery.protocol.identity import Secp256k1Identity
from cannery.replica.block import ReplicaConfig
from cannery.testing import HttpFailure, HttpRequest, HttpResponse, HttpSilence, Rejected
from tests.apps.zones.evm_world import SELECTOR, Chain, chain
from tests.apps.zones.world import ZoneWorld

URL = "https://rpc.example.org/"
NS = 1_000_000_000
CONTRACT = EvmContract(URL, b"\x11" * 20)


@pytest.fixture(scope="module")
def evm() -> Iterator[Chain]:
    with chain() as world:
        yield world


class Peer:
    """Somebody with a secp256k1 key, in a zone and on the chain."""

    def __init__(self, world: ZoneWorld, number: int) -> None:
        self.identity = Secp256k1Identity(bytes([number]) * 32)
        self.key = self.identity.public_key_der[-65:]
        self.address = address_of(self.key)
        self.zone = world.as_(self.identity)


@pytest.fixture
def asking(world: ZoneWorld, evm: Chain) -> ZoneWorld:
    """A zone whose roles come from the contract."""
    evm.mood, evm.asked = "well", 0
    world.node.answer_http(URL, evm.forward)
    world.as_("ann").set_provider(by_contract(evm))
    return world


def by_contract(evm: Chain, **changes: Any) -> Provider:
    fields: dict[str, Any] = {
        "kind": ProviderKind.evm(EvmContract(URL, bytes.fromhex(evm.contract[2:]))),
        "member_ttl_ns": 600 * NS,
        "stranger_ttl_ns": 60 * NS,
        "outage_retry_ns": 30 * NS,
        "stale_ns_max": None,
        "role_max": 400,
    }
    return Provider(**(fields | changes))


@given(st.binary(max_size=600))
def test_the_hash_is_ethereums(data: bytes) -> None:
    assert keccak256(data) == keccak(data)


def test_the_selector_is_that_of_the_method() -> None:
    assert keccak256(b"role(address)")[:4] == SELECTOR
    asked = role_question(CONTRACT, b"\x22" * 20)
    (call, block) = json.loads(asked.body or b"")["params"]
    assert call == {"to": "0x" + "11" * 20, "data": "0xd590f8c9" + "00" * 12 + "22" * 20}
    assert block == "latest"


def test_a_member_by_contract_reads_and_the_answer_is_kept(asking: ZoneWorld, evm: Chain) -> None:
    bob = Peer(asking, 7)
    evm.set_role(bob.address, 300)
    with pytest.raises(Rejected, match="call update_role with your key"):
        bob.zone.refresh_role()
    assert asking.as_("anybody").update_role(bob.key) == 300
    assert bob.zone.my_role() == 300
    assert (bob.zone.refresh_role(), evm.asked) == (300, 1)
    asking.node.advance(seconds=601)
    with pytest.raises(Rejected, match="must be confirmed again"):
        bob.zone.get_provider()
    assert (bob.zone.refresh_role(), evm.asked) == (300, 2)
    evm.set_role(bob.address, 0)
    asking.node.advance(seconds=601)
    assert (bob.zone.refresh_role(), bob.zone.my_role()) == (0, 0)
    asking.node.advance(seconds=61)
    with pytest.raises(Rejected, match="call update_role with your key"):
        bob.zone.refresh_role()


def test_strangers_stay_strangers_and_owners_are_not_made(asking: ZoneWorld, evm: Chain) -> None:
    stranger, boss = Peer(asking, 8), Peer(asking, 9)
    assert stranger.zone.update_role(stranger.key) == 0
    assert (stranger.zone.update_role(stranger.key), evm.asked) == (0, 1)
    evm.set_role(boss.address, 500)
    assert boss.zone.update_role(boss.key) == 400
    with pytest.raises(Rejected, match="Not a member"):
        stranger.zone.get_provider()


LIES: list[str | bytes] = [
    "down",
    "error",
    b"",
    b"<html>",
    b"[" * 8_000,
    b'{"jsonrpc":"2.0","id":2,"result":"0x' + b"0" * 61 + b'1f4"}',
    b'{"jsonrpc":"2.0","id":1,"result":"0x"}',
    b'{"jsonrpc":"2.0","id":1,"result":"0x' + b"f" * 64 + b'"}',
    b"x" * 20_000,
]


@pytest.mark.parametrize("mood", LIES, ids=[str(lie)[:30] for lie in LIES])
def test_an_outage_neither_empties_nor_opens(asking: ZoneWorld, evm: Chain, mood: str | bytes) -> None:
    bob, eve = Peer(asking, 11), Peer(asking, 12)
    evm.set_role(bob.address, 300)
    evm.set_role(eve.address, 0)
    assert (bob.zone.update_role(bob.key), eve.zone.update_role(eve.key)) == (300, 0)
    evm.mood = mood
    asking.node.advance(seconds=601)
    assert bob.zone.refresh_role() == 300
    assert bob.zone.my_role() == 300
    with pytest.raises(Rejected, match="the role provider did not answer"):
        eve.zone.update_role(eve.key)
    assert eve.zone.my_role() == 0
    evm.set_role(bob.address, 0)
    evm.mood = "well"
    asking.node.advance(seconds=31)
    assert bob.zone.refresh_role() == 0


def test_a_slow_provider_holds_nobody_up(asking: ZoneWorld, evm: Chain) -> None:
    bob = Peer(asking, 13)
    evm.set_role(bob.address, 300)
    assert bob.zone.update_role(bob.key) == 300
    asking.node.advance(seconds=601)
    asking.node.answer_http(URL, HttpSilence())
    sent = bob.zone.refresh_role.submit()
    asking.node.run()
    assert bob.zone.my_role() == 300
    asking.node.advance(seconds=61)
    assert sent.result() == 300
    assert bob.zone.my_role() == 300, "it took longer to fail than the pause before it is asked again"
    asking.node.advance(seconds=31)
    with pytest.raises(Rejected, match="call refresh_role; retry after 1 s"):
        bob.zone.get_message_count()


def test_a_provider_that_was_replaced_says_nothing_any_more(asking: ZoneWorld, evm: Chain) -> None:
    bob = Peer(asking, 15)
    evm.set_role(bob.address, 400)
    other = by_contract(evm, kind=ProviderKind.evm(CONTRACT))

    def late(request: HttpRequest) -> HttpResponse | HttpFailure:
        asking.as_("ann").set_provider(other)
        return evm.forward(request)

    asking.node.answer_http(URL, late)
    with pytest.raises(Rejected, match="another role provider meanwhile: ask again; retry after 1 s"):
        bob.zone.update_role(bob.key)
    assert bob.zone.my_role() == 0
    asking.as_("ann").set_provider(by_contract(evm))
    asking.node.answer_http(URL, evm.forward)
    assert bob.zone.update_role(bob.key) == 400


def test_a_host_that_the_operator_has_not_allowed_is_an_outage(evm: Chain) -> None:
    world = ZoneWorld(config=ReplicaConfig())
    world.as_("ann").set_provider(by_contract(evm))
    bob = Peer(world, 14)
    with pytest.raises(
        Rejected, match=r'this node calls nobody outside: its operator adds "rpc.example.org"'
    ):
        bob.zone.update_role(bob.key)
    world.node.close()


@pytest.mark.parametrize(
    "contract",
    [
        EvmContract(URL, b"x" * 19),
        EvmContract("ftp://x", b"x" * 20),
        EvmContract("https://" + "x" * 1_000, b"x" * 20),
    ],
)
def test_what_is_no_contract_is_refused(world: ZoneWorld, contract: EvmContract) -> None:
    assert contract_fault(contract)
    provider = Provider(ProviderKind.evm(contract), 60 * NS, 60 * NS, 60 * NS, None, 400)
    with pytest.raises(Rejected, match=r"20 bytes|https://"):
        world.as_("ann").set_provider(provider)


# laws of the decoder

_SOUP = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=70),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "result", "error", "x"]), inner)
    ),
)


@given(
    st.integers(0, 600) | st.just(200), st.binary(max_size=200) | _SOUP.map(lambda v: json.dumps(v).encode())
)
def test_any_answer_is_a_role_or_none(status: int, body: bytes) -> None:
    role = role_answer(status, body)
    assert role is None or 0 <= role <= 500


@given(st.integers(0, 2**256 - 1) | st.integers(0, 600))
def test_a_number_comes_back_where_it_can_be_a_role(number: int) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": f"0x{number:064x}"}).encode()
    assert role_answer(200, body) == (number if number <= 500 else None)
    assert role_answer(500, body) is None
    assert role_answer(200, body.replace(b'"id": 1', b'"id": 7')) is None


def test_an_address_is_that_of_ethereum() -> None:
    identity = Secp256k1Identity(bytes([7]) * 32)
    address = PrivateKey(bytes([7]) * 32).public_key.to_canonical_address()
    assert address_of(identity.public_key_der[-65:]) == address
