"""Retention: limits apart for each kind, kept in the write and by time; cycles from a battery."""

from __future__ import annotations

from typing import Any

import pytest

from cannery import Canister, Context, LogRule, Principal, StableCell, WhenFull, limits, nat, update
from cannery.apps.zones.diode_types import TransferCyclesError, TransferCyclesResult
from cannery.apps.zones.retention import RetentionRules
from cannery.replica.keys import TIMERS, owned_range
from cannery.testing import Rejected
from tests.apps.zones.world import ROOMY, ZoneWorld, ask_for, digest, ids_of, key_of

HOUR_NS = 3_600 * 10**9


def aged(hours: int) -> LogRule:
    return LogRule(10**6, 10**9, hours * HOUR_NS, WhenFull.prune_oldest())


def test_each_kind_has_its_own_limits(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    world.retain(messages=LogRule(3, 10**9, None, WhenFull.prune_oldest()))
    for i in range(5):
        world.post("a", str(i))
        assert ann.write_attachment(digest(bytes([i])), bytes([i])).tag == "ok"
    usage = ann.usage()
    assert (usage.messages.count, usage.attachments.count, usage.files.count) == (3, 5, 0)
    assert (usage.first_id, usage.next_id) == (3, 6)
    rules = ann.get_retention()
    assert (rules.messages.count_max, rules.attachments) == (3, ROOMY)


def test_what_is_too_old_goes_by_itself(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    world.retain(messages=aged(2), attachments=aged(1))
    world.post("a", "old")
    ann.write_attachment(digest(b"old"), b"old")
    world.node.advance(seconds=1_800)
    world.post("a", "younger")
    world.node.advance(seconds=1_860)
    assert (ann.usage().attachments.count, ann.usage().messages.count) == (0, 2)
    world.node.advance(seconds=3_600)
    page = ann.history(ask_for("a"))
    assert (ids_of(page), page.state.tag) == ([2], "gap")
    world.node.restart()
    world.node.advance(seconds=3_600)
    assert ann.usage().messages.count == 0
    timers = world.node.subnet.next_wake_ns()
    assert timers is None or timers > world.node.now_ns, "an empty zone sets no timer that fires at once"


def test_files_that_are_too_old_leave_their_directories(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    world.retain(files=aged(1))
    root = bytes(32)
    ann.write_file(root, b"n", digest(b"f"), b"f")
    world.node.advance(seconds=3_700)
    assert (ann.get_file_count(), ann.get_directory(root).child_files) == (0, [])


def test_lowered_limits_are_reached_though_one_message_may_not_drop_so_much(
    world: ZoneWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TOPIC_LOG_CLEAN_COUNT_MAX", 10)
    ann = world.as_("ann")
    world.post("a", *map(str, range(45)))
    world.retain(messages=LogRule(5, 10**9, None, WhenFull.prune_oldest()))
    assert ann.usage().messages.count == 35
    result = ann.add_message(key_of("a"), b"one more")
    assert "it is being cleaned; retry after 1 s" in result.err
    world.node.advance(seconds=5)
    assert ann.usage().messages.count == 5
    assert ann.add_message(key_of("a"), b"one more").ok == 46


def test_a_full_zone_that_may_drop_nothing_does_not_keep_the_node_busy(world: ZoneWorld) -> None:
    world.post("a", *"abc")
    world.retain(messages=LogRule(1, 10**9, None, WhenFull.prune_acknowledged()))
    before = world.node.subnet.head.number
    world.node.advance(seconds=600)
    assert world.node.subnet.head.number - before < 5


def test_there_is_one_timer_however_often_limits_change(
    world: ZoneWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TOPIC_LOG_CLEAN_COUNT_MAX", 2)
    world.post("a", *map(str, range(40)))
    for count in range(20, 10, -1):
        world.retain(messages=LogRule(count, 10**9, 2 * HOUR_NS, WhenFull.prune_oldest()))
        world.retain(messages=LogRule(count, 10**9, 2 * HOUR_NS, WhenFull.refuse()))
        world.node.advance(seconds=2)
        timers = owned_range(TIMERS, world.zone.id.raw)
        assert len(list(world.node.store.scan(*timers))) == 1
    monkeypatch.undo()
    before = world.node.subnet.head.number
    world.node.advance(seconds=24 * 3_600)
    assert world.as_("ann").usage().messages.count == 0
    assert world.node.subnet.head.number - before < 6, "a refusing zone that is over its limit waits too"


def test_an_age_of_centuries_is_no_harm(world: ZoneWorld) -> None:
    """It ends beyond the last time that the node's clock can tell."""
    for kind in ("messages", "attachments", "files"):
        world.retain(**{kind: LogRule(10, 10**6, 2**64 - 1, WhenFull.prune_oldest())})
        assert world.post("a", kind)
        assert world.as_("ann").write_attachment(digest(kind.encode()), kind.encode()).tag == "ok"
        world.node.advance(seconds=366 * 24 * 3_600)
        world.node.run()
    assert world.as_("ann").usage().messages.count == 3


def test_limits_out_of_bounds_are_refused(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    acknowledged = LogRule(9, 10**6, None, WhenFull.prune_acknowledged())
    for rules, text in (
        (
            RetentionRules(LogRule(0, 10**6, None, WhenFull.refuse()), ROOMY, ROOMY),
            "messages: keep at least 1",
        ),
        (
            RetentionRules(ROOMY, LogRule(9, 999, None, WhenFull.refuse()), ROOMY),
            "attachments: keep at least",
        ),
        (RetentionRules(ROOMY, ROOMY, LogRule(9, 10**6, 0, WhenFull.refuse())), "files: keep at least"),
        (RetentionRules(ROOMY, acknowledged, ROOMY), "attachments are not acknowledged"),
    ):
        with pytest.raises(Rejected, match=text):
            ann.set_retention(rules)
    assert ann.get_retention().messages.count_max == 10_000_000


class Battery(Canister):
    """Gives half of what it is asked for, once."""

    given = StableCell(nat, 0)

    @update
    def cycles_manager_transferCycles(self, ctx: Context, amount: nat) -> TransferCyclesResult:
        if self.given.get():
            return TransferCyclesResult.err(TransferCyclesError.canister_quota_reached())
        self.given.set(amount)
        return TransferCyclesResult.ok(amount // 2)


def test_a_zone_asks_its_battery_when_it_is_low(world: ZoneWorld) -> None:
    node = world.node
    battery = node.install(Battery)

    def zone_with(cycles: int) -> Any:
        world.zone = world.new_zone(cycles=cycles, battery=battery.id)
        return world.as_("ann")

    rich, poor = zone_with(10**12), zone_with(10**9)
    assert rich.request_topup_if_low().ok == 0
    assert rich.as_(node.operator).request_topup_if_low().ok == 0, (
        "whoever controls it may ask, member or not"
    )
    with pytest.raises(Rejected, match=r"Not a member of the zone: .*; retrying does not help"):
        rich.as_("mallory").request_topup_if_low()
    assert poor.request_topup_if_low().ok == 250_000_000_000
    assert poor.request_topup_if_low().err.tag == "canister_quota_reached"
    world.zone = world.new_zone(cycles=10**9, battery=Principal.management())
    assert world.as_("ann").request_topup_if_low().err.tag == "other"
