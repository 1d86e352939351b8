"""The measured tables of docs/placement.md: the same numbers on every machine.

python -m tests.fleet.placement_tables
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from cannery import Principal
from cannery.fleet.placement import (
    UNLOCKED,
    AnchorHash,
    AnchorTable,
    BalancedLoad,
    Census,
    Child,
    FillFirst,
    Group,
    LastNode,
    Placed,
    Policy,
    ScaleRule,
    ScaleState,
    SpawnRule,
    child_of,
    is_any_over,
    is_under,
    make_table,
    mover_of,
    plan_drain,
    plan_join,
    plan_part,
    plan_put,
    plan_scale,
    plan_spawn,
)
from cannery.fleet.placement_anchor import key_digest

SEED = bytes(16)
KEY_COUNT = 100_000
CHILD_SLOTS = 200
PUT_COUNT = 5_000
SPAWNS = SpawnRule(desired_slots=CHILD_SLOTS, child_slots=CHILD_SLOTS, spawn_count_max=8)


def named(number: int) -> Principal:
    return Principal(number.to_bytes(8, "big") + b"\x01\x01")


def key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def table(header: str, rows: Iterator[str]) -> str:
    """Lay out a Markdown table."""
    line = "|" + "---|" * (header.count("|") - 1)
    return "\n".join([header, line, *rows])


def spread_of(counts: list[int]) -> str:
    mean = sum(counts) / len(counts)
    return f"{100 * min(counts) / mean:.1f} to {100 * max(counts) / mean:.1f}"


# AnchorHash


def changes() -> Iterator[str]:
    """Let a child join and then one in the middle part, on sequential integer keys."""
    keys = [key(number) for number in range(KEY_COUNT)]
    digests = [key_digest(SEED, name) for name in keys]
    for count in (3, 10, 50):
        small = make_table(tuple(map(named, range(count))), capacity=1_000, seed=SEED)
        large = plan_join(small, named(count))
        middle = plan_part(large, named(count // 2))
        places = {id(t): [child_of(t, k) for k in keys] for t in (small, large, middle)}
        for before, after in ((small, large), (large, middle)):
            yield row_of(before, after, places[id(before)], places[id(after)], digests)


def row_of(
    before: AnchorTable, after: AnchorTable, old: list[Principal], new: list[Principal], digests: list[int]
) -> str:
    here, there = len(before.children), len(after.children)
    moved = sum(a != b for a, b in zip(old, new, strict=True))
    differing = set(before.children) ^ set(after.children)
    least = sum(bool({a, b} & differing) for a, b in zip(old, new, strict=True))
    modulo = sum(digest % here != digest % there for digest in digests)
    counts = list(Counter(new).values())
    assert len(counts) == there
    return (
        f"| {here} to {there} | {moved:,} | {least:,} | {KEY_COUNT // max(here, there):,} "
        f"| {modulo:,} | {spread_of(counts)} |"
    )


# the policies, side by side


@dataclass
class Fleet:
    """Keys, children and what was moved, as a policy decides it."""

    policy: Policy
    homes: dict[bytes, Principal] = field(default_factory=dict)
    children: list[Principal] = field(default_factory=list)
    moved: int = 0
    made: int = 0

    def census(self) -> Census:
        used = Counter(self.homes.values())
        return Census(tuple(Child(id, CHILD_SLOTS, used[id]) for id in self.children))

    def add(self) -> None:
        self.children.append(named(self.made))
        self.made += 1
        if isinstance(self.policy, AnchorHash) and self.made > 1:
            self.go_by(plan_join(self.policy.table, self.children[-1]))

    def go_by(self, after: AnchorTable) -> None:
        """Move what a new table moves."""
        self.policy = AnchorHash(after)
        for name, home in list(self.homes.items()):
            new = child_of(after, name)
            self.moved += new != home
            self.homes[name] = new

    def put(self, name: bytes, census: Census) -> None:
        placing = plan_put(self.policy, census, name)
        assert isinstance(placing, Placed)
        self.homes[name] = placing.child

    def empty(self, leaving: Principal) -> None:
        """Take a child out as the policy decides it."""
        census = self.census()
        self.children.remove(leaving)
        if isinstance(self.policy, AnchorHash):
            self.go_by(plan_part(self.policy.table, leaving))
            return
        own = sorted(name for name, home in self.homes.items() if home == leaving)
        migration = plan_drain(1, self.policy, census, leaving, [Group(name) for name in own])
        assert migration is not None
        movers = [(leg.target, mover_of(leg)) for leg in migration.legs]
        for name in own:
            (self.homes[name],) = [target for target, moves in movers if moves(name)]
            self.moved += 1


def grow(fleet: Fleet) -> None:
    """Put keys one after the other; a fleet by hash grows at 80 percent, the others keep slots free."""
    fleet.add()
    census = fleet.census()
    for number in range(PUT_COUNT):
        fleet.put(key(number), census)
        old = census.child(fleet.homes[key(number)])
        census = census.with_children([Child(old.id, CHILD_SLOTS, old.used_slots + 1)])
        if isinstance(fleet.policy, AnchorHash):
            wanted = int(is_any_over(800)(census))
        else:
            wanted = len(plan_spawn(SPAWNS, UNLOCKED, census, 0).begun)
        for _ in range(wanted):
            fleet.add()
            census = fleet.census()


def shrink(fleet: Fleet) -> None:
    """Delete every second key, then let children go while less than half of all slots is in use."""
    for number in range(0, PUT_COUNT, 2):
        del fleet.homes[key(number)]
    rule = ScaleRule(is_any_over(800), is_under(500), hold_ns=0, pause_ns=0)
    if not isinstance(fleet.policy, AnchorHash):
        rule = ScaleRule(lambda census: census.free_slots < CHILD_SLOTS, is_under(700), hold_ns=0, pause_ns=0)
    state = ScaleState()
    for now in range(200):
        step = plan_scale(rule, fleet.policy, state, fleet.census(), now)
        state = step.state
        if step.leaving is None:
            return
        fleet.empty(step.leaving)


def policies() -> Iterator[str]:
    """Measure what each policy makes of the same keys."""
    first = make_table((named(0),), capacity=1_000, seed=SEED)
    for policy in (FillFirst(), BalancedLoad(), LastNode(), AnchorHash(first)):
        fleet = Fleet(policy)
        grow(fleet)
        children, moved = len(fleet.children), fleet.moved
        spread = spread_of([child.used_slots for child in fleet.census()])
        shrink(fleet)
        name = type(policy).__name__
        left, later = len(fleet.children), fleet.moved - moved
        yield f"| {name} | {children} | {moved:,} | {spread} | {left} | {later:,} |"


def measured() -> list[str]:
    """Give all tables, in the order of the document."""
    return [
        table(
            "| children | keys moved | least possible | one child's even part | `hash % n` would move "
            "| emptiest and fullest, % of the mean |",
            changes(),
        ),
        table(
            "| policy | children after 5,000 puts | keys moved by then | emptiest and fullest, % of the mean "
            "| children after 2,500 deletions | keys moved for that |",
            policies(),
        ),
    ]


if __name__ == "__main__":
    print("\n\n".join(measured()))
