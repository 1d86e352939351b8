"""The index of a fleet: children made once, found, listed, recycled, deleted, whatever fails in between."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import encode_args
from cannery.cdk.management import FleetConfigureArgs, FleetRole, FleetValue
from cannery.client.errors import Rejected
from cannery.fleet.directory_types import Child, ChildFilter, PoolRule, Release
from cannery.protocol.principal import Principal
from cannery.replica.block import ReplicaConfig
from cannery.replica.management.snapshot_types import LoadSnapshotArgs, TakeSnapshotArgs
from cannery.replica.management.types import (
    CanisterIdRecord,
    CanisterListArgs,
    CanisterSettings,
    InstallCodeArgs,
    InstallMode,
    StopArgs,
    UpdateSettingsArgs,
)
from cannery.testing import Node
from cannery.testing.actor import Actor, Sent
from cannery.testing.store import FaultyStore
from tests.fleet.village import Cottage, Deed, Village

OWNERS = ("ann", "bob", "cid", "dot")


def build_village(node: Node) -> Actor:
    module_hash = node.manage("cannery_module_add", node.build(Cottage))
    village = node.install(Village)
    village.plan(Release("cottage", 1, module_hash))
    return village.as_(node.operator)


def canisters(node: Node) -> set[Principal]:
    listed = node.manage("cannery_canister_list", CanisterListArgs(None, 1000))
    return {item.canister_id for item in listed.canisters}  # type: ignore[union-attr, attr-defined]


def children(village: Actor, **wanted: object) -> list[Child]:
    found: list[Child] = []
    after: int | None = None
    while True:
        page = village.fleet_page(ChildFilter(**wanted), after, 2)
        found += page.items
        after = page.next
        if after is None:
            return found


def test_an_owner_has_one_child_however_often_it_is_asked_for() -> None:
    with Node() as node:
        village = build_village(node)
        asked = [village.as_("ann").settle.submit(False) for _ in range(5)]
        node.run()
        granted = [sent.result() for sent in asked if not _is_refused(sent)]
        assert granted
        assert all(child == granted[0] for child in granted)
        assert village.as_("ann").settle(False) == granted[0]
        assert canisters(node) == {village.id, granted[0].canister}
        assert node.actor(granted[0].canister, Cottage).owner() == node.principal("ann")


def _is_refused(sent: Sent) -> bool:
    try:
        sent.result()
    except Rejected as rejected:
        return "is being built" in str(rejected)
    return False


def test_a_child_that_cannot_be_made_leaves_nothing_behind() -> None:
    with Node() as node:
        village = build_village(node)
        for pool in (0, 2):
            village.fleet_pool_set(PoolRule(pool, 0))
            node.run()
            before = canisters(node)
            with pytest.raises(Rejected, match=r"no cottage.*the roof fell in"):
                village.as_("ann").settle(True)
            node.run()
            assert canisters(node) == before
            status = village.fleet_status()
            assert (status.children, status.making, status.pool) == (0, 0, pool)
            assert village.as_("ann").settle(False).owner == node.principal("ann")
            village.fleet_delete(village.as_("ann").settle(False).canister)
            node.run()


def test_the_pool_gives_prepared_canisters_and_is_filled_up_again() -> None:
    with Node() as node:
        village = build_village(node)
        village.fleet_pool_set(PoolRule(3, 0))
        node.run()
        prepared = canisters(node) - {village.id}
        assert len(prepared) == 3
        child = village.as_("ann").settle(False)
        assert child.canister in prepared
        node.run()
        assert village.fleet_status().pool == 3
        assert len(canisters(node)) == 5


def test_a_recycled_canister_serves_the_next_owner_and_keeps_nothing() -> None:
    with Node() as node:
        village = build_village(node)
        first = village.as_("ann").settle(False)
        node.actor(first.canister, Cottage).knock()
        assert village.fleet_recycle(first.canister).tag == "ok"
        node.run()
        assert village.fleet_status().pool == 1
        second = village.as_("bob").settle(False)
        assert second.canister == first.canister
        assert node.actor(second.canister, Cottage).knock() == 1
        assert [child.owner for child in children(village)] == [node.principal("bob")]


def test_deleting_gives_the_cycles_back_to_the_index() -> None:
    with Node() as node:
        village = build_village(node)
        child = village.as_("ann").settle(False)
        node.top_up(node.actor(child.canister, Cottage), 700)
        before = _balance(node, village)
        village.fleet_delete(child.canister)
        node.run()
        assert canisters(node) == {village.id}
        assert _balance(node, village) == before + 700


def _balance(node: Node, actor: Actor) -> int:
    status = node.manage("canister_status", CanisterIdRecord(actor.id))
    cycles = status.cycles  # type: ignore[union-attr, attr-defined]
    assert isinstance(cycles, int)
    return cycles


def test_a_child_that_somebody_else_controls_is_left_alone_with_an_alarm() -> None:
    with Node() as node:
        village = build_village(node)
        child = village.as_("ann").settle(False)
        take = UpdateSettingsArgs(child.canister, CanisterSettings(controllers=[node.principal("ann")]))
        node.manage("update_settings", take, sender=village)
        node.run()
        assert village.fleet_child(child.canister).state.tag == "in_custody"
        assert child.canister in canisters(node)
        (alarm,) = village.fleet_alarms_open()
        assert (alarm.kind, alarm.subject) == ("custody_taken", str(child.canister))
        assert "control" in alarm.text
        assert village.fleet_delete(child.canister).tag == "busy"


def test_strangers_learn_nothing_and_change_nothing() -> None:
    with Node() as node:
        village = build_village(node)
        child = village.as_("ann").settle(False)
        stranger = village.as_("mallory")
        for call in (
            lambda: stranger.fleet_status(),
            lambda: stranger.fleet_lookup("cottage", node.principal("ann")),
            lambda: stranger.fleet_child(child.canister),
            lambda: stranger.fleet_page(ChildFilter(), None, 10),
            lambda: stranger.fleet_alarms(None, 10),
            lambda: stranger.fleet_alarms_open(),
            lambda: stranger.fleet_pool_set(PoolRule(1, 0)),
            lambda: stranger.fleet_recycle(child.canister),
            lambda: stranger.fleet_delete(child.canister),
        ):
            with pytest.raises(Rejected, match="for operators"):
                call()
        assert village.as_("ann").fleet_lookup("cottage", node.principal("ann")) == child
        assert village.as_("ann").fleet_child(child.canister) == child


def test_pages_filter_and_hold_in_a_fleet_that_changes() -> None:
    with Node() as node:
        village = build_village(node)
        made = [village.as_(owner).settle(False) for owner in OWNERS]
        assert children(village) == made
        assert children(village, kind="cottage", version=1) == made
        assert children(village, version=2) == []
        assert children(village, created_from_ns=made[2].created_ns) == made[2:]
        assert children(village, created_before_ns=made[2].created_ns) == made[:2]
        page = village.fleet_page(ChildFilter(), None, 2)
        village.fleet_delete(made[1].canister)
        node.run()
        assert village.fleet_page(ChildFilter(), page.next, 10).items == made[2:]
        assert children(village, state="active") == [made[0], *made[2:]]


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("settle"), st.sampled_from(OWNERS), st.booleans()),
        st.tuples(st.just("recycle"), st.sampled_from(OWNERS)),
        st.tuples(st.just("delete"), st.sampled_from(OWNERS)),
        st.tuples(st.just("pool"), st.integers(0, 3)),
        st.tuples(st.just("step"), st.integers(1, 3)),
        st.tuples(st.just("crash")),
        st.tuples(st.just("upgrade")),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=60)
@given(acts=ACTS)
def test_whatever_happens_no_canister_leaks_and_no_place_stays_taken(acts: list[tuple[object, ...]]) -> None:
    with Node(FaultyStore()) as node:
        village = build_village(node)
        for act in acts:
            _do(node, village, act)
        node.run()
        node.advance(seconds=1200)
        status = village.fleet_status()
        assert (status.making, status.leaving) == (0, 0)
        living = children(village)
        assert status.children == len(living) == sum(count.count for count in status.counts)
        assert status.pool >= status.pool_target
        assert len(canisters(node)) == 1 + len(living) + status.pool
        owners = [child.owner for child in living]
        assert len(set(owners)) == len(owners)
        for owner in OWNERS:
            village.as_(owner).settle(False)
            assert village.fleet_lookup("cottage", node.principal(owner)) is not None


def _do(node: Node, village: Actor, act: tuple[object, ...]) -> None:
    match act:
        case ("settle", owner, fails):
            village.as_(owner).settle.submit(fails)
        case ("recycle" | "delete" as how, owner):
            found = village.fleet_lookup("cottage", node.principal(owner))
            if found is not None:
                getattr(village, f"fleet_{how}").submit(found.canister)
        case ("pool", target):
            village.fleet_pool_set.submit(PoolRule(target, 0))  # type: ignore[arg-type]
        case ("step", count):
            for _ in range(count):  # type: ignore[call-overload]
                node.step()
        case ("crash",):
            node.restart()
        case ("upgrade",):
            node.upgrade(village, Village)


def test_a_role_and_a_value_reach_every_member_and_the_next_one_with_a_version() -> None:
    with Node() as node:
        village = build_village(node)
        old = node.actor(village.as_("ann").settle(False).canister, Cottage)
        stopped = node.actor(village.as_("bob").settle(False).canister, Cottage)
        node.manage("stop_canister", CanisterIdRecord(stopped.id), sender=village)
        give = [FleetRole("smith", [node.principal("cid")])]
        change = FleetConfigureArgs(give, [], [FleetValue("toll", "3")])
        with pytest.raises(Rejected, match="for operators"):
            village.as_("mallory").fleet_config_set(change)
        result = village.fleet_config_set(change)
        assert (result.version, result.waiting) == (1, [])
        new = node.actor(village.as_("dot").settle(False).canister, Cottage)
        node.manage("start_canister", CanisterIdRecord(stopped.id), sender=village)
        for cottage in (old, stopped, new):
            told = cottage.get_version()
            assert (told.kind, told.version, told.config_version, told.fleet) == ("cottage", 1, 1, village.id)
            assert cottage.toll() == "3"
            assert cottage.as_("cid").forge() == "a sword"
            with pytest.raises(Rejected, match="no smith"):
                cottage.as_("ann").forge()
        assert village.fleet_config_set(FleetConfigureArgs([], give, [])).version == 2
        for cottage in (old, stopped, new):
            assert cottage.get_version().config_version == 2
            with pytest.raises(Rejected, match="no smith"):
                cottage.as_("cid").forge()


def test_a_canister_whose_creation_was_never_answered_is_found_and_goes_into_the_pool() -> None:
    with Node(config=ReplicaConfig(activation_count_max=1)) as node:
        village = build_village(node)
        village.as_("ann").settle.submit(False)
        node.step()
        assert canisters(node) == {village.id}, "the creation waits for its turn, behind the stop"
        node.manage("cannery_stop_canister", StopArgs(village.id, True))
        node.manage("start_canister", CanisterIdRecord(village.id))
        node.run()
        assert len(canisters(node)) == 2
        assert village.fleet_status().children == 0
        for _ in range(3):
            village.fleet_orphans_find()
            node.run()
            node.advance(seconds=601)
        assert village.fleet_status().pool == 1
        assert village.as_("ann").settle(False).canister in canisters(node)
        assert len(canisters(node)) == 2


def test_what_is_listed_is_no_orphan() -> None:
    with Node() as node:
        village = build_village(node)
        village.fleet_pool_set(PoolRule(1, 0))
        child = village.as_("ann").settle(False)
        for _ in range(3):
            village.fleet_orphans_find()
            node.advance(seconds=601)
        assert village.fleet_child(child.canister) == child
        assert village.fleet_status().pool == 1


def test_a_replaced_child_has_all_it_had_under_a_new_id_and_the_old_one_says_so() -> None:
    with Node() as node:
        module_hash = node.manage("cannery_module_add", node.build(Cottage))
        village = node.install(Village)
        operator = village.as_(node.operator)
        assert operator.fleet_release_add("cottage", 1, module_hash, "the first").tag == "ok"
        operator.plan(Release("cottage", 1, module_hash))
        old = village.as_("ann").settle(False)
        node.actor(old.canister, Cottage).knock()
        with pytest.raises(Rejected, match="for operators"):
            village.as_("ann").fleet_replace(old.canister, None, None)
        new = operator.fleet_replace(old.canister, None, None).ok
        assert (new.owner, new.kind, new.version, new.state.tag) == (old.owner, "cottage", 1, "active")
        assert node.actor(new.canister, Cottage).knock() == 2
        with pytest.raises(Rejected, match=f"was replaced by {new.canister}"):
            node.actor(old.canister, Cottage).knock()
        assert village.as_("ann").fleet_lookup("cottage", node.principal("ann")) == new
        assert operator.fleet_child(old.canister).state.replaced == new.canister
        assert "no child that is in use" in operator.fleet_replace(old.canister, None, None).err
        operator.fleet_delete(old.canister)
        node.run()
        assert operator.fleet_child(old.canister) is None
        assert node.actor(new.canister, Cottage).get_version().fleet == village.id


def test_the_numbers_for_metrics_have_few_labels_however_many_children_there_are() -> None:
    with Node() as node:
        village = build_village(node)
        for number in range(30):
            village.as_(f"owner {number}").settle(False)
        village.fleet_census_take()
        node.run()
        samples = village.fleet_metrics()
        assert len({(sample.name, tuple(sample.labels)) for sample in samples}) == len(samples) < 60
        values = {(sample.name, dict(sample.labels).get("kind")): sample.value for sample in samples}
        assert values["children", "cottage"] == 30
        assert values["children_active_day", "cottage"] == 30
        assert values["alarms_open", None] == 0
        with pytest.raises(Rejected, match="for operators"):
            village.as_("mallory").fleet_metrics()


def test_an_index_that_goes_back_empties_no_child_that_has_served_since() -> None:
    with Node() as node:
        village = build_village(node)
        saved = node.manage("take_canister_snapshot", TakeSnapshotArgs(village.id, None, None))
        used, unused = (village.as_(who).settle(False).canister for who in ("ann", "bob"))
        cottage = node.actor(used, Cottage).as_("ann")
        node.advance(seconds=1)
        assert cottage.knock() == 1
        back = LoadSnapshotArgs(village.id, saved.id, None)  # type: ignore[attr-defined]
        node.manage("load_canister_snapshot", back)
        for _ in range(3):
            village.fleet_orphans_find()
            node.run()
            node.advance(seconds=601)
        assert cottage.knock() == 2, "what was acknowledged stays"
        assert village.fleet_status().pool == 1, "what nobody used is there for the next one"
        (alarm,) = village.fleet_alarms_open()
        assert (alarm.kind, alarm.subject) == ("unlisted", str(used))

        with pytest.raises(Rejected, match="for operators"):
            village.as_("ann").fleet_adopt(used, node.principal("ann"))
        assert village.fleet_adopt(unused, node.principal("bob")).tag == "err", "it is in the pool"
        assert village.fleet_adopt(village.id, node.principal("bob")).tag == "err", "it is no member"
        adopted = village.fleet_adopt(used, node.principal("ann")).ok
        assert village.as_("ann").settle(False) == adopted
        assert village.fleet_alarms_open() == []
        assert village.fleet_adopt(used, node.principal("cid")).tag == "err"


def test_canisters_of_the_pool_that_are_unfit_cost_nobody_a_creation() -> None:
    with Node() as node:
        village = build_village(node)
        village.fleet_pool_set(PoolRule(3, 0))
        node.run()
        village.fleet_pool_set(PoolRule(0, 0))
        gone, furnished, _ = sorted(canisters(node) - {village.id}, key=lambda canister: canister.raw)
        node.manage("stop_canister", CanisterIdRecord(gone), sender=village)
        node.manage("delete_canister", CanisterIdRecord(gone), sender=village)
        install = InstallCodeArgs(
            InstallMode.install(),
            furnished,
            node.build(Cottage),
            encode_args(Deed(node.principal("ann"), False)),
        )
        node.manage("install_code", install, sender=village)
        made = [village.as_(owner).settle(False) for owner in ("ann", "bob", "cid")]
        assert len({child.canister for child in made} - {gone, furnished}) == 3
        status = village.fleet_status()
        assert (status.pool, status.children, status.making) == (0, 3, 0)
        assert len(canisters(node)) == 1 + 3 + 1, "the furnished one is left to whoever looks for orphans"
        with pytest.raises(Rejected, match="the roof fell in"):
            village.as_("dot").settle(True)


def test_a_creation_that_is_made_anew_gets_its_cycles_or_fails_for_its_own_reason() -> None:
    with Node() as node:
        village = build_village(node)
        node.top_up(village, 10**6)
        village.fleet_birth_set("cottage", 700)
        for owner, fails in (("ann", False), ("bob", True)):
            village.fleet_pool_set(PoolRule(1, 0))
            node.run()
            village.fleet_pool_set(PoolRule(0, 0))
            (gone,) = canisters(node) - {village.id, *(each.canister for each in children(village))}
            node.manage("stop_canister", CanisterIdRecord(gone), sender=village)
            node.manage("delete_canister", CanisterIdRecord(gone), sender=village)
            before = _balance(node, village)
            if fails:
                with pytest.raises(Rejected, match="the roof fell in"):
                    village.as_(owner).settle(True)
                assert _balance(node, village) == before
            else:
                child = village.as_(owner).settle(False)
                assert _balance(node, node.actor(child.canister, Cottage)) == 700
                assert _balance(node, village) == before - 700
        assert village.as_("bob").settle(False).owner == node.principal("bob")


def test_an_answer_that_comes_after_its_place_was_given_up_makes_no_second_child() -> None:
    with Node(config=ReplicaConfig(activation_count_max=1)) as node:
        village = build_village(node)
        first = village.as_("ann").settle.submit(False)
        node.step()
        node.clock.set_ns(node.now_ns + 601 * 10**9)
        second = village.as_("ann").settle.submit(False)
        node.run()
        assert first.result() == second.result() == village.as_("ann").settle(False)
        assert len(children(village)) == 1
        for _ in range(3):
            village.fleet_orphans_find()
            node.run()
            node.advance(seconds=601)
        assert village.fleet_status().pool == len(canisters(node)) - 2 == 1


def test_custody_that_was_taken_behind_the_index_is_said_at_once() -> None:
    with Node() as node:
        village = build_village(node)
        ann, bob, cid = [village.as_(owner).settle(False) for owner in ("ann", "bob", "cid")]
        for child, controllers in ((ann, ["ann"]), (bob, ["bob", village])):
            holders = [node.principal(who) for who in controllers]
            taken = UpdateSettingsArgs(child.canister, CanisterSettings(controllers=holders))
            node.manage("update_settings", taken, sender=village)
        node.manage("stop_canister", CanisterIdRecord(cid.canister))
        node.manage("delete_canister", CanisterIdRecord(cid.canister))
        node.run()
        assert village.fleet_child(ann.canister).state.tag == "in_custody"
        assert village.fleet_child(bob.canister).state.tag == "in_custody"
        assert village.fleet_child(cid.canister) is None
        alarms = {alarm.subject: alarm for alarm in village.fleet_alarms_open()}
        assert set(alarms) == {str(ann.canister), str(bob.canister)}
        assert "no member any more" in alarms[str(bob.canister)].text
        with pytest.raises(Rejected, match="fleet_left is for the node"):
            village.fleet_left([cid.canister])


def test_children_out_of_the_pool_are_born_with_the_same_cycles() -> None:
    with Node() as node:
        village = build_village(node)
        node.top_up(village, 10**6)
        village.fleet_birth_set("cottage", 700)
        village.fleet_pool_set(PoolRule(1, 50))
        node.run()
        for owner in ("ann", "bob"):
            child = village.as_(owner).settle(False)
            assert _balance(node, node.actor(child.canister, Cottage)) == 750
            node.run()
        before = _balance(node, village)
        village.fleet_recycle(child.canister)
        node.run()
        assert _balance(node, village) == before + 750, "the last owner's cycles come back"
        assert village.fleet_status().pool == 2
