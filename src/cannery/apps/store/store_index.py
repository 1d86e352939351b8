"""The index of the store: the one address that everybody knows. It says which bucket holds what, and makes
more of them.

A client asks it once and then talks to the buckets; the index sees no entry and no value. What it can be
asked about all buckets it asks them itself, by composite queries.
"""

from __future__ import annotations

from cannery import (
    Canister,
    Context,
    Pending,
    Principal,
    StableSet,
    composite_query,
    encode_args,
    query,
    same_fleet,
    update,
)
from cannery.cdk.management import SubnetChoice
from cannery.fleet.index import Index
from cannery.fleet.place import Place
from cannery.fleet.place_types import Held, PlaceRule
from cannery.fleet.placement_census import Child
from cannery.fleet.placement_scale import ScaleRule, SpawnRule, is_any_over, is_under
from cannery.protocol.principal import PrincipalError

from .entries import SLOTS_DEFAULT, number_value
from .types import (
    LOCATE_COUNT_MAX,
    MODERATOR_ROLE,
    NO_IDENTITY,
    SUM_PART_COUNT_MAX,
    BucketDoor,
    BucketStats,
    Find,
    LabelNote,
    Put,
    PutResult,
    StoreStats,
    Sum,
    SumPage,
    SumPlace,
    Where,
    label_of_reader,
    label_of_tag,
    require_tags,
)

KIND = "bucket"
GROW_OVER_PERMILLE = 700
SHRINK_UNDER_PERMILLE = 250
BUCKET_COUNT_MAX = 1_000
REPLACED_COUNT_MAX = 100
HOLD_MS_DEFAULT = 1_000
PAUSE_MS_DEFAULT = 5_000


