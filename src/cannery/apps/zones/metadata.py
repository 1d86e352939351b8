"""Metadata as Diode's clients keep it: 256 entries with one-byte keys, and the keys that protect them."""

from __future__ import annotations

from cannery import Context, StableCell, StableMap, nat8, query, record, update
from cannery.cdk.component import Component, Uses

from . import bounds
from .diode_types import DataEntry, DirectoryEntry, MetaDataInfo
from .members import Members
from .refusal import refuse
from .roles import ADMIN


@record
class ZoneKeys:
    """The keys that clients encrypt metadata with; `set_ns` is when an entry was last set."""

    public_key: bytes | None
    vet_protected_key: bytes | None
    set_ns: int


class Metadata(Component, prefix="metadata"):
    """Diode's methods about metadata."""

    members = Uses(Members)
    entries = StableMap(nat8, DataEntry)
    keys = StableCell(ZoneKeys, ZoneKeys(None, None, 0))

    @update(oneway=True)
    def set_public_and_protected_key(self, ctx: Context, public_key: bytes, vet_protected_key: bytes) -> None:
        """Set new keys, which clears every entry that the old ones protected."""
        self.members.require(ctx, ADMIN)
        self._check_size(ctx, public_key)
        self._check_size(ctx, vet_protected_key)
        self.keys.set(ZoneKeys(public_key, vet_protected_key, 0))
        self.entries.clear()

    @update(oneway=True)
    def set_data_entry(self, ctx: Context, key: nat8, data: bytes) -> None:
        """Set an entry."""
        self.members.require(ctx, ADMIN)
        self._check_size(ctx, data)
        self.entries.put(key, DataEntry(ctx.now_ns, data))
        keys = self.keys.get()
        self.keys.set(ZoneKeys(keys.public_key, keys.vet_protected_key, ctx.now_ns))

    @update(oneway=True)
    def delete_data_entry(self, ctx: Context, key: nat8) -> None:
        """Delete an entry."""
        self.members.require(ctx, ADMIN)
        self.entries.delete(key)

    @query
    def get_meta_data_info(self, ctx: Context) -> MetaDataInfo:
        """Return the keys, and which entries are set."""
        self.members.require(ctx)
        return self.info()

    @query
    def get_data_entry(self, ctx: Context, key: nat8) -> DataEntry | None:
        """Return an entry."""
        self.members.require(ctx)
        return self.entries.get(key)

    @query
    def get_data_entry_batch(self, ctx: Context, keys: bytes) -> list[DataEntry | None]:
        """Return several entries, in the order asked; a vector of their keys is bytes."""
        self.members.require(ctx)
        if len(keys) > bounds.LIST_COUNT_MAX:
            refuse(ctx, f"at most {bounds.LIST_COUNT_MAX} entries are asked at a time, not {len(keys)}")
        return [self.entries.get(key) for key in keys]

    @query
    def get_timestamps(self, ctx: Context) -> list[DirectoryEntry]:
        """Return when each entry was set."""
        self.members.require(ctx)
        return self.timestamps()

    @update
    def derive_vet_protector_key(
        self, ctx: Context, transport_public_key: bytes, target_public_key: bytes
    ) -> bytes | None:
        """Answer that vetKeys are absent: they need a subnet of nodes that share a key."""
        self.members.require(ctx)
        refuse(ctx, "vetKeys are absent on this node: encrypt with a key that members share among themselves")

    def info(self) -> MetaDataInfo:
        """Give the keys, and which entries are set."""
        keys = self.keys.get()
        manifest = sum(1 << key for key in self.entries)
        return MetaDataInfo(keys.public_key, keys.vet_protected_key, manifest, keys.set_ns)

    def timestamps(self) -> list[DirectoryEntry]:
        """Give when each entry was set."""
        return [DirectoryEntry(key, entry.timestamp) for key, entry in self.entries.items()]

    def _check_size(self, ctx: Context, data: bytes) -> None:
        most = bounds.DATA_ENTRY_SIZE_BYTES_MAX
        if len(data) > most:
            refuse(ctx, f"a metadata entry or key has at most {most} bytes, not {len(data)}")
