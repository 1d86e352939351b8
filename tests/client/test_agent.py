"""The agent against a real node: what it believes, that it runs a call once, large values, actors."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cannery.candid.codec import decoder, encoder
from cannery.candid.did import format_did
from cannery.candid.errors import CandidError
from cannery.candid.types import Nat64, Text
from cannery.candid.values import Variant
from cannery.cli.building import build_file
from cannery.cli.management import Management
from cannery.client import (
    Agent,
    AsyncAgent,
    Expired,
    Refused,
    Rejected,
    Unreachable,
    Unverified,
    open_actor,
    open_async_actor,
)
from cannery.client.actor import Actor, InterfaceError, parse_interface
from cannery.protocol.bls import BlsKey
from cannery.protocol.identity import Ed25519Identity, P256Identity, Secp256k1Identity, delegated
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.management.interface import management_interface
from tests.client.meddling_proxy import Passing, Proxy, meddling_proxy
from tests.node_under_test import NodeUnderTest

SOURCE = '''"""A counter that also keeps a blob."""
from cannery import Canister, Context, StableCell, nat64, query, update

class Counter(Canister):
    count = StableCell(nat64, 0)
    data = StableCell(bytes, b"")

    @update
    def add(self, ctx: Context, amount: nat64) -> nat64:
        """Add to the count."""
        self.count.set(self.count.get() + amount)
        return self.count.get()

    @query
    def total(self, ctx: Context) -> nat64:
        return self.count.get()

    @query
    def greet(self, ctx: Context, name: str) -> str:
        return f"hello {name}"

    @query
    def whoami(self, ctx: Context) -> str:
        return str(ctx.caller)

    @update
    def refuse(self, ctx: Context) -> None:
        ctx.reject("not today")

    @update
    def put(self, ctx: Context, data: bytes) -> nat64:
        self.data.set(data)
        return len(data)

    @query
    def get(self, ctx: Context) -> bytes:
        return self.data.get()
'''


@pytest.fixture(scope="module")
def counter(running_node: NodeUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Principal:
    """A canister of these tests' own."""
    path: Path = tmp_path_factory.mktemp("counter") / "counter.py"
    path.write_text(SOURCE)
    built = build_file(str(path))
    with running_node.agent(running_node.operator) as agent:
        management = Management(agent)
        management.module_bring(built.module, built.hash)
        canister_id = management.create(None, None)
        management.install(canister_id, "install", built.hash, b"DIDL\0\0")
    return canister_id


@pytest.fixture
def proxy(running_node: NodeUnderTest) -> Iterator[Proxy]:
    with meddling_proxy(running_node.url) as proxy:
        yield proxy


def through(proxy: Proxy, node: NodeUnderTest, **options: float) -> Agent:
    return Agent(proxy.url, root_key=node.root_key, **options)  # type: ignore[arg-type]


ADD_ONE = encoder((Nat64(),))((1,))


def total(node: NodeUnderTest, counter: Principal) -> int:
    with node.agent() as agent:
        (value,) = decoder((Nat64(),))(agent.query(counter, "total", b"DIDL\0\0"))
    assert isinstance(value, int)
    return value


# --- what is believed ---


def test_an_agent_without_a_root_key_takes_the_node_s(
    running_node: NodeUnderTest, counter: Principal
) -> None:
    with Agent(running_node.url) as agent:
        assert agent.call(counter, "add", ADD_ONE).startswith(b"DIDL")
        assert agent.root_key() == running_node.root_key


def test_another_root_key_is_refused(running_node: NodeUnderTest, counter: Principal) -> None:
    other = BlsKey.from_seed(secrets.token_bytes(32)).public_key_der
    with Agent(running_node.url, root_key=other) as agent:
        for ask in (
            lambda: agent.call(counter, "add", ADD_ONE),
            lambda: agent.query(counter, "total", b"DIDL\0\0"),
            lambda: agent.metadata(counter),
        ):
            with pytest.raises(Unverified):
                ask()


