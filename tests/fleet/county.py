"""A spread fleet for tests: a county, whose boroughs make cottages, and whose ledgers take over its map."""

from __future__ import annotations

from collections.abc import Iterator

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    StableCell,
    continuation,
    encode_args,
    init,
    nat32,
    nat64,
    post_upgrade,
    query,
    record,
    update,
)
from cannery.cdk.management import CreateInstalledArgs, CreateInstalledResult, Management, SubnetChoice
from cannery.client.errors import Rejected
from cannery.fleet.directory_types import Child
from cannery.fleet.index import Index
from cannery.fleet.map_part import MapPart
from cannery.fleet.member import Member
from cannery.fleet.place import Place
from cannery.fleet.place_holding import Holding
from cannery.fleet.place_types import Held, Load, PlaceRule
from cannery.fleet.placement_migration import Group
from cannery.fleet.shard import Shard
from cannery.fleet.shards import Shards
from cannery.fleet.shards_types import (
    Entry,
    EntryChange,
    KeepResult,
    MakeResult,
    MapEntry,
    PartDoor,
    PartStart,
    RootDoor,
    ShardDoor,
    ShardRule,
)
from cannery.testing import Node
from cannery.testing.actor import Actor


@record
class Sizes:
    """The county's rule, as tests want it."""

    children_max: nat64 = 100
    spare_min: nat64 = 0
    entries_max: nat64 = 1_000
    part_entries: nat64 = 1_000
    is_public: bool = False


class County(Canister):
    fleet = Index()
    place = Place()
    shards = Shards()
    sizes = StableCell(Sizes, Sizes())

    @update
    def resize(self, ctx: Context, sizes: Sizes) -> None:
        self.sizes.set(sizes)

    @update
    def settle(self, ctx: Context, fails: bool) -> Entry | Pending[Entry]:
        return self.shards.provide(ctx, "cottage", ctx.caller, encode_args(ctx.caller, fails))

    def shard_rule(self, ctx: Context) -> ShardRule:
        sizes = self.sizes.get()
        return ShardRule(
            children_max=sizes.children_max,
            spare_min=sizes.spare_min,
            locals_max=6,
            entries_max=sizes.entries_max,
            part_entries=sizes.part_entries,
            is_public=sizes.is_public,
        )

    def place_rule(self, ctx: Context) -> PlaceRule:
        return self.shards.place_rule(ctx)

    def place_arg(self, ctx: Context, held: Held) -> bytes:
        return encode_args(self.shards.place_start(ctx, held))


class Hamlet(Canister):
    """What the county was before it had boroughs: an index that makes cottages itself."""

    fleet = Index()
    sizes = StableCell(Sizes, Sizes())

    @update
    def found(self, ctx: Context) -> Pending[Child]:
        arg = encode_args(ctx.caller, False)
        return self.fleet.create(ctx, "cottage", ctx.caller, arg, then=self.founded, saved=ctx.caller)

    @continuation
    def founded(self, ctx: Context, outcome: Outcome[Child], saved: Principal) -> Child:
        return outcome.unwrap()


class Cottage(Canister):
    member = Member()
    owned_by = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)

    @init
    def build(self, ctx: Context, owner: Principal, fails: bool) -> None:
        if fails:
            ctx.trap("the roof fell in")
        self.owned_by.set(owner)

    @update
    def knock(self, ctx: Context) -> nat64:
        self.knocks.set(self.knocks.get() + 1)
        return self.knocks.get()

    @query
    def owner(self, ctx: Context) -> Principal:
        return self.owned_by.get()


class CottageWithBell(Canister):
    """A good release: one method more."""

    member = Member()
    owned_by = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)

    @init
    def build(self, ctx: Context, owner: Principal, fails: bool) -> None:
        self.owned_by.set(owner)

    @update
    def knock(self, ctx: Context) -> nat64:
        self.knocks.set(self.knocks.get() + 1)
        return self.knocks.get()

    @query
    def owner(self, ctx: Context) -> Principal:
        return self.owned_by.get()

    @query
    def ring(self, ctx: Context) -> str:
        return "ding"


