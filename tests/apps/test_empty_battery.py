"""Registrations at an index that cannot pay for them: refused in words, with an alarm, nothing locked."""

from __future__ import annotations

from tests.apps.people import People

BIRTH = 10**13


def test_who_registers_while_the_battery_is_empty_is_told_so_and_may_try_again_at_once() -> None:
    people = People()
    index = people.index.as_(people.node.operator)
    index.fleet_birth_set("user", BIRTH)
    people.node.run()
    (alarm,) = index.fleet_alarms_open()
    assert (alarm.kind, alarm.subject) == ("battery_low", str(index.id))
    for _ in range(2):
        refused = people.index.as_("ann").register("ann")
        assert refused.tag == "failed", refused
        assert (
            f"no canister could be created: {BIRTH} cycles cannot be sent: the balance is" in refused.failed
        )
    people.node.top_up(people.index, 2 * BIRTH)
    assert people.index.as_("bob").register("ann").tag == "ok", "the name is free"
    assert people.index.as_("ann").register("ann_2").tag == "ok", "and so is she"
    people.node.top_up(people.index, BIRTH)
    index.fleet_census_take()
    people.node.run()
    assert index.fleet_alarms_open() == []
