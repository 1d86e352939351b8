"""`cannery fleet` against a real node: what a fleet is, its children, configuration, census and alarms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cannery.cli.fleet_alarms import follow_log
from cannery.cli.fleet_index import open_fleet
from tests.cli.library_town import Town
from tests.conftest import Cli
from tests.node_under_test import NodeUnderTest

TRIES_MAX = 50


def made(cli: Cli, node: NodeUnderTest, name: str, shelves: int = 0) -> Town:
    town = Town(cli, node, name)
    town.release()
    town.open_shelves(shelves)
    return town


def json_of(town: Town, *arguments: str) -> Any:  # of the command's shape
    done = town.fleet(*arguments, "--json")
    assert done.code == 0, done.err
    return done.json


def test_a_status_fits_one_screen_and_tells_what_there_is(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "status_library", 3)
    done = town.fleet("status")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) < 24
    assert f"fleet        status_library  {town.id}" in done.out
    assert "shelf: 3 active; version 1 (current): 3; all on the current release" in done.out
    assert "1,000,000,000,000 cycles, 1,000,000,000,000 to give; nothing spent yet" in done.out
    assert "not measured: [watch] canary_every_s" in done.out
    report = json_of(town, "status")
    assert report["index"] == str(town.id)
    assert report["current"] == {"shelf": 1}
    assert report["drifted"] == {"shelf": 0}
    assert (report["quarantined"], report["rollouts"], report["alarms"]) == (0, [], [])


def test_children_are_listed_page_by_page_and_filtered(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "list_library", 3)
    everybody = [child["canister"] for child in json_of(town, "list")["children"]]
    assert everybody == [str(shelf) for shelf in town.shelves]
    first = json_of(town, "list", "--limit", "2")
    rest = json_of(town, "list", "--after", str(first["next"]))
    assert [child["canister"] for child in first["children"] + rest["children"]] == everybody
    assert rest["next"] is None
    assert "later children: --after 1" in town.fleet("list", "--limit", "2").err
    assert json_of(town, "list", "--version", "2", "--kind", "shelf")["children"] == []
    assert len(json_of(town, "list", "--state", "active", "--created-since", "1h")["children"]) == 3
    assert json_of(town, "list", "--active-since", "2100-01-01T00:00:00Z")["children"] == []
    wrong = town.fleet("list", "--state", "asleep")
    assert (wrong.code, "active, leaving, in_custody or replaced" in wrong.error) == (2, True)


def test_a_child_is_found_by_its_canister_or_its_owner(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "show_library", 1)
    town.put(0, 1, "Walden")
    owner = str(town.reader(0).principal)
    found = json_of(town, "show", str(town.shelves[0]))
    assert found == json_of(town, "show", "--kind", "shelf", "--owner", owner)
    assert found["child"]["owner"] == owner
    assert found["figures"]["key_count"] == 3
    assert "1, 0 rejects, 0 traps" in town.fleet("show", str(town.shelves[0])).out
    for arguments, code, complaint in (
        ((), 2, "name a CANISTER, or say --kind KIND --owner WHO"),
        (("--owner", owner), 2, "--kind KIND"),
        ((str(town.id),), 1, "is no child of show_library; see: cannery fleet list"),
        (("--kind", "desk", "--owner", owner), 1, "has no desk in show_library"),
    ):
        done = town.fleet("show", *arguments)
        assert (done.code, complaint in done.error) == (code, True), done.err


def test_a_pool_is_filled_and_children_leave_only_in_earnest(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "pool_library", 2)
    assert town.fleet("pool", "--target", "2", "--cycles", "5").out == "2 of 2 ready, with 5 cycles each\n"
    assert json_of(town, "pool", "--target", "1") == {"ready": 2, "target": 1, "cycles": 5}
    first, second = map(str, town.shelves)
    asked = town.fleet("delete", first)
    assert asked.code == 2
    assert "would be deleted with 1 key (" in asked.error
    assert asked.error.endswith("say --yes")
    assert town.fleet("delete", first, "--yes").out == f"{first} deleted\n"
    assert cli("canister", "status", first, node=running_node).code == 1
    assert json_of(town, "recycle", second, "--yes") == {"canister_id": second, "status": "recycled"}
    assert json_of(town, "pool")["ready"] == 3
    assert json_of(town, "list")["children"] == []
    again = town.fleet("recycle", second, "--yes")
    assert (again.code, "is no child" in again.error) == (1, True)


def test_a_replaced_child_lives_on_under_another_id(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "moving_library", 1)
    town.put(0, 1, "Walden")
    old = str(town.shelves[0])
    new = json_of(town, "replace", old)["replaced_by"]
    assert f"state        replaced by {new}" in town.fleet("show", old).out
    found = json_of(town, "show", "--kind", "shelf", "--owner", str(town.reader(0).principal))
    assert (found["child"]["canister"], found["figures"]["messages"]) == (new, 0)
    again = town.fleet("replace", old)
    assert (again.code, "no child that is in use" in again.error) == (1, True)


def test_a_child_that_the_index_has_lost_sight_of_is_adopted(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "forgetful_library")
    saved = cli("canister", "snapshot", "create", town.name, node=running_node).out.strip()
    town.open_shelves(1)
    town.put(0, 1, "Walden")
    shelf, owner = str(town.shelves[0]), str(town.reader(0).principal)
    back = cli("canister", "snapshot", "restore", town.name, saved, "--yes", node=running_node)
    assert (back.code, town.fleet("show", shelf).code) == (0, 1), back.err
    for canister, who, code, complaint in (
        (str(town.id), owner, 1, "is no member of this fleet with a module of its registry"),
        (shelf, "nobody", 2, "is neither a principal nor one of your identities"),
    ):
        done = town.fleet("adopt", canister, "--owner", who)
        assert (done.code, complaint in done.error) == (code, True), done.err
    adopted = town.fleet("adopt", shelf, "--owner", owner)
    assert adopted.out == f"{shelf} is listed as the shelf of {owner}\n", adopted.err
    found = json_of(town, "show", "--kind", "shelf", "--owner", owner)
    assert (found["child"]["canister"], found["child"]["version"]) == (shelf, 1)
    assert found["figures"]["messages"] == 1, "what it held is there"
    again = town.fleet("adopt", shelf, "--owner", owner, "--json")
    assert (again.code, "is listed already" in again.error) == (1, True)


def test_values_and_roles_are_set_shown_and_taken_away(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "config_library", 1)
    cli("identity", "new", "ann")
    ann = cli("identity", "principal", "ann").out.strip()
    assert town.fleet("config", "set", "opens=9", "closes=").out == "version 1: all members have it\n"
    assert json_of(town, "config", "grant", "warden", "ann") == {"version": 2, "waiting": []}
    shown = town.fleet("config", "show").out
    for line in (f"role         warden: {ann}", "value        opens=9", "value        closes="):
        assert line in shown.splitlines()
    town.fleet("config", "revoke", "warden", ann)
    town.fleet("config", "set", "--remove", "opens")
    found = json_of(town, "config", "show")
    assert (found["roles"], found["config_version"], found["members"]) == ([], 4, 1)
    assert [value["name"] for value in found["values"]] == ["closes"]
    for arguments in (("set", "opens"), ("set", "opens=1", "--remove"), ("grant", "warden", "nobody")):
        assert town.fleet("config", *arguments).code == 2


def test_a_census_is_waited_for_and_its_pace_is_set(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "census_library", 2)
    town.put(0, 1, "Walden")
    (totals,) = json_of(town, "census", "take")["totals"]
    assert (totals["kind"], totals["children"], totals["messages"], totals["key_count"]) == ("shelf", 2, 1, 4)
    assert "shelf: 2 seen, 2 active in a day, 0 frozen" in town.fleet("census", "show").out
    assert town.fleet("census", "every", "600").out == "a census is taken every 600 s\n"
    assert json_of(town, "census", "show")["every_s"] == 600
    often = town.fleet("census", "every", "1")
    assert (often.code, "at the most often" in often.error) == (1, True)


def test_alarms_are_told_until_they_are_over(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "alarm_library", 1)
    assert town.fleet("alarms").out == "no alarm is open\n"
    assert json_of(town, "alarms") == json_of(town, "alarms", "--all") == []


def test_logs_are_those_of_children_and_of_the_index(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "log_library", 1)
    assert town.fleet("logs", str(town.shelves[0]), "--since", "10m").code == 0
    assert town.fleet("logs", "log_library").out == ""
    stranger = town.fleet("logs", "user_index")
    assert (stranger.code, "is no child of log_library" in stranger.error) == (1, True)
    assert town.fleet("logs", "log_library", "--since", "yesterday").code == 2


def test_a_stranger_is_refused_with_who_they_are_and_what_to_do(
    cli: Cli, running_node: NodeUnderTest
) -> None:
    town = made(cli, running_node, "stranger_library", 1)
    cli("identity", "new", "mallory")
    mallory = cli("identity", "principal", "mallory").out.strip()
    shelf = str(town.shelves[0])
    for arguments in (
        ("status",),
        ("top", "--once"),
        ("list",),
        ("show", shelf),
        ("pool", "--target", "9"),
        ("delete", shelf, "--yes"),
        ("recycle", shelf, "--yes"),
        ("replace", shelf),
        ("adopt", shelf, "--owner", mallory),
        ("config", "show"),
        ("config", "set", "a=b"),
        ("census", "take"),
        ("census", "every", "60"),
        ("alarms",),
        ("logs", shelf),
        ("release", "list"),
        ("rollout", "list"),
        ("rollout", "start", "shelf"),
        ("rollout", "pause", "1"),
        ("rollout", "retry", shelf),
    ):
        done = town.fleet(*arguments, "--identity", "mallory")
        assert done.code == 1, arguments
        assert mallory in done.error
        assert "operators" in done.error
        assert "say --identity NAME" in done.error
    assert json_of(town, "status")["status"]["pool_target"] == 0


def test_what_is_no_index_is_told_apart(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "real_library", 1)
    for index, code, complaint in (
        (str(town.shelves[0]), 1, "is not the index of a fleet"),
        ("no_such_library", 2, "no canister is named 'no_such_library'"),
    ):
        done = cli("fleet", "status", "--index", index, node=running_node)
        assert (done.code, complaint in done.error) == (code, True), done.err
    assert cli("fleet", "status", node=running_node).out.startswith("fleet        user_index")


def test_alarms_are_followed_as_they_come(cli: Cli, running_node: NodeUnderTest) -> None:
    town = made(cli, running_node, "following_library")

    def wait() -> None:
        town.fleet("funding", "--alarm", str(2 * 10**12))

    with open_fleet(running_node.url, None, "following_library", "following") as opened:
        followed = follow_log(opened.index, [], None, wait)
        alarm = next(followed)
        assert (alarm.kind, alarm.subject, alarm.is_over) == ("battery_low", str(town.id), False)
        town.fleet("funding", "--alarm", "0")
        over = next(followed)
        assert (over.kind, over.is_over, over.index) == ("battery_low", True, alarm.index + 1)


def test_a_status_tells_what_the_canary_of_the_node_has_measured(
    cli: Cli, start_node: Callable[..., NodeUnderTest]
) -> None:
    node = start_node(settings="[watch]\ncanary_every_s = 1\n")
    shown = ""
    for _ in range(TRIES_MAX):
        shown = cli("fleet", "status", node=node).out
        if "available in 30 days" in shown:
            break
    assert "100.000 % available in 30 days, 100 % of the error budget left" in shown
