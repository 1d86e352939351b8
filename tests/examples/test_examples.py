"""The examples do what they say, each through its real module."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from cannery.testing import Node, Rejected

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as made:
        yield made


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 100


def test_the_guestbook_keeps_who_signed_when(node: Node) -> None:
    book = node.install(EXAMPLES / "guestbook.py")
    assert book.as_("ann").sign("hi") == 0
    node.advance(seconds=60)
    assert book.as_("bob").sign("hello") == 1
    entries = book.latest(10)
    assert [entry["text"] for entry in entries] == ["hello", "hi"]
    assert entries[0]["at_ns"] - entries[1]["at_ns"] >= 60_000_000_000
    assert entries[1]["author"] == node.principal("ann")


def test_the_counter_fleet_gives_everybody_a_counter_and_sums_them(node: Node) -> None:
    module = node.build(EXAMPLES / "counter.py")
    node.manage("cannery_module_add", module)
    fleet = node.install(EXAMPLES / "counter_fleet.py", sha256(module).digest())
    anns, bobs = fleet.as_("ann").open(), fleet.as_("bob").open()
    assert fleet.as_("ann").open() == anns == fleet.find(node.principal("ann"))
    assert anns != bobs
    counter = node.actor(anns, EXAMPLES / "counter.py")
    assert [counter.as_("ann").increment() for _ in range(3)] == [1, 2, 3]
    with pytest.raises(Rejected, match="somebody else's"):
        counter.as_("bob").increment()
    assert node.actor(bobs, EXAMPLES / "counter.py").as_("bob").increment() == 1
    assert fleet.total() == 4


def test_a_counter_fleet_without_a_module_lets_its_people_try_again(node: Node) -> None:
    fleet = node.install(EXAMPLES / "counter_fleet.py", bytes(32))
    for _ in range(2):
        with pytest.raises(Rejected, match="no counter could be made"):
            fleet.as_("ann").open()


def test_a_library_that_cannot_pay_for_a_shelf_says_so_and_makes_it_once_it_can(node: Node) -> None:
    library = node.install(f"{EXAMPLES / 'library.py'}:Library")
    chief = library.as_(node.operator)
    module = node.manage("cannery_module_add", node.build(f"{EXAMPLES / 'library.py'}:Shelf"))
    assert chief.fleet_release_add("shelf", 1, module, "first").tag == "ok"
    chief.fleet_birth_set("shelf", 10**13)
    with pytest.raises(Rejected, match=r"^no shelf can be made now: 10000000000000 cycles cannot be sent"):
        library.as_("ann").shelf()
    assert [alarm["kind"] for alarm in chief.fleet_alarms_open()] == ["battery_low"]
    node.top_up(library, 10**13)
    made = library.as_("ann").shelf()
    assert library.as_("ann").shelf() == made


def test_a_joint_account_pays_when_more_than_half_approve(node: Node) -> None:
    owners = [node.principal(name) for name in ("ann", "bob", "cid")]
    account = node.install(EXAMPLES / "joint_account.py", owners, cycles=0)
    payee = node.install(EXAMPLES / "joint_account.py", owners, cycles=0)
    number = account.as_("ann").propose(payee.id, 1_000)
    assert account.as_("ann").approve(number) is False
    assert account.as_("ann").approve(number) is False
    with pytest.raises(Rejected, match="are needed"):
        account.as_("bob").approve(number)
    node.top_up(account, 5_000)
    assert account.as_("bob").approve(number) is True
    assert (account.balance(), payee.balance()) == (4_000, 1_000)
    with pytest.raises(Rejected, match="no open payment"):
        account.as_("cid").approve(number)


def test_a_payment_to_nobody_comes_back(node: Node) -> None:
    account = node.install(EXAMPLES / "joint_account.py", [node.principal("ann")], cycles=500)
    before = account.balance()
    number = account.as_("ann").propose(node.principal("nobody"), 100)
    with pytest.raises(Rejected, match="the payment failed"):
        account.as_("ann").approve(number)
    assert account.balance() == before
    assert account.payment(number)["paid"] is False


def test_strangers_fail_at_a_joint_account(node: Node) -> None:
    account = node.install(EXAMPLES / "joint_account.py", [node.principal("ann")], cycles=500)
    number = account.as_("ann").propose(account.id, 100)
    for attempt in (
        lambda: account.as_("eve").propose(account.id, 1),
        lambda: account.as_("eve").approve(number),
    ):
        with pytest.raises(Rejected, match="only an owner"):
            attempt()