@pytest.mark.parametrize("kind", ["call", "query", "read_state"])
def test_no_flipped_bit_changes_an_answer(
    running_node: NodeUnderTest, counter: Principal, proxy: Proxy, kind: str
) -> None:
    """Whatever bit is flipped on the way: an error, or the true answer."""
    name = secrets.token_hex(4)
    expected = {"call": 7, "query": f"hello {name}", "read_state": None}[kind]
    places = iter(range(1, 900, 37))
    place = next(places)

    def flip(passing: Passing) -> bytes:
        if not passing.path.endswith(kind) or not passing.answer:
            return passing.answer
        damaged = bytearray(passing.answer)
        damaged[place % len(damaged)] ^= 1 << place % 8
        return bytes(damaged)

    with through(proxy, running_node) as agent:
        true_hash = agent.module_hash(counter)
        agent.query(counter, "total", b"DIDL\0\0")
        proxy.meddle = flip
        refused = 0
        for place in places:  # noqa: B007  (flip reads it)
            try:
                if kind == "query":
                    argument = encoder((Text(),))((name,))
                    assert decoder((Text(),))(agent.query(counter, "greet", argument)) == (expected,)
                elif kind == "call":
                    assert decoder((Nat64(),))(agent.call(counter, "add", encoder((Nat64(),))((0,))))
                else:
                    assert agent.module_hash(counter) == true_hash
            except Unverified:
                refused += 1
            except Rejected as rejected:
                refused += 0 if rejected.certified else 1
        assert refused > 15


def test_an_answer_to_another_question_settles_nothing(
    running_node: NodeUnderTest, counter: Principal, proxy: Proxy
) -> None:
    old: list[bytes] = []

    def replay(passing: Passing) -> bytes:
        if passing.path.endswith("/call"):
            old.append(passing.answer)
            return old[0]
        return passing.answer

    proxy.meddle = replay
    before = total(running_node, counter)
    with through(proxy, running_node) as agent:
        agent.call(counter, "add", ADD_ONE)
        assert decoder((Nat64(),))(agent.call(counter, "add", ADD_ONE)) == (before + 2,)
    assert proxy.passed[-1].path.endswith("/read_state")


# --- once ---


def test_a_call_whose_answer_is_lost_runs_once(
    running_node: NodeUnderTest, counter: Principal, proxy: Proxy
) -> None:
    before = total(running_node, counter)
    drops = iter([True, True, True])
    proxy.meddle = lambda passing: None if next(drops, False) else passing.answer
    with through(proxy, running_node) as agent:
        reply = agent.call(counter, "add", ADD_ONE)
    assert decoder((Nat64(),))(reply) == (before + 1,)
    assert total(running_node, counter) == before + 1
    bodies = [passing.body for passing in proxy.passed if passing.path.endswith("/call")]
    assert len(bodies) == 4
    assert len(set(bodies)) == 1


def test_a_signed_call_is_sent_again_by_another_process(
    running_node: NodeUnderTest, counter: Principal
) -> None:
    before = total(running_node, counter)
    with running_node.agent() as first, running_node.agent() as second:
        signed = first.sign_call(counter, "add", ADD_ONE)
        assert first.send(signed) == second.send(signed)
    assert total(running_node, counter) == before + 1


def test_a_busy_node_is_asked_again(running_node: NodeUnderTest, counter: Principal) -> None:
    waits: list[str] = []
    agent = Agent("http://127.0.0.1:9", patience_s=0.2, on_wait=waits.append)
    with agent, pytest.raises(Unreachable, match="Connection refused") as caught:
        agent.query(counter, "total", b"DIDL\0\0")
    assert caught.value.request_id is None
    assert waits


def test_rejects_say_what_and_whether_they_are_certified(
    running_node: NodeUnderTest, counter: Principal
) -> None:
    nowhere = Principal(b"\0\0\0\0\0\xff\xff\xff\1\1")
    with running_node.agent() as agent:
        with pytest.raises(Rejected) as caught:
            agent.call(counter, "refuse", b"DIDL\0\0")
        assert (caught.value.code, caught.value.message, caught.value.certified) == (4, "not today", True)
        with pytest.raises(Rejected) as caught:
            agent.call(nowhere, "add", ADD_ONE)
        assert caught.value.code == 3
        with pytest.raises(Rejected) as caught:
            agent.query(counter, "nothing", b"DIDL\0\0")
        assert not caught.value.certified


def test_an_expired_call_is_said_never_to_have_run(running_node: NodeUnderTest, counter: Principal) -> None:
    past = Agent(
        running_node.url, root_key=running_node.root_key, now_ns=lambda: time.time_ns() - 270 * 10**9
    )
    with past:
        signed = past.sign_call(counter, "add", ADD_ONE)
        with pytest.raises(Refused, match="Invalid request expiry"):
            past.send(signed)
    late = Agent(running_node.url, root_key=running_node.root_key, answer_wait_s=1.0)
    with late, pytest.raises(Expired):
        late.send(signed)


# --- identities ---


