"""Guards: who is let in by each rule, what the others read, and what a declaration must be."""

from __future__ import annotations

import pytest

from cannery import (
    Canister,
    Context,
    Principal,
    StableCell,
    any_of,
    composite_query,
    controller,
    index,
    inspect_message,
    itself,
    nat64,
    operator,
    owner,
    query,
    record,
    role,
    same_fleet,
    update,
)
from cannery.cdk.component import Component
from cannery.cdk.describe import describe
from cannery.cdk.hints import DeclarationError
from cannery.cdk.interface import manifest_of
from cannery.errors import Trap
from cannery.ports import EntryKind
from tests.cdk.driver import Driver, Rejected
from tests.cdk.memory_system import CANISTER, MemoryCanister

INDEX = bytes.fromhex("00000000001000070101")
SISTER = bytes.fromhex("00000000001000080101")
ANN = Principal.self_authenticating(b"ann").raw
BOB = Principal.self_authenticating(b"bob").raw
ANONYMOUS = b"\x04"


@record
class Profile:
    """Whose canister it is."""

    name: str
    owner: Principal


class Desk(Component, prefix="desk"):
    """A component with an owner of its own."""

    clerk = StableCell(Principal, Principal.anonymous())

    @update(only=owner("clerk"))
    def stamp_letter(self, ctx: Context) -> str:
        """Let the clerk in."""
        return "stamped"

    @update(only=owner("holder"))
    def close_desk(self, ctx: Context) -> str:
        """Let the owner in that the canister names."""
        return "closed"


class Guarded(Canister):
    """A canister whose methods are each for somebody else."""

    holder = StableCell(Principal, Principal.anonymous())
    profile = StableCell(Profile | None, None)
    count = StableCell(nat64, 0)
    desk = Desk()

    @update
    def set_up(self, ctx: Context, holder: Principal, clerk: Principal) -> None:
        """Say whose it is."""
        self.holder.set(holder)
        self.profile.set(Profile("x", holder))
        self.desk.clerk.set(clerk)

    @update(only=same_fleet)
    def for_sisters(self, ctx: Context) -> str:
        return "yes"

    @update(only=index)
    def for_index(self, ctx: Context) -> str:
        return "yes"

    @update(only=controller)
    def for_controllers(self, ctx: Context) -> str:
        return "yes"

    @update(only=operator)
    def for_operators(self, ctx: Context) -> str:
        return "yes"

    @update(only=itself)
    def for_itself(self, ctx: Context) -> str:
        return "yes"

    @update(only=role("moderator"))
    def for_moderators(self, ctx: Context) -> str:
        return "yes"

    @update(only=owner("holder"))
    def for_holder(self, ctx: Context) -> str:
        return "yes"

    @query(only=owner("profile"))
    def for_owner(self, ctx: Context) -> str:
        return "yes"

    @composite_query(only=any_of(operator, owner("profile")) | itself)
    def for_several(self, ctx: Context) -> str:
        return "yes"

    @update(name="added", only=owner("holder"))
    def add(self, ctx: Context, value: nat64) -> nat64:
        self.count.value += value
        return self.count.get()


UPDATES = (
    "for_sisters",
    "for_index",
    "for_controllers",
    "for_operators",
    "for_itself",
    "for_moderators",
    "for_holder",
)


@pytest.fixture
def driver() -> Driver:
    canister = MemoryCanister(
        controllers=frozenset({ANN}),
        operators=frozenset({BOB}),
        fleet=INDEX,
        roles=frozenset({("moderator", ANN)}),
    )
    return Driver(Guarded, canister)


def _let_in(driver: Driver, caller: bytes, caller_fleet: bytes = b"") -> set[str]:
    found = set()
    for name in UPDATES:
        system = driver.activation(EntryKind.UPDATE, name, caller=caller, caller_fleet=caller_fleet)
        if system.rejected is None:
            found.add(name)
        else:
            text = system.rejected[1]
            assert text.startswith(f"{name} is for ")
            assert text.endswith(f": {Principal(caller)} may not call it")
    return found


def test_each_rule_lets_in_its_own_alone(driver: Driver) -> None:
    assert _let_in(driver, ANN) == {"for_controllers", "for_moderators"}
    assert _let_in(driver, BOB) == {"for_operators"}
    assert _let_in(driver, SISTER, INDEX) == {"for_sisters"}
    assert _let_in(driver, INDEX, INDEX) == {"for_sisters", "for_index"}
    assert _let_in(driver, CANISTER) == {"for_itself"}
    assert _let_in(driver, ANONYMOUS) == set()


def test_a_canister_without_its_fleet_s_stamp_is_a_stranger(driver: Driver) -> None:
    assert _let_in(driver, SISTER) == _let_in(driver, INDEX) == _let_in(driver, SISTER, SISTER) == set()
    driver.canister.fleet = b""
    assert _let_in(driver, SISTER, INDEX) == _let_in(driver, INDEX, INDEX) == set()
    assert _let_in(driver, ANN) == {"for_controllers"}, "a role is one of the fleet"