class CottageOfStraw(Canister):
    """A release that is bad wherever somebody has knocked."""

    member = Member()
    owned_by = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)

    @init
    def build(self, ctx: Context, owner: Principal, fails: bool) -> None:
        self.owned_by.set(owner)

    @post_upgrade
    def blow(self, ctx: Context) -> None:
        if self.knocks.get():
            ctx.trap("it was blown down")

    @update
    def knock(self, ctx: Context) -> nat64:
        return 0

    @query
    def owner(self, ctx: Context) -> Principal:
        return self.owned_by.get()


class Borough(Canister):
    member = Member()
    fleet = Index()
    shard = Shard()


class BoroughWithClock(Canister):
    """The next release of local indexes."""

    member = Member()
    fleet = Index()
    shard = Shard()

    @query
    def clock(self, ctx: Context) -> nat64:
        return ctx.now_ns


class Ledger(Canister):
    member = Member()
    holding = Holding()
    part = MapPart()

    @init
    def open(self, ctx: Context, start: PartStart) -> None:
        self.part.start(start)

    def place_load(self, ctx: Context) -> Load:
        return self.part.load()

    def place_groups(self, after: bytes | None) -> Iterator[Group]:
        return self.part.groups(after)

    def place_pack(self, name: bytes) -> bytes:
        return self.part.pack(name)

    def place_unpack(self, ctx: Context, name: bytes, data: bytes) -> None:
        self.part.unpack(data)

    def place_drop(self, ctx: Context, name: bytes) -> None:
        self.part.drop(name)

    def place_is_settled(self) -> bool:
        return True


class RogueBorough(Canister):
    """A local index that says and orders what is none of its business."""

    member = Member()
    fleet = Index()
    shard = Shard()

    @update
    def lie(self, ctx: Context, root: Principal, changes: list[EntryChange]) -> Pending[list[nat32]]:
        return ctx.call(RootDoor(root).shard_told(changes, 0))

    @update
    def command(self, ctx: Context, borough: Principal, owner: Principal) -> Pending[MakeResult]:
        return ctx.call(ShardDoor(borough).shard_make("cottage", owner, b""))

    @update
    def scribble(self, ctx: Context, ledger: Principal, entry: MapEntry) -> Pending[KeepResult]:
        return ctx.call(PartDoor(ledger).map_keep(entry))

    @update
    def breed(self, ctx: Context, module_hash: bytes, arg: bytes) -> Pending[Principal]:
        assert ctx.fleet is not None
        args = CreateInstalledArgs(module_hash, arg, [ctx.id, ctx.fleet])
        return ctx.call(Management().cannery_create_installed(args), then=self.bred)

    @continuation
    def bred(self, ctx: Context, outcome: Outcome[CreateInstalledResult]) -> Principal:
        return outcome.unwrap().canister_id


def build_county(
    node: Node,
    sizes: Sizes = Sizes(),
    *,
    locals_count: int = 0,
    borough: type[Canister] = Borough,
    cottage: type[Canister] = Cottage,
) -> Actor:
    """Make a county with releases of all its kinds, and boroughs on the node's subnets in turn."""
    county = node.install(County).as_(node.operator)
    county.resize(sizes)
    for kind, cls in (("local_index", borough), ("map_part", Ledger), ("cottage", cottage)):
        release(node, county, kind, 1, cls)
    for number in range(locals_count):
        add_borough(node, county, number % len(node.subnets))
    return county


def release(node: Node, county: Actor, kind: str, version: int, cls: type[Canister]) -> None:
    """Add a release of a kind at the root."""
    module_hash = node.manage("cannery_module_add", node.build(cls))
    assert county.fleet_release_add(kind, version, module_hash, f"{kind} {version}").tag == "ok"


def add_borough(node: Node, county: Actor, subnet: int = 0) -> Actor:
    """Add a local index on a subnet and wait until it serves."""
    result = county.fleet_local_add(SubnetChoice.id(Principal(node.routes[subnet].subnet_id)))
    assert result.tag == "ok", result
    node.run()
    status = next(each for each in county.fleet_locals().locals if each.number == result.ok)
    assert status.state.tag == "serving", status
    return node.actor(status.canister, Borough).as_(node.operator)


def settle(county: Actor, name: str, *, fails: bool = False) -> Entry | None:
    """Ask for somebody's cottage; None where the county says to ask again."""
    try:
        found: Entry = county.as_(name).settle(fails)
    except Rejected as rejected:
        if "again" not in str(rejected):
            raise
        return None
    return found
