"""The catalogue of zones: which canister an id has, whose it is, and who controls it; everybody may look.

The fleet's directory has the canisters; it knows each by `place_of` its id, a principal that is nobody's. An
entry whose canister is gone says nothing any more, and its id is free.
"""

from __future__ import annotations

from hashlib import sha224
from typing import Final

from cannery import Context, Principal, StableMap, StableSet, nat32, nat64, query, record
from cannery.cdk.component import Component, Uses
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import Child

from .bounds import ZONE_ID_SIZE_BYTES_MAX, ZONE_PAGE_COUNT_MAX
from .factory_types import ZoneControl, ZoneInfo, ZonePage
from .refusal import refuse

KIND: Final = "zone"
RESERVED: Final = b"\x7f"
"""The last byte of the principals that address nobody (IC interface specification, "Reserved ids")."""


@record
class ZoneEntry:
    """Whose a zone is; `handed_over`: its owner controls its canister."""

    owner: Principal
    created_ns: nat64
    handed_over: bool


def place_of(zone_id: str) -> Principal:
    """Return the principal under which the fleet's directory knows a zone."""
    return Principal(sha224(b"zone:" + zone_id.encode()).digest() + RESERVED)


class Catalogue(Component, prefix="catalogue"):
    """Find zones."""

    directory = Uses(Directory)
    entries = StableMap(str, ZoneEntry)
    ids = StableMap(Principal, str)
    owned = StableSet(tuple[Principal, str])

    # for the factory

    def child(self, zone_id: str) -> Child | None:
        """Return the canister that a zone has now."""
        return self.directory.find(KIND, place_of(zone_id))

    def id_of(self, canister: Principal) -> str | None:
        """Return the id of the zone whose canister this is, or was before it moved."""
        child = self.directory.get(canister)
        return None if child is None else self.ids.get(child.owner)

    def put(self, zone_id: str, entry: ZoneEntry) -> None:
        """Note whose a zone is."""
        before = self.entries.get(zone_id)
        if before is not None:
            self.owned.discard((before.owner, zone_id))
        self.entries.put(zone_id, entry)
        self.ids.put(place_of(zone_id), zone_id)
        self.owned.add((entry.owner, zone_id))

    def forget(self, zone_id: str) -> None:
        """Drop what is known of a zone, if anything is."""
        entry = self.entries.get(zone_id)
        if entry is not None:
            self.entries.delete(zone_id)
            self.ids.delete(place_of(zone_id))
            self.owned.discard((entry.owner, zone_id))

    def info(self, zone_id: str) -> ZoneInfo | None:
        """Return a zone that is there."""
        child = self.child(zone_id)
        entry = None if child is None else self.entries.get(zone_id)
        if child is None or entry is None:
            return None
        control = ZoneControl.both() if entry.handed_over else ZoneControl.factory()
        if child.state.tag == "in_custody":
            control = ZoneControl.owner()
        return ZoneInfo(zone_id, child.canister, entry.owner, entry.created_ns, child.version, control)

    # methods

    @query
    def zone_of(self, ctx: Context, zone_id: str) -> ZoneInfo | None:
        """Find a zone by its id; everybody may ask."""
        return self.info(zone_id)

    @query
    def zone_at(self, ctx: Context, canister: Principal) -> ZoneInfo | None:
        """Find a zone by its canister, or by one that it had before it moved; everybody may ask."""
        zone_id = self.id_of(canister)
        return None if zone_id is None else self.info(zone_id)

    @query
    def zones_page(self, ctx: Context, after: str | None, limit: nat32) -> ZonePage:
        """List zones in the order of their ids, from the one behind `after`; everybody may ask."""
        _check_after(ctx, after)
        page = self.entries.page(after=after, limit=max(1, min(limit, ZONE_PAGE_COUNT_MAX)))
        infos = [self.info(zone_id) for zone_id, _ in page.items]
        return ZonePage([info for info in infos if info is not None], page.next)

    @query
    def zones_of(self, ctx: Context, owner: Principal, after: str | None, limit: nat32) -> ZonePage:
        """List an owner's zones in the order of their ids, from the one behind `after`; everybody may ask."""
        _check_after(ctx, after)
        limit = max(1, min(limit, ZONE_PAGE_COUNT_MAX))
        place = None if after is None else (owner, after)
        page = self.owned.page(after=place, prefix=(owner,), limit=limit)
        infos = [self.info(zone_id) for _, zone_id in page.items]
        following = None if page.next is None else page.next[1]
        return ZonePage([info for info in infos if info is not None], following)

    @query
    def zone_count(self, ctx: Context) -> nat64:
        """Return how many zones there are."""
        return self.directory.count(KIND, "active") + self.directory.count(KIND, "in_custody")


def _check_after(ctx: Context, after: str | None) -> None:
    size = len((after or "").encode())
    if size > ZONE_ID_SIZE_BYTES_MAX:
        refuse(ctx, f"after is a zone's id, of at most {ZONE_ID_SIZE_BYTES_MAX} bytes, not {size}")
