"""Makes the archive of a canister from its state: for a snapshot, and from a backup.

The format is `snapshot_archive`'s. This module changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from cannery.cdk.manifest import TYPE_NUMBER_SIZE_BYTES
from cannery.cdk.schema import decode_schema
from cannery.errors import StoreError
from cannery.replica import keys
from cannery.replica.records import CANISTER, SCHEMA, TIMER, CanisterRecord
from cannery.replica.snapshot_archive import ArchivedTimer, ArchiveHead, ArchiveWriter


class Readable(Protocol):
    """What an archive is made from: a store, an overlay, or the entries of a backup."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Archived:
    """A canister's archive, with what travels beside it."""

    module_hash: bytes
    archive: bytes
    certified_data: bytes
    canister: CanisterRecord


def build_head(
    state: Readable, canister_id: bytes, canister: CanisterRecord, module_hash: bytes
) -> ArchiveHead:
    """Give the head of a canister's archive."""
    stored = state.get(keys.hashed(keys.SCHEMAS, canister.schema_id))
    assert stored is not None, "a canister's schema is stored"
    schema = SCHEMA.decode(stored).description
    timers = tuple(_timers(state, canister_id))
    numbers = {number for held in decode_schema(schema).collections for number in held.values}
    numbers |= {timer.saved[:TYPE_NUMBER_SIZE_BYTES] for timer in timers if timer.saved}
    types = [state.get(keys.hashed(keys.TYPES, number)) for number in sorted(numbers)]
    return ArchiveHead(module_hash, schema, tuple(t for t in types if t is not None), timers)


def build_archive(state: Readable, canister_id: bytes) -> Archived | None:
    """Give the whole archive of a canister; None where it is not there or has no module."""
    stored = state.get(keys.owned(keys.CANISTERS, canister_id))
    canister = None if stored is None else CANISTER.decode(stored)
    if canister is None or canister.module_hash is None:
        return None
    if state.get(keys.hashed(keys.SCHEMAS, canister.schema_id)) is None:
        raise StoreError("the state lacks the schema of one of its canisters: it is not whole")
    pages: list[bytes] = []
    head = build_head(state, canister_id, canister, canister.module_hash)
    writer = ArchiveWriter(head, lambda _page, data: pages.append(data))
    start, end = keys.owned_range(keys.STABLE, canister_id)
    for key, value in state.scan(start, end):
        writer.add(key[len(start) :], value)
    writer.close()
    certified = state.get(keys.owned(keys.CERTIFIED, canister_id)) or b""
    return Archived(canister.module_hash, b"".join(pages), certified, canister)


def _timers(state: Readable, canister_id: bytes) -> Iterator[ArchivedTimer]:
    for key, data in state.scan(*keys.owned_range(keys.TIMERS, canister_id)):
        timer = TIMER.decode(data)
        yield ArchivedTimer(keys.number_of(key), timer.method, timer.due_ns, timer.every_ns, timer.saved)
