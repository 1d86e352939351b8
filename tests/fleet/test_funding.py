"""The treasury of a fleet: who is topped up when, what quotas hold back, sums that agree whatever fails."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.fleet.funding_types import FundingPolicy, QuotaScope
from cannery.fleet.top_up import Refill, Threshold, TopUpRule
from cannery.fleet.top_up_quota import Quota, Rate
from cannery.limits import LOW_BALANCE_MESSAGE_COUNT
from cannery.replica.block import PriceSchedule, ReplicaConfig
from cannery.replica.management.types import CanisterIdRecord, CanisterSettings, StopArgs, UpdateSettingsArgs
from cannery.replica.prices import IC
from cannery.testing import Actor, FaultyStore, Node, Rejected
from tests.fleet.well_village import Springs, Well, balance_of, balances, build_springs, dig, report_of
from tests.replica.laws import check_cycles

T = 10**12
DAY_S = 86_400
TO_BALANCE = TopUpRule(Threshold.cycles(1_000), Refill.to_balance(3_000))
OWNERS = ("ann", "bob", "cid")


def set_rule(node: Node, springs: Actor, rule: TopUpRule | None = TO_BALANCE) -> None:
    assert springs.fleet_rule_set("well", rule).tag == "ok"
    node.run()


def spend(node: Node, well: Actor, cycles: int) -> None:
    """Let a well give cycles away, to a canister outside of the fleet."""
    sink = getattr(node, "sink", None)
    if sink is None:
        sink = node.install(Well)
        node.sink = sink  # type: ignore[attr-defined]
    well.draw(cycles, sink.id)
    node.run()


def test_a_child_that_falls_under_its_line_is_topped_up_at_once_without_a_census() -> None:
    with Node() as node:
        springs = build_springs(node, 100_000)
        set_rule(node, springs)
        well = dig(node, springs, "ann", 2_000)
        node.run()
        now = node.now_ns
        spend(node, well, 1_000)
        assert balance_of(node, well) == 1_000, "on the line is not under it"
        spend(node, well, 1)
        assert balance_of(node, well) == 3_000
        assert node.now_ns - now < 10**9
        funds = springs.fleet_child_funds(well.id)
        assert (funds.balance, funds.granted, funds.on_the_way) == (3_000, 2_001, False)
        (top_up,) = funds.history
        assert (top_up.cycles, top_up.cause.tag, top_up.balance, top_up.end.tag) == (
            2_001,
            "notice",
            999,
            "done",
        )
        spend(node, well, 2_500)
        assert balance_of(node, well) == 3_000
        assert springs.fleet_funding().granted == 4_501
        check_cycles(node.store)


def test_the_census_finds_whoever_no_notice_told_of() -> None:
    with Node() as node:
        springs = build_springs(node, 100_000)
        well = dig(node, springs, "ann", 0)
        assert springs.fleet_child_funds(well.id).line is None
        set_rule(node, springs)
        assert balance_of(node, well) == 3_000
        (top_up,) = springs.fleet_child_funds(well.id).history
        assert (top_up.cause.tag, top_up.balance) == ("census", 0)
        set_rule(node, springs, None)
        spend(node, well, 2_900)
        node.advance(seconds=2 * 3_600)
        assert balance_of(node, well) == 100, "without a rule nobody is topped up"
        set_rule(node, springs, TopUpRule(Threshold.cycles(150), Refill.by_amount(70)))
        assert balance_of(node, well) == 170


def test_a_child_without_a_rule_that_will_freeze_is_an_alarm_at_once_until_it_has_cycles() -> None:
    prices = PriceSchedule(storage_per_gib_second=2**30)
    with Node(config=ReplicaConfig(prices=prices)) as node:
        springs = build_springs(node, 10**12)
        well = dig(node, springs, "ann", 10**9)
        well.draw(0, well.id)
        springs.fleet_census_take()
        node.run()
        assert springs.fleet_alarms_open() == []
        now = node.now_ns
        frozen = 30 * DAY_S * 17  # the bytes of its one key and value
        spend(node, well, balance_of(node, well) - frozen - 1_000)
        assert node.now_ns - now < 10**9, "the node tells of it, no census"
        (alarm,) = springs.fleet_alarms_open()
        assert (alarm.kind, alarm.subject) == ("low_balance", str(well.id))
        assert "no rule" in alarm.text
        node.top_up(well, T)
        springs.fleet_census_take()
        node.run()
        assert springs.fleet_alarms_open() == []


def test_a_newborn_without_a_rule_is_watched_and_low_while_it_can_pay_some_hundred_messages() -> None:
    low = LOW_BALANCE_MESSAGE_COUNT * (IC.per_message + IC.per_ingress)
    with Node(config=ReplicaConfig(prices=IC)) as node:
        springs = build_springs(node, 10 * T)
        ann = dig(node, springs, "ann", IC.creation + 2 * low)
        node.run()
        assert springs.fleet_alarms_open() == [], "it has enough"
        now = node.now_ns
        spend(node, ann, balance_of(node, ann) - low * 4 // 5)
        assert node.now_ns - now < 10**9, "the node tells of it, no census"
        (alarm,) = springs.fleet_alarms_open()
        assert (alarm.kind, alarm.subject) == ("low_balance", str(ann.id))
        assert [ann.draw(0, ann.id) for _ in range(100)][-1] == 101, "there is time to do something"
        bob = dig(node, springs, "bob", IC.creation + low // 2)
        node.run()
        assert {alarm.subject for alarm in springs.fleet_alarms_open()} == {str(ann.id), str(bob.id)}
        for well in (ann, bob):
            node.top_up(well, T)
        springs.fleet_census_take()
        node.run()
        assert springs.fleet_alarms_open() == []


def test_where_nothing_costs_anything_nobody_without_a_rule_is_watched() -> None:
    with Node() as node:
        springs = build_springs(node, 0)
        well = dig(node, springs, "ann", 0)
        springs.fleet_census_take()
        node.run()
        assert springs.fleet_child_funds(well.id).seen_ns == 0
        assert springs.fleet_alarms_open() == []


def test_an_alarm_goes_with_its_child() -> None:
    with Node() as node:
        springs = build_springs(node, 10**6)
        set_rule(node, springs)
        well = dig(node, springs, "ann", 2_000)
        assert springs.fleet_quota_set(QuotaScope.child(well.id), Quota.max(0)).tag == "ok"
        spend(node, well, 1_900)
        (alarm,) = springs.fleet_alarms_open()
        assert (alarm.kind, alarm.subject) == ("low_balance", str(well.id))
        springs.fleet_delete(well.id)
        node.run()
        assert springs.fleet_alarms_open() == []


def test_an_idle_child_is_kept_alive_by_what_its_storage_burns() -> None:
    prices = PriceSchedule(storage_per_gib_second=2**30)
    with Node(config=ReplicaConfig(prices=prices)) as node:
        springs = build_springs(node, 10**12)
        set_rule(node, springs, TopUpRule(Threshold.days(10), Refill.by_amount(10**7)))
        well = dig(node, springs, "ann", 6 * 10**7)
        well.draw(0, well.id)
        springs.fleet_census_take()
        node.advance(seconds=DAY_S)
        springs.fleet_census_take()
        node.run()
        funds = springs.fleet_child_funds(well.id)
        per_day = DAY_S * 17  # the bytes of its one key and value
        assert funds.burned_per_day == pytest.approx(per_day, rel=0.05)
        frozen = 30 * per_day
        assert funds.line == 10 * funds.burned_per_day + frozen
        left_s = (funds.balance - frozen) / funds.burned_per_day * DAY_S
        assert funds.left_ns == pytest.approx(left_s * 1e9, rel=1e-6)
        node.advance(seconds=40 * DAY_S)
        after = springs.fleet_child_funds(well.id)
        assert after.balance > frozen + after.burned_per_day * 9
        assert after.granted > 0
        assert well.draw(0, well.id) == 2, "after weeks of doing nothing"
        report = springs.fleet_funding()
        assert report.granted_per_day is not None


def test_quotas_hold_back_and_say_so_until_there_is_room_again() -> None:
    with Node() as node:
        springs = build_springs(node, 100_000)
        set_rule(node, springs)
        well, other = dig(node, springs, "ann", 3_000), dig(node, springs, "bob", 3_000)
        rate = Quota.rate(Rate(2_500, DAY_S))
        assert springs.fleet_quota_set(QuotaScope.child(well.id), rate).tag == "ok"
        spend(node, well, 2_500)
        assert balance_of(node, well) == 3_000
        spend(node, well, 2_900)
        (alarm,) = springs.fleet_alarms_open()
        assert (alarm.kind, alarm.subject) == ("low_balance", str(well.id))
        assert "the quota of the child allows 0 cycles now" in alarm.text
        assert balance_of(node, well) == 100
        refused = springs.fleet_top_up(well.id, 500)
        assert refused.tag == "refused"
        assert refused.refused.reason.tag == "canister_quota_reached"
        spend(node, other, 2_500)
        assert balance_of(node, other) == 3_000, "another child has its own quota"
        node.advance(seconds=DAY_S + 3 * 3_600)
        assert balance_of(node, well) == 2_600
        assert springs.fleet_alarms_open() == []
        assert springs.fleet_quota_set(QuotaScope.child(well.id), None).tag == "ok"
        assert springs.fleet_quota_set(QuotaScope.kind("well"), Quota.fixed(1_500)).tag == "ok"
        spend(node, well, 2_000)
        assert balance_of(node, well) == 2_100


def test_the_quota_of_the_fleet_stops_all_with_one_alarm() -> None:
    with Node() as node:
        springs = build_springs(node, 100_000)
        set_rule(node, springs)
        wells = [dig(node, springs, owner, 3_000) for owner in OWNERS]
        springs.fleet_quota_set(QuotaScope.fleet(), Quota.max(3_000))
        for well in wells:
            spend(node, well, 2_500)
        assert [balance_of(node, well) for well in wells] == [3_000, 1_000, 500]
        (alarm,) = springs.fleet_alarms_open()
        assert (alarm.kind, alarm.subject) == ("fleet_quota_reached", "fleet")
        report = springs.fleet_funding()
        assert (report.granted, report.allowance) == (3_000, 0)
        springs.fleet_quota_set(QuotaScope.fleet(), None)
        node.advance(seconds=3_700)
        assert [balance_of(node, well) for well in wells] == [3_000, 1_000, 3_000]
        assert springs.fleet_alarms_open() == []


def test_a_child_asks_for_itself_and_nobody_else_does() -> None:
    with Node() as node:
        springs = build_springs(node, 100_000)
        well = dig(node, springs, "ann", 10)
        springs.fleet_funding_set(FundingPolicy(50, 0, 0))
        assert well.ask(400).ok == 400
        assert balance_of(node, well) == 410
        few = well.ask(49).refused
        assert (few.reason.tag, few.reason.too_few_cycles_requested) == ("too_few_cycles_requested", 50)
        springs.fleet_quota_set(QuotaScope.child(well.id), Quota.max(1_000))
        assert well.ask(5_000).ok == 600
        assert well.ask(5_000).refused.reason.tag == "canister_quota_reached"
        (first, second) = springs.fleet_child_funds(well.id).history
        assert (first.cause.tag, first.cycles, second.cycles) == ("request", 400, 600)
        for stranger in (springs.as_("mallory"), springs):
            with pytest.raises(Rejected, match="for the children of this index"):
                stranger.fleet_request_cycles(500)
        taken = CanisterSettings(controllers=[node.principal("ann")])
        node.manage("update_settings", UpdateSettingsArgs(well.id, taken), sender=springs)
        with pytest.raises(Rejected):
            well.ask(500)


def test_the_battery_keeps_its_reserve_and_raises_an_alarm_of_its_own() -> None:
    with Node() as node:
        springs = build_springs(node, 10_000)
        set_rule(node, springs)
        assert springs.fleet_funding_set(FundingPolicy(0, 6_000, 8_000)).tag == "ok"
        wells = [dig(node, springs, owner, 1_000) for owner in OWNERS]
        node.run()
        # Three children took 3,000 with them: 7,000 are left, and the alarm is at 8,000.
        (alarm,) = springs.fleet_alarms_open()
        assert (alarm.kind, alarm.subject) == ("battery_low", str(springs.id))
        assert "top it up" in alarm.text
        for well in wells:
            spend(node, well, 500)
        assert balance_of(node, springs) == 6_000, "the reserve stays"
        assert sorted(balance_of(node, well) for well in wells) == [500, 500, 1_500]
        report = springs.fleet_funding()
        assert (report.spendable, report.is_battery_low) == (0, True)
        node.top_up(springs, 50_000)
        springs.fleet_census_take()
        node.run()
        assert [balance_of(node, well) for well in wells if balance_of(node, well) != 3_000] == [1_500]
        assert springs.fleet_alarms_open() == []
        check_cycles(node.store)


def test_a_battery_that_falls_by_other_means_is_noticed_by_the_node() -> None:
    prices = PriceSchedule(per_message=100)
    with Node(config=ReplicaConfig(prices=prices)) as node:
        springs = build_springs(node, 20_000)
        springs.fleet_funding_set(FundingPolicy(0, 0, 15_000))
        node.run()
        for _ in range(60):
            springs.fleet_funding_set.submit(FundingPolicy(0, 0, 15_000))
            node.run()
            if springs.fleet_alarms_open():
                break
        (alarm,) = springs.fleet_alarms_open()
        assert alarm.kind == "battery_low"


def test_a_deposit_that_finds_no_child_comes_back_to_the_unit() -> None:
    with Node() as node:
        springs = build_springs(node, 100_000)
        well = dig(node, springs, "ann", 10)
        springs.fleet_top_up(well.id, 90)
        before = balance_of(node, springs)
        node.manage("cannery_stop_canister", StopArgs(well.id, True))
        assert springs.fleet_top_up(well.id, 500).ok == 500, "a stopped child is topped up"
        ordered = springs.fleet_top_up.submit(well.id, 700)
        node.manage("delete_canister", CanisterIdRecord(well.id))
        node.run()
        failed = ordered.result()
        assert failed.tag == "failed"
        assert "not found" in failed.failed
        assert balance_of(node, springs) == before - 500
        assert springs.fleet_funding().granted == 590
        assert springs.fleet_child_funds(well.id) is None, "the node has told of its end"
        assert springs.fleet_top_up(well.id, 700).tag == "failed"
        check_cycles(node.store)


def test_operators_top_up_by_amount_or_by_the_rule() -> None:
    with Node() as node:
        springs = build_springs(node, 100_000)
        well = dig(node, springs, "ann", 2_000)
        assert "no rule for well" in springs.fleet_top_up(well.id, None).failed
        set_rule(node, springs)
        assert springs.fleet_top_up(well.id, None).ok == 1_000
        assert springs.fleet_top_up(well.id, 5).ok == 5
        assert "no child" in springs.fleet_top_up(springs.id, 5).failed
        huge = springs.fleet_top_up(well.id, 10**6)
        assert huge.ok == balance_of(node, well) - 3_005, "what the index has, and no more"
        assert [each.cause.tag for each in springs.fleet_child_funds(well.id).history] == ["order"] * 3


def test_settings_that_make_no_sense_are_refused_and_strangers_set_and_see_nothing() -> None:
    with Node() as node:
        springs = build_springs(node, 100_000)
        well = dig(node, springs, "ann", 10)
        bad = TopUpRule(Threshold.cycles(5), Refill.to_balance(4))
        assert "under its threshold" in springs.fleet_rule_set("well", bad).err
        assert "a kind's name" in springs.fleet_rule_set("", TO_BALANCE).err
        assert "window" in springs.fleet_quota_set(QuotaScope.fleet(), Quota.rate(Rate(1, 0))).err
        assert "no child" in springs.fleet_quota_set(QuotaScope.child(springs.id), Quota.max(1)).err
        assert "no balance" in springs.fleet_funding_set(FundingPolicy(0, 2**70, 0)).err
        stranger = springs.as_("mallory")
        for call in (
            lambda: stranger.fleet_rule_set("well", TO_BALANCE),
            lambda: stranger.fleet_quota_set(QuotaScope.fleet(), None),
            lambda: stranger.fleet_funding_set(FundingPolicy(0, 0, 0)),
            lambda: stranger.fleet_funding(),
            lambda: stranger.fleet_child_funds(well.id),
            lambda: stranger.fleet_top_up(well.id, 5),
        ):
            with pytest.raises(Rejected, match="for operators"):
                call()
        with pytest.raises(Rejected, match="for the node"):
            springs.fleet_notice([well.id])
        assert springs.as_("ann").fleet_child_funds(well.id).canister == well.id


def test_a_strangers_calls_cost_the_index_nothing() -> None:
    with Node(config=ReplicaConfig(prices=IC)) as node:
        springs = build_springs(node, 10 * T)
        before = report_of(node).burned
        for _ in range(5):
            with pytest.raises(Rejected):
                springs.as_("mallory").fleet_request_cycles(10**12)
            with pytest.raises(Rejected):
                springs.as_("mallory").fleet_notice([])
        assert report_of(node).burned - before < 1_000_000, "storage alone"


def test_many_at_once_wait_for_each_other_and_all_get_theirs() -> None:
    with Node() as node:
        springs = build_springs(node, 10**9)
        wells = [dig(node, springs, f"owner {number}", 10) for number in range(120)]
        set_rule(node, springs)
        node.run()
        assert {balance_of(node, well) for well in wells} == {3_000}
        report = springs.fleet_funding()
        assert (report.granted, report.on_the_way, report.waiting) == (120 * 2_990, 0, 0)


def test_a_recycled_canister_begins_with_new_books() -> None:
    with Node() as node:
        springs = build_springs(node, 100_000)
        set_rule(node, springs)
        well = dig(node, springs, "ann", 10)
        springs.fleet_quota_set(QuotaScope.child(well.id), Quota.max(5_000))
        springs.fleet_top_up(well.id, 4_000)
        springs.fleet_recycle(well.id)
        node.run()
        again = dig(node, springs, "bob", 0)
        assert again.id == well.id
        node.run()
        funds = springs.fleet_child_funds(again.id)
        assert (funds.granted, funds.quota.tag, len(funds.history)) == (3_000, "unlimited", 1)


def test_a_child_that_moves_to_a_new_canister_takes_its_books_along() -> None:
    with Node() as node:
        springs = build_springs(node, 100_000)
        module_hash = node.manage("cannery_module_add", node.build(Well))
        springs.fleet_release_add("well", 1, module_hash, "first")
        set_rule(node, springs)
        well = dig(node, springs, "ann", 10)
        springs.fleet_quota_set(QuotaScope.child(well.id), Quota.max(5_000))
        springs.fleet_census_take()
        node.run()
        assert balance_of(node, well) == 3_000
        had = balance_of(node, springs)
        moved = springs.fleet_replace(well.id, None, None)
        assert moved.tag == "ok", moved
        new = node.actor(moved.ok.canister, Well).as_("ann")
        funds = springs.fleet_child_funds(new.id)
        assert (funds.granted, funds.allowance, len(funds.history)) == (2_990, 2_010, 1)
        spend(node, new, 2_500)
        assert balance_of(node, new) == 2_510, "the rest of its quota, by the node's notice"
        with pytest.raises(Rejected, match="was replaced by"):
            node.sink.give(1, well.id)  # type: ignore[attr-defined]
        assert springs.fleet_top_up(well.id, 5).tag == "failed"
        assert balance_of(node, springs) == had - 2_010
        check_cycles(node.store)


def test_a_top_up_whose_answer_a_forced_stop_drops_counts_and_holds_nothing_up() -> None:
    with Node(config=ReplicaConfig(activation_count_max=1)) as node:
        springs = build_springs(node, 100_000)
        well = dig(node, springs, "ann", 10)
        node.run()
        springs.fleet_top_up.submit(well.id, 400)
        node.step()
        assert springs.fleet_funding().on_the_way == 1
        node.manage("cannery_stop_canister", StopArgs(springs.id, True))
        node.manage("start_canister", CanisterIdRecord(springs.id))
        node.run()
        assert balance_of(node, well) == 410
        assert springs.fleet_top_up(well.id, 5).refused.reason.tag == "in_progress"
        node.advance(seconds=601)
        springs.fleet_census_take()
        node.run()
        funds = springs.fleet_child_funds(well.id)
        assert (funds.granted, funds.history[-1].end.tag) == (400, "unknown")
        assert springs.fleet_top_up(well.id, 5).ok == 5
        check_cycles(node.store)


@pytest.mark.parametrize("crash_after", range(14))
def test_a_crash_at_any_step_of_a_top_up_changes_no_sum(crash_after: int) -> None:
    config = ReplicaConfig(activation_count_max=1)
    with Node(FaultyStore(seed=crash_after), config=config) as node:
        springs = build_springs(node, 100_000)
        well = dig(node, springs, "ann", 2_000)
        had = balance_of(node, springs)
        springs.fleet_quota_set(QuotaScope.kind("well"), Quota.rate(Rate(2_500, DAY_S)))
        springs.fleet_rule_set.submit("well", TopUpRule(Threshold.cycles(2_500), Refill.to_balance(4_000)))
        for _ in range(crash_after):
            node.step()
        node.restart()
        node.run()
        set_rule(node, springs, TopUpRule(Threshold.cycles(2_500), Refill.to_balance(4_000)))
        node.advance(seconds=2 * 3_600)
        assert balance_of(node, well) == 4_000
        assert balance_of(node, springs) == had - 2_000
        funds = springs.fleet_child_funds(well.id)
        assert [(each.cycles, each.end.tag) for each in funds.history] == [(2_000, "done")]
        assert (funds.granted, funds.allowance) == (2_000, 500)
        assert springs.fleet_funding().on_the_way == 0
        check_cycles(node.store)


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("dig"), st.sampled_from(OWNERS), st.sampled_from((0, 900, 5_000))),
        st.tuples(st.just("spend"), st.sampled_from(OWNERS), st.integers(1, 4_000)),
        st.tuples(st.just("ask"), st.sampled_from(OWNERS), st.integers(0, 5_000)),
        st.tuples(st.just("order"), st.sampled_from(OWNERS), st.sampled_from((None, 1, 2_000, 10**6))),
        st.tuples(st.just("delete"), st.sampled_from(OWNERS)),
        st.tuples(st.just("snatch"), st.sampled_from(OWNERS)),
        st.tuples(st.just("stop"), st.sampled_from(OWNERS)),
        st.tuples(st.just("rule"), st.sampled_from((None, 1_000, 4_000))),
        st.tuples(st.just("quota"), st.sampled_from(("fleet", "kind")), st.integers(0, 6_000)),
        st.tuples(st.just("census")),
        st.tuples(st.just("step"), st.integers(1, 4)),
        st.tuples(st.just("hours"), st.integers(1, 30)),
        st.tuples(st.just("crash")),
        st.tuples(st.just("upgrade")),
    ),
    min_size=1,
    max_size=16,
)


@settings(max_examples=60, deadline=None)
@given(acts=ACTS)
def test_sums_agree_to_the_unit_whatever_fails(acts: list[tuple[object, ...]]) -> None:
    """No price is set, so nothing burns but what deleted children had: all else is somewhere."""
    with Node(FaultyStore(), config=ReplicaConfig(activation_count_max=3)) as node:
        springs = build_springs(node, 60_000)
        sink = node.install(Well, cycles=0)
        minted = report_of(node).minted
        known: dict[object, Actor] = {}
        for act in acts:
            try:
                _do(node, springs, sink, known, act)
            except Rejected:
                continue
            check_cycles(node.store)
        node.run()
        node.advance(seconds=2 * 3_600)
        report = springs.fleet_funding()
        assert (report.on_the_way, report.waiting) == (0, 0)
        cycles = report_of(node)
        assert cycles.minted == minted
        assert balances(node) == minted - cycles.burned
        given_out = 0
        for well in known.values():
            funds = springs.fleet_child_funds(well.id)
            if funds is None:
                continue
            done = sum(each.cycles for each in funds.history if each.end.tag == "done")
            assert funds.granted == done
            assert all(each.end.tag in ("done", "came_back") for each in funds.history)
            given_out += done
        assert report.granted >= given_out
        check_cycles(node.store)


def _do(node: Node, springs: Actor, sink: Actor, known: dict[object, Actor], act: tuple[object, ...]) -> None:
    kind, *rest = act
    well = known.get(rest[0]) if rest else None
    match kind, rest:
        case "dig", (owner, cycles):
            springs.as_(owner).dig.submit(cycles)
            node.run()
            child = springs.fleet_lookup("well", node.principal(owner))
            if child is not None:
                known[owner] = node.actor(child.canister, Well).as_(owner)
        case "spend", (_, cycles) if well is not None:
            well.draw.submit(cycles, sink.id)
        case "ask", (_, cycles) if well is not None:
            well.ask.submit(cycles)
        case "order", (_, cycles) if well is not None:
            springs.fleet_top_up.submit(well.id, cycles)
        case "delete", _ if well is not None:
            springs.fleet_delete.submit(well.id)
        case "snatch", _ if well is not None:
            node.manage("cannery_stop_canister", StopArgs(well.id, True))
            node.manage("delete_canister", CanisterIdRecord(well.id))
        case "stop", _ if well is not None:
            node.manage("cannery_stop_canister", StopArgs(well.id, True))
        case "rule", (threshold,):
            rule = None
            if isinstance(threshold, int):
                rule = TopUpRule(Threshold.cycles(threshold), Refill.to_balance(5_000))
            springs.fleet_rule_set.submit("well", rule)
        case "quota", (scope, cycles):
            assert isinstance(cycles, int)
            where = QuotaScope.fleet() if scope == "fleet" else QuotaScope.kind("well")
            springs.fleet_quota_set.submit(where, Quota.rate(Rate(cycles, 7_200)))
        case "census", _:
            springs.fleet_census_take.submit()
        case "step", (count,):
            for _ in range(count):  # type: ignore[call-overload]
                node.step()
        case "hours", (count,):
            node.advance(seconds=3_600 * count)  # type: ignore[operator]
        case "crash", _:
            node.restart()
        case "upgrade", _:
            node.upgrade(springs, Springs)
