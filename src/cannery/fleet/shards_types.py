"""What a root index, its local indexes and its map parts say to each other, and what its author brings.

`Shards` (the root's component), `Shard` (a local index's) and `MapPart` speak these records. docs/scaling.md,
"Local indexes".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cannery import Case, Context, Principal, Service, Variant, method, nat, nat32, nat64, record, variant
from cannery.cdk.management import SubnetChoice
from cannery.fleet.census import CensusReport, Totals
from cannery.fleet.orphans import AdoptResult
from cannery.fleet.place_types import Held
from cannery.fleet.registry import ReleaseEntry
from cannery.fleet.rollout_types import RolloutArgs, RolloutInfo, StartResult
from cannery.fleet.top_up import TopUpRule
from cannery.fleet.top_up_quota import Quota
from cannery.limits import SHARD_COUNT_MAX


@dataclass(frozen=True, slots=True)
class ShardRule:
    """What the author of a root index decides.

    `children_max`: children of a local index, which then is out of rotation. Another one is made by itself
    while all together have room for fewer than `spare_min` (0: never) and there are fewer than `locals_max`.
    `entries_max`: entries that the root keeps itself; beyond them they go to map parts, of `part_entries`
    entries each. `is_public`: everybody may look up whose canister is where, not the owner alone.
    """

    local_kind: str = "local_index"
    part_kind: str = "map_part"
    children_max: int = 100_000
    spare_min: int = 0
    locals_max: int = 100
    entries_max: int = 1_000_000
    part_entries: int = 1_000_000
    is_public: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.locals_max <= SHARD_COUNT_MAX:
            raise ValueError(f"there are 1 to {SHARD_COUNT_MAX} local indexes, not {self.locals_max}")
        if min(self.children_max, self.part_entries) < 1 or min(self.spare_min, self.entries_max) < 0:
            raise ValueError(
                "children_max and part_entries are at least 1, spare_min and entries_max at least 0"
            )


@runtime_checkable
class Sharder(Protocol):
    """What a canister with `Shards` brings."""

    def shard_rule(self, ctx: Context) -> ShardRule:
        """Say how large local indexes and map parts are."""


# --- the map ------------------------------------------------------------------------------------------------


@record
class Entry:
    """Where an owner's child is: its canister, and the index that made it."""

    canister: Principal
    index: Principal


@record
class MapEntry:
    """An entry with whom it is for."""

    owner: Principal
    kind: str
    entry: Entry


@record
class EntryChange:
    """What an index says of its child: it was `was`, it is `now` (None: it is gone)."""

    owner: Principal
    kind: str
    was: Principal
    now: Principal | None


@variant
class FindResult(Variant):
    """An entry; that there is none; or another part that has it, or soon will have it."""

    found: Case[Entry]
    absent: Case[None]
    moved: Case[Principal | None]


@variant
class KeepResult(Variant):
    """Whether a part took a change; if not, whom to ask."""

    ok: Case[None]
    moved: Case[Principal | None]


@record
class PartStart:
    """What a map part is installed with."""

    held: Held
    entries_max: nat64


class PartDoor(Service):
    """What the root asks a map part."""

    @method
    def map_find(self, owner: Principal, kind: str) -> FindResult: ...

    @method
    def map_keep(self, entry: MapEntry) -> KeepResult: ...

    @method
    def map_take(self, entries: list[MapEntry]) -> list[nat32]: ...

    @method
    def map_change(self, change: EntryChange, index: Principal) -> KeepResult: ...


# --- local indexes ----------------------------------------------------------------------------------------


@variant
class LocalState(Variant):
    """Where a local index stands: being added; making children; resting, out of rotation by an operator's
    word; dismissed, trusted with nothing new; gone."""

    adding: Case[None]
    serving: Case[None]
    resting: Case[None]
    dismissed: Case[None]
    gone: Case[None]


@record
class Local:
    """A local index as the root has it. `children` is what it has said last, and what was ordered since;
    `told` is the digest of the settings that it has."""

    number: nat32
    canister: Principal | None
    subnet: SubnetChoice | None
    state: LocalState
    appointed: bool
    children: nat64
    told: bytes
    added_ns: nat64


@record
class LocalStatus:
    """A local index, for people."""

    number: nat32
    canister: Principal | None
    state: LocalState
    step: str
    children: nat64
    children_max: nat64
    is_full: bool
    is_told: bool
    away_until_ns: nat64


@record
class Settings:
    """What a local index is to go by: how many children it may have, releases and which of them are current,
    births, rules and quotas."""

    children_max: nat64
    releases: list[ReleaseEntry]
    births: list[tuple[str, nat]]
    rules: list[tuple[str, TopUpRule]]
    quotas: list[tuple[str, Quota]]


@record
class Made:
    """A child of a local index, and how many it has."""

    canister: Principal
    children: nat64


@variant
class MakeResult(Variant):
    """A child, made now or before; or why there is none."""

    ok: Case[Made]
    full: Case[nat64]
    busy: Case[None]
    err: Case[str]


class ShardDoor(Service):
    """What the root orders a local index to do."""

    @method
    def shard_make(self, kind: str, owner: Principal, arg: bytes) -> MakeResult: ...

    @method
    def shard_set(self, settings: Settings) -> None: ...

    @method
    def shard_roll(self, number: nat64, args: RolloutArgs) -> StartResult: ...

    @method
    def shard_adopt(self, canister: Principal, owner: Principal) -> AdoptResult: ...

    @method
    def fleet_rollout(self, id: nat64) -> RolloutInfo | None: ...

    @method
    def fleet_census(self) -> CensusReport: ...


class RootDoor(Service):
    """What a local index tells its root."""

    @method
    def shard_told(self, changes: list[EntryChange], children: nat64) -> list[nat32]: ...


@variant
class LocalOrder(Variant):
    """What is to become of a local index: out of rotation; in rotation; trusted no more; appointed again."""

    rest: Case[None]
    serve: Case[None]
    dismiss: Case[None]
    reinstate: Case[None]


@variant
class AddResult(Variant):
    """The number of the local index that an order is about, or why it was not taken."""

    ok: Case[nat32]
    err: Case[str]


@record
class Relay:
    """A rollout on its way through the local indexes: which release, where it is (the number of the local
    index), and the rollout's number there (None: not begun); `halted` says why it goes no further.
    `is_back`: the root went back to it from a later one. `former`: the version that was everywhere before."""

    number: nat64
    kind: str
    version: nat64
    rollout: nat64
    at: nat32
    local_rollout: nat64 | None
    is_done: bool
    halted: str
    is_back: bool
    former: nat64 | None = None


@record
class ShardsStatus:
    """The root at a glance: entries in its own map, in how many parts the others are, what is being made, and
    rollouts on their way."""

    locals: list[LocalStatus]
    entries: nat64
    parts: nat32
    making: nat32
    changes: nat32
    relays: list[Relay]


@record
class ShardsCensus:
    """The last censuses of the root and its local indexes, added up; `missing` could not be asked."""

    totals: list[Totals]
    missing: list[Principal]
