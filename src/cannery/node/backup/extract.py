"""Reads single canisters out of a backup, as a state that archives are made from.

From a backup as it is only the units that are needed are read; for a point in time the whole state is
restored aside and brought there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager

from cannery.node.backup.create import find_canister
from cannery.node.backup.cut import States
from cannery.node.backup.errors import BackupError
from cannery.node.backup.format.manifest import UnitEntry
from cannery.node.backup.format.time_plan import ReplayPlan
from cannery.node.backup.format.units import (
    UnitKind,
    fleet_members,
    unit_of,
    units_in,
)
from cannery.node.backup.repository import Backup, Repository, Say
from cannery.node.backup.restore import restore_state, scratch_folder
from cannery.node.store_rocksdb import RocksCopy
from cannery.replica import keys
from cannery.replica.records import ACCOUNT
from cannery.replica.snapshot_build import Archived, Readable, build_archive
from cannery.replica.view import show


class Extract:
    """Canisters in a backup."""

    def __init__(self, states: Sequence[Readable]) -> None:
        self._state = States(states)

    def find(self, text: str) -> bytes:
        """Read a canister id, or look a name up among those that the backup has; raises `BackupError`."""
        return find_canister(self._state, text)

    def fleet(self, index: bytes) -> list[bytes]:
        """Give the canisters of a fleet: its index, then its members; raises `BackupError`."""
        found = fleet_members(self._state, index)
        if len(found) == 1 and self._state.get(keys.owned(keys.FLEETS, index)) is None:
            raise BackupError(f"{show(index)} is no fleet in this backup: name its index, or use --canister")
        return found

    def active_ns(self, canister_id: bytes) -> int:
        """Give the time of the last message that a canister had run, in ns; 0 for none."""
        found = self._state.of(canister_id).get(keys.owned(keys.ACCOUNTS, canister_id))
        return 0 if found is None else ACCOUNT.decode(found).active_ns

    def archive(self, canister_id: bytes) -> Archived:
        """Give the archive of a canister; raises `BackupError` where the backup has none."""
        found = build_archive(self._state.of(canister_id), canister_id)
        if found is None:
            raise BackupError(
                f"the backup has no canister {show(canister_id)}, or it was empty then: choose another backup"
            )
        return found

    def module(self, module_hash: bytes) -> bytes:
        """Give the file of a module; raises `BackupError`."""
        found = self._state.get(keys.hashed(keys.MODULE_FILES, module_hash))
        if found is None:
            raise BackupError(f"the backup does not have module {module_hash.hex()[:16]}")
        return found


class _UnitState:
    """Behind `Readable`: the units of a backup, each read when it is asked for; the last owner's is kept."""

    def __init__(self, repository: Repository, units: Mapping[bytes, UnitEntry]) -> None:
        self._repository = repository
        self._units = units
        self._read: dict[bytes, tuple[list[bytes], list[bytes]]] = {}

    def get(self, key: bytes) -> bytes | None:
        found_keys, values = self._unit(unit_of(key))
        at = bisect_left(found_keys, key)
        return values[at] if at < len(found_keys) and found_keys[at] == key else None

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        found_keys, values = self._unit(unit_of(start))
        low, high = bisect_left(found_keys, start), bisect_left(found_keys, end)
        return zip(found_keys[low:high], values[low:high], strict=True)

    def _unit(self, name: bytes) -> tuple[list[bytes], list[bytes]]:
        found = self._read.get(name)
        if found is None:
            unit = self._units.get(name)
            pairs = [] if unit is None else list(self._repository.entries(unit))
            found = [key for key, _ in pairs], [value for _, value in pairs]
            for other in [other for other in self._read if other[0] == name[0] == UnitKind.OWNER]:
                del self._read[other]
            self._read[name] = found
        return found


@contextmanager
def open_extract(
    repository: Repository, backups: Sequence[Backup], plan: ReplayPlan, say: Say
) -> Iterator[Extract]:
    """Open the state of a backup, or a point in time that it reaches, to read canisters from it."""
    if plan.blocks is None:
        backup = next(backup for backup in backups if backup.head.number == plan.start.number)
        units = repository.units(backup, backups)
        count = plan.start.subnet_count
        yield Extract([_UnitState(repository, units_in(subnet, units)) for subnet in range(count)])
        return
    with scratch_folder() as scratch, ExitStack() as stack:
        copies: list[RocksCopy] = []
        for subnet in range(plan.start.subnet_count):
            path = scratch / f"store-{subnet}"
            restore_state(repository, backups, plan, path, say, subnet)
            copies.append(stack.enter_context(closing(RocksCopy(str(path)))))
        yield Extract(copies)
