"""A rollout at a root index by `cannery fleet` alone: followed through its local indexes, to the last one."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from cannery import nat64
from cannery.cli.typed_calls import TypedCanister
from cannery.fleet.shards_types import Entry
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from tests.cli.library_town import SHELF_2
from tests.conftest import Cli, Ran
from tests.node_under_test import ROOT, NodeUnderTest

EXAMPLE = ROOT / "examples" / "county.py"
READERS = 4


class County:
    """The library of a county, with two branches and four readers."""

    def __init__(self, cli: Cli, node: NodeUnderTest, name: str) -> None:
        self._cli = cli
        self._node = node
        self._name = name
        done = cli("deploy", f"{EXAMPLE}:County", "--name", name, node=node)
        assert done.code == 0, done.err
        self.id = Principal.parse(done.out.splitlines()[-1])
        for kind, source in (
            ("local_index", f"{EXAMPLE}:Branch"),
            ("map_part", str(ROOT / "examples" / "catalogue.py")),
            ("shelf", f"{EXAMPLE}:Shelf"),
        ):
            self.ok("release", "add", source, "--kind", kind, "--note", "the first")
        for _ in range(2):
            self.ok("local", "add")
        self.shelves: list[Entry] = []
        for number in range(READERS):
            with node.agent(self._reader(number)) as agent:
                self.shelves.append(TypedCanister(agent, self.id).call("shelf", Entry))

    def fleet(self, *arguments: str) -> Ran:
        return self._cli("fleet", *arguments, "--index", self._name, node=self._node)

    def ok(self, *arguments: str) -> Any:  # of the command's shape
        done = self.fleet(*arguments, "--json")
        assert done.code == 0, done.err
        return done.json

    def _reader(self, number: int) -> Ed25519Identity:
        return Ed25519Identity(sha256(f"{self._name} {number}".encode()).digest())

    def put(self, number: int, title: str) -> None:
        with self._node.agent(self._reader(number)) as agent:
            books = TypedCanister(agent, self.shelves[number].canister)
            books.call_for_effect("put", (1, title), (nat64, str))

    def versions(self) -> list[int]:
        found: list[int] = []
        for shelf in self.shelves:
            index = ("--index", str(shelf.index), "--json")
            told: Any = self._cli("fleet", "show", str(shelf.canister), *index, node=self._node).json
            found.append(told["child"]["version"])
        return found


@pytest.fixture
def county(cli: Cli, running_node: NodeUnderTest, request: pytest.FixtureRequest) -> County:
    return County(cli, running_node, f"{request.node.name[5:25]}_county")


def test_a_rollout_at_a_root_is_followed_until_the_last_local_index_is_done(county: County) -> None:
    county.ok("release", "add", SHELF_2, "--kind", "shelf", "--note", "the second")
    done = county.fleet("rollout", "start", "shelf:2", "--follow")
    assert done.code == 0, done.err
    assert county.versions() == [2] * READERS
    assert "local index 2: done, 2 of 2 (100 %): 2 forward" in done.err
    assert done.err.splitlines()[-1].endswith(" s - shelf:2 is everywhere")
    lines = done.out.splitlines()
    at = lines.index("locals       shelf:2 is everywhere")
    assert [line.split(": ", 1)[1] for line in lines[at + 1 : at + 3]] == [
        "done, 2 of 2 (100 %): 2 forward",
        "done, 2 of 2 (100 %): 2 forward",
    ]
    (passage,) = county.ok("rollout", "show")["passages"]
    assert (passage["kind"], passage["version"], passage["relay"]["is_done"]) == ("shelf", 2, True)
    assert [each["rollout"]["counts"]["forward"] for each in passage["locals"]][:2] == [2, 2]


def test_one_that_halts_at_a_local_index_is_no_success_and_the_same_again_reaches_the_rest(
    county: County,
) -> None:
    county.ok("release", "add", SHELF_2, "--kind", "shelf", "--note", "the second")
    local = min(county.shelves, key=lambda shelf: shelf.index.raw).index
    bad = next(number for number, shelf in enumerate(county.shelves) if shelf.index == local)
    county.put(bad, "")
    stopped = county.fleet("rollout", "start", "shelf:2", "--tries", "1", "--follow")
    assert stopped.code == 1, stopped.out
    assert "locals       shelf:2 halted at local index 1: rolled_back: " in stopped.out
    assert county.versions() == [1] * READERS
    assert "shelf:2 halted at local index 1" in county.fleet("status").out

    county.put(bad, "Walden")
    again = county.fleet("rollout", "start", "shelf:2", "--follow")
    assert again.code == 0, again.out
    assert county.versions() == [2] * READERS
    back = county.fleet("rollout", "back")
    assert back.code == 0, back.err
    gone_back = county.fleet("rollout", "show", "--follow")
    assert gone_back.code == 1
    assert "locals       shelf:1 is everywhere" in gone_back.out
    assert county.versions() == [1] * READERS


def test_a_rollout_with_a_filter_stays_at_the_index_that_has_the_children(county: County) -> None:
    county.ok("release", "add", SHELF_2, "--kind", "shelf", "--note", "the second")
    shelf = str(county.shelves[0].canister)
    for option in ("--include", "--exclude"):
        refused = county.fleet("rollout", "start", "shelf:2", option, shelf)
        assert (refused.code, f"{shelf} is no child of " in refused.error) == (1, True)
    done = county.fleet("rollout", "start", "shelf:2", "--from-version", "1", "--follow")
    assert done.code == 0, done.err
    assert "locals" not in done.out
    assert county.versions() == [1] * READERS


def test_who_steers_at_the_root_is_told_which_local_index_the_rollout_is_at(county: County) -> None:
    county.ok("release", "add", SHELF_2, "--kind", "shelf", "--note", "the second")
    first = str(county.ok("local", "list")["locals"][0]["canister"])
    bad = next(number for number, shelf in enumerate(county.shelves) if str(shelf.index) == first)
    county.put(bad, "")
    waits = county.fleet("rollout", "start", "shelf:2", "--tries", "1", "--halt", "--follow")
    assert waits.code == 1, waits.out
    for order in (("pause",), ("resume",), ("cancel",)):
        over = county.fleet("rollout", *order)
        assert over.error == f"rollout 1 is over (done); it is at local index 1: say --index {first}"