class StoreIndex(Canister):
    """Say where entries are, and make buckets."""

    fleet = Index()
    place = Place()
    by_label = StableSet(tuple[str, Principal])

    # where

    @query
    def locate(self, ctx: Context, keys: list[str]) -> list[Principal]:
        """Return the bucket of each key, in the order asked; empty while there is no bucket."""
        if len(keys) > LOCATE_COUNT_MAX:
            ctx.reject(f"ask for {LOCATE_COUNT_MAX} keys at the most")
        found = [self.place.where(key.encode()) for key in keys]
        return [bucket for bucket in found if bucket is not None]

    @query
    def where(self, ctx: Context, tags: list[str]) -> Where:
        """Return the buckets that may have entries with all of the tags, public ones or the caller's own;
        without tags, all buckets.
        """
        require_tags(ctx, tags)
        arriving = list(self.place.arriving())
        buckets = list(dict.fromkeys([*self.place.buckets(), *arriving]))
        if tags and not ctx.has_role(MODERATOR_ROLE):
            having = self._under(label_of_tag(tags[0]))
            for tag in tags[1:]:
                having &= self._under(label_of_tag(tag))
            having |= self._under(label_of_reader(ctx.caller)) | set(arriving)
            buckets = [bucket for bucket in buckets if bucket in having]
        return Where(buckets, arriving, self.place.table_number)

    def _under(self, label: str) -> set[Principal]:
        buckets = set(self.place.buckets())
        noted = (bucket for _, bucket in self.by_label.keys(prefix=(label,)))
        return {bucket if bucket in buckets else self._now(bucket) for bucket in noted}

    def _now(self, bucket: Principal) -> Principal:
        """Return the canister that has what a bucket noted: it may have been replaced since."""
        for _ in range(REPLACED_COUNT_MAX):
            child = self.fleet.directory.get(bucket)
            if child is None or child.state.tag != "replaced":
                break
            bucket = child.state.replaced
        return bucket

    @update
    def put(self, ctx: Context, put: Put) -> PutResult | Pending[PutResult]:
        """Pass a put on to its bucket, for a client that knows this address alone; the answer names the
        bucket, which is the one to ask from then on.
        """
        if ctx.caller == Principal.anonymous():
            return PutResult.refused(NO_IDENTITY)
        bucket = self.place.where(put.key.encode())
        if bucket is None:
            return PutResult.moved(None)
        return ctx.call(BucketDoor(bucket).put_for(ctx.caller, put))

    @update(only=same_fleet)
    def labels_note(self, ctx: Context, notes: list[LabelNote]) -> None:
        """Note under which labels a bucket has entries, and under which no more."""
        for note in notes:
            if note.is_there:
                self.by_label.add((note.label, ctx.caller))
            else:
                self.by_label.discard((note.label, ctx.caller))

    # over all buckets

    @composite_query
    def sum(self, ctx: Context, tags: list[str], owner: Principal | None) -> Sum:
        """Count the entries that the caller may see, and their bytes, over all buckets in one state; for many
        there is `sum_page`.
        """
        page = self._sum_page(ctx, tags, owner, None)
        if page.next is not None:
            ctx.reject(
                "there are too many entries to be counted in one query: ask sum_page, until it says none"
            )
        return page.sum

    @composite_query
    def sum_page(
        self, ctx: Context, tags: list[str], owner: Principal | None, place: SumPlace | None
    ) -> SumPage:
        """Count some of the entries that the caller may see, from a place on (None: from the beginning)."""
        return self._sum_page(ctx, tags, owner, place)

    def _sum_page(
        self, ctx: Context, tags: list[str], owner: Principal | None, place: SumPlace | None
    ) -> SumPage:
        require_tags(ctx, tags)
        number = self.place.table_number
        buckets = list(dict.fromkeys([*self.place.buckets(), *self.place.arriving()]))
        count = size = 0
        is_exact = place is None or (place.table_number == number and not self.place.is_changing)
        if place is not None:
            if place.bucket not in buckets:
                ctx.reject("a bucket has gone while it was counted: begin anew")
            buckets = buckets[buckets.index(place.bucket) :]
        before = None if place is None else place.before
        for _ in range(SUM_PART_COUNT_MAX):
            if not buckets:
                break
            wanted = Find(tags, owner, before, 0)
            part = ctx.query(BucketDoor(buckets[0]).sum_for(ctx.caller, wanted)).unwrap()
            count, size, before = count + part.count, size + part.size_bytes, part.next
            is_exact = is_exact and part.is_exact
            if before is None:
                buckets.pop(0)
        begun = number if place is None else place.table_number
        rest = SumPlace(buckets[0], before, begun) if buckets else None
        return SumPage(Sum(count, size, is_exact, None), rest)

    @composite_query
    def stats(self, ctx: Context) -> StoreStats:
        """Return the store at a glance, and each bucket."""
        buckets = [self._stats(ctx, child) for child in self.place.census()]
        return StoreStats(
            sum(bucket.count for bucket in buckets),
            sum(bucket.size_bytes for bucket in buckets),
            sum(bucket.used_slots for bucket in buckets),
            sum(bucket.capacity_slots for bucket in buckets),
            self.place.table_number,
            self.place.is_changing,
            buckets,
        )

    def _stats(self, ctx: Context, child: Child) -> BucketStats:
        asked = ctx.query(BucketDoor(child.id).totals())
        if not asked.ok:
            size, used = child.size_bytes, child.used_slots
            return BucketStats(child.id, 0, size, used, child.capacity_slots, False)
        totals = asked.value
        return BucketStats(
            child.id, totals.count, totals.size_bytes, totals.used_slots, child.capacity_slots, True
        )

    # what placement asks

    def place_rule(self, ctx: Context) -> PlaceRule:
        """Grow while every bucket has room, shrink where a quarter of it would do."""
        slots = number_value(ctx, "bucket_slots", SLOTS_DEFAULT)
        scale = ScaleRule(
            grow=is_any_over(GROW_OVER_PERMILLE),
            shrink=is_under(SHRINK_UNDER_PERMILLE),
            hold_ns=number_value(ctx, "hold_ms", HOLD_MS_DEFAULT) * 1_000_000,
            pause_ns=number_value(ctx, "pause_ms", PAUSE_MS_DEFAULT) * 1_000_000,
            child_count_max=BUCKET_COUNT_MAX,
        )
        spawn = SpawnRule(0, slots, child_count_max=BUCKET_COUNT_MAX)
        return PlaceRule(KIND, scale, spawn, subnet=subnet_value(ctx))

    def place_arg(self, ctx: Context, held: Held) -> bytes:
        """Make the install argument of a bucket."""
        return encode_args(held)


def subnet_value(ctx: Context) -> SubnetChoice | None:
    """Read where the next bucket is made: the value `bucket_subnet` is `any` (the subnet with the fewest
    canisters) or a subnet's principal; anything else leaves it to the node.
    """
    text = ctx.fleet_value("bucket_subnet") or ""
    if text == "any":
        return SubnetChoice.any()
    try:
        return SubnetChoice.id(Principal.parse(text)) if text else None
    except PrincipalError as error:
        ctx.log(f"bucket_subnet={text} is no subnet, so the node chooses: {error}")
        return None
