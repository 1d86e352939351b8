"""Laws of shared ownership: sums are kept to the unit; a plain model decides the same, over crashes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.fleet.ownership_rules import (
    Join,
    Motion,
    Rules,
    Share,
    Spending,
    Split,
    Weigh,
    count_votes,
    split,
    verdict,
)
from cannery.fleet.ownership_types import EQUAL
from cannery.protocol.principal import Principal
from cannery.replica.management.types import CanisterIdRecord, InstallChunkedCodeArgs, InstallMode
from cannery.testing import Node, Rejected
from cannery.testing.store import FaultyStore
from tests.fleet.shared_house import House, HouseWithBell, Wallet

PEOPLE = ("ann", "bob", "cid", "dot")
RULES = {
    "heads": EQUAL,
    "shares": Rules(Weigh.share(), 667, 3_600, Split.by_share(), Join.gift(), EQUAL.leave),
}
HELD = 10**9
OWNERS = st.dictionaries(
    st.integers(0, 50).map(lambda number: Principal.opaque(bytes([number]))),
    st.integers(1, 10**6),
    min_size=1,
)
HOWS = st.sampled_from([Split.evenly(), Split.by_share()])


@given(cycles=st.integers(1, 10**18), owners=OWNERS, how=HOWS)
def test_parts_are_the_sum_and_fair_to_the_unit(
    cycles: int, owners: dict[Principal, int], how: Split
) -> None:
    parts = split(cycles, owners, how)
    assert sum(parts.values()) == cycles
    assert parts.keys() == owners.keys()
    total = len(owners) if how.tag == "evenly" else sum(owners.values())
    for owner, part in parts.items():
        exact = cycles * (1 if how.tag == "evenly" else owners[owner]) / total
        assert abs(part - exact) <= 1 + exact * 1e-9
    if how.tag == "evenly":
        assert max(parts.values()) - min(parts.values()) <= 1


@given(
    owners=OWNERS,
    weigh=st.sampled_from([Weigh.head(), Weigh.share()]),
    permille=st.integers(501, 1_000),
    data=st.data(),
)
def test_what_passed_cannot_be_rejected_by_more_votes_and_two_opposites_never_pass(
    owners: dict[Principal, int], weigh: Weigh, permille: int, data: st.DataObject
) -> None:
    people = sorted(owners)
    yes = data.draw(st.sets(st.sampled_from(people)))
    no = set(people) - yes
    decided = verdict(count_votes(owners, weigh, yes, no), permille)
    assert decided in ("passed", "rejected"), "all have voted"
    part = data.draw(st.sets(st.sampled_from(people)))
    early = verdict(count_votes(owners, weigh, yes & part, no & part), permille)
    assert early in ("open", decided), "an early verdict is that of all votes"
    assert verdict(count_votes(owners, weigh, no, yes), permille) != "passed" or decided == "rejected"
    strangers = [Principal.opaque(b"stranger")]
    assert verdict(count_votes(owners, weigh, [*yes, *strangers], no), permille) == decided


# --- a model beside the canister ---------------------------------------------------------------------------


@dataclass
class Waiting:
    """An open proposal in the model."""

    by: str
    act: Any
    expires_ns: int
    yes: set[str]
    no: set[str]


@dataclass
class Model:
    """Owners and proposals as plain Python has them."""

    shares: dict[str, int]
    rules: Rules = EQUAL
    open: dict[int, Waiting] = field(default_factory=dict)
    spent: int = 0
    asked: int = 0

    def may_propose(self, who: str, act: Any) -> bool:
        if who not in self.shares or sum(each.by == who for each in self.open.values()) >= 5:
            return False
        return not (act[0] == "remove" and (act[1] not in self.shares or len(self.shares) == 1))

    def weight(self, voters: set[str]) -> int:
        by_head = self.rules.weigh.tag == "head"
        return sum(1 if by_head else self.shares[who] for who in voters if who in self.shares)

    def decide(self, id: int) -> None:
        waiting, total = self.open[id], self.weight(set(self.shares))
        if self.weight(waiting.yes) * 1_000 >= total * self.rules.pass_permille:
            del self.open[id]
            self.carry_out(waiting.act)
        elif (total - self.weight(waiting.no)) * 1_000 < total * self.rules.pass_permille:
            del self.open[id]

    def carry_out(self, act: Any) -> None:
        match act:
            case ("spend", cycles) if cycles <= HELD - self.spent:
                self.spent += cycles
            case ("top_up", cycles):
                self.asked += cycles
            case ("set", who, shares):
                self.shares[who] = shares
            case ("remove", who) if who in self.shares and len(self.shares) > 1:
                del self.shares[who]
            case ("rules", name):
                self.rules = RULES[name]


PERSON = st.sampled_from(PEOPLE)
MOTIONS = st.one_of(
    st.tuples(st.just("spend"), st.sampled_from([1, 700, HELD // 2, HELD])),
    st.tuples(st.just("top_up"), st.sampled_from([100, 841])),
    st.tuples(st.just("set"), PERSON, st.integers(1, 3)),
    st.tuples(st.just("remove"), PERSON),
    st.tuples(st.just("rules"), st.sampled_from(sorted(RULES))),
)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("propose"), PERSON, MOTIONS),
        st.tuples(st.just("vote"), PERSON, st.integers(0, 3), st.booleans()),
        st.tuples(st.just("vote"), PERSON, st.integers(0, 3), st.just(value=True)),
        st.tuples(st.just("crashing vote"), PERSON, st.integers(0, 3), st.integers(0, 4)),
        st.tuples(st.just("withdraw"), PERSON, st.integers(0, 3)),
        st.tuples(st.just("leave"), PERSON),
        st.tuples(st.just("give"), PERSON, PERSON, st.integers(1, 2)),
        st.tuples(st.just("wait"), st.sampled_from([60, 3_600])),
        st.tuples(st.just("crash")),
        st.tuples(st.just("upgrade")),
    ),
    min_size=4,
    max_size=24,
)


class Twins:
    """The canister and its model, which must agree after each act."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.upgrades = 0
        self.house = node.install(House, cycles=HELD)
        self.wallet = node.install(Wallet, cycles=0)
        node.set_controllers(self.house.id, node.operator, self.house.id)
        self.model = Model({"ann": 3, "bob": 2, "cid": 1})
        owners = [Share(node.principal(who), shares) for who, shares in self.model.shares.items()]
        self.as_(node.operator).ownership_found(owners, EQUAL, [])

    def as_(self, who: object) -> Any:
        return self.house.as_(who)

    def motion(self, act: Any) -> Motion:
        match act:
            case ("spend", cycles):
                return Motion.spend(Spending(self.wallet.id, cycles))
            case ("top_up", cycles):
                return Motion.top_up(cycles)
            case ("set", name, shares):
                return Motion.set_owner(Share(self.node.principal(name), shares))
            case ("remove", name):
                return Motion.remove_owner(self.node.principal(name))
            case _:
                return Motion.rules(RULES[act[1]])

    def ask(self, may: bool, call: Callable[[], Any]) -> Any:
        """Call, and see that it is refused where it may not be done."""
        if may:
            return call()
        with pytest.raises(Rejected):
            call()
        return None

    def do(self, act: Any) -> None:
        model, node = self.model, self.node
        model.open = {id: each for id, each in model.open.items() if node.now_ns < each.expires_ns}
        match act:
            case ("crash",):
                node.restart()
            case ("upgrade",):
                self.upgrade()
            case ("wait", seconds):
                node.advance(seconds=seconds)
            case ("propose", who, motion):
                may = model.may_propose(who, motion)
                made = self.ask(may, lambda: self.as_(who).ownership_propose(self.motion(motion), ""))
                if may:
                    model.open[made.id] = Waiting(who, motion, made.expires_ns, {who}, set())
                    model.decide(made.id)
            case ("vote", who, place, yes):
                self.vote(who, place, yes=yes)
            case ("crashing vote", who, place, steps):
                self.crash_in_vote(who, place, steps)
            case ("withdraw", who, place):
                id = self.at(place)
                may = id in model.open and model.open[id].by == who and who in model.shares
                self.ask(may, lambda: self.as_(who).ownership_withdraw(id))
                if may:
                    del model.open[id]
            case ("leave", who):
                may = who in model.shares and len(model.shares) > 1
                self.ask(may, lambda: self.as_(who).ownership_leave())
                if may:
                    del model.shares[who]
            case ("give", giver, taker, shares):
                self.give(giver, taker, shares)

    def upgrade(self) -> None:
        """Upgrade to the same code with another name for it, as the canister itself would."""
        module = (HouseWithBell, House)[self.upgrades % 2]
        self.upgrades += 1
        digest = self.node.manage("cannery_module_add", self.node.build(module))
        assert isinstance(digest, bytes)
        args = InstallChunkedCodeArgs(
            InstallMode.upgrade(None), self.house.id, None, [], digest, b"DIDL\x00\x00"
        )
        self.node.manage("install_chunked_code", args, sender=self.house)

    def at(self, place: int) -> int:
        """Give the id of an open proposal, or of none."""
        waiting = sorted(self.model.open)
        return waiting[place % len(waiting)] if waiting else 999

    def vote(self, who: str, place: int, *, yes: bool) -> None:
        id, model = self.at(place), self.model
        may = id in model.open and who in model.shares
        self.ask(may, lambda: self.as_(who).ownership_vote(id, yes))
        if may:
            self.note_vote(who, id, yes=yes)

    def note_vote(self, who: str, id: int, *, yes: bool) -> None:
        waiting = self.model.open[id]
        waiting.yes.discard(who)
        waiting.no.discard(who)
        (waiting.yes if yes else waiting.no).add(who)
        self.model.decide(id)

    def crash_in_vote(self, who: str, place: int, steps: int) -> None:
        """Crash some rounds after a vote was sent: it counts whole, or was never there."""
        id, model = self.at(place), self.model
        if id not in model.open or who not in model.shares:
            return
        had = who in model.open[id].yes
        self.as_(who).ownership_vote.submit(id, True)
        for _ in range(steps):
            self.node.step()
        self.node.restart()
        self.node.run()
        found = self.as_(self.node.operator).ownership_proposal(id)
        if self.node.principal(who) in found.yes and not (had and found.state.tag == "open"):
            self.note_vote(who, id, yes=True)

    def give(self, giver: str, taker: str, shares: int) -> None:
        model = self.model
        held = model.shares.get(giver, 0)
        is_known = taker in model.shares or model.rules.join.tag == "gift"
        may = shares <= held and giver != taker and is_known
        self.ask(may, lambda: self.as_(giver).ownership_give(self.node.principal(taker), shares))
        if may:
            model.shares[taker] = model.shares.get(taker, 0) + shares
            model.shares[giver] = held - shares
            model.shares = {who: count for who, count in model.shares.items() if count}

    def compare(self) -> None:
        model, node = self.model, self.node
        whole = self.as_(node.operator).ownership()
        names = {node.principal(who): who for who in PEOPLE}
        assert {names[each.owner]: each.shares for each in whole.owners} == model.shares
        assert whole.rules == model.rules
        still = {id for id, each in model.open.items() if node.now_ns < each.expires_ns}
        assert set(whole.open_proposals) == still
        ledger = whole.ledger
        assert (ledger.asked, ledger.spent) == (model.asked, model.spent)
        assert ledger.asked == ledger.paid + ledger.forgiven + sum(each.cycles for each in whole.dues)
        assert {names[each.owner] for each in whole.dues} <= set(model.shares)
        held, given = (
            int(node.manage("canister_status", CanisterIdRecord(each.id)).cycles)  # type: ignore[union-attr, attr-defined]
            for each in (self.house, self.wallet)
        )
        assert (held, given) == (HELD - model.spent, model.spent)


@settings(max_examples=60)
@given(acts=ACTS)
def test_owners_decide_what_a_plain_model_decides_over_crashes(acts: list[Any]) -> None:
    with Node(FaultyStore()) as node:
        twins = Twins(node)
        for act in acts:
            twins.do(act)
            twins.compare()
