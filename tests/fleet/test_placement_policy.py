"""Policies: what each promises about where keys go, who leaves, and who takes what is left."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery import Principal, limits
from cannery.fleet.placement_census import Census, CensusError, Child, ChildState, free_slots
from cannery.fleet.placement_policy import (
    AnchorHash,
    BalancedLoad,
    FillFirst,
    LastNode,
    Need,
    NoRoom,
    Placed,
    Policy,
    Relocate,
    group_alone,
    group_before,
    plan_departure,
    plan_put,
)
from cannery.fleet.placement_table import child_of, make_table

STATES = {
    "serving": ChildState.serving(),
    "full": ChildState.full(),
    "draining": ChildState.draining(),
    "away": ChildState.away(),
    "gone": ChildState.gone(),
}


def named(number: int) -> Principal:
    return Principal(number.to_bytes(8, "big") + b"\x01\x01")


def child(number: int, used: int, capacity: int = 10, state: str = "serving") -> Child:
    return Child(named(number), capacity, used, state=STATES[state])


def census_of(*used: int) -> Census:
    return Census(tuple(child(number, count) for number, count in enumerate(used)))


@st.composite
def censuses(draw: st.DrawFn, states: tuple[str, ...] = tuple(STATES)) -> Census:
    facts = draw(
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 10), st.sampled_from(states)), max_size=8)
    )
    return Census(tuple(child(number, *fact) for number, fact in enumerate(facts)))


DIRECTORY: list[Policy] = [FillFirst(), BalancedLoad(), LastNode()]
POLICIES = st.sampled_from(DIRECTORY)


def hashed(census: Census) -> AnchorHash:
    ids = tuple(child.id for child in census) or (named(0),)
    return AnchorHash(make_table(ids, capacity=64, seed=bytes(16)))


@given(censuses(), st.booleans(), POLICIES, st.binary(max_size=4))
def test_a_new_key_goes_where_there_is_room_and_nowhere_else(
    census: Census, by_hash: bool, policy: Policy, group: bytes
) -> None:
    policy = hashed(census) if by_hash else policy
    order = policy.plan_order(census, group)
    assert len({child.id for child in order}) == len(order)
    for chosen in order:
        assert chosen.state.tag == "serving"
        assert chosen.used_slots < chosen.capacity_slots
        assert chosen in census.children
    assert policy.has_room(census) or not order
    if not by_hash:
        assert policy.has_room(census) == bool(order)
    placing = plan_put(policy, census, group)
    assert placing == (Placed(order[0].id) if order else placing)
    assert isinstance(placing, Placed if order else NoRoom)


@given(censuses())
def test_fill_first_takes_the_fullest_and_balanced_load_the_emptiest(census: Census) -> None:
    filling = [Fraction(free_slots(c), c.capacity_slots) for c in FillFirst().plan_order(census, b"")]
    assert filling == sorted(filling)
    assert len(filling) == len(census.open_children)
    levelling = [Fraction(free_slots(c), c.capacity_slots) for c in BalancedLoad().plan_order(census, b"")]
    assert levelling == sorted(levelling, reverse=True)
    assert len(levelling) == len(filling)


@pytest.mark.parametrize("reverse", [False, True])
def test_of_equals_the_oldest_comes_first(reverse: bool) -> None:
    policy: Policy = BalancedLoad() if reverse else FillFirst()
    assert [c.id for c in policy.plan_order(census_of(3, 3, 3), b"")] == [named(0), named(1), named(2)]


def put_all(policy: Policy, census: Census, count: int) -> Census:
    for number in range(count):
        placing = plan_put(policy, census, b"%d" % number)
        assert isinstance(placing, Placed)
        old = census.child(placing.child)
        census = census.with_children([Child(old.id, old.capacity_slots, old.used_slots + 1)])
    return census


@given(st.integers(0, 30))
def test_fill_first_fills_one_after_the_other(count: int) -> None:
    used = [c.used_slots for c in put_all(FillFirst(), census_of(0, 0, 0), count)]
    assert used == sorted(used, reverse=True)
    assert sum(0 < slots < 10 for slots in used) <= 1


@given(st.integers(0, 60))
def test_balanced_load_keeps_all_equally_full(count: int) -> None:
    start = Census((child(0, 0, 10), child(1, 0, 20), child(2, 0, 30)))
    after = put_all(BalancedLoad(), start, count)
    parts = [Fraction(c.used_slots, c.capacity_slots) for c in after]
    assert max(parts) - min(parts) <= Fraction(1, 10)


@given(censuses())
def test_last_node_gives_new_keys_to_the_newest_that_stays_alone(census: Census) -> None:
    staying = [c for c in census if c.state.tag != "draining"]
    order = LastNode().plan_order(census, b"")
    assert order == tuple(c for c in staying[-1:] if free_slots(c))
    assert LastNode().has_room(census) == bool(order)


def test_last_node_passes_over_one_that_drains() -> None:
    census = Census((child(0, 0), child(1, 2), child(2, 0, state="draining")))
    assert plan_put(LastNode(), census, b"k") == Placed(named(1))


def test_last_node_never_goes_back_to_an_older_child() -> None:
    assert isinstance(plan_put(LastNode(), census_of(2, 10), b"k", home=named(1)), NoRoom)
    assert plan_put(LastNode(), census_of(2, 10), b"k") == plan_put(LastNode(), census_of(10, 10), b"k")
    assert isinstance(plan_put(LastNode(), census_of(2, 10), b"k"), NoRoom)
    assert not LastNode().has_room(census_of(2, 10))


@given(st.binary(max_size=8), st.lists(st.integers(0, 10), min_size=1, max_size=8))
def test_anchor_hash_offers_the_tables_child_or_nothing(group: bytes, used: list[int]) -> None:
    census = census_of(*used)
    policy = hashed(census)
    home = census.child(child_of(policy.table, group))
    assert policy.plan_order(census, group) == ((home,) if home.used_slots < 10 else ())


def test_a_child_outside_the_table_is_no_room_for_anchor_hash() -> None:
    policy = hashed(census_of(10, 10))
    assert not policy.has_room(census_of(10, 10, 0))
    assert policy.has_room(census_of(10, 9, 0))
    assert policy.plan_leaving(census_of(10, 10, 0)) == named(1)


# groups


def test_groups_are_cut_at_the_separator() -> None:
    rule = group_before(b"/")
    assert [rule(key) for key in (b"ann/1", b"ann/2/3", b"ann", b"/x")] == [b"ann", b"ann", b"ann", b""]
    assert group_alone(b"ann/1") == b"ann/1"
    with pytest.raises(ValueError, match="at least one byte"):
        group_before(b"")


@given(censuses(), POLICIES, st.integers(0, 7), st.integers(0, 6))
def test_a_group_stays_at_home_moves_whole_or_waits(
    census: Census, policy: Policy, home: int, group_slots: int
) -> None:
    placing = plan_put(policy, census, b"g", home=named(home), need=Need(1, group_slots))
    present = census.find(named(home))
    if present is not None and free_slots(present):
        assert placing == Placed(named(home))
    elif isinstance(placing, Relocate):
        assert placing.source == named(home) != placing.target
        assert present is not None
        assert present.state.tag != "away"
        assert free_slots(census.child(placing.target)) > group_slots
    else:
        assert isinstance(placing, NoRoom)


def test_a_home_out_of_reach_is_waited_for_and_a_lost_one_named() -> None:
    census = Census((child(0, 3, state="away"), child(1, 0)))
    away = plan_put(FillFirst(), census, b"g", home=named(0))
    assert isinstance(away, NoRoom)
    assert "try again" in away.reason
    lost = plan_put(FillFirst(), census, b"g", home=named(7))
    assert isinstance(lost, NoRoom)
    assert "is gone" in lost.reason
    with pytest.raises(ValueError, match="a group's name has"):
        plan_put(FillFirst(), census, b"g" * (limits.GROUP_SIZE_BYTES_MAX + 1))


# leaving


@given(censuses(), POLICIES, st.booleans())
def test_who_leaves_can_be_reached_and_one_that_drains_goes_on(
    census: Census, policy: Policy, by_hash: bool
) -> None:
    leaving = (hashed(census) if by_hash else policy).plan_leaving(census)
    able = [c for c in census if c.state.tag not in ("away", "gone")]
    if leaving is None:
        assert not able or isinstance(policy, LastNode)
        return
    chosen = census.child(leaving)
    assert chosen in able
    if any(c.state.tag == "draining" for c in able):
        assert chosen.state.tag == "draining"
    elif not by_hash and isinstance(policy, LastNode):
        assert chosen == census.children[-1]
    elif not by_hash:
        assert chosen.used_slots == min(c.used_slots for c in able)


@given(censuses(), st.integers(0, 40))
def test_the_last_nodes_keys_go_to_the_oldest_so_that_the_new_last_keeps_room(
    census: Census, slots: int
) -> None:
    shares = LastNode().plan_shares(census, slots)
    order = [c.id for c in census.open_children]
    assert [share.child for share in shares] == order[: len(shares)]
    for share in shares[:-1]:
        assert share.slots == free_slots(census.child(share.child))


@given(censuses(), POLICIES, st.integers(0, 40))
def test_shares_fit_and_give_all_that_there_is_room_for(census: Census, policy: Policy, slots: int) -> None:
    shares = policy.plan_shares(census, slots)
    assert len({share.child for share in shares}) == len(shares)
    for share in shares:
        assert 0 < share.slots <= free_slots(census.child(share.child))
    assert sum(share.slots for share in shares) == min(slots, census.free_slots)


@given(censuses(), st.integers(0, 40), st.sampled_from([BalancedLoad(), FillFirst()]))
def test_shares_are_what_single_puts_would_come_to(census: Census, slots: int, policy: Policy) -> None:
    slots = min(slots, census.free_slots)
    shares = {share.child: share.slots for share in policy.plan_shares(census, slots)}
    after = put_all(policy, census, slots)
    assert [c.used_slots for c in after] == [c.used_slots + shares.get(c.id, 0) for c in census]


@given(censuses(), POLICIES, st.integers(0, 7))
def test_a_departure_keeps_every_key_or_is_none(census: Census, policy: Policy, number: int) -> None:
    leaving = named(number)
    if census.find(leaving) is None:
        with pytest.raises(CensusError, match="no child"):
            plan_departure(policy, census, leaving)
        return
    after = plan_departure(policy, census, leaving)
    left = census.child(leaving).used_slots
    if after is None:
        assert census.without(leaving).free_slots < left
        return
    assert after.find(leaving) is None
    assert after.used_slots == census.used_slots
    assert after.capacity_slots == census.capacity_slots - census.child(leaving).capacity_slots


# the census


def test_a_census_names_each_child_once_and_forgets_the_gone() -> None:
    with pytest.raises(CensusError, match="once"):
        Census((child(0, 1), child(0, 2)))
    census = Census((child(0, 1), child(0, 2, state="gone"), child(1, 12), child(2, 1, state="full")))
    assert [c.id for c in census] == [named(0), named(1), named(2)]
    assert (census.free_slots, census.used_slots, census.capacity_slots) == (9, 14, 30)
    assert census.with_children([child(1, 0), child(5, 5)]).free_slots == 24
    assert census.with_children([child(1, 0, state="gone")]).find(named(1)) is None
