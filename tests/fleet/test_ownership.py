"""Shared ownership: who decides what, once, by which rules; and what strangers cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from cannery.candid.codec import encoder
from cannery.fleet.ownership_rules import (
    Join,
    Leave,
    Motion,
    NewCode,
    Rules,
    Share,
    Spending,
    Split,
    Weigh,
)
from cannery.fleet.ownership_types import EQUAL, Proposal
from cannery.limits import (
    PROPOSAL_KEPT_COUNT_MAX,
    PROPOSAL_OPEN_COUNT_MAX,
    PROPOSAL_OPEN_PER_OWNER_COUNT_MAX,
)
from cannery.protocol.principal import Principal
from cannery.replica.management.types import CanisterIdRecord, StopArgs
from cannery.testing import Actor, Node, Rejected
from cannery.testing.actor import interface_of_class
from tests.fleet.shared_house import House, HouseWithBell, Wallet, Witness
from tests.fleet.test_strangers import simplest

SHARES = {"ann": 50, "bob": 30, "cid": 20}
HOUR_S = 3_600


def rules(**changes: Any) -> Rules:
    return replace(EQUAL, **changes)


class Home:
    """A house on a node, owned by Ann, Bob and Cid unless told otherwise."""

    def __init__(self, node: Node, by: Rules = EQUAL, shares: dict[str, int] | None = None) -> None:
        self.node = node
        self.house = node.install(House, cycles=10**9)
        node.set_controllers(self.house.id, node.operator, self.house.id)
        owners = [Share(node.principal(name), count) for name, count in (shares or SHARES).items()]
        self.as_(node.operator).ownership_found(owners, by, [])

    def as_(self, who: object) -> Any:
        return self.house.as_(who)

    def who(self, name: str) -> Principal:
        return self.node.principal(name)

    def propose(self, who: str, motion: Motion) -> Proposal:
        made = self.as_(who).ownership_propose(motion, "because")
        assert isinstance(made, Proposal)
        return made

    def decide(self, motion: Motion, *voters: str) -> Proposal:
        """Let the first one propose and the others vote for it."""
        made = self.propose(voters[0], motion)
        for voter in voters[1:]:
            made = self.as_(voter).ownership_vote(made.id, True)
        return made

    def whole(self) -> Any:
        return self.as_(self.node.operator).ownership()

    def shares(self) -> dict[str, int]:
        names = {self.who(name): name for name in ("ann", "bob", "cid", "dot")}
        return {names[each.owner]: each.shares for each in self.whole().owners}

    def controllers(self) -> list[Principal]:
        status: Any = self.node.manage("canister_status", CanisterIdRecord(self.house.id))
        return list(status.settings.controllers)

    def cycles(self, canister: Actor | None = None) -> int:
        target = self.house if canister is None else canister
        status: Any = self.node.manage("canister_status", CanisterIdRecord(target.id))
        return int(status.cycles)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as made:
        yield made


@pytest.fixture
def home(node: Node) -> Home:
    return Home(node)


def test_founding_gives_the_canister_to_itself_and_says_to_whom_it_belongs(node: Node) -> None:
    house = node.install(House)
    owners = [Share(node.principal("ann"), 1)]
    operator = house.as_(node.operator)
    with pytest.raises(Rejected, match="must control itself"):
        operator.ownership_found(owners, EQUAL, [])
    node.set_controllers(house.id, node.operator, house.id)
    with pytest.raises(Rejected, match="for the controllers"):
        house.as_("ann").ownership_found(owners, EQUAL, [])
    for wrong, why in (
        (([], EQUAL), "name an owner"),
        ((owners * 2, EQUAL), "stands twice"),
        (([Share(node.principal("ann"), 0)], EQUAL), "a share at least"),
        (([Share(Principal.anonymous(), 1)], EQUAL), "anonymous"),
        ((owners, rules(pass_permille=500)), "501 to 1000"),
        ((owners, rules(life_s=1)), "lives 60 to"),
        ((owners, rules(join=Join.price(0))), "costs 1 to"),
    ):
        with pytest.raises(Rejected, match=why):
            operator.ownership_found(*wrong, [])
    told = operator.ownership_found(owners, EQUAL, [node.principal("factory")])
    assert (told.owners, told.controls_itself) == (owners, True)
    status: Any = node.manage("canister_status", CanisterIdRecord(house.id))
    assert set(status.settings.controllers) == {house.id, node.principal("factory")}
    with pytest.raises(Rejected, match=r"for the controllers|has owners"):
        operator.ownership_found(owners, EQUAL, [])


def test_more_than_half_of_the_heads_decides(home: Home) -> None:
    wallet = home.node.install(Wallet, cycles=0)
    made = home.propose("ann", Motion.spend(Spending(wallet.id, 700)))
    assert made.state.tag == "open"
    assert home.as_("ann").ownership_vote(made.id, True).state.tag == "open", "one head, however often"
    done = home.as_("cid").ownership_vote(made.id, True)
    assert done.state.tag == "done"
    assert (home.cycles(wallet), home.cycles()) == (700, 10**9 - 700)
    with pytest.raises(Rejected, match="is done"):
        home.as_("bob").ownership_vote(made.id, True)
    assert home.cycles(wallet) == 700


def test_by_share_the_weight_decides(node: Node) -> None:
    home = Home(node, rules(weigh=Weigh.share(), pass_permille=600))
    made = home.propose("bob", Motion.top_up(10))
    assert home.as_("cid").ownership_vote(made.id, True).state.tag == "open", "500 permille"
    assert home.as_("ann").ownership_vote(made.id, False).state.tag == "rejected", "it cannot pass any more"
    assert home.propose("ann", Motion.top_up(10)).state.tag == "open"
    alone = Home(node, rules(weigh=Weigh.share()), {"ann": 60, "bob": 40})
    assert alone.propose("ann", Motion.top_up(10)).state.tag == "done", "her share is enough"


def test_a_vote_can_be_changed_while_it_is_open(home: Home) -> None:
    made = home.propose("ann", Motion.top_up(10))
    home.as_("ann").ownership_vote(made.id, False)
    assert home.as_("bob").ownership_vote(made.id, True).state.tag == "open"
    assert home.as_("ann").ownership_vote(made.id, True).state.tag == "done"


def test_proposals_expire_can_be_withdrawn_and_are_bounded(home: Home) -> None:
    made = home.propose("ann", Motion.top_up(10))
    with pytest.raises(Rejected, match="vote against it"):
        home.as_("bob").ownership_withdraw(made.id)
    assert home.as_("ann").ownership_withdraw(made.id).state.tag == "withdrawn"
    for _ in range(PROPOSAL_OPEN_PER_OWNER_COUNT_MAX):
        made = home.propose("ann", Motion.top_up(10))
    with pytest.raises(Rejected, match="of yours wait"):
        home.propose("ann", Motion.top_up(10))
    home.node.advance(seconds=EQUAL.life_s)
    assert home.as_("bob").ownership_proposal(made.id).state.tag == "expired"
    with pytest.raises(Rejected, match="is expired"):
        home.as_("bob").ownership_vote(made.id, True)
    assert home.whole().open_proposals == []
    assert home.propose("ann", Motion.top_up(10)).state.tag == "open"
    page = home.as_("ann").ownership_proposals(None, 3)
    assert [each.id for each in page.proposals] == [made.id + 1, made.id, made.id - 1]
    assert page.next == made.id - 1


def test_what_is_kept_is_bounded_however_much_is_proposed(node: Node) -> None:
    home = Home(node, shares={f"owner {number}": 1 for number in range(20)})
    first = home.propose("owner 0", Motion.top_up(1))
    for number in range(PROPOSAL_KEPT_COUNT_MAX + 10):
        made = home.propose("owner 1", Motion.top_up(1 + number))
        home.as_("owner 1").ownership_withdraw(made.id)
    found = 0
    before = None
    while True:
        page = home.as_("owner 0").ownership_proposals(before, 100)
        found, before = found + len(page.proposals), page.next
        if before is None:
            break
    assert found == PROPOSAL_KEPT_COUNT_MAX + 1
    assert home.as_("owner 2").ownership_vote(first.id, True).state.tag == "open", "what waits is kept"
    for number in range(PROPOSAL_OPEN_COUNT_MAX - 1):
        home.propose(f"owner {number % 19 + 1}", Motion.top_up(1))
    with pytest.raises(Rejected, match=f"{PROPOSAL_OPEN_COUNT_MAX} proposals wait"):
        home.propose("owner 19", Motion.top_up(1))


def test_owners_are_added_changed_and_removed(home: Home) -> None:
    dot = home.who("dot")
    home.decide(Motion.set_owner(Share(dot, 5)), "ann", "bob")
    assert home.shares() == {**SHARES, "dot": 5}
    home.decide(Motion.set_owner(Share(home.who("ann"), 1)), "cid", "bob", "dot")
    home.decide(Motion.remove_owner(home.who("bob")), "ann", "cid", "dot")
    assert home.shares() == {"ann": 1, "cid": 20, "dot": 5}
    with pytest.raises(Rejected, match="for owners"):
        home.propose("bob", Motion.top_up(1))
    with pytest.raises(Rejected, match="is no owner"):
        home.propose("ann", Motion.remove_owner(home.who("bob")))


def test_who_left_counts_no_more_and_shares_that_change_hands_count_once(node: Node) -> None:
    home = Home(node, rules(weigh=Weigh.share(), join=Join.gift()))
    made = home.propose("bob", Motion.top_up(10))
    home.as_("bob").ownership_give(home.who("cid"), 30)
    assert home.shares() == {"ann": 50, "cid": 50}
    assert home.as_("cid").ownership_vote(made.id, True).state.tag == "open", "50 of 100"
    home.as_("cid").ownership_leave()
    assert home.as_("ann").ownership_vote(made.id, True).state.tag == "done"


def test_joining_and_leaving_go_by_the_rules(node: Node) -> None:
    home = Home(node, rules(leave=Leave.motion()))
    with pytest.raises(Rejected, match="new owner needs a motion"):
        home.as_("ann").ownership_give(home.who("dot"), 1)
    for attempt in (
        lambda: home.as_("ann").ownership_leave(),
        lambda: home.as_("ann").ownership_give(home.who("bob"), 50),
    ):
        with pytest.raises(Rejected, match=r"leave by motion|leaving needs a motion"):
            attempt()
    home.decide(Motion.rules(rules(join=Join.gift(), leave=Leave.gift())), "ann", "bob")
    home.as_("ann").ownership_give(home.who("dot"), 50)
    assert home.shares() == {"dot": 50, "bob": 30, "cid": 20}
    with pytest.raises(Rejected, match="leave by gift"):
        home.as_("bob").ownership_leave()
    for wrong in (0, 51):
        with pytest.raises(Rejected, match="1 to 50 of your shares"):
            home.as_("dot").ownership_give(home.who("bob"), wrong)
    home.decide(Motion.rules(rules(leave=Leave.free())), "bob", "cid")
    home.as_("bob").ownership_leave()
    home.as_("cid").ownership_leave()
    with pytest.raises(Rejected, match="last owner"):
        home.as_("dot").ownership_leave()


def test_shares_are_bought_for_cycles_where_the_rules_name_a_price(node: Node) -> None:
    home = Home(node)
    wallet = node.install(Wallet, cycles=10_000)
    with pytest.raises(Rejected, match="nobody joins"):
        wallet.join(home.house.id, 2, 1_000)
    home.decide(Motion.rules(rules(join=Join.price(300))), "ann", "bob")
    with pytest.raises(Rejected, match="2 shares cost 600 cycles, 599 came"):
        wallet.join(home.house.id, 2, 599)
    before = home.cycles()
    wallet.join(home.house.id, 2, 1_000)
    assert (home.cycles(), home.cycles(wallet)) == (before + 600, 9_400), "what is too much goes back"
    assert Share(wallet.id, 2) in home.whole().owners
    assert home.whole().ledger.joined == 600


def test_a_top_up_is_split_to_the_unit_and_paid_by_whoever_pays(node: Node) -> None:
    wallet = node.install(Wallet, cycles=10_000)
    for how, parts in ((Split.evenly(), {333, 334}), (Split.by_share(), {500, 300, 200})):
        home = Home(node, rules(split=how))
        home.decide(Motion.top_up(1_000), "ann", "bob")
        dues = {each.owner: each.cycles for each in home.whole().dues}
        assert (set(dues.values()), sum(dues.values())) == (parts, 1_000)
        before = home.cycles()
        cid = home.who("cid")
        assert wallet.pay(home.house.id, cid, 100) == dues[cid] - 100
        assert wallet.pay(home.house.id, cid, 5_000) == 0, "what is too much goes back"
        assert home.cycles() == before + dues[cid]
        with pytest.raises(Rejected, match="nothing to pay"):
            wallet.pay(home.house.id, cid, 1)
        home.as_("bob").ownership_leave()
        ledger = home.whole().ledger
        left = sum(each.cycles for each in home.whole().dues)
        assert (ledger.asked, ledger.paid, ledger.forgiven) == (1_000, dues[cid], dues[home.who("bob")])
        assert ledger.asked == ledger.paid + ledger.forgiven + left
    with pytest.raises(Rejected, match="no cycles came"):
        home.as_("mallory").ownership_pay(home.who("ann"))


def test_a_spending_that_fails_is_no_spending(home: Home) -> None:
    nobody = Principal.opaque(b"nobody")
    failed = home.decide(Motion.spend(Spending(nobody, 700)), "ann", "bob")
    assert "not found" in failed.state.failed
    too_much = home.decide(Motion.spend(Spending(home.node.install(Wallet).id, 10**10)), "ann", "bob")
    assert "cycles" in too_much.state.failed
    assert (home.cycles(), home.whole().ledger.spent) == (10**9, 0)


def test_owners_upgrade_their_canister_or_are_told_why_not(home: Home) -> None:
    module = home.node.build(HouseWithBell)
    unknown = home.decide(Motion.upgrade(NewCode(sha256(module[:-1]).digest(), b"")), "ann", "bob")
    assert unknown.state.failed
    digest = home.node.manage("cannery_module_add", module)
    assert isinstance(digest, bytes)
    home.house.knock()
    done = home.decide(Motion.upgrade(NewCode(digest, b"DIDL\x00\x00")), "ann", "bob")
    assert done.state.tag == "done"
    assert home.node.actor(home.house.id, HouseWithBell).ring() == 1
    assert home.shares() == SHARES
    without = home.node.manage("cannery_module_add", home.node.build(Wallet))
    assert isinstance(without, bytes)
    refused = home.decide(Motion.upgrade(NewCode(without, b"DIDL\x00\x00")), "ann", "bob")
    assert refused.state.failed, "a version without owners cannot answer them"
    assert home.shares() == SHARES


def test_handing_over_ends_what_owners_may_unless_the_canister_stays_its_own(home: Home) -> None:
    home.decide(Motion.hand_over([home.house.id, home.who("factory")]), "ann", "bob")
    assert set(home.controllers()) == {home.house.id, home.who("factory")}
    assert home.shares() == SHARES
    home.propose("ann", Motion.top_up(1))
    home.decide(Motion.hand_over([home.who("dot")]), "ann", "bob")
    assert home.controllers() == [home.who("dot")]
    assert home.shares() == {}
    with pytest.raises(Rejected, match="for owners"):
        home.propose("ann", Motion.top_up(1))
    assert home.whole().open_proposals == []


def test_renouncing_leaves_no_controller_and_canister_info_shows_it(home: Home) -> None:
    done = home.decide(Motion.renounce(), "ann", "bob")
    assert done.state.tag == "done"
    assert home.controllers() == []
    assert home.node.install(Witness).controllers_of(home.house.id) == []
    assert home.whole().controls_itself is False
    later = home.decide(Motion.hand_over([home.who("ann")]), "ann", "bob")
    assert "Only controllers" in later.state.failed
    wallet = home.node.install(Wallet, cycles=0)
    assert home.decide(Motion.spend(Spending(wallet.id, 5)), "ann", "bob").state.tag == "done"


def test_owners_delete_their_canister_and_its_cycles_go_where_they_say(home: Home) -> None:
    wallet = home.node.install(Wallet, cycles=0)
    failed = home.decide(Motion.delete(Principal.opaque(b"nobody")), "ann", "bob")
    home.node.run()
    assert "cannot get the cycles" in home.as_("ann").ownership_proposal(failed.id).state.failed
    made = home.propose("ann", Motion.delete(wallet.id))
    waiting = [home.house.knock.submit() for _ in range(5)]
    decided = home.as_("bob").ownership_vote.submit(made.id, True)
    waiting += [home.house.knock.submit() for _ in range(50)]
    home.node.run()
    assert decided.result().state.tag == "executing"
    assert all(each.is_answered for each in waiting), "what waited is answered, one way or the other"
    with pytest.raises(Rejected, match="not found"):
        home.whole()
    assert home.cycles(wallet) == 10**9, "to the unit"


def test_a_canister_that_others_control_deletes_nobody(home: Home) -> None:
    home.decide(Motion.renounce(), "ann", "bob")
    failed = home.decide(Motion.delete(None), "ann", "bob")
    home.node.run()
    assert "Only controllers" in home.as_("ann").ownership_proposal(failed.id).state.failed


def test_a_lost_answer_is_unknown_and_nothing_is_done_twice(home: Home) -> None:
    wallet = home.node.install(Wallet, cycles=0)
    made = home.propose("ann", Motion.spend(Spending(wallet.id, 700)))
    home.as_("bob").ownership_vote.submit(made.id, True)
    home.node.step()
    home.node.manage("cannery_stop_canister", StopArgs(home.house.id, True), sender=home.house)
    home.node.manage("start_canister", CanisterIdRecord(home.house.id), sender=home.house)
    home.node.run()
    with pytest.raises(Rejected, match="cannot be decided any more"):
        home.as_("cid").ownership_vote(made.id, True)
    home.node.advance(seconds=601)
    state = home.as_("ann").ownership_proposal(made.id).state.tag
    assert state in ("unknown", "done")
    home.propose("ann", Motion.top_up(1))
    assert home.cycles(wallet) in (0, 700)


METHODS = {name: func for name, func in interface_of_class(House).methods.items() if name.startswith("owner")}


@pytest.mark.parametrize("method", METHODS)
def test_a_stranger_is_refused(node: Node, method: str) -> None:
    home = Home(node)
    made = home.propose("ann", Motion.top_up(1))
    func = METHODS[method]
    arg = encoder(func.args)(tuple(simplest(each) for each in func.args))
    if method in ("ownership_vote", "ownership_withdraw"):
        arg = encoder(func.args)((made.id, True)[: len(func.args)])
    doors = (node.call_raw, node.query_raw) if func.is_query else (node.call_raw,)
    before = home.whole()
    for who in ("mallory", Principal.anonymous()):
        for door in doors:
            with pytest.raises(Rejected):
                door(home.house.id, method, arg, node.principal(who))
    assert home.whole() == before