def test_an_owner_is_the_one_that_a_cell_names(driver: Driver) -> None:
    with pytest.raises(Rejected, match="for_holder is for the owner that 'holder' names"):
        driver.update("for_holder", caller=ANONYMOUS)
    with pytest.raises(Rejected):
        driver.query("for_owner", caller=ANONYMOUS)
    driver.update("set_up", Principal(ANN), Principal(BOB))
    assert driver.update("for_holder", caller=ANN) == driver.query("for_owner", caller=ANN) == "yes"
    for name, caller in (("for_holder", BOB), ("stamp_letter", ANN), ("close_desk", BOB)):
        with pytest.raises(Rejected, match=f"{name} is for"):
            driver.update(name, caller=caller)
    assert driver.update("stamp_letter", caller=BOB) == "stamped"
    assert driver.update("close_desk", caller=ANN) == "closed", "a component finds the canister's cell"


def test_rules_are_joined(driver: Driver) -> None:
    driver.update("set_up", Principal(ANN), Principal(BOB))
    for caller in (ANN, BOB, CANISTER):
        assert driver.query("for_several", caller=caller) == "yes"
    with pytest.raises(Rejected) as refused:
        driver.query("for_several", caller=SISTER)
    assert str(refused.value) == (
        "for_several is for operators of the node or the owner that 'profile' names or the canister itself: "
        f"{Principal(SISTER)} may not call it"
    )


def test_a_refused_call_writes_nothing_and_its_argument_is_not_looked_at(driver: Driver) -> None:
    driver.update("set_up", Principal(ANN), Principal(BOB))
    system = driver.activation(EntryKind.UPDATE, "added", arg=b"garbage", caller=BOB)
    assert system.rejected is not None
    assert system.rejected[0] == 4
    with pytest.raises(Trap, match="added expects"):
        driver.activation(EntryKind.UPDATE, "added", arg=b"garbage", caller=ANN)
    assert driver.update("added", 5, caller=ANN) == 5


# --- calls from outside ------------------------------------------------------------------------------------


class Inspected(Canister):
    """A guard and an author's own inspection."""

    @update(only=controller)
    def change(self, ctx: Context) -> None: ...

    @update
    def other(self, ctx: Context) -> None: ...

    @inspect_message
    def inspect(self, ctx: Context) -> bool:
        return ctx.arg != b"spam"


def test_inspection_asks_the_guard_first_and_then_the_author() -> None:
    driver = Driver(Inspected, MemoryCanister(controllers=frozenset({ANN})))

    def accepts(name: str, caller: bytes, arg: bytes = b"") -> bool:
        return driver.activation(EntryKind.INSPECT, name, arg=arg, caller=caller).accepted

    assert accepts("change", ANN)
    assert not accepts("change", ANN, b"spam")
    assert not accepts("change", BOB)
    assert driver.last is not None
    assert driver.last.rejected == (
        4,
        f"change is for controllers of the canister: {Principal(BOB)} may not call it",
    )
    assert accepts("other", BOB)
    assert not accepts("other", BOB, b"spam")


class GuardedQuery(Canister):
    """Only a query has a guard: it may be called as an update too."""

    @query(only=controller)
    def read(self, ctx: Context) -> nat64:
        return 1


class GuardedComposite(Canister):
    """Only a composite query has a guard: calls from outside never reach it."""

    @composite_query(only=controller)
    def read(self, ctx: Context) -> nat64:
        return 1


def test_a_module_with_guards_says_that_calls_are_to_be_inspected() -> None:
    hooks = {
        cls: manifest_of(describe(cls), "x:X").hooks for cls in (Guarded, GuardedQuery, GuardedComposite)
    }
    assert hooks == {
        Guarded: ("inspect_message",),
        GuardedQuery: ("inspect_message",),
        GuardedComposite: (),
    }


# --- declarations ------------------------------------------------------------------------------------------


def _missing_cell() -> type[Canister]:
    class A(Canister):
        @update(only=owner("nobody"))
        def change(self, ctx: Context) -> None: ...

    return A


def _wrong_type() -> type[Canister]:
    class A(Canister):
        count = StableCell(nat64, 0)

        @update(only=same_fleet | owner("count"))
        def change(self, ctx: Context) -> None: ...

    return A


def _no_rule() -> type[Canister]:
    class A(Canister):
        @update(only=role)  # type: ignore[arg-type]
        def change(self, ctx: Context) -> None: ...

    return A


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (_missing_cell, r"A\.change: owner\('nobody'\) names no StableCell of A"),
        (_wrong_type, r"A\.change: owner\('count'\) needs a cell of a Principal"),
        (_no_rule, r"A\.change: only=.*is no rule of who may call: write same_fleet"),
    ],
)
def test_a_wrong_rule_is_refused_where_the_class_is_read(make: object, text: str) -> None:
    assert callable(make)
    with pytest.raises(DeclarationError, match=text):
        describe(make())


def test_rules_are_made_of_rules() -> None:
    with pytest.raises(TypeError, match="at least one rule"):
        any_of()
    with pytest.raises(TypeError, match="is no rule"):
        any_of(same_fleet, "owner")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="1 to 64 bytes"):
        role("")
