"""The cycles of a fleet by `cannery fleet`: rules, quotas, top-ups, battery."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.library_town import Town
from tests.conftest import Cli
from tests.node_under_test import NodeUnderTest


@pytest.fixture
def town(cli: Cli, running_node: NodeUnderTest, request: pytest.FixtureRequest) -> Town:
    made = Town(cli, running_node, f"{request.node.name[5:25]}_library")
    made.release()
    made.open_shelves(2)
    return made


def json_of(town: Town, *arguments: str) -> Any:  # of the command's shape
    done = town.fleet(*arguments, "--json")
    assert done.code == 0, done.err
    return done.json


def cycles_of(town: Town, number: int) -> int:
    found = json_of(town, "show", str(town.shelves[number]))["figures"]["cycles"]
    assert isinstance(found, int)
    return found


def test_a_rule_tops_up_who_is_below_it(town: Town) -> None:
    assert "none: nobody is topped up" in town.fleet("funding").out
    done = town.fleet("rule", "shelf", "--below", "1000", "--to", "5000")
    assert done.code == 0, done.err
    assert "shelf: below 1,000 cycles, top up to 5,000" in done.out
    json_of(town, "census", "take")
    assert [cycles_of(town, number) for number in (0, 1)] == [5000, 5000]
    assert "what is given per day is not known yet" in town.fleet("status").out
    found = json_of(town, "funding")
    assert (found["granted"], found["battery"]) == (10_000, 1_000_000_000_000 - 10_000)
    assert "10,000 in all" in town.fleet("funding").out
    shown = town.fleet("show", str(town.shelves[0])).out
    assert "topped up below 1,000; quota unlimited" in shown
    assert "5,000 by census, done" in shown
    assert town.fleet("rule", "shelf", "--remove").out == "shelf: no rule\n"


def test_new_children_are_born_with_what_was_set(town: Town) -> None:
    assert "born with nothing" in town.fleet("birth").out
    assert town.fleet("birth", "shelf").code == 2
    assert town.fleet("birth", "shelf", "7000").out == "each new shelf is born with 7,000 cycles\n"
    assert json_of(town, "birth") == {"shelf": 7000}
    assert "born with nothing" in town.fleet("birth", "shelf", "0").out


def test_an_order_tops_up_as_far_as_quotas_allow(town: Town) -> None:
    first, second = map(str, town.shelves)
    assert town.fleet("top-up", first, "300").out == f"{first} got 300 cycles\n"
    assert (
        "shelf: no rule; each child 1,000 in all"
        in town.fleet("quota", "--kind", "shelf", "--max", "1000").out
    )
    assert json_of(town, "top-up", first, "900") == {"canister_id": first, "cycles": 700}
    refused = town.fleet("top-up", first, "1")
    assert (refused.code, "quota" in refused.error) == (1, True)
    child = town.fleet("quota", "--child", first, "--max", "1500")
    assert child.out == f"{first}: 1,500 in all, 500 now\n"
    assert town.fleet("top-up", first, "900").out == f"{first} got 500 of the 900 cycles\n"
    assert (
        "the fleet: 100 in any 60 min, 100 now" in town.fleet("quota", "--rate", "100", "--per", "3600").out
    )
    assert json_of(town, "top-up", second, "900")["cycles"] == 100
    later = town.fleet("top-up", second, "1")
    assert (later.code, "; ask again after 20" in later.error) == (1, True)
    town.fleet("quota", "--remove")
    assert json_of(town, "top-up", second, "9")["cycles"] == 9
    slip = town.fleet("quota", "--kind", "shelv", "--max", "5")
    assert (slip.code, "there is no release of 'shelv' yet" in slip.err) == (0, True)
    without = town.fleet("top-up", second)
    assert (without.code, "there is no rule for shelf: say how many cycles" in without.error) == (1, True)


def test_the_battery_has_a_reserve_and_an_alarm(town: Town) -> None:
    everything = 1_000_000_000_000
    done = town.fleet("funding", "--reserve", str(everything), "--least", "7", "--alarm", "5")
    assert f"{everything:,} cycles, 0 to give" in done.out
    assert "7 at a time at least" in done.out
    assert json_of(town, "funding", "--least", "8")["policy"] == {
        "request_min": 8,
        "reserve": everything,
        "battery_alarm": 5,
    }
    refused = town.fleet("top-up", str(town.shelves[0]), "100")
    assert refused.code == 1
    assert "LOW" in town.fleet("funding", "--alarm", str(2 * everything)).out
    assert "cycles, LOW, 0 to give" in town.fleet("status").out
    assert [alarm["kind"] for alarm in json_of(town, "alarms")] == ["battery_low"]
    assert "battery_low" in town.fleet("alarms").out


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("rule", "shelf"), 2, "say --below CYCLES or --below-days DAYS, and --to CYCLES or --add CYCLES"),
        (("rule", "shelf", "--below", "1", "--below-days", "1", "--to", "1"), 2, "say --below"),
        (("rule", "shelf", "--below", "1", "--to", "1", "--add", "1"), 2, "say --below"),
        (("rule", "shelf", "--remove", "--to", "1"), 2, "give nothing beside it"),
        (("rule", "shelf", "--below", "10", "--to", "5"), 1, "refill to more"),
        (("quota",), 2, "say one of --fixed CYCLES"),
        (("quota", "--fixed", "1", "--max", "1"), 2, "say one of"),
        (("quota", "--rate", "1"), 2, "--rate CYCLES --per SECONDS"),
        (("quota", "--kind", "a", "--child", "aaaaa-aa", "--max", "1"), 2, "or without either for the fleet"),
        (("quota", "--child", "aaaaa-aa", "--max", "1"), 1, "is no child of this index"),
        (("top-up", "aaaaa-aa", "1"), 1, "is no child"),
    ],
)
def test_orders_that_do_not_fit_are_refused(
    cli: Cli, running_node: NodeUnderTest, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    done = Town(cli, running_node, "poor_library").fleet(*arguments)
    assert (done.code, complaint in done.error) == (code, True), done.err


def test_strangers_move_no_cycles(cli: Cli, town: Town) -> None:
    cli("identity", "new", "mallory")
    for arguments in (
        ("funding",),
        ("funding", "--reserve", "0"),
        ("birth",),
        ("birth", "shelf", "1"),
        ("rule", "shelf", "--below", "1", "--add", "1"),
        ("quota", "--max", "1"),
        ("top-up", str(town.shelves[0]), "1"),
    ):
        done = town.fleet(*arguments, "--identity", "mallory")
        assert (done.code, "operators" in done.error) == (1, True), done.err
    assert json_of(town, "funding")["granted"] == 0
