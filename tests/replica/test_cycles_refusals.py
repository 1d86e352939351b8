"""Who pays for refused messages: the canister that sent them, or nobody; never the one that refused."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cannery import (
    Call,
    Canister,
    Context,
    Principal,
    RawOutcome,
    StableMap,
    continuation,
    nat,
    nat64,
    query,
    update,
)
from cannery.limits import QUEUE_SIZE_BYTES_MAX
from cannery.replica.block import ReplicaConfig
from cannery.replica.cycles import freezing_limit
from cannery.replica.management.types import CanisterIdRecord, CanisterStatusResult
from cannery.replica.prices import IC
from cannery.replica.records import Settings
from cannery.testing import Actor, Node, Rejected
from tests.replica.laws import check_cycles
from tests.replica.puppet import pack, puppet
from tests.replica.world import World

T = 10**12
FEE = IC.per_message


class Victim(Canister):
    """Refuses whoever is not its controller, in each of the ways that there are."""

    notes = StableMap(nat64, str)

    @update
    def note(self, ctx: Context, number: nat64, text: str) -> None:
        if not ctx.is_controller(ctx.caller):
            ctx.reject("only controllers write here")
        self.notes[number] = text

    @update
    def look_first(self, ctx: Context) -> None:
        if len(list(self.notes.items())) >= 0 and not ctx.is_controller(ctx.caller):
            self.notes[0] = f"{ctx.caller} was here"
            ctx.reject("only controllers look here")

    @query
    def read(self, ctx: Context, number: nat64) -> str:
        if not ctx.is_controller(ctx.caller):
            ctx.reject("only controllers read here")
        return self.notes.get(number, "")

    @update
    def crash(self, ctx: Context, text: str) -> None:
        ctx.log(text)
        raise ValueError(text)


class Attacker(Canister):
    """Calls a method with an argument, and remembers the reject."""

    answers = StableMap(nat64, str, counted=True)

    @update
    def attack(self, ctx: Context, victim: Principal, method: str, arg: bytes, times: nat) -> None:
        for _ in range(times):
            ctx.call(Call.raw(victim, method, arg), then=self.refused)

    @continuation
    def refused(self, ctx: Context, outcome: RawOutcome) -> None:
        self.answers[len(self.answers)] = outcome.reject_message

    @query
    def last(self, ctx: Context) -> str:
        return self.answers[len(self.answers) - 1]


ATTACKS = [
    ("note", b"DIDL\x00\x02\x78\x71" + bytes(8) + b"\x00", "only controllers write here"),
    ("note", b"DIDL\x00\x00", "note expects"),
    ("note", b"no candid at all", "note expects"),
    ("note", b"", "note expects"),
    ("look_first", b"DIDL\x00\x00", "only controllers look here"),
    ("read", b"DIDL\x00\x01\x78" + bytes(8), "only controllers read here"),
    ("missing", b"DIDL\x00\x00", "has no update method"),
]
attacks = pytest.mark.parametrize(("method", "arg", "reason"), ATTACKS)


def _balance(node: Node, canister: Actor) -> int:
    status = node.manage("canister_status", CanisterIdRecord(canister.id))
    assert isinstance(status, CanisterStatusResult)
    return status.cycles


def _node() -> Node:
    return Node(config=ReplicaConfig(prices=replace(IC, storage_per_gib_second=0)))


@attacks
def test_a_strangers_refused_calls_cost_the_victim_nothing(method: str, arg: bytes, reason: str) -> None:
    with _node() as node:
        victim = node.install(Victim, cycles=T).as_(node.operator)
        before = _balance(node, victim)
        for _ in range(20):
            with pytest.raises(Rejected, match=reason):
                node.call_raw(victim.id, method, arg, node.principal("stranger"))
        assert _balance(node, victim) == before
        check_cycles(node.store)


@attacks
def test_a_canisters_refused_calls_cost_itself_alone(method: str, arg: bytes, reason: str) -> None:
    with _node() as node:
        victim, attacker = node.install(Victim, cycles=T).as_(node.operator), node.install(Attacker, cycles=T)
        before, had = _balance(node, victim), _balance(node, attacker)
        attacker.attack(victim.id, method, arg, 10)
        assert reason in attacker.last()
        assert _balance(node, victim) == before
        fee = 0 if method == "missing" else FEE + IC.per_byte * len(arg)
        sent = 10 * (fee + IC.per_call + IC.per_call_byte * len(arg))
        assert had - _balance(node, attacker) > sent
        check_cycles(node.store)


def test_a_canister_without_cycles_pays_what_it_has_and_the_victim_still_nothing() -> None:
    world = World(ReplicaConfig(prices=replace(IC, storage_per_gib_second=0)))
    victim = world.add(puppet(), cycles=T)
    arg = pack([["call", victim, "run", [["reject", "no"]], 0, None] for _ in range(3)])
    begins = IC.per_message + IC.per_ingress + 10**6 * 3 + len(arg) * 3_000
    attacker = world.add(puppet(), cycles=begins)
    world.call(attacker, "run", arg)
    assert world.account(victim).cycles == T
    assert world.account(attacker).cycles == 0


def test_what_is_no_refusal_is_paid_by_the_canister_as_before() -> None:
    with _node() as node:
        victim = node.install(Victim, cycles=T).as_(node.operator)
        before = _balance(node, victim)
        with pytest.raises(Rejected, match="ValueError: boo"):
            victim.crash("boo")
        assert before - _balance(node, victim) > IC.per_message + IC.per_ingress
        before = _balance(node, victim)
        victim.note(1, "mine")
        assert before - _balance(node, victim) > IC.per_message + IC.per_ingress


def test_refused_arguments_do_not_push_other_lines_out_of_the_log() -> None:
    with _node() as node:
        victim = node.install(Victim, cycles=T).as_(node.operator)
        with pytest.raises(Rejected):
            victim.crash("the line that its author needs")
        lines = node.logs(victim)
        with pytest.raises(Rejected, match="note expects"):
            node.call_raw(victim.id, "note", b"rubbish", node.principal("stranger"))
        assert node.logs(victim) == lines != []


def test_an_attacked_victim_burns_to_the_unit_what_its_twin_in_peace_burns() -> None:
    """With a price on storage too: what waits in a queue is charged to nobody, and freezes nobody."""
    with Node(config=ReplicaConfig(prices=IC)) as node:
        victim, twin = (
            node.install(Victim, cycles=T).as_(node.operator),
            node.install(Victim, cycles=T).as_(node.operator),
        )
        attacker = node.install(Attacker, cycles=T)
        start = node.now_ns
        for canister in (victim, twin):
            canister.note(7, "x" * 200_000)
        node.advance(seconds=86_400)
        for method, arg, _ in ATTACKS:
            attacker.attack(victim.id, method, arg + bytes(50_000), 20)
            with pytest.raises(Rejected):
                node.call_raw(victim.id, method, arg + bytes(500_000), node.principal("stranger"))
        node.advance(ns=start + 2 * 86_400 * 10**9 - node.now_ns)
        left = [_balance(node, victim), _balance(node, twin)]
        assert left[0] == left[1] < T
        check_cycles(node.store)


def test_a_full_queue_freezes_nobody() -> None:
    config = ReplicaConfig(prices=IC)
    world = World(config)
    canister = world.add(puppet(), cycles=10**9, settings=Settings())
    account = world.account(canister)
    account.queued_bytes = QUEUE_SIZE_BYTES_MAX
    assert freezing_limit(config, world.canister(canister), account) == 0


@pytest.mark.parametrize("refuse", [True, False])
def test_conservation_holds_when_a_refused_call_carried_cycles(refuse: bool) -> None:
    world = World(ReplicaConfig(prices=IC))
    a, b = world.add(puppet(), cycles=T), world.add(puppet(), cycles=T)
    ending = ["reject", "no"] if refuse else ["reply", b"yes"]
    arg = pack([["call", b, "run", [["accept", 300], ending], 1000, [["note", b"n"]]]])
    world.call(a, "run", arg)  # the world checks the law of cycles after every round
    assert (world.account(b).cycles == T + 300) == refuse
