"""What an index and its buckets say to each other about placement, and what each asks of its author.

`Place` (the index's component) and `Holding` (a bucket's) speak these records; `Placer` and `Keeper` are the
methods that the canisters around them bring. docs/scaling.md, "Placement for an index of your own".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cannery import Context, Principal, nat8, nat32, nat64, record
from cannery.cdk.management import SubnetChoice
from cannery.fleet.placement_census import Child
from cannery.fleet.placement_migration import Chunk, Group
from cannery.fleet.placement_policy import BalancedLoad, FillFirst, LastNode
from cannery.fleet.placement_scale import ScaleRule, SpawnRule

UNTOLD, TOLD, DONE, ADOPTED = 0, 1, 2, 3
"""How far a bucket is in a change: the values of `Stand.step`."""


LISTED = b"\x02"
"""In the place of a table: the index has a list of where each group is (`place_listing`)."""


@record
class Held:
    """A table (`placement_table`) and its number, which rises with every change; empty before the first."""

    number: nat64
    table: bytes


@record
class Load:
    """What a bucket holds: slots as the author counts them, groups, bytes."""

    capacity_slots: nat64
    used_slots: nat64
    group_count: nat64
    size_bytes: nat64


@record
class Report:
    """How a bucket stands: the change it knows of, its load, who its open legs lead to or come from (itself
    where it has something else to finish first), and how many groups it has ever given away."""

    number: nat64
    load: Load
    open_peers: list[Principal]
    given_count: nat64


@record
class Adoption:
    """The table that holds from now on; forced where a leg can never end because its other side is gone."""

    number: nat64
    table: bytes
    is_forced: bool


@record
class Cargo:
    """A chunk with the data of its groups, in the order of the names, and where they are listed the numbers
    under which each was given."""

    chunk: Chunk
    groups: list[bytes]
    numbers: list[nat64] | None = None


@record
class Home:
    """Where a group is: the order of a member, and the number under which it was given."""

    order: nat64
    number: nat64


@record
class Given:
    """A group that a bucket is given, and the number of that."""

    group: bytes
    number: nat64


@record
class Wanted:
    """What a bucket has no room for: slots for a key, and those that its group takes already."""

    group: bytes
    key_slots: nat64
    group_slots: nat64


@record
class Cut:
    """How a bucket is to divide its groups: all of them among the children, by a policy, or with a `target`
    what goes beyond `keep_slots`."""

    number: nat64
    policy: str
    children: list[Child]
    target: Principal | None
    keep_slots: nat64


@record
class Change:
    """A change of the table under way: who joins, parts (`part`), takes another's place (`swap`), or is given
    up (`drop`); with a list also who gives what is too much (`spill`) or one group (`move`).

    `moves`: groups move, by the index's `migration`. `keeps`: the child that parts stays after all, in the
    place of one that was lost.
    """

    number: nat64
    kind: str
    canister: Principal
    moves: bool
    table: bytes
    is_published: bool
    is_forced: bool
    keeps: bool
    began_ns: nat64


@record
class Moving:
    """A migration under way as a bucket needs it for each request: its number and the two tables."""

    number: nat64
    before: bytes
    after: bytes


@record
class Stand:
    """How far a bucket is in the change, and when it was asked (0: no answer is awaited)."""

    step: nat8
    asked_ns: nat64


@record
class ChangeStatus:
    """The change under way, for people."""

    number: nat64
    kind: str
    canister: Principal
    began_ns: nat64
    waiting_for: list[Principal]


@record
class PlaceStatus:
    """Placement at a glance: slots free, desired and planned, the children, what is under way, and why
    nothing else is."""

    number: nat64
    free_slots: nat64
    desired_slots: nat64
    planned_slots: nat64
    children: list[Child]
    change: ChangeStatus | None
    reason: str
    given_count: nat64
    lost: list[Principal]
    child_count_max: nat32


@dataclass(frozen=True, slots=True)
class PlaceRule:
    """What the author of an index decides: the kind of child, when there are more and fewer, how many there
    can ever be (`capacity_children`, chosen once), the subnet of the next one (a named one, the one with the
    fewest canisters, `any`, or None: where the node puts it), and the policy: None for AnchorHash, which
    computes places; with any other the index lists them, and the policy may be changed for another of these.
    """

    kind: str
    scale: ScaleRule
    spawn: SpawnRule
    capacity_children: int = 1_000
    subnet: SubnetChoice | None = None
    policy: FillFirst | BalancedLoad | LastNode | None = None

    def __post_init__(self) -> None:
        if max(self.scale.child_count_max, self.spawn.child_count_max) > self.capacity_children:
            raise ValueError(
                f"the table has room for {self.capacity_children} children: lower child_count_max"
            )


@runtime_checkable
class Placer(Protocol):
    """What a canister with a `Place` brings."""

    def place_rule(self, ctx: Context) -> PlaceRule:
        """Say when there should be more children, and when fewer."""

    def place_arg(self, ctx: Context, held: Held) -> bytes:
        """Make the install argument of a new child; it gives `held` to its `Holding.start`."""


@runtime_checkable
class Keeper(Protocol):
    """What a canister with a `Holding` brings: its groups, by name, in the order of their names."""

    def place_load(self, ctx: Context) -> Load:
        """Say how full this bucket is."""

    def place_groups(self, after: bytes | None) -> Iterator[Group]:
        """List the groups behind a name, in order, with what they weigh."""

    def place_pack(self, name: bytes) -> bytes:
        """Write all of a group, for another bucket."""

    def place_unpack(self, ctx: Context, name: bytes, data: bytes) -> None:
        """Store a group that comes from another bucket."""

    def place_drop(self, ctx: Context, name: bytes) -> None:
        """Drop a group that another bucket has now."""

    def place_is_settled(self) -> bool:
        """Say whether all is done that must be done before a change ends."""