@pytest.mark.parametrize("kind", [Ed25519Identity, Secp256k1Identity, P256Identity])
def test_every_kind_of_key_and_a_delegation(
    running_node: NodeUnderTest,
    counter: Principal,
    kind: type[Ed25519Identity] | type[Secp256k1Identity] | type[P256Identity],
) -> None:
    identity = kind(secrets.token_bytes(32))
    session = Ed25519Identity(secrets.token_bytes(32))
    for acting in (
        identity,
        delegated(identity, session, time.time_ns() + 60 * 10**9),
        delegated(identity, session, time.time_ns() + 60 * 10**9, targets=[counter]),
    ):
        with running_node.agent(acting) as agent:
            assert decoder((Text(),))(agent.query(counter, "whoami", b"DIDL\0\0")) == (
                str(identity.principal),
            )
            agent.call(counter, "add", ADD_ONE)
    expired = delegated(identity, session, time.time_ns() - 10**9)
    with running_node.agent(expired) as agent, pytest.raises(Refused):
        agent.call(counter, "add", ADD_ONE)


# --- actors ---


def test_an_actor_has_the_canister_s_methods(running_node: NodeUnderTest, counter: Principal) -> None:
    with running_node.agent() as agent:
        actor = open_actor(agent, counter)
        before = actor.total()
        assert actor.add(2) == before + 2  # type: ignore[operator]
        assert actor["greet"]("you") == "hello you"
        assert actor.greet.query("you") == "hello you"
        assert dir(actor) == ["add", "get", "greet", "put", "refuse", "total", "whoami"]
        assert "add : (amount : nat64) -> (nat64)" in repr(actor)
        assert actor.add.__doc__ == "add : (amount : nat64) -> (nat64)\n\nAdd to the count."
        for wrong in (lambda: actor.add("x"), lambda: actor.add(-1), lambda: actor.greet(b"x")):
            with pytest.raises(CandidError, match=r"add|greet"):
                wrong()
        with pytest.raises(TypeError, match="takes 1 arguments, 2 given"):
            actor.add(1, 2)
        with pytest.raises(AttributeError, match="did you mean 'total'"):
            actor.totl()
        assert actor.refuse.__name__ == "refuse"


def test_a_query_may_be_answered_certified(running_node: NodeUnderTest, counter: Principal) -> None:
    with running_node.agent() as agent:
        assert open_actor(agent, counter).greet.call("you") == "hello you"


def test_an_async_actor(running_node: NodeUnderTest, counter: Principal) -> None:
    async def run() -> tuple[object, ...]:
        async with AsyncAgent(running_node.url, root_key=running_node.root_key) as agent:
            actor = await open_async_actor(agent, counter)
            greetings = await asyncio.gather(*(actor.greet(str(number)) for number in range(20)))
            added = await actor.add(0)
            assert await agent.module_hash(counter) is not None
            assert (await agent.status()).root_key == running_node.root_key
            assert "user_index" in await agent.names()
            return (*greetings, added)

    *greetings, added = asyncio.run(run())
    assert greetings == [f"hello {number}" for number in range(20)]
    assert isinstance(added, int)


def test_a_canister_without_an_interface_is_said_to_have_none(running_node: NodeUnderTest) -> None:
    with running_node.agent(running_node.operator) as agent:
        empty = Management(agent).create(None, None)
        assert agent.module_hash(empty) is None
        with pytest.raises(InterfaceError, match="publishes no interface"):
            open_actor(agent, empty)


def test_the_management_canister_is_asked_at_the_canister_that_it_is_about(
    running_node: NodeUnderTest, counter: Principal
) -> None:
    with running_node.agent(running_node.operator) as agent:
        interface = parse_interface(format_did(management_interface()))
        status = Actor(agent, MANAGEMENT, interface).canister_status.call({"canister_id": counter})
        assert status["status"] == Variant("running")  # type: ignore[index]


# --- large values ---


def test_a_large_value_goes_over_and_comes_back(
    running_node: NodeUnderTest, counter: Principal, proxy: Proxy
) -> None:
    data = secrets.token_bytes(9_000_000)
    heard: list[int] = []
    drops = iter([False, False, True, False, True])

    def meddle(passing: Passing) -> bytes | None:
        return None if "/cannery/body/" in passing.path and next(drops, False) else passing.answer

    proxy.meddle = meddle
    agent = Agent(
        proxy.url, root_key=running_node.root_key, on_progress=lambda there, _total: heard.append(there)
    )
    with agent:
        actor = open_actor(agent, counter)
        assert actor.put(data) == len(data)
        assert actor.get() == data
    assert heard == sorted(heard)
    sent = sum(len(passing.body) for passing in proxy.passed if passing.method == "PATCH")
    assert len(data) < sent < len(data) + 9_000_000
